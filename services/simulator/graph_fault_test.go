package simulator_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"defenderiot/services/simulator"
)

func TestGraphFaults(t *testing.T) {
	a := newAzure(t)
	a.graph.Add(alerts(subA, 25)...)
	client := a.good(t)
	body := strings.Repeat("x", 1000)
	tests := []struct {
		name   string
		fault  simulator.Fault
		status int // of a ResponseError, 0: another error
	}{
		{"unauthorized", simulator.Unauthorized(), 401},
		{"forbidden", simulator.Forbidden(), 403},
		{"throttled", simulator.TooManyRequests(61), 429},
		{"throttled, empty text", simulator.Fault{Status: 429, Body: `""`}, 429},
		{"unavailable", simulator.Unavailable(503), 503},
		{"page", simulator.HTMLPage(), 0},
		{"garbage", simulator.Garbage(), 0},
		{"cut", simulator.Fault{Cut: 100}, 0},
		{"cut error", simulator.Fault{Status: 500, Body: body, Cut: 10}, 0},
		{"reset", simulator.Fault{Reset: true}, 0},
		{"delayed", simulator.Fault{Delay: time.Millisecond, Status: 502, Body: "bad gateway"}, 502},
		{"token rejected", simulator.Fault{RejectToken: true}, 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			first, err := resources(t.Context(), client, ask{query: steadyQuery, top: 10})
			if err != nil {
				t.Fatal(err)
			}
			a.graph.Fail(tt.fault)
			_, err = resources(t.Context(), client, ask{query: steadyQuery, top: 10, token: first.SkipToken})
			if err == nil {
				t.Fatal("no error")
			}
			var resp *azcore.ResponseError
			if errors.As(err, &resp) != (tt.status != 0) || resp != nil && resp.StatusCode != tt.status {
				t.Errorf("error %v, want status %d", err, tt.status)
			}
		})
	}
}

func TestStalledAnswer(t *testing.T) {
	a := newAzure(t)
	a.graph.Add(alerts(subA, 1)...)
	client := a.good(t)
	readAll(t, client, ask{query: steadyQuery})
	a.graph.Fail(simulator.Fault{Stall: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := resources(ctx, client, ask{query: steadyQuery}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the deadline", err)
	}
	readAll(t, client, ask{query: steadyQuery})
}

func TestSpoiltPages(t *testing.T) {
	a := newAzure(t)
	rows := alerts(subA, 25)
	a.graph.Add(rows...)
	client := a.good(t)
	numbers := func() string {
		list := ids(readAll(t, client, ask{query: steadyQuery, top: 10})...)
		return fmt.Sprint(len(list), " ", len(slices.Compact(slices.Sorted(slices.Values(list)))))
	}
	a.graph.Fail(simulator.Fault{Omit: 3})
	if got := numbers(); got != "22 22" {
		t.Errorf("omitting: %s", got)
	}
	a.graph.Fail(simulator.Fault{Repeat: 4, Skip: 1})
	if got := numbers(); got != "29 25" {
		t.Errorf("repeating: %s", got)
	}
	a.graph.Fail(simulator.Fault{Extra: []simulator.Row{{JSON: []byte(`{"name":"no id"}`)}}, Match: "startTimeUtc"})
	if got := numbers(); got != "26 26" {
		t.Errorf("extra: %s", got)
	}
	a.graph.Fail(simulator.Fault{ExtraTotal: 5, Truncated: true, Answers: -1})
	for range 2 {
		p := readAll(t, client, ask{query: steadyQuery, top: 10})
		if len(p) != 1 || p[0].TotalRecords != 30 || p[0].ResultTruncated != "true" {
			t.Errorf("truncated: %d pages, %d announced, %s", len(p), p[0].TotalRecords, p[0].ResultTruncated)
		}
	}
	a.graph.ClearFaults()
	if got := numbers(); got != "25 25" {
		t.Errorf("cleared: %s", got)
	}
}

func TestTokenEndpointFault(t *testing.T) {
	a := newAzure(t)
	a.graph.Add(alerts(subA, 1)...)
	a.login.Fail(simulator.Fault{Status: 503, Body: "<html>", Match: "token"})
	if _, err := resources(t.Context(), a.good(t), ask{query: steadyQuery}); err == nil {
		t.Error("no error")
	}
	a.login.ClearFaults()
	readAll(t, a.good(t), ask{query: steadyQuery})
}
