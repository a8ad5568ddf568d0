#!/bin/sh
# The health check of the nats containers: healthy when all streams are recovered and none has a write error.
#
# It also ends a server that only a new start mends. nats-server gives a stream up after the first write that fails, as on
# a full or read-only disk, and nothing restarts a container for being unhealthy; when it ends, its restart policy does.
#
#   a write error, JetStream is off, ──> the folder takes 16 MiB? ── no ──> unhealthy, look again
#   or no answer, four times                   │ yes
#                                              ↓
#                                        still the same? ── no ──> unhealthy, look again: it was only slow
#                                              │ yes
#                                              ↓
#                         SIGTERM: streams and consumers are flushed; without an answer SIGQUIT at once
#                                              │ still there after 10 s
#                                              ↓
#                                           SIGQUIT
#
# No answer is what is left of nats-server 2.15.2 when a purge meets a full disk: it waits for itself, and does not stop
# in order. SIGQUIT ends it all the same, with its stacks in the log. Needs a timeout of at least 30 s.
#
#   health.sh [FOLDER [PID [PORT]]]     for a server elsewhere than in its own container
data=${1:-/data} pid=${2:-1} port=${3:-8222}

ask() { printf 'GET %s HTTP/1.0\r\n\r\n' "$1" | timeout 3 nc 127.0.0.1 "$port" 2>/dev/null; }
room() {
  dd if=/dev/zero of="$data/room" bs=65536 count=256 conv=fsync 2>/dev/null
  full=$?
  rm -f "$data/room"
  return $full
}

# While it starts and while it stops, this is not answered with 200 either.
alive() { case $(ask '/healthz?js-server-only=true') in "HTTP/1."?" 200 "*) ;; *) return 1 ;; esac }
# What ends a server that answers so; nothing where a new start mends nothing.
cure() {
  case $1 in
  "HTTP/1."?" 200 "*) ;;
  "") echo QUIT ;;
  *"write error"* | *"not enabled"*) echo TERM ;;
  esac
}

answer=$(ask /healthz)
for _ in 1 2 3; do
  [ -z "$answer" ] || break
  alive || { echo "no answer"; exit 1; }
  answer=$(ask /healthz)
done
case $answer in "HTTP/1."?" 200 "*) exit 0 ;; esac
signal=$(cure "$answer")
echo "${answer:-no answer: the server waits for itself or for its disk}" | tail -n 1
[ -n "$signal" ] || exit 1
room || { echo "$data takes no 16 MiB: make room, or make it writable; the server is then started again"; exit 1; }
# A disk that stands still holds up the server and room alike, and then both go on.
answer=$(ask /healthz)
if [ "$(cure "$answer")" != "$signal" ] || { [ -z "$answer" ] && ! alive; }; then
  echo "by now it is otherwise: the server is left alone"
  exit 1
fi
echo "$data takes writes: the server is ended by SIG$signal, to be started again"
kill -$signal "$pid"
for _ in 1 2 3 4 5 6 7 8 9 10; do
  sleep 1
  kill -0 "$pid" 2>/dev/null || exit 1
done
kill -QUIT "$pid"
exit 1
