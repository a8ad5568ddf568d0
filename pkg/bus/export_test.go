package bus

import "time"

// Age makes p look as if its last Next had returned long ago.
func (p *Pull) Age() { p.returned = time.Time{} }

// Ahead is how many messages have arrived for the next Next.
func (p *Pull) Ahead() int {
	if p.current == nil {
		return 0
	}
	return len(p.current.Messages())
}
