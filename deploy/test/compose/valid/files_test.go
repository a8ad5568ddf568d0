// Package valid loads the compose files with the loader of Compose v2 and its JSON Schema of the Compose Specification.
//
// It is a module of its own, outside go.work, so that none of what it needs reaches the programs.
package valid

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

const root = "../../../.."

// TestFiles finds every compose file, so that a new one cannot be forgotten, and checks what each service must have.
func TestFiles(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "deploy/compose/*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in deploy/compose: %v", err)
	}
	for _, file := range append(files, filepath.Join(root, "docker-compose.yml")) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			project, err := load(t, file)
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
					if len(service.Profiles) == 0 || port.HostIP != "127.0.0.1" {
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

func load(t *testing.T, file string) (*types.Project, error) {
	t.Helper()
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  t.TempDir(),
		ConfigFiles: []types.ConfigFile{{Filename: file}},
		Environment: types.Mapping{},
	}, func(o *loader.Options) {
		o.SetProjectName("valid", true)
		o.Profiles = []string{"*"}
	})
}
