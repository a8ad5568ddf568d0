package bus

import "time"

// Age makes p look as if its last Next had returned long ago.
func (p *Pull) Age() { p.returned = time.Time{} }
