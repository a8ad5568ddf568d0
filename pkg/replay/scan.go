package replay

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/devo"
	"defenderiot/pkg/fault"
	"defenderiot/proto"
)

// Bounds of a selection. The first one costs the command about 100 bytes of memory each, the second one every
// sender 16.
const (
	maxAlerts = 5_000_000
	maxRanges = 2_000_000
)

// Window is a half-open interval of times, [From, To), and which alerts in it are meant.
type Window struct {
	From, To time.Time
	// By is [proto.JobByStart] or [proto.JobByStored].
	By string
	// Where are conditions that must all hold.
	Where []Condition
}

// Selection is what is to be sent.
type Selection struct {
	Sequences proto.Sequences
	// Bytes are the frames, line breaks included.
	Bytes uint64
	// Older copies of an alert, under earlier generations, were left out.
	Older uint64
	// WithoutStart alerts have no usable start time: no window of starts holds them.
	WithoutStart uint64
	// Unreadable messages are no alerts; they are in the dead letters.
	Unreadable uint64
}

// identity names an alert of one source: the source's number and half of its hash.
type identity struct {
	source int
	hash   [16]byte
}

// newest is the newest copy of an alert that was met.
type newest struct {
	generation uint64
	sequence   uint64
	size       uint32 // of its frame; 0: a condition does not hold
}

// scan is one pass over UNIQUE.
type scan struct {
	window    Window
	selection Selection
	alerts    map[identity]newest
	sources   map[proto.Source]int
	reader    proto.EnvelopeReader
	frame     []byte
}

// Scan reads UNIQUE up to its present end and returns what lies in the window: of each alert the newest
// generation within it, and that one only if all conditions hold. A window of starts takes a pass over the whole
// stream, because an alert may be stored at any time after its start, or, when a sensor's clock is ahead,
// before it. report is called about every 1,000 messages with how far it is. It changes nothing on the server.
func Scan(ctx context.Context, b *bus.Bus, w Window, report func(done, total uint64)) (Selection, error) {
	stream, err := b.Stream(ctx, proto.StreamUnique)
	if err != nil {
		return Selection{}, fmt.Errorf("stream UNIQUE: %w", err)
	}
	state := stream.CachedInfo().State
	first, last := max(state.FirstSeq, 1), state.LastSeq
	if w.By == proto.JobByStored {
		if first, err = b.SequenceAt(ctx, proto.StreamUnique, w.From); err != nil {
			return Selection{}, err
		}
	}
	s := &scan{window: w, alerts: map[identity]newest{}, sources: map[proto.Source]int{}}
	for next := first; next <= last; {
		messages, err := b.Read(ctx, proto.StreamUnique, next)
		if err != nil {
			return Selection{}, err
		}
		if len(messages) == 0 {
			break
		}
		for _, m := range messages {
			if m.Sequence > last || w.By == proto.JobByStored && !m.Time.Before(w.To) {
				return s.end()
			}
			if err := s.add(m.Sequence, m.Time, m.Data); err != nil {
				return Selection{}, err
			}
		}
		next = messages[len(messages)-1].Sequence + 1
		report(min(next, last+1)-first, last+1-first)
	}
	return s.end()
}

func (s *scan) add(sequence uint64, stored time.Time, data []byte) error {
	if s.window.By == proto.JobByStored && stored.Before(s.window.From) {
		return nil
	}
	e, err := s.reader.Read(data)
	switch {
	case errors.Is(err, proto.ErrNewerMajor):
		return fault.WithHint(fmt.Errorf("sequence %d of UNIQUE: %w", sequence, err), "use the collector of that version")
	case err != nil:
		s.selection.Unreadable++
		return nil
	}
	if s.window.By == proto.JobByStart {
		if e.EventTime.IsZero() {
			s.selection.WithoutStart++
			return nil
		}
		if e.EventTime.Before(s.window.From) || !e.EventTime.Before(s.window.To) {
			return nil
		}
	}
	source, ok := s.sources[e.Source]
	if !ok {
		source = len(s.sources)
		s.sources[e.Source] = source
	}
	id := identity{source: source}
	hash, err := base64.RawURLEncoding.DecodeString(e.Hash)
	if err != nil || copy(id.hash[:], hash) < len(id.hash) {
		s.selection.Unreadable++
		return nil
	}
	if before, ok := s.alerts[id]; ok {
		s.selection.Older++
		if before.generation > e.Generation {
			return nil
		}
	} else if len(s.alerts) == maxAlerts {
		return s.tooMuch(fmt.Sprintf("holds more than %d alerts", maxAlerts))
	}
	one := newest{generation: e.Generation, sequence: sequence}
	if s.wanted(e) {
		if s.frame, err = appendFrame(s.frame[:0], e); err != nil {
			s.selection.Unreadable++
			return nil
		}
		one.size = uint32(len(s.frame))
	}
	s.alerts[id] = one
	return nil
}

func (s *scan) wanted(e *proto.Envelope) bool {
	for _, c := range s.window.Where {
		if !c.matches(e) {
			return false
		}
	}
	return true
}

func (s *scan) tooMuch(what string) error {
	return fault.WithHint(errors.New("the window "+what), "send it in several parts, with a smaller window each")
}

func (s *scan) end() (Selection, error) {
	all := make([]uint64, 0, len(s.alerts))
	for _, n := range s.alerts {
		if n.size > 0 {
			all = append(all, n.sequence)
			s.selection.Bytes += uint64(n.size)
		}
	}
	s.selection.Sequences.AddAll(all)
	if n := len(s.selection.Sequences.Ranges()); n > maxRanges {
		return Selection{}, s.tooMuch(fmt.Sprintf("selects %d separate stretches of UNIQUE, more than %d", n, maxRanges))
	}
	return s.selection, nil
}

// appendFrame is what the sender makes of e; here only its size and that it can be made matter.
func appendFrame(dst []byte, e *proto.Envelope) (out []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: making its frame panicked: %v", proto.ErrMalformed, r)
		}
	}()
	return devo.AppendFrame(dst, devo.Header{
		Time: e.PullStart, Host: e.Host, Tag: e.Tag, Environment: e.Environment, PullingID: strconv.FormatInt(e.PullingID, 10),
	}, e.Row)
}
