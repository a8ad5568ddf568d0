package fetcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"defenderiot/pkg/obfuscation"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

// Masker masks rows; *obfuscation.Masker has it. It is called after hashing, from several goroutines. A row
// that Append returns an error for becomes a dead letter without payload.
type Masker interface {
	Append(dst, row []byte) ([]byte, error)
	Reaches(path ...string) bool
	Rows() uint64
	Counts() []obfuscation.Count
}

// maskBuffers hold masked rows until they are encoded.
var maskBuffers = sync.Pool{New: func() any { return new([]byte) }}

// keep gives a buffer back, unless a rare row has made it large.
func keep(buffer *[]byte) {
	if cap(*buffer) <= 1<<20 {
		maskBuffers.Put(buffer)
	}
}

// hidden says which of the values that are kept beside a row, in envelopes, dead letters and the record, are
// under a rule. They are left out there. What cannot do without stays: hashes, and the record's position.
type hidden struct{ id, scope, start bool }

func hiddenBy(m Masker) hidden {
	if m == nil {
		return hidden{}
	}
	return hidden{
		id: m.Reaches("id"), scope: m.Reaches("subscriptionId"), start: m.Reaches("properties", "startTimeUtc"),
	}
}

// identity names a row: by its id in lower case or, where that is under a rule, by the id's hash.
func (f *Fetcher) identity(row *resourcegraph.Row) string {
	if f.hidden.id && row.ID != "" {
		return proto.HashIdentity(row.ID)
	}
	return proto.Identity(row.ID)
}

func (h hidden) scopeOf(row *resourcegraph.Row) string {
	if h.scope {
		return ""
	}
	return row.Subscription
}

func (h hidden) startOf(row *resourcegraph.Row) time.Time {
	if h.start {
		return time.Time{}
	}
	return row.Start
}

// plain is an error whose text holds nothing of a row.
type plain struct{ error }

func (p plain) Unwrap() error { return p.error }

func plainly(format string, args ...any) error { return plain{fmt.Errorf(format, args...)} }

// reason is err's text for dead letters and logs. With rules an error shows only if it is known to hold nothing
// of the row: decoders quote what they stumble over.
func (f *Fetcher) reason(err error) string {
	var unusable *resourcegraph.Unusable
	switch {
	case f.service.Masker == nil || errors.As(err, new(plain)):
		return err.Error()
	case errors.As(err, &unusable):
		return unusable.Anonymous()
	}
	return "the row cannot be used; why is not shown, since the error's text may hold a value under a rule of obfuscation_data"
}

// observeMasker lets m's counts be read as metrics, from 0 on, so that a rule that never masks anything shows.
// Their labels are the rules' indices and paths, as many as are configured.
func observeMasker(meter metric.Meter, source proto.Source, m Masker) error {
	if meter == nil || m == nil {
		return nil
	}
	masked, err := meter.Int64ObservableCounter("collector_fetcher_obfuscated_values_total",
		metric.WithDescription("Values masked, wholly or in part, by each rule of obfuscation_data."))
	if err != nil {
		return err
	}
	misfits, err := meter.Int64ObservableCounter("collector_fetcher_obfuscation_misfits_total",
		metric.WithDescription("Values masked although the rule does not fit: its value is of another type, or the row has another shape than its path."))
	if err != nil {
		return err
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for i, c := range m.Counts() {
			labels := metric.WithAttributes(attribute.String("input", source.Input), attribute.String("service", source.Service),
				attribute.Int("rule", i), attribute.String("path", c.Path))
			o.ObserveInt64(masked, int64(c.Masked), labels)
			o.ObserveInt64(misfits, int64(c.Misfits), labels)
		}
		return nil
	}, masked, misfits)
	return err
}

// idleAfter is how many rows a rule may leave alone before that is told.
const idleAfter = 1000

// summariseRules logs what the rules have masked and once, after enough rows, which have masked nothing: a
// misspelled path sends in clear what was meant to be masked.
func (s *session) summariseRules() {
	m := s.service.Masker
	if m == nil {
		return
	}
	rows := m.Rows()
	counts := m.Counts()
	if s.logger.Enabled(context.Background(), slog.LevelDebug) {
		var b strings.Builder
		for i, c := range counts {
			fmt.Fprintf(&b, " [%d] %s: %d (%d misfits);", i, c.Path, c.Masked, c.Misfits)
		}
		s.logger.Debug(fmt.Sprintf("Values masked by obfuscation_data in %d rows so far:%s", rows, strings.TrimSuffix(b.String(), ";")))
	}
	if rows < idleAfter {
		return
	}
	s.idleRules.Do(func() {
		for i, c := range counts {
			if c.Masked == 0 {
				s.logger.Warn(fmt.Sprintf("obfuscation_data[%d] has masked nothing in %d rows: if its path is wrong, what it was meant for leaves unmasked", i, rows), "path", c.Path)
			}
		}
	})
}
