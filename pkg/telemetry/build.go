package telemetry

import (
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
)

// Set at link time: -ldflags "-X defenderiot/pkg/telemetry.version=1.2.3 -X defenderiot/pkg/telemetry.commit=0123abc".
var (
	version string
	commit  string
)

// BuildVersion says what is running: the version and the commit given at link time, else those that the
// Go tool stamped into the binary, else "devel" and "unknown"; and the Go version. A commit with local
// changes ends in "-dirty".
func BuildVersion() (version, commit, goVersion string) {
	b := built()
	return b.version, b.commit, b.goVersion
}

type build struct{ version, commit, goVersion string }

var built = sync.OnceValue(func() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	return newBuild(version, commit, info)
})

func newBuild(version, commit string, info *debug.BuildInfo) build {
	b := build{version, commit, runtime.Version()}
	if b.version == "" {
		b.version = strings.Trim(info.Main.Version, "()")
	}
	if b.version == "" {
		b.version = "devel"
	}
	if b.commit == "" {
		b.commit = stampedCommit(info.Settings)
	}
	return b
}

func stampedCommit(settings []debug.BuildSetting) string {
	revision, dirty := "unknown", ""
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision" && s.Value != "":
			revision = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	return revision + dirty
}

// BuildTime is the time of the commit that the Go tool stamped into the binary; "" without one. Builds carry no
// time of their own, so that the same source gives the same bytes.
func BuildTime() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			return s.Value
		}
	}
	return ""
}
