package simulator

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func zipped(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func counted(frame string) string { return fmt.Sprintf("%d %s", len(frame), frame) }

func readFrames(r io.Reader) (frames []string, tail int, err error) {
	tail, err = newFrameReader(r).run(func(f []byte) error {
		frames = append(frames, string(f))
		return nil
	})
	return frames, tail, err
}

func TestFrames(t *testing.T) {
	long := "<14>" + strings.Repeat("x", 3*readBuffer)
	tests := []struct {
		name, stream string
		want         []string
		tail         int
	}{
		{"nothing", "", nil, 0},
		{"lines", "<14>a\n<14>b\n", []string{"<14>a", "<14>b"}, 0},
		{"cut line", "<14>a\n<14>b", []string{"<14>a"}, 5},
		{"counted", counted("<14>a\n") + counted("<14>b\nc\n"), []string{"<14>a", "<14>b\nc"}, 0},
		{"counted without line feed", counted("<14>a") + counted("<14>b"), []string{"<14>a", "<14>b"}, 0},
		{"cut counted", "6 <14>a\n9 <14>b", []string{"<14>a"}, 7},
		{"cut count", "12", nil, 2},
		{"digits without a space", "12x\n", []string{"12x"}, 0},
		{"count with a leading zero is a line", "06 <14>a\n", []string{"06 <14>a"}, 0},
		{"gzip", zipped(t, "<14>a\n<14>b\n"), []string{"<14>a", "<14>b"}, 0},
		{"two members", zipped(t, "<14>a\n") + zipped(t, "<14>b\n"), []string{"<14>a", "<14>b"}, 0},
		{"mixed", "<14>a\n" + zipped(t, "<14>b\n"+counted("<14>c\n")) + counted("<14>d\n") + "<14>e\n", []string{"<14>a", "<14>b", "<14>c", "<14>d", "<14>e"}, 0},
		{"long line", long + "\n<14>b\n", []string{long, "<14>b"}, 0},
		{"long counted", counted(long+"\n") + "<14>b\n", []string{long, "<14>b"}, 0},
		{"empty member", zipped(t, "") + "<14>a\n", []string{"<14>a"}, 0},
		{"empty line", "\n<14>a\n", []string{"", "<14>a"}, 0},
	}
	for _, tt := range tests {
		for _, slow := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/slow=%v", tt.name, slow), func(t *testing.T) {
				var r io.Reader = strings.NewReader(tt.stream)
				if slow {
					r = iotest.HalfReader(r)
				}
				got, tail, err := readFrames(r)
				if !errors.Is(err, io.EOF) {
					t.Errorf("error %v, want EOF", err)
				}
				if !slices.Equal(got, tt.want) || tail != tt.tail {
					t.Errorf("got %d frames %.100q, tail %d; want %d frames, tail %d", len(got), got, tail, len(tt.want), tt.tail)
				}
			})
		}
	}
}

func TestCutGzipMember(t *testing.T) {
	whole := zipped(t, "<14>a\n<14>b\n")
	for n := 3; n < len(whole); n++ {
		got, tail, err := readFrames(strings.NewReader(whole[:n]))
		if tail == 0 || !errors.Is(err, io.EOF) {
			t.Errorf("cut after %d bytes: frames %q, tail %d, error %v", n, got, tail, err)
		}
	}
}

func TestBrokenStreams(t *testing.T) {
	for name, stream := range map[string]string{
		"count too large": "999999999 <14>a",
		"corrupt gzip":    "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff",
		"cut in a member": zipped(t, "<14>a\n<14>b") + "<14>c\n",
		"no gzip method":  "\x1f\x8b\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	} {
		if _, _, err := readFrames(strings.NewReader(stream)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: error %v, want one that says so", name, err)
		}
	}
}

// FuzzFrames: no stream may crash the reader, and what it gives must not
// depend on how the bytes are cut into reads.
func FuzzFrames(f *testing.F) {
	for _, seed := range []string{
		"<14>a\n<14>b\n", "6 <14>a\n", "12", "1f", zipped(f, "<14>a\n6 <14>b\n") + "<14>c\n", "\x1f\x8b", "9 a\n", "\n\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		frames, tail, err := readFrames(bytes.NewReader(stream))
		again, tail2, err2 := readFrames(iotest.OneByteReader(bytes.NewReader(stream)))
		if !slices.Equal(frames, again) || tail != tail2 || errors.Is(err, io.EOF) != errors.Is(err2, io.EOF) {
			t.Fatalf("%q: %q %d %v, byte by byte %q %d %v", stream, frames, tail, err, again, tail2, err2)
		}
	})
}

// FuzzArrivals: no frame may crash the count, and every one is counted.
func FuzzArrivals(f *testing.F) {
	f.Add([]byte(`<14>2026-11-22 19:04:06.436 vm edr.x: {"id":"/A","b":1}`))
	f.Add([]byte(`<14>: {"a":{"id":"no"},"id":"\u002fB"}`))
	f.Add([]byte(`{"id":"x"}`))
	f.Fuzz(func(t *testing.T, frame []byte) {
		a := newArrivals(false)
		a.frame(frame)
		a.frame(frame)
		s := a.snapshot()
		if s.Frames != 2 || s.Unique+s.Duplicates+s.WithoutID != 2 || s.Unique != s.Duplicates {
			t.Fatalf("%q: %+v", frame, s)
		}
	})
}

func BenchmarkFrames(b *testing.B) {
	var stream bytes.Buffer
	pad := strings.Repeat("x", 1300)
	const n = 1000
	for i := range n {
		fmt.Fprintf(&stream, `<14>2026-11-22 19:04:06.436 vm edr.microsoft_defender.iot_security.alert: {"id":"/subscriptions/20ff7fc3-e762-44dd-bd96-b71116dcdc23/alerts/%08d","pad":"%s"}`+"\n", i, pad)
	}
	a := newArrivals(false)
	b.SetBytes(int64(stream.Len() / n))
	b.ReportAllocs()
	for i := 0; i < b.N; i += n {
		_, err := newFrameReader(bytes.NewReader(stream.Bytes())).run(func(f []byte) error { a.frame(f); return nil })
		if !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
	}
}
