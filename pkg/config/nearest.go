package config

import (
	"strings"

	"github.com/agnivade/levenshtein"
)

// nearest is the candidate that name was perhaps meant to be: the one with the fewest changes, at most
// one in three letters (but one at least); "" if none is near.
func nearest(name string, candidates []string) string {
	fold := strings.NewReplacer("-", "_", " ", "_", ".", "_").Replace
	name = fold(strings.ToLower(name))
	best, found := max(1, len([]rune(name))/3)+1, ""
	for _, candidate := range candidates {
		if d := levenshtein.ComputeDistance(name, fold(strings.ToLower(candidate))); d < best {
			best, found = d, candidate
		}
	}
	return found
}
