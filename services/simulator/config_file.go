package simulator

import (
	"bytes"
	"fmt"
	"net"
	"path/filepath"
	"text/template"
	"time"
)

// Names of the files that WriteConfig writes.
const (
	configFile  = "config.yaml"
	chainFile   = "chain.crt"
	azureCAFile = "azure-ca.crt"
	clientName  = "simulated_domain"
)

var configTemplate = template.Must(template.New("config.yaml").Parse(`# A collector's configuration that reads from and delivers to the simulator.
globals:
  debug: false
  id: "10001"
  name: simulated_collector
  persistence:
    type: filesystem
    config:
      directory_name: {{printf "%q" .State}}
outputs:
  devo_1:
{{- if .Plain}}
    type: syslog
    config:
      address: {{printf "%q" .DevoHost}}
      port: {{.DevoPort}}
{{- else}}
    type: devo_platform
    config:
      address: {{printf "%q" .DevoHost}}
      port: {{.DevoPort}}
      type: SSL
      chain: {{printf "%q" .Chain}}
      cert: {{printf "%q" .Cert}}
      key: {{printf "%q" .Key}}
{{- end}}
inputs:
  defender_for_iot:
    id: "23453"
    enabled: true
    credentials:
      tenant_id: {{.Tenant}}
      client_id: {{.Client}}
      client_secret: {{.Secret}}
    cloud: custom
    custom_cloud:
      authority_host: {{.Azure}}
      resource_manager_endpoint: {{.Azure}}
      resource_manager_audience: {{.Audience}}
      ca_file: {{printf "%q" .AzureCA}}
    environment: demo
    services:
      iot_security_alerts:
        request_period_in_seconds: 10
        start_time_in_utc: "{{.Start}}"
{{- if .BusUser}}
bus:
  user: {{printf "%q" .BusUser}}
  password: {{printf "%q" .BusPassword}}
{{- end}}
`))

// Config returns a configuration file for a collector that reads from and
// delivers to this simulator, which must be started. certs is put before the
// names of certificate files, "" leaves them relative; state is the folder of
// the state.
func (s *Simulator) Config(certs, state string) ([]byte, error) {
	host, port, err := net.SplitHostPort(s.reachable(s.Devo.Addr()))
	if err != nil {
		return nil, fmt.Errorf("simulator configuration: %w", err)
	}
	// The earliest alert is at the generator's start; the collector reads from
	// a little before.
	start := s.opts.Generator.Start.Add(-time.Minute).UTC().Truncate(time.Second)
	var b bytes.Buffer
	err = configTemplate.Execute(&b, map[string]any{
		"State": state, "Plain": s.opts.PlainDevo, "DevoHost": host, "DevoPort": port,
		"Chain": filepath.Join(certs, chainFile), "Cert": filepath.Join(certs, clientName+".crt"),
		"Key": filepath.Join(certs, clientName+".key"), "AzureCA": filepath.Join(certs, azureCAFile),
		"Tenant": TenantID, "Client": ClientID, "Secret": ClientSecret, "Audience": Audience,
		"Azure": s.AzureURL(), "Start": start.Format(time.RFC3339),
		"BusUser": s.opts.BusUser, "BusPassword": s.opts.BusPassword,
	})
	if err != nil {
		return nil, fmt.Errorf("simulator configuration: %w", err)
	}
	return b.Bytes(), nil
}

// WriteCerts writes the certificates that Config names into a folder.
func (s *Simulator) WriteCerts(dir string) error {
	client, err := s.devoCA.Client(Sound, clientName)
	if err != nil {
		return err
	}
	if err := s.devoCA.WriteChain(dir, chainFile); err != nil {
		return err
	}
	if err := s.azureCA.WriteChain(dir, azureCAFile); err != nil {
		return err
	}
	return WritePair(dir, clientName, client)
}

// WriteConfig writes dir/config.yaml and dir/certs for a collector whose
// working directory is dir, or any with Options.Absolute. The file holds the (worthless) client secret and
// has mode 0600. The simulator must be started.
func (s *Simulator) WriteConfig(dir string) error {
	folder, named := filepath.Join(dir, "certs"), ""
	if s.opts.Absolute {
		var err error
		if named, err = filepath.Abs(folder); err != nil {
			return err
		}
	}
	config, err := s.Config(named, "state")
	if err != nil {
		return err
	}
	if err := s.WriteCerts(folder); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, configFile), config, 0o600)
}
