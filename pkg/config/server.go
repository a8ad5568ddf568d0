package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// serverDir is where a Collector Server mounts its files.
const serverDir = "/etc/devo"

// overridable are the keys of `globals` that a job may set for itself.
var overridable = []string{
	"debug", "queue_max_size_in_mb", "queue_max_size_in_messages", "queue_max_elapsed_time_in_sec", "queue_wrap_max_size_in_messages",
	"queue_generate_metrics", "sender_stats_period_in_sec", "devo_sender_threshold_for_using_gzip_in_transport_layer",
	"devo_sender_compression_level", "devo_sender_compression_buffer_in_bytes", "generate_collector_details",
}

// serverKeys are the names that keys of a Collector Server's collector file have here.
var serverKeys = map[string]string{
	"job_id": "id", "job_name": "name", "state_store": "persistence", "dir": "directory_name", "location": "address",
}

// server is the pair of files that a Collector Server gives: one of what holds for its collectors, one of
// this job. Together they say what config.yaml says:
//
//	collector file: job_id, job_name, state_store, debug, … ──> globals
//	                loggers, a list or by name              ──> outputs
//	job file:       global_overrides                        ──> globals, the keys that a job may set
//	                inputs                                  ──> inputs
type server struct{ collector, job string }

// server is the pair to be read, or nil if there is none. A file that is named must exist.
func (o Options) server(r *report) *server {
	dir := cmp.Or(o.serverDir, serverDir)
	job, hasJob := serverFile(r, "job_config_loc", o.Job, filepath.Join(dir, "job", "job_config.json"), codeJobFolder, codeJobMissing)
	collector, hasCollector := serverFile(r, "collector_config_loc", o.Collector, filepath.Join(dir, "collector", "collector_config.json"), codeCollectorFolder, codeCollectorAbsent)
	switch {
	case r.failed() || !hasJob && !hasCollector:
		return nil
	case hasJob && hasCollector:
		return &server{collector: collector, job: job}
	case o.Job != "":
		r.failFile(codeCollectorAbsent, "name it with --collector_config_loc, or use one file with --config", "the collector file %s, which belongs to the job file %s, does not exist", collector, job)
	case o.Collector != "":
		r.failFile(codeJobMissing, "name it with --job_config_loc, or use one file with --config", "the job file %s, which belongs to the collector file %s, does not exist", job, collector)
	}
	return nil
}

func serverFile(r *report, flag, named, otherwise string, folder, missing int) (path string, exists bool) {
	path = cmp.Or(named, otherwise)
	info, err := os.Stat(path)
	switch {
	case named == "" && (err != nil || info.IsDir()):
		return path, false
	case errors.Is(err, fs.ErrNotExist):
		r.failFile(missing, "", "--%s: there is no file %s", flag, path)
	case err == nil && info.IsDir():
		r.failFile(folder, "", "--%s: %s is a directory; the path of a .yaml, .yml or .json file is needed", flag, path)
	}
	return path, true
}

// read reads both files into one tree; nil if one failed, which is noted.
func (s *server) read(r *report) *value {
	collector, lines := readServerFile(r, s.collector)
	job, _ := readServerFile(r, s.job)
	if collector == nil || job == nil {
		return nil
	}
	r.file, r.second, r.base = s.collector, s.job, lines
	shift(job, lines)
	return (&joiner{report: r}).join(collector, job)
}

// readServerFile reads a file and tells how many lines it has.
func readServerFile(r *report, path string) (root *value, lines int) {
	one := &report{file: path}
	data, err := readFile(path)
	if err != nil {
		one.failFile(codeMissing, "", "Required configuration data is missing: %s cannot be read as user id %d: %s", path, os.Getuid(), cause(err))
	} else if root = readTree(one, data); root != nil && root.kind != yaml.MappingNode {
		one.fail(root, codeStructure, "The configuration structure is not correct: a mapping of keys is needed")
		root = nil
	}
	for _, p := range one.problems {
		switch p.code {
		case codeYAML:
			p.code = codeServerYAML
		case codeJSON:
			p.code = codeServerJSON
		}
		r.problems = append(r.problems, p)
	}
	if one.failed() {
		return nil, 0
	}
	return root, bytes.Count(data, []byte("\n")) + 1
}

