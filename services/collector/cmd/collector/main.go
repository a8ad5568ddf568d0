// The collector is all services in one process, and the operator's commands.
package main

import (
	"os"

	"defenderiot/pkg/process"
	"defenderiot/pkg/trial"
	"defenderiot/services/collector"
	"defenderiot/services/dedup"
	"defenderiot/services/sender"
)

func main() {
	trial.Enter(map[string]trial.Work{dedup.TrialWork: dedup.Try, sender.TrialWork: sender.Try})
	os.Exit(process.Execute(collector.Command(os.Stdout, os.Stderr), os.Stderr))
}
