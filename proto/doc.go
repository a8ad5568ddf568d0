// Package proto is the contract between the services: what a message holds, what a subject, stream,
// bucket, header or key is called, and how an alert's hash is made. It imports nothing of this project,
// so every service and every outside tool can build on it alone.
//
//	alerts.raw.<source>                        RAW     rows as the fetcher published them
//	alerts.unique.<source>.<generation>.<hash> UNIQUE  first sightings, one message a subject
//	alerts.dead.<stage>.<output>.<letter>      DEAD    what could not be processed or delivered, one message a subject
//	KV checkpoints  record.<source>, lease.<source>
//	KV hashes       <source>.<generation>.<hash> = RAW sequence that claimed it
//	KV ledgers      <output>.<instance>        delivery ledger, one record a sender process
//
// Golden bytes and golden hashes in testdata pin every encoding: a change that breaks one of them breaks
// messages that are already stored, and needs a new schema or hash version instead.
package proto
