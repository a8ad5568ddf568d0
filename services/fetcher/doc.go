// Package fetcher reads one source of alerts from Azure Resource Graph and stores every row in RAW, so
// that nothing is missed however late Resource Graph shows it, whatever fails in between, and whoever is
// killed at whatever instruction.
//
// It rests on four rules:
//
//   - The position in the record moves after RAW has acknowledged a whole page, never before, and only by
//     compare-and-set on the record's revision.
//   - What is read is read again: an overlap with every pull, the lookback every half hour, ninety days
//     once a day. Rows that were seen before are recognised by their hash and left out; a row too many in
//     RAW is harmless, a row too few cannot be repaired.
//   - Time comes from Azure's answers (their Date header), never from this machine's clock, which names
//     pulls and nothing else.
//   - No query reaches below the floor: the configured start, or a day before the first start.
//
// One fetcher of a source is active, the others stand by. The lease is a key; its revision is what moves:
//
//	             absent or released: create
//	           ┌──────────────────────────────────────────┐
//	           │  revision unmoved for 14 s, or its own last lease: compare-and-set
//	┌─────────┐├──────────────────────────────────────────>┌────────┐──┐ every 5 s: compare-and-set
//	│ standby │                                            │ active │  │ (moves the revision)
//	└─────────┘<───────────────────────────────────────────└────────┘<─┘
//	     │       another holder's revision, or no renewal       │
//	     │ stop  acknowledged for 10 s                          │ stop: finish the page, release
//	     v                                                      v
//	┌─────────┐                                            ┌─────────┐
//	│ stopped │                                            │ stopped │
//	└─────────┘                                            └─────────┘
//
// Both sides measure with their own monotonic clocks; no wall clocks are compared. A holder that was
// paused for longer and wakes up cannot do harm: whoever takes over writes the record once with the same
// content before using it, so the record's revision has moved and the sleeper's compare-and-set fails.
// Rows that the sleeper still publishes are duplicates, which RAW's reader drops.
//
// Leases also say whose quota is used under them: the active inputs of one principal divide it, see census.
//
// While active, a fetcher does this:
//
//	┌───────┐ token and   ┌────────┐ record read,  ┌──────────────────────────────────┐
//	│ setup │──test fetch>│ record │──compared and>│ pulling: steady pull each period │
//	└───────┘   pass      └────────┘  re-written   │ beside it: back-fill, lookback,  │──┐ set-up again, at its
//	  ^   │ 5^n s,            ^                    │ sweep, null starts, coverage     │  │ interval and after a
//	  └───┘ at most 30 min    └────────────────────└──────────────────────────────────┘<─┘ failed pull
//	                             changed by an operator's command
package fetcher
