// Package faultpoint names instructions between durable steps at which a test build can be killed, to show
// that nothing is lost there. In an ordinary build it is nothing at all: Hit is empty and inlined away.
//
// Built with the tag faultpoints, a program kills itself with SIGKILL where COLLECTOR_KILL_AT=name:n says:
// when the point of that name is hit for the n-th time since the start. No deferred call, no flush, no
// buffer of the process survives that, just as with a kill -9 from outside, but at a chosen instruction.
//
// So built, the wall clock can be wrong, too: see Now. What measures intervals and deadlines uses the monotonic clock,
// which stays right.
package faultpoint

// The points, in the order in which an alert passes them. Each lies behind a step that is durable by then.
const (
	PageReceived      = "page-received"      // the fetcher holds a page that nobody else knows of
	RawAcknowledged   = "raw-acknowledged"   // RAW has the page, the checkpoint has not moved
	CheckpointMoved   = "checkpoint-moved"   // the checkpoint has moved
	StateRead         = "state-read"         // the known collector's state is read, no record is stored
	StateImported     = "state-imported"     // its record is stored, nothing is claimed
	KnownClaimed      = "known-claimed"      // a page that was sent before is claimed, the checkpoint has not moved
	Claimed           = "claimed"            // the hashes are claimed, UNIQUE does not have the alerts
	Published         = "published"          // UNIQUE has the alerts, RAW is not acknowledged
	DedupAcknowledged = "dedup-acknowledged" // RAW is acknowledged
	LedgerWritten     = "ledger-written"     // the ledger says written, no byte has left
	FramesWritten     = "frames-written"     // the frames have left, nothing is confirmed
	LedgerConfirmed   = "ledger-confirmed"   // the ledger says confirmed, UNIQUE is not acknowledged
	OutputSettled     = "output-settled"     // UNIQUE is acknowledged
)

// The places where a message can end the process, as COLLECTOR_CRASH_AT=place:text says: the one that holds the
// text does, each time that it is handled there. See Crash.
const (
	DedupReads   = "dedup-reads"   // a message of RAW
	SenderFrames = "sender-frames" // a row of UNIQUE
)
