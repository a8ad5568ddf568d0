package resourcegraph

import (
	"context"
	"fmt"
	"slices"
)

// subscriptionQuery lists what the principal can read. The id is in it because Azure gives no skip
// token for rows without one.
const subscriptionQuery = "resourcecontainers\n| where type =~ 'microsoft.resources/subscriptions'\n" +
	"| project id, subscriptionId, name\n| order by subscriptionId asc"

// Subscriptions returns those subscriptions of the scope that the principal can read, in lower case,
// sorted, each once. Resource Graph leaves unreadable ones out without a word as long as one is
// readable, so what is missing from the list is missing from every answer. The scope may name any
// number of subscriptions; it costs one request for each [MaxSubscriptions] of them and for each
// [MaxTop] in the result. Errors are those of [Client.Page]; a list that Azure cut short is one.
func (c *Client) Subscriptions(ctx context.Context, subscriptions, managementGroups []string) ([]string, error) {
	batches := slices.Collect(slices.Chunk(subscriptions, MaxSubscriptions))
	if len(batches) == 0 {
		batches = [][]string{nil}
	}
	var found []string
	for _, batch := range batches {
		list, err := c.subscriptions(ctx, Query{Text: subscriptionQuery, Subscriptions: batch, ManagementGroups: managementGroups})
		if err != nil {
			return nil, err
		}
		found = append(found, list...)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// subscriptions follows one query to its last page.
func (c *Client) subscriptions(ctx context.Context, q Query) ([]string, error) {
	var found []string
	for {
		p, err := c.Page(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, r := range p.Rows {
			if r.Subscription == "" {
				return nil, c.malformed("a subscription without its id")
			}
			found = append(found, r.Subscription)
		}
		switch {
		case p.SkipToken == "" && (p.Truncated || p.Total > int64(len(found))):
			return nil, c.malformed(fmt.Sprintf("%d of %d subscriptions and no way to the others", len(found), p.Total))
		case p.SkipToken == "":
			return found, nil
		case len(p.Rows) == 0 || p.SkipToken == q.SkipToken:
			return nil, c.malformed("a list of subscriptions that does not end")
		}
		q.SkipToken = p.SkipToken
	}
}
