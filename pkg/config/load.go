package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	// defaultFile is the file that is read when nothing names another.
	defaultFile = "config.yaml"
	// maxFile bounds the file, in bytes.
	maxFile = 16 << 20
)

// Options say where the configuration is. The zero value is what a program without flags uses.
type Options struct {
	// Path is the file; empty: $CONFIG_FILE, else config.yaml. A relative name is looked up in
	// ./config/, then in ./.
	Path string
	// Job and Collector are the two files of a Collector Server; empty: job/job_config.json and
	// collector/collector_config.json in /etc/devo. Where both exist, they are read and Path is not.
	Job, Collector string
	// Workdir is what relative paths are relative to; empty: the process's working directory.
	Workdir string
	// Environ looks an environment variable up; nil: os.LookupEnv.
	Environ func(name string) (string, bool)

	serverDir string // empty: /etc/devo
}

// Load finds, reads and checks the configuration file.
//
// The error, if there is one, holds all errors of the file, one line each, in the order of the file;
// errors.As finds the first as a *fault.Error. The caller prints it and exits with 255; nothing is
// retried. Where all errors are of type InitVariablesError the configuration comes with them, without the values
// at fault: not to run with, but so that its outputs can be told. The warnings are to be logged whether there is
// an error or not. Load reads the file, the environment, the environment file and the files that secrets name,
// and does nothing else: no certificate is opened.
func Load(o Options) (*Config, []Warning, error) {
	if o.Environ == nil {
		o.Environ = os.LookupEnv
	}
	r := &report{}
	var root *value
	if files := o.server(r); files != nil {
		root = files.read(r)
	} else if !r.failed() {
		if data := o.read(r); !r.failed() {
			root = readTree(r, data)
		}
	}
	if root == nil {
		return nil, nil, r.err()
	}
	env, err := withFile(o.Workdir, o.Environ)
	if err != nil {
		r.failFile(codeMissing, "make it a file of lines NAME=value that this user may read, or take it away", "%s", err)
		return nil, nil, r.err()
	}
	return build(r, root, o.Workdir, env, time.Now())
}

// Parse checks the bytes of a configuration file, whose name gives the format (.yaml, .yml, .json) and
// stands in the messages. It is Load without the search; relative paths are relative to the process's
// working directory. Errors and warnings are those of [Load].
func Parse(name string, data []byte, env func(string) (string, bool)) (*Config, []Warning, error) {
	return parse(&report{file: name}, data, "", env, time.Now())
}

// read finds and reads the file.
func (o Options) read(r *report) []byte {
	candidates := o.candidates()
	for _, path := range candidates {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() && path != candidates[len(candidates)-1] {
			continue
		}
		r.file = path
		if err == nil && info.IsDir() {
			r.failFile(codeStructure, "", "%s is a directory; the path of a .yaml, .yml or .json file is needed", path)
			return nil
		}
		var data []byte
		if err == nil {
			data, err = readFile(path)
		}
		if err != nil {
			hint := ""
			if errors.Is(err, fs.ErrPermission) {
				hint = fmt.Sprintf("chown %d %s, or chmod it so that uid %d may read it (and every folder above it may be entered)", os.Getuid(), path, os.Getuid())
			}
			r.failFile(codeMissing, hint, "Required configuration data is missing: %s cannot be read as user id %d: %s", path, os.Getuid(), cause(err))
		}
		return data
	}
	r.failFile(codeMissing, "put your configuration there, or name another file with --config or CONFIG_FILE; in a container these folders are the ones that are mounted from the host",
		"Required configuration data is missing: there is no file %s", strings.Join(candidates, " and no file "))
	return nil
}

// candidates are the files that are looked for, in order.
func (o Options) candidates() []string {
	name := o.Path
	if name == "" {
		name, _ = o.Environ("CONFIG_FILE")
	}
	if name == "" {
		name = defaultFile
	}
	if filepath.IsAbs(name) {
		return []string{name}
	}
	return []string{filepath.Join(o.Workdir, "config", name), filepath.Join(o.Workdir, name)}
}

// Find names the files that [Load] would read with the same options: one, or the two of a Collector
// Server; none if there is none yet. They need not be readable.
func Find(o Options) []string {
	if o.Environ == nil {
		o.Environ = os.LookupEnv
	}
	if files := o.server(&report{}); files != nil {
		return []string{files.collector, files.job}
	}
	for _, path := range o.candidates() {
		// What cannot even be looked at is there, and Load says what is wrong with it.
		if info, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) && (err != nil || !info.IsDir()) {
			return []string{path}
		}
	}
	return nil
}

// readFile reads a whole file, if it is not too large to be a configuration.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	return data, err
}

// failFile notes an error about the file as a whole.
func (r *report) failFile(code int, hint, format string, args ...any) {
	r.problems = append(r.problems, problem{code: code, text: fmt.Sprintf(format, args...), hint: hint})
}

// parse takes all steps of the package's comment.
func parse(r *report, data []byte, workdir string, env func(string) (string, bool), now time.Time) (*Config, []Warning, error) {
	root := readTree(r, data)
	if root == nil {
		return nil, nil, r.err()
	}
	return build(r, root, workdir, env, now)
}

// build takes the steps that follow the reading of a tree.
func build(r *report, root *value, workdir string, env func(string) (string, bool), now time.Time) (*Config, []Warning, error) {
	m, err := model()
	if err != nil {
		return nil, nil, err
	}
	if root.isNull() {
		r.failAt(1, 1, codeMissing, "", "Required configuration data is missing: the file is empty")
		return nil, nil, r.err()
	}
	busFromEnvironment(root, env)
	telemetryFromEnvironment(root, env)
	configType := reflect.TypeFor[Config]()
	(&shaper{report: r, env: env, now: now}).shape(root, configType, m.root)
	validate(root, m, r)
	(&relations{report: r, root: root, schema: m.root}).check()
	err = r.err()
	if err != nil {
		if !r.onlyStart() {
			return nil, r.sorted(), err
		}
		root.removeBad()
	}
	fill(root, configType, m.root)
	c := &Config{file: r.named(), workdir: workdir, places: r.noted(root)}
	if err := decode(root, c); err != nil {
		r.failAt(1, 1, codeStructure, "", "the file cannot be decoded: %s", err)
		return nil, r.sorted(), r.err()
	}
	(&finisher{report: r, config: c, root: root, now: now}).finish()
	return c, r.sorted(), err
}

// readTree reads the bytes by the format that the file's name tells.
func readTree(r *report, data []byte) *value {
	switch ext := strings.ToLower(filepath.Ext(r.file)); ext {
	case ".yaml", ".yml":
		return readYAML(data, r)
	case ".json":
		return readJSON(data, r)
	default:
		r.failFile(codeStructure, "", "%s: the format %q is not allowed; allowed: .yaml, .yml, .json", r.file, ext)
		return nil
	}
}

// decode turns a valid tree into the structs. An error of it is a gap in the schema; its text may hold
// a value, so only its kind is passed on.
func decode(root *value, c *Config) error {
	err := root.node().Decode(c)
	if _, ok := errors.AsType[*yaml.TypeError](err); ok {
		return errors.New("a value does not fit its type")
	}
	return err
}

// sorted is the warnings in the order of the file.
func (r *report) sorted() []Warning {
	slices.SortStableFunc(r.warnings, func(a, b Warning) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return r.warnings
}
