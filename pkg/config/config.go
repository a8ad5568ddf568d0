// Package config is the configuration file: what may stand in it, what it means, and what is said about
// one that is wrong.
//
// The structs of this package are the only description of the file. Their tags give a key's name, type,
// default, range and explanation; the JSON Schema, the validation, the defaults and the decoding all
// come from them. A file goes through these steps, each on the tree that the one before it leaves:
//
//	bytes ──> tree with positions (YAML, or JSON by a reader of its own)
//	      ──> aliases and merge keys expanded, duplicate keys found
//	      ──> ${NAME} replaced, secrets read from file://, scalars brought to their declared type
//	      ──> validated against the schema, every violation with file, line and column
//	      ──> checked by the rules that no schema can express
//	      ──> defaults filled in, decoded, finished: other names of a key, what globals override
//
// All errors of a file are reported together. No error, warning, print or marshal shows a secret.
package config

import (
	"path/filepath"
)

// Config is a whole, valid configuration: all defaults are filled in. It must not be changed once
// loaded; then it is safe for concurrent use.
type Config struct {
	Globals   Globals           `yaml:"globals" jsonschema:"required" jsonschema_description:"What holds for the whole collector."`
	Outputs   map[string]Output `yaml:"outputs" jsonschema:"required" jsonschema_description:"Where events go, by a name of your choice. Every output gets every event."`
	Inputs    map[string]Input  `yaml:"inputs" jsonschema:"required" jsonschema_description:"Where events come from: defender_for_iot, and further ones whose name starts with defender_for_iot_."`
	Bus       Bus               `yaml:"bus" jsonschema_description:"The JetStream server between the services."`
	Telemetry Telemetry         `yaml:"telemetry" jsonschema_description:"The log, metrics, traces and health of the collector itself."`

	file    string
	workdir string
	places  map[string]place
}

// File is the path of the file that the configuration came from, as it was found; of a Collector Server's
// two it is both, for a person to read.
func (c *Config) File() string { return c.file }

// CertPath resolves the name of a certificate or key: an absolute one stays, another is taken relative
// to ./certs/ in the working directory. An empty name stays empty.
func (c *Config) CertPath(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(c.workdir, "certs", name)
}

// StateDir is the folder that state lives in: globals.persistence.config.directory_name, relative to
// the working directory unless absolute.
func (c *Config) StateDir() string {
	name := c.Globals.Persistence.Config.DirectoryName
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(c.workdir, name)
}
