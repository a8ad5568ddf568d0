// Package trial finds out which message takes a process down, by having a child process do the work first.
//
// A panic is recovered where it happens. What no recover catches (an overflowing stack, concurrent map writes,
// memory that is not there) ends the process, and the message that did it would be delivered to the next one.
// So a service has messages that may have ended a process before tried by a child: the same program, started
// once more, which does with each message what depends on its bytes and answers with one byte. The child's
// results are thrown away; the service does the work again itself.
//
//	batch ──> child: all in a row ── answers all ──────────────────────────────> sound
//	             └─ ends before the answer to one ──> that one alone, in a fresh child ── answers ──> sound
//	                      ├─ two of these are taken down by it ──────────────────────────> condemned
//	                      └─ they end otherwise (killed, too little memory), or none starts ──> unjudged: it waits
//	          the others go on in the next child
//
// A child is taken down by a message when its runtime gives up, when it exits, or when it is at work on the message
// for longer than anything takes. A signal from outside, a machine that is busy, and a limit of memory that a sound
// message of that size could exceed are no such thing.
//
// Which messages are tried is the caller's choice ([Care]); it never decides the outcome. The death of the
// service itself counts nothing, so a machine that loses power again and again condemns nothing.
package trial
