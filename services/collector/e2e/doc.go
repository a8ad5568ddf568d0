// Package e2e tests the real binaries from end to end: against the simulator, on the embedded server and
// on a real nats-server, with processes killed, connections broken, and Azure answering nonsense.
//
// The tests are behind the build tag e2e. They build the programs themselves, or take them from the folder
// that E2E_BIN names. The simulator runs inside the test process, so what was made and what arrived is
// counted by somebody who outlives every kill. Each fault test ends with an account of it.
package e2e
