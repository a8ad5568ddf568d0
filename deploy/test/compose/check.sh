# What the tests ask of containers and of the simulator. Sourced by engine.sh.

step() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }
fail() { echo "FAILED: $*"; exit 1; }
# until_true WHAT COMMAND... waits at most four minutes, for a machine that is busy with other things.
until_true() {
  local what=$1 end=$((SECONDS + 240))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || fail "gave up waiting for: $what"
    sleep 0.5
  done
}
# quick asks for these services' health every 2 s, and is sooner sure that there is none: the files' own settings would
# only make the test slow.
quick() {
  echo "services:" >"$work/quick.yml"
  for s in "$@"; do echo "  $s: {healthcheck: {interval: 2s, timeout: 3s, retries: 2, start_period: 10s}}" >>"$work/quick.yml"; done
}

# grep reads to the end: with -q the logs' writer would fail.
said() { here logs --no-color "$1" 2>&1 | grep -- "$2" >/dev/null; }
container() { here ps -q "$1"; }
status() { docker inspect -f '{{.State.Status}}' "$(container "$1" | head -1)" 2>/dev/null; }
health() { docker inspect -f '{{.State.Health.Status}}' $(container "$1") | sort -u; }
healthy() { [ "$(health "$1")" = healthy ]; }
unhealthy() { [ "$(health "$1")" = unhealthy ]; }
not_ready() { ! docker exec "$(container "$1")" "$1" --health=ready >"$work/ready" 2>&1; }
address() { docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"; }
confirmed() { curl -sf --max-time 5 "http://$1:8080/metrics" | sed -n 's/^collector_sender_confirmed_total{.*} //p' | awk '{s += $1} END {printf "%d", s}'; }
answering() {
  [ "$(container sender | wc -l)" = "$1" ] || return 1
  for c in $(container sender); do confirmed "$(address "$c")" >/dev/null || return 1; done
}

stats() { curl -sf --max-time 10 "$control/stats"; }
add() { curl -sf --max-time 30 -d "{\"count\": $1}" "$control/alerts" >/dev/null; }
# feed makes alerts come, 20 a second, until fed.
feed() {
  touch "$work/feed"
  (while [ -e "$work/feed" ]; do add 10 || true; sleep 0.5; done) &
  feeder=$!
  pids+=("$feeder")
}
fed() {
  rm "$work/feed"
  wait "$feeder"
}
everything() { [ "$(stats | jq .missing)" = 0 ]; }
# count is alerts made, alerts arrived, missing, repeats.
count() { stats | jq -r '"\(.devo.unique + .missing) made, \(.devo.unique) arrived, \(.missing) missing, \(.devo.duplicates) repeats"'; }
arrived() { [ "$(stats | jq '.missing == 0 and .devo.unique >= '"$1")" = true ]; }
exact() {
  echo "$(count)"
  [ "$(stats | jq '.missing == 0 and .devo.duplicates == 0')" = true ] || fail "an alert is missing or came twice"
}

# made is how many alerts there are, whether they have arrived or not.
made() { stats | jq '.devo.unique + .missing'; }
# flows waits until one of the alerts that are made from now on has arrived, 30 s at most, and sets `flowed` to the seconds.
# Alerts must be coming.
flows() {
  local before begun=$EPOCHREALTIME
  before=$(made)
  until [ "$(stats | jq ".devo.unique > $before")" = true ]; do
    flowed=$(seconds_since "$begun")
    [ "${flowed%.*}" -lt 30 ] || fail "no alert of $(count) has come through for $flowed s"
    sleep 0.2
  done
  flowed=$(seconds_since "$begun")
}
seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN {printf "%.1f", b - a}'; }

# killed CONTAINER kills its program as the kernel would; the engine starts it again.
killed() { kill -9 "$(docker inspect -f '{{.State.Pid}}' "$1")"; }
# cut_off takes a service's container off its network, joined puts it back.
cut_off() {
  network=$(docker inspect -f '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}' "$(container "$1")")
  docker network disconnect -f "$network" "$(container "$1")"
}
joined() { docker network connect --alias "$1" "$network" "$(container "$1")"; }

# hinted is the newest command that an error names, mend does it as a person would: in the folder of the compose file.
hinted() { grep -o "chown [-R ]*[0-9][0-9]* [^ ,\"]*" | tail -1 || true; }
mend() {
  [ -n "$1" ] || fail "no command that mends the owner"
  echo "mended by: $1"
  (cd "$work" && bash -c "$1")
}
# mend_named does so with all that a log has named and that is not mended yet: an error is logged once.
mend_named() {
  local hint
  while read -r hint; do
    [ "$(stat -c %u "$work/${hint##* }")" = 65532 ] || mend "$hint"
  done < <(grep -o "chown [-R ]*[0-9][0-9]* [^ ,\"]*" | sort -u)
}
# mend_until_read does so until the services can read every certificate; they try again by themselves.
mend_until_read() {
  local end=$((SECONDS + 240))
  while [ -n "$(find "$work/certs" -type f -uid 0 ! -name azure-ca.crt)" ]; do
    [ $SECONDS -lt $end ] || fail "no command for $(find "$work/certs" -type f -uid 0 ! -name azure-ca.crt)"
    mend_named < <(here logs --no-color "$@" 2>&1)
    sleep 0.5
  done
}

# hardened says how a service's container runs, by the engine's own word, and fails if it is not as docs/containers.md has it.
hardened() {
  local seen want restart=unless-stopped user=65532:65532
  [ "$1" != provision ] || restart=no
  # The image's user, root, without capabilities: a new volume belongs to root.
  [ "$1" != nats ] || user=root
  want="$restart|30|json-file 10m 5|true|[ALL]|[no-new-privileges:true]|$user|0 ports|unprivileged"
  seen=$(docker inspect "$(container "$1" | head -1)" | jq -r '.[0] | .HostConfig as $h | [
    $h.RestartPolicy.Name, (.Config.StopTimeout // "none"), "\($h.LogConfig.Type) \($h.LogConfig.Config["max-size"]) \($h.LogConfig.Config["max-file"])",
    $h.ReadonlyRootfs, "[\($h.CapDrop // [] | join(" "))]", "[\($h.SecurityOpt // [] | join(" "))]", (if .Config.User == "" then "root" else .Config.User end),
    "\([$h.PortBindings // {} | .[]] | length) ports", (if $h.Privileged then "privileged" else "unprivileged" end)] | join("|")')
  echo "$1: $seen"
  [ "$seen" = "$want" ] || fail "$1 should run as $want"
}
