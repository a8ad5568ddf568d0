package bustest

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// serverGoroutines are those that nats-server starts once for the process and never ends.
func serverGoroutines() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.init.0.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*Account).EnableJetStream"),
	}
}

// Leaks is for the TestMain of a package whose tests start a server: it runs the tests, and fails when a goroutine of
// theirs goes on.
func Leaks(m *testing.M) { goleak.VerifyTestMain(m, serverGoroutines()...) }

// Leakless are the tests of a package whose TestMain hands them on to something that ends the process itself.
type Leakless struct{ *testing.M }

// Run runs them and returns the exit code: 1 where all have passed and a goroutine of theirs goes on.
func (l Leakless) Run() int {
	code := l.M.Run()
	if code != 0 {
		return code
	}
	if err := goleak.Find(serverGoroutines()...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
