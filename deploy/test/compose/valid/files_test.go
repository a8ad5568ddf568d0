// Package valid loads the compose files with the loader of Compose v2 and its JSON Schema of the Compose Specification.
//
// It is a module of its own, outside go.work, so that none of what it needs reaches the programs.
package valid

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

const root = "../../../.."

// with are the files that are given after docker-compose.yml, and after others; every other file is one by itself.
var with = map[string][]string{
	"observability.yml":  {"docker-compose.yml", "deploy/compose/observability.yml"},
	"secure.yml":         {"docker-compose.yml", "deploy/compose/secure.yml"},
	"cluster.yml":        {"docker-compose.yml", "deploy/compose/cluster.yml"},
	"cluster-secure.yml": {"docker-compose.yml", "deploy/compose/cluster.yml", "deploy/compose/secure.yml", "deploy/compose/cluster-secure.yml"},
}

// TestFiles finds every compose file, so that a new one cannot be forgotten, and checks what each service must have.
func TestFiles(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "deploy/compose/*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in deploy/compose: %v", err)
	}
	for _, file := range append(files, filepath.Join(root, "docker-compose.yml")) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			together := []string{file}
			if names := with[filepath.Base(file)]; names != nil {
				together = nil
				for _, name := range names {
					together = append(together, filepath.Join(root, name))
				}
			}
			project, err := load(t, together...)
			if err != nil {
				t.Fatal(err)
			}
			for _, service := range project.AllServices() {
				if !service.ReadOnly || len(service.CapDrop) != 1 || service.CapDrop[0] != "ALL" {
					t.Errorf("%s: read_only %v, cap_drop %v", service.Name, service.ReadOnly, service.CapDrop)
				}
				if grace := service.StopGracePeriod; grace == nil || time.Duration(*grace) != 30*time.Second {
					t.Errorf("%s: stop_grace_period %v", service.Name, grace)
				}
				if service.Logging == nil || service.Logging.Options["max-size"] == "" {
					t.Errorf("%s: its logs are not rotated", service.Name)
				}
				for _, port := range service.Ports {
					// Besides a profile's, only what people look at.
					shown := len(service.Profiles) > 0 || service.Name == "prometheus" || service.Name == "grafana"
					if !shown || port.HostIP != "127.0.0.1" {
						t.Errorf("%s publishes %s on %q", service.Name, port.Published, port.HostIP)
					}
				}
			}
		})
	}
}

// TestWrongFile shows that a key which the specification does not know is an error here.
func TestWrongFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "docker-compose.yml")
	if err := os.WriteFile(file, []byte("services: {nats: {image: nats, restarts: always}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, file); err == nil {
		t.Error("an unknown key is taken")
	} else {
		t.Log(err)
	}
}

// TestScraped shows that Prometheus reaches each program that its configuration names, and that the programs keep to
// loopback without it.
func TestScraped(t *testing.T) {
	for _, c := range []struct {
		files []string
		want  string
	}{{[]string{"docker-compose.yml"}, ""}, {with["observability.yml"], "0.0.0.0:8080"}} {
		var files []string
		for _, file := range c.files {
			files = append(files, filepath.Join(root, file))
		}
		project, err := load(t, files...)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"fetcher", "dedup", "sender"} {
			service, err := project.GetService(name)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if listen := service.Environment["TELEMETRY_LISTEN"]; listen != nil {
				got = *listen
			}
			if got != c.want {
				t.Errorf("%v: %s listens on %q, want %q", c.files, name, got, c.want)
			}
		}
	}
}

// TestSecrets shows that with users each container has its own password and nobody else's.
func TestSecrets(t *testing.T) {
	for _, name := range []string{"secure.yml", "cluster-secure.yml"} {
		var files []string
		for _, file := range with[name] {
			files = append(files, filepath.Join(root, file))
		}
		project, err := load(t, files...)
		if err != nil {
			t.Fatal(err)
		}
		users := map[string]string{"provision": "admin", "fetcher": "fetcher", "dedup": "dedup", "sender": "sender", "operator": "operator"}
		for _, service := range project.AllServices() {
			var secrets []string
			for _, s := range service.Secrets {
				secrets = append(secrets, s.Source)
			}
			slices.Sort(secrets)
			user, program := users[service.Name]
			want := []string{user + "-password", "nats-ca"}
			if strings.HasPrefix(service.Name, "nats") {
				want = []string{"nats-ca", "nats-certificate", "nats-key", "nats-passwords"}
			}
			slices.Sort(want)
			if (program || strings.HasPrefix(service.Name, "nats")) && !slices.Equal(secrets, want) {
				t.Errorf("%s: %s has the secrets %v, want %v", name, service.Name, secrets, want)
			}
			if program && (*service.Environment["BUS_USER"] != user || !strings.HasPrefix(*service.Environment["BUS_URL"], "tls://") ||
				*service.Environment["BUS_PASSWORD"] != "file:///run/secrets/"+user+"-password") {
				t.Errorf("%s: %s has the environment %v", name, service.Name, service.Environment)
			}
		}
	}
}

func load(t *testing.T, files ...string) (*types.Project, error) {
	t.Helper()
	var given []types.ConfigFile
	for _, file := range files {
		given = append(given, types.ConfigFile{Filename: file})
	}
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  t.TempDir(),
		ConfigFiles: given,
		Environment: types.Mapping{},
	}, func(o *loader.Options) {
		o.SetProjectName("valid", true)
		o.Profiles = []string{"*"}
	})
}
