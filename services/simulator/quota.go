package simulator

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Quota is how many queries a principal may send. Resource Graph allows 15
// within 5 s, in fixed windows.
type Quota struct {
	// Limit is the number of queries in a window; 0 means no quota and no
	// quota headers.
	Limit  int
	Window time.Duration
	// RetryAfter adds a Retry-After header to a 429. Whether the service
	// sends one is not documented.
	RetryAfter bool
}

// AzureQuota is the documented quota.
// Source: https://learn.microsoft.com/azure/governance/resource-graph/concepts/guidance-for-throttled-requests
func AzureQuota() Quota { return Quota{Limit: 15, Window: 5 * time.Second} }

type quotas struct {
	mu      sync.Mutex
	quota   Quota
	windows map[string]*window // by principal
}

type window struct {
	start time.Time
	used  int
}

func (q *quotas) set(quota Quota) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if quota.Limit > 0 && quota.Window <= 0 {
		quota.Window = AzureQuota().Window
	}
	q.quota = quota
	q.windows = map[string]*window{}
}

// spend takes one query from the principal's window and sets the headers that
// every answer carries. It is false if the window is used up.
func (q *quotas) spend(principal string, h http.Header) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.quota.Limit <= 0 {
		return true
	}
	now := time.Now()
	w := q.windows[principal]
	if w == nil || now.Sub(w.start) >= q.quota.Window {
		w = &window{start: now}
		q.windows[principal] = w
	}
	ok := w.used < q.quota.Limit
	if ok {
		w.used++
	}
	left := w.start.Add(q.quota.Window).Sub(now)
	secs := int((left + time.Second - 1) / time.Second)
	h.Set("x-ms-user-quota-remaining", itoa(q.quota.Limit-w.used))
	h.Set("x-ms-user-quota-resets-after", fmt.Sprintf("%02d:%02d:%02d", secs/3600, secs/60%60, secs%60))
	if !ok && q.quota.RetryAfter {
		h.Set("Retry-After", itoa(secs))
	}
	return ok
}
