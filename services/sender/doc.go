// Package sender delivers UNIQUE to each output and acknowledges only what is confirmed.
//
// Each output has lanes, one for each concurrent connection; any number of processes run the same. A
// lane takes deliveries from the output's shared consumer, has them judged by the delivery ledger, and
// writes them into its window: one connection and everything written on it.
//
//	           deliveries                 2,500 events, 5 s, 1 s without traffic,
//	               │                      or nothing more to get: rotate
//	               ▼                                   │
//	dial ──> open window ── written ── written ────────┴──> half-closing ──> confirmed: ledger, then acks
//	               │                                              │
//	               └── connection lost ──> given back <───────────┘ broken
//
// The connection of the next window is up before the old one is half-closed, so rotation leaves no gap;
// several windows may be half-closing at once. At most 5,000 events are unconfirmed per output over all
// processes, which the consumer's limit enforces.
//
// An output whose endpoint leaves three half-closes in a row unanswered for ten seconds is unproved: its
// events are then confirmed when the peer's TCP has acknowledged them and nothing disturbed the connection
// for 60 s after. One half-close in ten minutes is still tried, and an answer ends that state.
//
// Beside its lanes an output has two things that share nothing with them: an internal sender, which brings
// the collector's own log lines from INTERNAL to the endpoint and takes the kernel's acknowledgement for
// enough, and for each of these two services a monitor, which writes the statistics lines that people know.
package sender
