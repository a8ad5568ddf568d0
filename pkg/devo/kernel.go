package devo

// kernel is what the operating system knows about one connection.
type kernel interface {
	// acked returns the bytes that the peer's TCP has acknowledged since the connection was made, on a
	// scale of its own, FIN included; false: it cannot tell.
	acked() (int64, bool)
	// pending takes the socket's error, or nil.
	pending() error
}

// unknownKernel stands in where the operating system cannot be asked.
type unknownKernel struct{}

func (unknownKernel) acked() (int64, bool) { return 0, false }
func (unknownKernel) pending() error       { return nil }
