package process

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
)

// What a compose file sets for its containers.
const (
	// waitVariable is how long a command waits for a configuration file that is not there, as a duration: in a
	// demo the simulator writes it while the others start already.
	waitVariable = "CONFIG_WAIT"
	// watchVariable, set to exit, makes a service end orderly when its configuration file has changed, so that
	// what supervises it starts it with the new one.
	watchVariable = "CONFIG_CHANGE"
	watchExit     = "exit"
)

// watchEvery is how often the file is looked at. Polling, because what a container mounts from its host tells of
// no changes everywhere.
const watchEvery = 2 * time.Second

// AwaitConfiguration waits until there is a configuration file, as long as $CONFIG_WAIT says; without the
// variable it returns at once. Before it waits it tells w what is missing. A file that is still missing is the
// error of the [config.Load] that follows.
func AwaitConfiguration(o config.Options, w io.Writer) error {
	text := os.Getenv(waitVariable)
	if text == "" {
		return nil
	}
	limit, err := time.ParseDuration(text)
	if err != nil {
		return fault.WithHint(fmt.Errorf("%s: %w", waitVariable, err), "give a duration such as 10s, or none")
	}
	if config.Find(o) != nil {
		return nil
	}
	_, _, missing := config.Load(o)
	fmt.Fprintf(w, "waiting %s for a configuration: %v\n", limit, missing)
	const pause = 200 * time.Millisecond
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(pause) {
		if config.Find(o) != nil {
			time.Sleep(pause) // whoever writes it may not be at the file's end
			return nil
		}
	}
	return nil
}

// restartOnChange returns a context that ends when the configuration file has changed and is valid, if
// $CONFIG_CHANGE asks for that; a changed file that is wrong is told once, and the program goes on with what it
// has. stop ends the watching and returns when nothing of it runs any more.
func restartOnChange(ctx context.Context, o config.Options, every time.Duration, logger *slog.Logger) (watched context.Context, stop func()) {
	watched, cancel := context.WithCancel(ctx)
	if os.Getenv(watchVariable) != watchExit {
		return watched, cancel
	}
	last := fingerprint(o)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-watched.Done():
				return
			case <-time.After(every):
			}
			now := fingerprint(o)
			if now == nil || bytes.Equal(now, last) {
				continue
			}
			last = now
			_, _, err := config.Load(o)
			if err == nil {
				logger.Info("the configuration has changed; this program stops, to be started again with it")
				cancel()
				return
			}
			logger.Error("the configuration has changed and is wrong; the program goes on with the one that it has", "error", err, "hint", fault.Hint(err))
		}
	}()
	return watched, func() {
		cancel()
		<-done
	}
}

// unlessRestart is err, or nil if a service ended only because its configuration has changed: its own context
// is over then, and the program's is not.
func unlessRestart(program context.Context, err error) error {
	if errors.Is(err, context.Canceled) && program.Err() == nil {
		return nil
	}
	return err
}

// fingerprint is of what the files hold; nil if there are none or one cannot be read, which is no change.
func fingerprint(o config.Options) []byte {
	var sums []byte
	for _, path := range config.Find(o) {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		sum := sha256.Sum256(data)
		sums = append(sums, sum[:]...)
	}
	return sums
}
