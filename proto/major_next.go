//go:build nextmajor

package proto

// envelopeMajor is that of a version that does not exist yet: a program built with the tag nextmajor is its own
// successor. Tests show with it what this version does with envelopes of the next one. No image and no release
// has the tag.
const envelopeMajor = SchemaMajor + 1
