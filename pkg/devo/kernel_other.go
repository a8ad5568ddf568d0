//go:build !linux

package devo

import "net"

func kernelOf(net.Conn) kernel { return unknownKernel{} }
