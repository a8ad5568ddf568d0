package sender

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"defenderiot/pkg/ledger"
	"defenderiot/proto"
)

// unansweredLimit is how many half-closes in a row may go unanswered until the output is unproved.
const unansweredLimit = 3

// proofTimes are the times of a proof; a setting only because tests cannot wait that long.
type proofTimes struct {
	answer      time.Duration // how long a half-close may take to be answered
	undisturbed time.Duration // how long an unproved output's connection must stay undisturbed
	retrial     time.Duration // how often an unproved output tries a half-close
}

// defaultProofTimes are those outside of tests.
var defaultProofTimes = proofTimes{answer: 10 * time.Second, undisturbed: time.Minute, retrial: 10 * time.Minute}

// proofState is how the output confirms.
//
//	half-close ── three half-closes in a row unanswered ──> unproved
//	     ^                                                      │
//	     └────────────── a half-close is answered ──────────────┘
type proofState struct {
	name   string
	ledger *ledger.Ledger
	logger *slog.Logger

	mu         sync.Mutex
	unanswered int
	unproved   bool
}

func newProofState(name string, l *ledger.Ledger, logger *slog.Logger) *proofState {
	return &proofState{name: name, ledger: l, logger: logger}
}

// isUnproved reports the state.
func (p *proofState) isUnproved() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unproved
}

// noAnswer counts a half-close that got no answer in time and reports whether the output is unproved now.
func (p *proofState) noAnswer(ctx context.Context) bool {
	p.mu.Lock()
	p.unanswered++
	unproved := p.unproved || p.unanswered >= unansweredLimit
	changed := unproved && !p.unproved
	p.unproved = unproved
	p.mu.Unlock()
	if changed {
		p.logger.Warn("the endpoint answers no half-close, so delivery cannot be proved; from now on confirmed means acknowledged by its TCP and undisturbed for 60 s, and up to its receive buffer can be lost when it fails",
			"output", p.name, "proof", string(proto.ProofUnproved))
		p.store(ctx, proto.ProofUnproved)
	}
	return unproved
}

// answered notes a half-close that was answered.
func (p *proofState) answered(ctx context.Context) {
	p.mu.Lock()
	changed := p.unproved
	p.unanswered, p.unproved = 0, false
	p.mu.Unlock()
	if changed {
		p.logger.Info("the endpoint answers half-closes again, delivery is proved", "output", p.name, "proof", string(proto.ProofHalfClose))
		p.store(ctx, proto.ProofHalfClose)
	}
}

// store makes the state visible in status; when it fails, the next change of the record carries it.
func (p *proofState) store(ctx context.Context, proof proto.Proof) {
	if err := p.ledger.SetProof(ctx, proof); err != nil {
		p.logger.Debug("the proof was not stored yet", "error", err)
	}
}
