// Package replay is sending again: what a job is, how one comes about and how it ends. The command that starts
// a job counts what is to be sent and stores it as a set of stream sequences; the senders work on the set.
//
//	            command                                  senders                          next command
//	scan ──> preparing: consumer, ledger, selection ──> running ──> everything settled: done ──> swept
//	                                                       └── cancel: cancelled ──────────────────┘
//
// A job's record lies in the jobs bucket and is changed by compare-and-set only. Everything about its
// progress is in its delivery ledger, the same as an output's, so a job survives every restart.
package replay
