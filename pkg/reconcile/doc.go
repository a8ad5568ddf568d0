// Package reconcile compares what Azure has with what became of it: claimed, stored in UNIQUE, confirmed at every
// output, in the dead letters, or missing.
//
// An alert is looked for in the order in which it travels backwards, so that one which moves on meanwhile is found:
//
//	UNIQUE ──> ledgers: confirmed, waiting, dead letter of an output
//	  │ not there
//	claim ──> silent: sent before ── made before UNIQUE's oldest message: delivery no longer known
//	  │ younger, or none
//	RAW ──> waiting          DEAD ──> dead letter of the fetcher or of dedup
//	  │ not there, and looked at again in UNIQUE and the claims
//	missing: "lost" with a claim, "not fetched" without
package reconcile
