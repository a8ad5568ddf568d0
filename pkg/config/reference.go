package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxSecret bounds the file that a secret is read from.
const maxSecret = 64 << 10

var (
	// reference matches ${…}, and $${ which stands for ${ itself.
	reference = regexp.MustCompile(`\$\$\{|\$\{[^}]*\}`)
	variable  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// substitute replaces each ${NAME} by what value says of NAME, and $${ by ${.
func substitute(text string, value func(name string) string) string {
	return reference.ReplaceAllStringFunc(text, func(match string) string {
		if match == "$${" {
			return "${"
		}
		return value(match[2 : len(match)-1])
	})
}

// expand replaces each ${NAME} in a scalar by the environment variable. A scalar without quotes gets
// the type of what it becomes, so that `port: ${PORT}` is a number. What a variable holds is not
// expanded again.
func (s *shaper) expand(v *value) {
	if !strings.Contains(v.text, "${") {
		return
	}
	text := substitute(v.text, func(name string) string {
		if !variable.MatchString(name) {
			s.fail(v, codeStructure, "${…} does not hold the name of an environment variable (letters, digits and _); write $${ for ${ itself")
			return ""
		}
		text, ok := s.env(name)
		if !ok {
			s.fail(v, codeMissing, "the environment variable %s is not set", name)
		}
		return text
	})
	v.text = text
	if v.plain {
		if v.tag = resolve(text); v.tag == tagNull {
			v.tag = tagText
		}
	}
}

// secret marks v and, if it names a file, reads that. The last line break of the file is no part of
// the secret.
func (s *shaper) secret(v *value) {
	v.secret = true
	if v.kind != yaml.ScalarNode || v.isNull() {
		return
	}
	v.tag = tagText
	v.again = s.again(v.written)
	// What counts is what is written: a variable that holds a secret may begin with anything.
	if !strings.HasPrefix(v.written, "file://") || v.bad {
		return
	}
	path := strings.TrimPrefix(v.text, "file://")
	if !strings.HasPrefix(path, "/") {
		s.fail(v, codeStructure, "a secret from a file is written file:///path, with the whole path")
		return
	}
	text, err := readSecret(path)
	if err != nil {
		s.fail(v, codeMissing, "the secret's file %s cannot be read as user id %d: %s", shorten(strings.TrimPrefix(v.written, "file://")), os.Getuid(), cause(err))
		return
	}
	v.text = text
}

// readSecret reads the file of a secret: a regular one, so that a pipe or a device cannot hold the
// start up.
func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("it is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxSecret {
		return "", fmt.Errorf("it is larger than %d bytes", maxSecret)
	}
	text := string(data)
	if cut, ok := strings.CutSuffix(text, "\r\n"); ok {
		return cut, nil
	}
	return strings.TrimSuffix(text, "\n"), nil
}

// cause is the reason in an error of the file system, without the path again.
func cause(err error) error {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		return pathError.Err
	}
	return err
}
