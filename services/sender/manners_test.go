package sender

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"defenderiot/pkg/devo"
)

func TestManners(t *testing.T) {
	type step struct {
		proof devo.Proof
		times int
		ok    bool
	}
	polite := func(n int) step { return step{devo.Confirmed, n, true} }
	rude := func(n int, ok bool) step { return step{devo.ConfirmedWithoutNotify, n, ok} }
	for name, steps := range map[string][]step{
		"never says it":                   {rude(10, true)},
		"always says it":                  {polite(10)},
		"is stopped":                      {polite(1), rude(1, false), polite(5), rude(2, false)},
		"has changed":                     {polite(3), rude(maxStrikes, false), rude(10, true)},
		"has changed and is now and then": {polite(3), rude(maxStrikes, false), rude(1, true), polite(forgiveness - 1), rude(1, true)},
		"has changed and changed back":    {polite(3), rude(maxStrikes, false), rude(1, true), polite(forgiveness), rude(maxStrikes, false), rude(1, true)},
		"strikes are forgotten":           {polite(1), rude(maxStrikes, false), polite(forgiveness), rude(maxStrikes, false)},
		"strikes are kept for a while":    {polite(1), rude(maxStrikes, false), polite(forgiveness - 1), rude(1, true)},
		"said it late":                    {rude(2, true), polite(1), rude(1, false)},
	} {
		t.Run(name, func(t *testing.T) {
			m := &manners{logger: slog.New(slog.DiscardHandler), name: "devo_1"}
			for i, s := range steps {
				for n := range s.times {
					err := m.judge(t.Context(), s.proof, time.Now())
					if (err == nil) != s.ok || err != nil && !errors.Is(err, errNoNotify) {
						t.Fatalf("step %d, %s for time %d: %v", i, s.proof, n+1, err)
					}
				}
			}
		})
	}
}

// What ends together is one event, however many connections there are.
func TestMannersOfManyConnections(t *testing.T) {
	m := &manners{logger: slog.New(slog.DiscardHandler), name: "devo_1"}
	opened := time.Now()
	if err := m.judge(t.Context(), devo.Confirmed, opened); err != nil {
		t.Fatal(err)
	}
	for range 64 {
		if err := m.judge(t.Context(), devo.ConfirmedWithoutNotify, opened); !errors.Is(err, errNoNotify) {
			t.Fatalf("one of many: %v", err)
		}
	}
}
