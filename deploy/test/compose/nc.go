//go:build ignore

// Nc is as much of nc as a health check needs, where there is none: nc HOST PORT sends what it reads and prints the answer.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

func main() {
	conn, err := net.Dial("tcp", net.JoinHostPort(os.Args[1], os.Args[2]))
	if err == nil {
		if _, err = io.Copy(conn, os.Stdin); err == nil {
			_, err = io.Copy(os.Stdout, conn)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
