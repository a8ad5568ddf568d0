package resourcegraph

import (
	"context"
	"os"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azlog "github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// authenticated is what the SDK's default chain logs before the name of the member that gave it a token.
// Nothing but the log tells that name.
const authenticated = "DefaultAzureCredential authenticated with "

// heard passes the SDK's log on to the one chain that is looking for its member.
var heard struct {
	first sync.Mutex // held by that chain
	mu    sync.Mutex
	say   func(member string)
}

// The SDK's log has one listener for the whole process and no lock around it, so it is set before anything
// can run. AZURE_SDK_GO_LOGGING=all asks for the SDK's own listener; then a chain's member stands in its log.
func init() {
	if os.Getenv("AZURE_SDK_GO_LOGGING") == "all" {
		return
	}
	azlog.SetEvents(azidentity.EventAuthentication)
	azlog.SetListener(func(_ azlog.Event, text string) {
		member, ok := strings.CutPrefix(text, authenticated)
		if !ok {
			return
		}
		heard.mu.Lock()
		defer heard.mu.Unlock()
		if heard.say != nil {
			heard.say(member)
		}
	})
}

// chain is the SDK's default chain, which knows the member it uses after the first token.
type chain struct {
	credential azcore.TokenCredential

	mu     sync.Mutex
	member string
}

// GetToken implements azcore.TokenCredential.
func (c *chain) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if c.used() != "" {
		return c.credential.GetToken(ctx, o) // the chain stays with that member
	}
	heard.first.Lock()
	defer heard.first.Unlock()
	hear(func(member string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.member = member
	})
	defer hear(nil)
	return c.credential.GetToken(ctx, o)
}

func hear(say func(string)) {
	heard.mu.Lock()
	defer heard.mu.Unlock()
	heard.say = say
}

// used is the member that gave the token, or "" before that.
func (c *chain) used() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.member
}
