package proto

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// HashVersion is the version of the algorithms below. Changing what a hash is made of means a new
// version; dedup then looks up the old one too ([Envelope.OtherHashes]).
const HashVersion = 1

// hashLength is the length of a hash: 128 bits in unpadded base64url. Among a billion alerts the chance
// of one collision is below 2^-69; a short key keeps the bucket's index small.
const hashLength = 22

// Identity is what makes two rows the same alert: the resource id in lower case, because Resource
// Graph returns the same id in varying case.
func Identity(id string) string { return strings.ToLower(id) }

// HashIdentity is the hash of deduplication mode alert: each alert once, whatever changes in it.
func HashIdentity(id string) string {
	sum := sha256.Sum256([]byte("1/alert\x00" + Identity(id)))
	return encodeHash(sum)
}

// HashVersionOf is the hash of deduplication mode version: the identity and the row's properties as
// canonical JSON, without the ignored paths. A path is dotted and begins at the row, for example
// properties.extendedProperties.isNew; paths outside properties have no effect because only properties
// are hashed. The identity is part of it so that two alerts with equal properties stay two.
//
// It returns an error if row is no JSON object; a row without properties hashes as if they were null.
func HashVersionOf(id string, row []byte, ignore []string) (string, error) {
	var envelope *struct {
		Properties json.RawMessage `json:"properties"`
	}
	if err := json.Unmarshal(row, &envelope); err != nil {
		return "", fmt.Errorf("row of %s: %w", id, err)
	}
	if envelope == nil {
		return "", fmt.Errorf("row of %s is null", id)
	}
	canonical, err := canonicalJSON(envelope.Properties, ignore)
	if err != nil {
		return "", fmt.Errorf("properties of %s: %w", id, err)
	}
	h := sha256.New()
	h.Write([]byte("1/version\x00" + Identity(id) + "\x00"))
	h.Write(canonical)
	return encodeHash([sha256.Size]byte(h.Sum(nil))), nil
}

func encodeHash(sum [sha256.Size]byte) string {
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

func validHash(h string) bool {
	if len(h) != hashLength {
		return false
	}
	for i := 0; i < len(h); i++ {
		if !tokenByte(h[i]) { // base64url's letters are those that stand for themselves in a token
			return false
		}
	}
	return true
}
