package sender

import "time"

// ShortenProof sets the times of this output's proofs, which a test cannot wait for.
func (s *OutputSettings) ShortenProof(answer, undisturbed, retrial time.Duration) {
	s.proof = proofTimes{answer: answer, undisturbed: undisturbed, retrial: retrial}
}
