// Package receivers tests delivery into receivers that are not ours: rsyslog and syslog-ng as Debian
// packages them, over TLS with client certificates required.
//
// The tests are behind the build tag receivers, on Linux. `make receivers-test` puts the two receivers into
// bin/receivers and runs them; RECEIVERS_DIR names another folder, E2E_BIN one with the built collector.
// The whole path is the real one: simulated Azure, the collector as a process of its own, the receiver as
// another. What has arrived is read from the receiver's files, and compared with the rows that the
// simulated Azure holds by a computation that shares nothing with the collector.
package receivers
