//go:build ignore

// Wget is as much of wget as a health check needs, for the test image of nats: wget -q -O /dev/null URL.
package main

import (
	"fmt"
	"net/http"
	"os"
	"time"
)

func main() {
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get(os.Args[len(os.Args)-1])
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("wget: %s", response.Status)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
