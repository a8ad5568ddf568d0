package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/secret"
)

const connectionFile = "connection.json"

// Connection is how to reach the embedded server that runs on a folder, as it lies there in a file of
// mode 0600.
type Connection struct {
	URL   string `json:"url"`
	User  string `json:"user"`
	Token string `json:"token"`
	PID   int    `json:"pid"`
}

// Secret returns the token as a secret.
func (c Connection) Secret() secret.String { return secret.New(c.Token) }

// String leaves the token out.
func (c Connection) String() string { return c.URL }

// Write puts the connection into dir.
func (c Connection) Write(dir string) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, connectionFile)
	// A new file with the right mode from its first byte, then a rename: no reader sees half of it.
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return fmt.Errorf("connection file: %w", err)
	}
	return os.Rename(path+".new", path)
}

// RemoveConnection says that no server runs on dir any more.
func RemoveConnection(dir string) { _ = os.Remove(filepath.Join(dir, connectionFile)) }

// ReadConnection reads the connection to the embedded server that runs on dir. An error that wraps
// fs.ErrNotExist means that none is running.
func ReadConnection(dir string) (Connection, error) {
	var c Connection
	data, err := os.ReadFile(filepath.Join(dir, connectionFile))
	if errors.Is(err, fs.ErrNotExist) {
		return c, fault.WithHint(fmt.Errorf("no collector is running on %s: %w", dir, err),
			"start it with `collector run`, or set bus.url if the services run against a nats-server")
	}
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("connection file in %s: %w", dir, err)
	}
	return c, nil
}
