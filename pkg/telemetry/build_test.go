package telemetry

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestNewBuild(t *testing.T) {
	stamped := func(version string, settings ...string) *debug.BuildInfo {
		info := &debug.BuildInfo{Main: debug.Module{Version: version}}
		for i := 0; i < len(settings); i += 2 {
			info.Settings = append(info.Settings, debug.BuildSetting{Key: settings[i], Value: settings[i+1]})
		}
		return info
	}
	for name, tc := range map[string]struct {
		version, commit string
		info            *debug.BuildInfo
		want            build
	}{
		"linked":  {"1.2.3", "0123abc", stamped("v9", "vcs.revision", "ffff"), build{"1.2.3", "0123abc", runtime.Version()}},
		"stamped": {"", "", stamped("v1.0.0", "vcs.revision", "0123456789abcdef", "vcs.modified", "false"), build{"v1.0.0", "0123456789ab", runtime.Version()}},
		"dirty":   {"", "", stamped("(devel)", "vcs.revision", "0123456789abcdef", "vcs.modified", "true"), build{"devel", "0123456789ab-dirty", runtime.Version()}},
		"nothing": {"", "", stamped(""), build{"devel", "unknown", runtime.Version()}},
	} {
		if got := newBuild(tc.version, tc.commit, tc.info); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tc.want)
		}
	}
}
