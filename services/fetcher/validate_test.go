package fetcher

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
)

var update = flag.Bool("update", false, "write the golden files")

// TestWhatIsFoundLaterIsPlacedInTheFile: testdata/invalid has one file a case, each good to pkg/config, beside
// the exact message.
func TestWhatIsFoundLaterIsPlacedInTheFile(t *testing.T) {
	for _, name := range []string{"AZURE_FEDERATED_TOKEN_FILE", "AZURE_TENANT_ID", "AZURE_CLIENT_ID"} {
		t.Setenv(name, "") // puts it back in the end
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PFX_PASSWORD", "s3cr3t")
	paths, err := filepath.Glob("testdata/invalid/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			c, _, err := config.Load(config.Options{Path: path})
			if err != nil {
				t.Fatalf("pkg/config already refuses it: %v", err)
			}
			err = Validate(c)
			if err == nil {
				t.Fatal("accepted")
			}
			got := err.Error() + "\n"
			if hint := fault.Hint(err); hint != "" {
				got += "hint: " + hint + "\n"
			}
			if strings.Contains(got, "s3cr3t") {
				t.Errorf("a secret shows in %s", got)
			}
			golden := strings.TrimSuffix(path, ".yaml") + ".err"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("--- got\n%s--- want\n%s", got, want)
			}
		})
	}
}
