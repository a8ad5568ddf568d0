package proto_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"defenderiot/proto"
)

// hashCase is one line of the golden table. Cases of one group have one hash; other groups have others.
type hashCase struct {
	Name   string   `json:"name"`
	Group  string   `json:"group"`
	Mode   string   `json:"mode"` // alert or version
	ID     string   `json:"id"`
	Row    string   `json:"row,omitempty"`
	Ignore []string `json:"ignore,omitempty"`
	Hash   string   `json:"hash"`
}

func (c hashCase) hash() (string, error) {
	if c.Mode == "alert" {
		return proto.HashIdentity(c.ID), nil
	}
	return proto.HashVersionOf(c.ID, []byte(c.Row), c.Ignore)
}

// TestGoldenHashes pins what is claimed in the bucket: a hash that changes sends every alert again.
func TestGoldenHashes(t *testing.T) {
	path := filepath.Join("testdata", "hashes.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var cases []hashCase
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if *update {
		for i := range cases {
			if cases[i].Hash, err = cases[i].hash(); err != nil {
				t.Fatalf("%s: %v", cases[i].Name, err)
			}
		}
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(cases); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	byGroup, byHash := map[string]string{}, map[string]string{}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			got, err := c.hash()
			if err != nil || got != c.Hash {
				t.Errorf("%s, %v, golden is %s", got, err, c.Hash)
			}
			if want, ok := byGroup[c.Group]; ok && got != want {
				t.Errorf("hash %s, others of group %q have %s", got, c.Group, want)
			}
			if other, ok := byHash[got]; ok && other != c.Group {
				t.Errorf("groups %q and %q share a hash", c.Group, other)
			}
			byGroup[c.Group], byHash[got] = got, c.Group
		})
	}
	if len(byGroup) < 10 {
		t.Errorf("only %d groups in the table", len(byGroup))
	}
}

func TestHashVersionOfRefuses(t *testing.T) {
	for _, bad := range []string{``, `null`, `[]`, `1`, `"x"`, `{`, `{"properties":{}} x`, `{"properties":{"a":01}}`} {
		if h, err := proto.HashVersionOf("/a1", []byte(bad), nil); err == nil {
			t.Errorf("%s hashes to %s", bad, h)
		}
	}
}
