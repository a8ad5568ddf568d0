package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"defenderiot/pkg/fault"
)

// userInfo is where the server says who a connection is and what it may do.
const userInfo = "$SYS.REQ.USER.INFO"

// Rights compares what the server lets this connection's user do with what [Permissions] declares for that user. It
// returns the user's name, "" for none, and whether the server restricts the user at all. An error names what is
// missing. A user that is not among [Permissions] is not compared.
func (b *Bus) Rights(ctx context.Context) (user string, restricted bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ctx, explain := b.guard(ctx, userInfo)
	answer, err := b.conn.RequestWithContext(ctx, userInfo, nil)
	if err = explain(err); err != nil {
		return b.user, true, fmt.Errorf("rights on the bus: %w", err)
	}
	// nats-server, server/events.go UserInfo and server/auth.go Permissions.
	var info struct {
		Error *struct {
			Description string `json:"description"`
		} `json:"error"`
		Data struct {
			User        string `json:"user"`
			Permissions *struct {
				Publish struct {
					Allow []string `json:"allow"`
					Deny  []string `json:"deny"`
				} `json:"publish"`
			} `json:"permissions"`
		} `json:"data"`
	}
	if err := json.Unmarshal(answer.Data, &info); err != nil {
		return b.user, false, fmt.Errorf("rights on the bus: %w", err)
	}
	if info.Error != nil {
		return b.user, false, fmt.Errorf("rights on the bus: %w", errors.New(info.Error.Description))
	}
	if info.Data.Permissions == nil || len(info.Data.Permissions.Publish.Allow) == 0 && len(info.Data.Permissions.Publish.Deny) == 0 {
		return info.Data.User, false, nil
	}
	var missing []string
	for _, p := range Permissions() {
		if p.User != b.user {
			continue
		}
		for _, subject := range p.Publish {
			if publish := info.Data.Permissions.Publish; !granted(subject, publish.Allow, publish.Deny) {
				missing = append(missing, subject)
			}
		}
	}
	if len(missing) > 0 {
		err = fault.WithHint(fmt.Errorf("%w: the user %s may not publish to %q, nor to %d more that this version needs", ErrRefused, b.user, missing[0], len(missing)-1),
			"the server's users.conf is of another version: write it anew by `collector nats-config` and reload the server (docs/privilege.md)")
	}
	return info.Data.User, true, err
}

// granted reports whether all of subject may be published to. Without allow everything is, less what deny names.
func granted(subject string, allow, deny []string) bool {
	return (len(allow) == 0 || covered(subject, allow)) && !covered(subject, deny) &&
		!slices.ContainsFunc(deny, func(d string) bool { return covered(d, []string{subject}) })
}

// covered reports whether one of the patterns matches everything that subject, a pattern itself, matches.
func covered(subject string, patterns []string) bool {
	want := strings.Split(subject, ".")
	for _, pattern := range patterns {
		if coversAll(strings.Split(pattern, "."), want) {
			return true
		}
	}
	return false
}

func coversAll(pattern, want []string) bool {
	for i, token := range pattern {
		switch {
		case token == ">":
			return len(want) > i
		case i >= len(want) || want[i] == ">":
			return false
		case token != "*" && token != want[i]:
			return false
		}
	}
	return len(pattern) == len(want)
}
