package sender

import "time"

// SetProofTimes shortens the times of a proof; the returned function sets them back.
func SetProofTimes(answer, undisturbed, retrial time.Duration) (restore func()) {
	a, u, r := answerTime, undisturbedTime, retrialTime
	answerTime, undisturbedTime, retrialTime = answer, undisturbed, retrial
	return func() { answerTime, undisturbedTime, retrialTime = a, u, r }
}
