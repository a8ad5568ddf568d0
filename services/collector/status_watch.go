package collector

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/process"
)

const (
	// resizePeriod is how often the terminal's size is looked at.
	resizePeriod = 250 * time.Millisecond
	// watchTimeout bounds one reading, so that an absent bus shows soon.
	watchTimeout = 5 * time.Second
)

// screen is a terminal that is written to; nil is none.
type screen struct {
	w    io.Writer
	size func() (width, height int)
}

// screen returns the terminal on stdout, nil where stdout is none or one that cannot move its cursor.
func (a *app) screen() *screen {
	f, ok := a.stdout.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return &screen{w: f, size: func() (int, int) {
		width, height, err := term.GetSize(int(f.Fd()))
		if err != nil || width < 1 || height < 1 {
			return 80, 24
		}
		return width, height
	}}
}

// colours says whether to use them: in a terminal, unless NO_COLOR (no-color.org) is set.
func (s *screen) colours() bool { return s != nil && os.Getenv("NO_COLOR") == "" }

// watch shows the status on the whole terminal until ctx ends, and leaves the terminal as it was. A bus that is away
// ends nothing: the last picture stays, with its age and the reason.
func (s *screen) watch(ctx context.Context, c *config.Config) error {
	// The other screen, without a cursor.
	fmt.Fprint(s.w, "\x1b[?1049h\x1b[?25l")
	defer fmt.Fprint(s.w, "\x1b[?25h\x1b[?1049l")
	r := &reader{config: c}
	defer r.close()
	var last *Status
	for {
		now, err := r.read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			last = now
		}
		width, height := s.size()
		s.draw(picture(last, err, width, height), width)
		next := time.NewTimer(watchPeriod)
		for again := true; again; {
			select {
			case <-ctx.Done():
				next.Stop()
				return nil
			case <-next.C:
				again = false
			case <-time.After(resizePeriod):
				if w, h := s.size(); w != width || h != height {
					width, height = w, h
					s.draw(picture(last, err, width, height), width)
				}
			}
		}
	}
}

// picture is the status, or why there is none.
func picture(last *Status, err error, width, height int) page {
	var p page
	if err != nil {
		p.add(span{"CRITICAL ", bad}, span{"the bus does not answer", bold}, span{"  BusUnreachable", dim})
		for _, text := range wrap(err.Error(), width-9, 3) {
			p.add(span{"         " + text, plain})
		}
		p.do(fault.Hint(err), width)
		if last == nil {
			return p.cut(height)
		}
		p.add(span{fmt.Sprintf("below is how it was %s ago", short(time.Since(last.Time))), warn})
	}
	return append(p, last.view(width, max(1, height-len(p)))...).cut(height)
}

// draw writes the page over the last one, in one write and without clearing first, so that nothing flickers.
func (s *screen) draw(p page, width int) {
	var b strings.Builder
	b.WriteString("\x1b[?2026h\x1b[H") // terminals that can, show it when it is whole
	for i, line := range p {
		if i > 0 {
			b.WriteString("\r\n")
		}
		writeLine(&b, line, width, s.colours())
		b.WriteString("\x1b[K")
	}
	b.WriteString("\x1b[J\x1b[?2026l")
	// A terminal that is gone ends the command by its signal.
	_, _ = io.WriteString(s.w, b.String())
}

// reader keeps a connection for readings, and makes a new one after an error: an embedded server that was started
// again has another address.
type reader struct {
	config *config.Config
	bus    *bus.Bus
}

func (r *reader) read(ctx context.Context) (*Status, error) {
	if r.bus == nil {
		b, err := process.Connect(r.config, process.NewInstance(), slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
		r.bus = b
	}
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	s, err := ReadStatus(ctx, r.bus, r.config)
	if err != nil {
		if why := r.bus.Connected(); why != nil {
			err = why
		}
		r.close()
	}
	return s, err
}

func (r *reader) close() {
	if r.bus != nil {
		end, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = r.bus.Close(end)
		r.bus = nil
	}
}
