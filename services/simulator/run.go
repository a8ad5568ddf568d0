package simulator

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// closeTime is how long Run waits for an orderly end.
const closeTime = 5 * time.Second

// Run runs a simulator until ctx ends, which is no error. If dir is not "" it
// writes the configuration and certificates there, see WriteConfig (with
// Options.Absolute it takes the configuration away at the end), and keeps
// the certificate authorities in dir/authority over a restart.
func Run(ctx context.Context, o Options, dir string) (err error) {
	if dir != "" && o.AuthorityDir == "" {
		o.AuthorityDir = filepath.Join(dir, "authority")
	}
	s, err := New(o)
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		err = errors.Join(err, s.Close(end))
	}()
	if err := s.Start(); err != nil {
		return err
	}
	if dir != "" {
		if err := s.WriteConfig(dir); err != nil {
			return err
		}
		if o.Absolute {
			// Other programs find it by this name alone, and it means nothing without the simulator.
			defer os.Remove(filepath.Join(dir, configFile)) //nolint:errcheck // found again, it leads nowhere
		}
	}
	s.opts.Logger.Info("simulator is ready", "azure", s.AzureURL(), "devo", s.Devo.Addr(), "control", s.ControlURL(), "dir", dir)
	<-ctx.Done()
	return nil
}
