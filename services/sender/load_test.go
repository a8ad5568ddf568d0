package sender

import (
	"testing"

	"defenderiot/pkg/config"
)

func TestLoadDecides(t *testing.T) {
	repeat := func(n int, waiting uint64) []uint64 {
		out := make([]uint64, n)
		for i := range out {
			out[i] = waiting
		}
		return out
	}
	for name, tt := range map[string]struct {
		threshold float64
		waiting   []uint64
		want      bool
	}{
		"always, before the first":      {-1, nil, true},
		"always, when nothing waits":    {-0.1, repeat(1, 0), true},
		"zero, before the first":        {0, nil, false},
		"zero, when nothing waits":      {0, repeat(1, 0), true},
		"idle":                          {0.1, repeat(2000, 0), false},
		"a little":                      {0.1, repeat(2000, 99), false},
		"enough":                        {0.1, repeat(2000, 100), true},
		"much counts as full only":      {0.5, append(repeat(600, 0), repeat(400, 1e9)...), false},
		"half":                          {0.5, append(repeat(500, 0), repeat(500, 1e9)...), true},
		"full":                          {1, repeat(1000, 1000), true},
		"not quite full":                {1, append(repeat(999, 1000), 999), false},
		"what is long ago is forgotten": {0.5, append(repeat(5000, 1000), repeat(600, 0)...), false},
		"it comes back":                 {0.5, append(repeat(5000, 0), repeat(500, 1000)...), true},
		"fewer than all samples":        {0.5, repeat(3, 600), true},
		"never":                         {1.1, repeat(2000, 1e9), false},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := newCompression(&Compression{Threshold: tt.threshold, Level: 6, MemberBytes: 51200})
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range tt.waiting {
				c.sample(n)
			}
			if got := c.wanted(); got != tt.want {
				t.Errorf("compressed: %t, want %t (%d samples, sum %d)", got, tt.want, c.n, c.sum)
			}
		})
	}
	var never *compression
	never.sample(1)
	if never.wanted() {
		t.Error("compressed without settings")
	}
}

func TestCompressionSettings(t *testing.T) {
	for _, bad := range []Compression{{Level: 0, MemberBytes: 100}, {Level: 10, MemberBytes: 100}, {Level: 6}, {Level: 6, MemberBytes: 11 << 20}} {
		if _, err := newCompression(&bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	for name, tt := range map[string]struct {
		kind      string
		threshold float64
		want      bool
	}{
		"default":      {config.OutputDevoPlatform, 1.1, false},
		"above one":    {config.OutputDevoPlatform, 1.01, false},
		"one":          {config.OutputDevoPlatform, 1, true},
		"always":       {config.OutputRelay, -1, true},
		"plain TCP":    {config.OutputSyslog, -1, false},
		"sidecar":      {config.OutputSidecar, -1, false},
		"another":      {config.OutputInHouseRelay, -1, false},
		"printed":      {config.OutputConsole, -1, false},
		"printed also": {config.OutputStdout, -1, false},
	} {
		t.Run(name, func(t *testing.T) {
			o := config.Output{Type: tt.kind, Config: config.OutputConfig{GzipThreshold: tt.threshold, CompressionLevel: 9, CompressionBufferInBytes: 7}}
			c := compressionOf(o)
			if (c != nil) != tt.want {
				t.Fatalf("compression %+v", c)
			}
			if c != nil && *c != (Compression{Threshold: tt.threshold, Level: 9, MemberBytes: 7}) {
				t.Errorf("compression %+v", *c)
			}
		})
	}
}
