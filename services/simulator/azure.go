package simulator

import (
	"net/http"
	"strings"
)

// Azure serves login and graph under one host, each on its own paths.
func Azure(login *Login, graph *Graph) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.EqualFold(strings.TrimRight(r.URL.Path, "/"), graphPath) {
			graph.ServeHTTP(w, r)
			return
		}
		login.ServeHTTP(w, r)
	})
}
