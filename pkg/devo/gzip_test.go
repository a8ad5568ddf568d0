package devo

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// unpack returns the plain bytes of each member; the standard library reads what another one wrote.
func unpack(t interface{ Fatalf(string, ...any) }, packed []byte) [][]byte {
	var members [][]byte
	r := bufio.NewReader(bytes.NewReader(packed))
	z := new(gzip.Reader)
	for {
		err := z.Reset(r)
		if err == io.EOF {
			return members
		}
		if err != nil {
			t.Fatalf("member %d: %v", len(members), err)
		}
		z.Multistream(false)
		plain, err := io.ReadAll(z)
		if err != nil {
			t.Fatalf("member %d: %v", len(members), err)
		}
		members = append(members, plain)
	}
}

func TestNewGzipRefuses(t *testing.T) {
	for _, bad := range [][2]int{{0, 100}, {10, 100}, {-1, 100}, {6, 0}, {6, -1}, {6, MaxMember + 1}} {
		if _, err := NewGzip(bad[0], bad[1]); err == nil {
			t.Errorf("level %d with members of %d was taken", bad[0], bad[1])
		}
	}
	for _, good := range [][2]int{{1, 1}, {9, MaxMember}} {
		if _, err := NewGzip(good[0], good[1]); err != nil {
			t.Error(err)
		}
	}
}

func TestMembersHoldWholeFrames(t *testing.T) {
	long := strings.Repeat("l", 200)
	for name, tt := range map[string]struct {
		frames string
		want   []string
	}{
		"nothing":            {"", nil},
		"one":                {"a\n", []string{"a\n"}},
		"fits exactly":       {"123\n567\n9\n", []string{"123\n567\n9\n"}},
		"one byte too much":  {"123\n567\n90\n", []string{"123\n567\n", "90\n"}},
		"long alone":         {long + "\n", []string{long + "\n"}},
		"long at the end":    {"a\nb\n" + long + "\n", []string{"a\nb\n", long + "\n"}},
		"long at the start":  {long + "\na\nb\n", []string{long + "\n", "a\nb\n"}},
		"long on both sides": {"a\n" + long + "\n" + long + "\nb\n", []string{"a\n", long + "\n", long + "\n", "b\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := NewGzip(6, 10)
			must(t, err)
			const before = "plain before\n"
			packed := g.AppendMembers([]byte(before), []byte(tt.frames))
			if !bytes.HasPrefix(packed, []byte(before)) {
				t.Fatalf("what stood in front has changed: %q", packed)
			}
			got := unpack(t, packed[len(before):])
			if len(got) != len(tt.want) {
				t.Fatalf("%d members %q, want %q", len(got), got, tt.want)
			}
			for i := range got {
				if string(got[i]) != tt.want[i] {
					t.Errorf("member %d is %q, want %q", i, got[i], tt.want[i])
				}
			}
		})
	}
}

func TestMembersUnpackToTheFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g, err := NewGzip(rapid.IntRange(1, 9).Draw(t, "level"), rapid.IntRange(1, 400).Draw(t, "member"))
		if err != nil {
			t.Fatal(err)
		}
		var frames []byte
		for _, f := range rapid.SliceOfN(rapid.SliceOfN(rapid.Byte().Filter(func(b byte) bool { return b != '\n' }), 0, 300), 0, 30).Draw(t, "frames") {
			frames = append(append(frames, f...), '\n')
		}
		packed := g.AppendMembers(nil, frames)
		members := unpack(t, packed)
		if got := bytes.Join(members, nil); !bytes.Equal(got, frames) {
			t.Fatalf("unpacked %q, want %q", got, frames)
		}
		if limit := len(frames) + 100*len(members); len(packed) > limit {
			t.Fatalf("%d bytes in %d members became %d", len(frames), len(members), len(packed))
		}
		for _, m := range members {
			if m[len(m)-1] != '\n' {
				t.Fatalf("member ends within a frame: %q", m)
			}
			if len(m) > g.member && bytes.Count(m, []byte("\n")) > 1 {
				t.Fatalf("member of %d bytes, allowed are %d: %q", len(m), g.member, m)
			}
		}
	})
}

func TestGzipIsSharedByGoroutines(t *testing.T) {
	g, err := NewGzip(1, 1000)
	must(t, err)
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			frames := bytes.Repeat([]byte(strings.Repeat(string(rune('a'+i)), 70)+"\n"), 100)
			for range 20 {
				if got := bytes.Join(unpack(t, g.AppendMembers(nil, frames)), nil); !bytes.Equal(got, frames) {
					t.Error("goroutines got into each other's frames")
					return
				}
			}
		})
	}
	group.Wait()
}
