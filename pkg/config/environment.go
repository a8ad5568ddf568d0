package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// EnvironmentFile holds lines NAME=value for ${NAME}, relative to the working directory; ENV_FILE names
// another. It is optional.
const EnvironmentFile = "credentials/.env"

// withFile adds the environment file to a look-up. What the file says counts before the process's
// environment, which nobody can change from outside: so a value replaced in the file is the one that is
// found. An error is about the file; it holds no value.
func withFile(workdir string, env func(string) (string, bool)) (func(string) (string, bool), error) {
	path, named := env("ENV_FILE")
	if named = named && path != ""; !named {
		path = EnvironmentFile
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(workdir, path)
	}
	_, err := readEnvironment(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		err = nil
	}
	return func(name string) (string, bool) {
		if values, err := readEnvironment(path); err == nil {
			if text, ok := values[name]; ok {
				return text, true
			}
		}
		return env(name)
	}, err
}

// readEnvironment reads lines NAME=value as compose does: # begins a comment, export may stand before
// the name, quotes around the value are no part of it.
func readEnvironment(path string) (map[string]string, error) {
	text, err := readSecret(path)
	if err != nil {
		return nil, fmt.Errorf("the environment file %s cannot be read as user id %d: %w", path, os.Getuid(), cause(err))
	}
	values := map[string]string{}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if name = strings.TrimSpace(name); !ok || !variable.MatchString(name) {
			return nil, fmt.Errorf("%s:%d: the line is not NAME=value", path, i+1)
		}
		value = strings.TrimSpace(value)
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		} else if comment := strings.Index(value, " #"); comment >= 0 {
			value = strings.TrimSpace(value[:comment])
		}
		values[name] = value
	}
	return values, nil
}

// again reads a secret anew as it is written in the configuration; nil if what is written is the secret
// itself.
func (s *shaper) again(written string) func() (string, error) {
	file := strings.HasPrefix(written, "file://")
	if !file && !strings.Contains(written, "${") {
		return nil
	}
	env := s.env
	return func() (string, error) {
		var missing error
		text := substitute(written, func(name string) string {
			text, ok := env(name)
			if !ok {
				missing = fmt.Errorf("the environment variable %s is not set", name)
			}
			return text
		})
		if missing == nil && file {
			path := strings.TrimPrefix(text, "file://")
			var err error
			if text, err = readSecret(path); err != nil {
				missing = fmt.Errorf("the secret's file %s cannot be read as user id %d: %w", path, os.Getuid(), cause(err))
			}
		}
		switch {
		case missing != nil:
			return "", missing
		case text == "":
			return "", errors.New("the secret is empty")
		}
		return text, nil
	}
}
