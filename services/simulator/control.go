package simulator

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// maxAlerts bounds how many alerts one request may add.
const maxAlerts = 1_000_000

// Stats are the figures of all parts.
type Stats struct {
	Graph   GraphStats `json:"graph"`
	Devo    DevoStats  `json:"devo"`
	Tokens  int64      `json:"tokens"`  // issued
	Missing int        `json:"missing"` // alerts in the graph that Devo has not seen
}

// Stats returns the figures of all parts. It compares every alert.
func (s *Simulator) Stats() Stats {
	return Stats{Graph: s.Graph.Stats(), Devo: s.Devo.Stats(), Tokens: s.Login.Issued(), Missing: len(s.Missing())}
}

// Missing returns the ids of the alerts that are in the graph and have not
// arrived at the Devo endpoint.
func (s *Simulator) Missing() []string {
	var ids []string
	for _, e := range s.Graph.entries() {
		if e.lowID != "" {
			ids = append(ids, e.lowID)
		}
	}
	return s.Devo.Missing(ids)
}

// alertsRequest is the body of POST /alerts.
type alertsRequest struct {
	Count int    `json:"count"` // of alerts that start now; 1 if 0
	Odd   Oddity `json:"odd"`   // what is wrong with them
}

// controlHandler serves the control interface:
//
//	GET    /stats       figures, as JSON
//	GET    /missing     ids of alerts that have not arrived
//	POST   /alerts      {"count": 100, "odd": "no-id"}: adds alerts
//	POST   /fail/graph  a Fault
//	POST   /fail/login  a Fault
//	POST   /fail/devo   a DevoFault
//	DELETE /fail        forgets all faults
//	POST   /devo/away   the Devo endpoint goes away
//	POST   /devo/back   and comes back
//	POST   /tokens/expire
//
// It has no authentication: listen on loopback or within a test network only.
func (s *Simulator) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Stats()) })
	mux.HandleFunc("GET /missing", func(w http.ResponseWriter, _ *http.Request) {
		missing := s.Missing()
		reply(w, map[string]any{"count": len(missing), "missing": missing[:min(len(missing), 1000)]})
	})
	mux.HandleFunc("POST /alerts", func(w http.ResponseWriter, r *http.Request) {
		var in alertsRequest
		if !accept(w, r, &in) {
			return
		}
		in.Count = max(in.Count, 1)
		if in.Count > maxAlerts {
			http.Error(w, fmt.Sprintf("count: %d; at most %d", in.Count, maxAlerts), http.StatusBadRequest)
			return
		}
		rows := make([]Row, in.Count)
		for i := range rows {
			if in.Odd == "" {
				rows[i] = s.Generator.NextAt(s.Graph.Now())
			} else {
				rows[i] = s.Generator.Odd(in.Odd)
			}
		}
		s.Graph.Add(rows...)
		reply(w, map[string]any{"added": len(rows)})
	})
	mux.HandleFunc("POST /fail/graph", failer(s.Graph.Fail))
	mux.HandleFunc("POST /fail/login", failer(s.Login.Fail))
	mux.HandleFunc("POST /fail/devo", failer(s.Devo.Fail))
	mux.HandleFunc("DELETE /fail", func(w http.ResponseWriter, _ *http.Request) {
		s.Graph.ClearFaults()
		s.Login.ClearFaults()
		s.Devo.Clear()
		reply(w, map[string]any{"cleared": true})
	})
	mux.HandleFunc("POST /devo/away", func(w http.ResponseWriter, _ *http.Request) {
		s.Devo.Away()
		reply(w, map[string]any{"away": true})
	})
	mux.HandleFunc("POST /devo/back", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Devo.Back(); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		reply(w, map[string]any{"away": false})
	})
	mux.HandleFunc("POST /tokens/expire", func(w http.ResponseWriter, _ *http.Request) {
		s.Login.ExpireTokens()
		reply(w, map[string]any{"expired": true})
	})
	return mux
}

func failer[F any](fail func(F)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var f F
		if accept(w, r, &f) {
			fail(f)
			reply(w, map[string]any{"accepted": true})
		}
	}
}

// accept decodes a body; an empty one is the zero value.
func accept(w http.ResponseWriter, r *http.Request, into any) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err == nil && len(body) > 0 {
		err = decodeStrict(body, into)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // fails only if the client is gone
}
