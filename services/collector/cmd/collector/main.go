// The collector is all services in one process, and the operator's commands.
package main

import (
	"os"

	"defenderiot/pkg/process"
	"defenderiot/services/collector"
)

func main() {
	os.Exit(process.Execute(collector.Command(os.Stdout, os.Stderr), os.Stderr))
}
