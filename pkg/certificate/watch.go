package certificate

import (
	"context"
	"log/slog"
	"time"
)

const (
	// watchPeriod is how often certificates are looked at; reading the files costs next to nothing.
	watchPeriod = time.Minute
	// noticePeriod is how often one that ends soon is told.
	noticePeriod = 24 * time.Hour
)

// Watch looks at certificates again and again: each look gives Record their ends, for a metric, and the log one warning
// a day for each that ends soon. The fields are set before its first use; one goroutine uses it.
type Watch struct {
	// Read returns the certificates as they are now. An error is not told: whoever uses the files says so.
	Read   func(now time.Time) ([]Validity, error)
	Record func(ctx context.Context, v Validity)
	Logger *slog.Logger
	// Attrs are attributes of the warnings.
	Attrs []any

	told map[string]notice // by kind and path
}

// notice is what was told about a certificate.
type notice struct {
	end time.Time
	at  time.Time
}

// Run looks at once and then every minute, until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	ticker := time.NewTicker(watchPeriod)
	defer ticker.Stop()
	for {
		w.Look(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Look looks once, as at now.
func (w *Watch) Look(ctx context.Context, now time.Time) {
	all, err := w.Read(now)
	if err != nil {
		return
	}
	if w.told == nil {
		w.told = map[string]notice{}
	}
	for _, v := range all {
		w.Record(ctx, v)
		text, key := v.Notice(now), v.Kind+" "+v.Path
		last := w.told[key]
		if text == "" || last.end.Equal(v.End) && now.Sub(last.at) < noticePeriod {
			continue
		}
		w.told[key] = notice{end: v.End, at: now}
		w.Logger.WarnContext(ctx, text, append(append([]any(nil), w.Attrs...), "hint", v.Remedy)...)
	}
}
