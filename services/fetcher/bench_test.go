package fetcher

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

// stock is a Graph that answers from memory: pages of 1,000 rows of 1.5 KB. With known rows each page is
// the same.
type stock struct{ pages, known int }

func (s *stock) Token(context.Context) error { return nil }

func (s *stock) Subscriptions(context.Context, []string, []string) ([]string, error) { return nil, nil }

func (s *stock) Page(context.Context, resourcegraph.Query) (*resourcegraph.Page, error) {
	if s.pages == 0 {
		return nil, errors.New("no more")
	}
	s.pages--
	now := time.Now()
	p := &resourcegraph.Page{Total: 1000, Count: 1000, Date: now, Received: now}
	for i := range 1000 {
		n := s.known
		if n == 0 {
			n = s.pages
		}
		id := fmt.Sprintf("/subscriptions/20ff7fc3-e762-44dd-bd96-b71116dcdc23/providers/microsoft.iotsecurity/locations/eastus/devicegroups/default/alerts/%d-%d", n, i)
		p.Rows = append(p.Rows, resourcegraph.Row{ID: id, Start: now, Raw: []byte(`{"id":"` + id + `","properties":{"x":"` + strings.Repeat("x", 1300) + `"}}`)})
	}
	return p, nil
}

func (*stock) Renewed() bool { return false }

// BenchmarkPage is what a page of 1,000 rows costs from Resource Graph's answer to RAW's acknowledgement
// on an embedded server with sync always.
func BenchmarkPage(b *testing.B) {
	for name, known := range map[string]int{"new": 0, "known": 1} {
		b.Run(name, func(b *testing.B) {
			topology := bustest.Topology()
			topology.RawBytes = 8 << 30
			s := benchSession(b, bustest.New(b, topology), &stock{pages: b.N + 1, known: known})
			ctx := context.Background()
			request := request{window: proto.Window{From: time.Now().Add(-time.Hour)}}
			b.ResetTimer()
			for range b.N {
				if _, err := s.scan(ctx, s.newPull(), request, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func benchSession(b *testing.B, bus *bus.Bus, graph Graph) *session {
	b.Helper()
	f, err := New(Options{Source: testSource, Graph: graph, Bus: bus, Service: Service{Period: time.Minute}})
	if err != nil {
		b.Fatal(err)
	}
	r := newRecord(nil, "", nil, f.timing)
	r.current = f.fresh(time.Now(), nil)
	return f.newSession(r, f.newSetup(make(chan struct{}), &remoteClock{wall: time.Now}), 1)
}