// shift moves v behind the lines of another file.
func shift(v *value, lines int) {
	v.where.line += lines
	if v.key.line > 0 {
		v.key.line += lines
	}
	for _, c := range v.children {
		shift(c, lines)
	}
}

// joiner makes one configuration of the two files.
type joiner struct{ *report }

func (j *joiner) join(collector, job *value) *value {
	root := &value{kind: yaml.MappingNode, where: collector.where}
	globals := section(root, "globals", collector.where)
	for _, c := range collector.children {
		switch c.name {
		case "loggers":
			j.outputs(root, c)
		case "bus", "telemetry":
			adopt(root, c, c.name)
		case "state_store":
			adopt(globals, c, translated(globals, c.name))
			into(c, "type")
		default:
			adopt(globals, c, translated(globals, c.name))
		}
	}
	for _, c := range job.children {
		if c.name == "global_overrides" {
			j.override(globals, c)
			continue
		}
		adopt(root, c, c.name)
	}
	return root
}

// outputs are the loggers: by name, or a list, in which one without a name is named by type and number.
func (j *joiner) outputs(root, loggers *value) {
	if loggers.kind != yaml.MappingNode && loggers.kind != yaml.SequenceNode {
		adopt(root, loggers, "outputs") // said when the tree is checked
		return
	}
	outputs := section(root, "outputs", loggers.where)
	outputs.key = loggers.key
	for i, c := range loggers.children {
		name := c.name
		if loggers.kind == yaml.SequenceNode {
			name = "output_" + strconv.Itoa(i+1)
			if t := c.field("type"); t != nil {
				name = t.text + "_" + strconv.Itoa(i+1)
			}
			if n := c.field("name"); n != nil {
				name = n.text
				c.remove(n)
			}
		}
		if outputs.field(name) != nil {
			j.fail(c, codeName, "two outputs are named '%s'", name)
			continue
		}
		adopt(outputs, c, name)
		into(c, "type")
	}
}

// override sets what the job may set.
func (j *joiner) override(globals, overrides *value) {
	if overrides.kind != yaml.MappingNode {
		if !overrides.isNull() {
			j.fail(overrides, codeStructure, "a mapping of keys is needed")
		}
		return
	}
	for _, c := range overrides.children {
		if !slices.Contains(overridable, c.name) {
			at := c.keyPosition()
			j.warn(at.line, at.column, c.path, "", fmt.Sprintf("[WARNING] Illegal override setting has been ignored -> %s: %s", c.name, c.plainShow()))
			continue
		}
		if old := globals.field(c.name); old != nil {
			globals.remove(old)
		}
		adopt(globals, c, c.name)
	}
}

// translated is the name that a key has below v, unless that is taken.
func translated(v *value, name string) string {
	if other, ok := serverKeys[name]; ok && v.field(other) == nil {
		return other
	}
	return name
}

// section adds an empty mapping.
func section(v *value, name string, where position) *value {
	c := &value{kind: yaml.MappingNode, where: where}
	adopt(v, c, name)
	return c
}

// adopt puts c below v under a name.
func adopt(v, c *value, name string) {
	c.name = name
	rebase(c, join(v.path, name))
	v.children = append(v.children, c)
}

// into moves the keys of v other than keep into its key `config`, where there is none, and gives the keys of
// that their names here.
func into(v *value, keep string) {
	if v.kind != yaml.MappingNode {
		return
	}
	config := v.field("config")
	if config == nil {
		rest := slices.DeleteFunc(slices.Clone(v.children), func(c *value) bool { return c.name == keep })
		if len(rest) == 0 {
			return
		}
		config = section(v, "config", v.where)
		for _, c := range rest {
			v.remove(c)
			adopt(config, c, c.name)
		}
	}
	for _, c := range config.children {
		c.name = translated(config, c.name)
		rebase(c, join(config.path, c.name))
	}
}
