//go:build !nextmajor

package proto

// envelopeMajor is the major version of envelopes that this build writes and reads.
const envelopeMajor = SchemaMajor
