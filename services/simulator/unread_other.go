//go:build !unix

package simulator

import "net"

// unread cannot be told here: CloseUnread waits its time and closes.
func unread(*net.TCPConn) bool { return false }
