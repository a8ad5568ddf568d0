package sender

import "context"

// dialing is a connection that is being made.
type dialing struct {
	done chan struct{}
	link link
	err  error
}

// connection is the prepared one, or a new one.
func (l *lane) connection(ctx context.Context) (link, error) {
	if l.next == nil {
		l.prepare(ctx)
	}
	d := l.next
	l.next = nil
	<-d.done // bounded by the dial's own time-out
	if d.err == nil {
		select {
		case <-d.link.Gone():
			// It died while it waited; a fresh one tells whether that is how it goes now.
			_ = d.link.Close()
			return l.output.open(ctx)
		default:
		}
	}
	return d.link, d.err
}

// prepare begins to make the next connection.
func (l *lane) prepare(ctx context.Context) {
	d := &dialing{done: make(chan struct{})}
	l.next = d
	l.closing.Go(func() {
		defer close(d.done)
		d.link, d.err = l.output.open(ctx)
	})
}

func (l *lane) dropNext() {
	if l.next == nil {
		return
	}
	<-l.next.done
	if l.next.link != nil {
		_ = l.next.link.Close()
	}
	l.next = nil
}
