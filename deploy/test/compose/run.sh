#!/usr/bin/env bash
# The container form, on the engine of this machine: first start, wrong files, demo, scaling, a changed configuration,
# down and up, everything in one container. It prints what it counted, ends with 1 if one alert is missing or came
# twice, and removes everything that it started. Needs docker, docker-compose (or docker compose), curl and jq.
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
work=$(mktemp -d)
tag=compose-test-$$
[ -z "${READY_IMAGES:-}" ] || for i in collector fetcher dedup sender simulator; do docker tag "$READY_IMAGES/$i" "defender-iot-collector/$i:$tag"; done # to try the script itself
export VERSION=$tag COMMIT=$tag COMPOSE_PROJECT_NAME=collector-$tag DEMO_PORT=0 DEMO_RATE=0 DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0
export GOPROXY=${GOPROXY:-$(go env GOPROXY)} GOSUMDB=${GOSUMDB:-$(go env GOSUMDB)} GONOSUMDB=${GONOSUMDB:-$(go env GONOSUMDB)}
images=(collector fetcher dedup sender simulator)
dc=(docker-compose)
command -v docker-compose >/dev/null || dc=(docker compose)
here() { "${dc[@]}" -f "$root/docker-compose.yml" --project-directory "$work" "$@"; }
pids=()

clean() {
  local status=$?
  trap - EXIT
  set +e
  if [ "$status" -ne 0 ]; then
    echo "== failed; the last lines of all containers"
    here logs --no-color --tail 15 2>&1 | cut -c1-400 | tail -90
  fi
  [ "${#pids[@]}" -eq 0 ] || kill "${pids[@]}" 2>/dev/null
  here --profile demo down -v --remove-orphans >/dev/null 2>&1
  docker rm -f "one-$tag" "copy-$tag" >/dev/null 2>&1
  for i in "${images[@]}"; do docker rmi -f "defender-iot-collector/$i:$tag" >/dev/null 2>&1; done
  "$root/deploy/test/compose/images.sh" remove "$work/images"
  rm -rf "$work"
  exit "$status"
}
trap clean EXIT
trap 'exit 1' INT TERM

step() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }
fail() { echo "FAILED: $*"; exit 1; }
# until_true WHAT COMMAND... waits at most two minutes.
until_true() {
  local what=$1 end=$((SECONDS + 120))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || fail "gave up waiting for: $what"
    sleep 0.5
  done
}
# grep reads to the end: with -q the logs' writer would fail.
said() { here logs --no-color "$1" 2>&1 | grep -- "$2" >/dev/null; }
container() { here ps -q "$1"; }
status() { docker inspect -f '{{.State.Status}}' "$(container "$1" | head -1)" 2>/dev/null; }
healthy() { [ "$(docker inspect -f '{{.State.Health.Status}}' $(container "$1") | sort -u)" = healthy ]; }
stats() { curl -sf --max-time 10 "$control/stats"; }
add() { curl -sf --max-time 30 -d "{\"count\": $1}" "$control/alerts" >/dev/null; }
# count is alerts made, alerts arrived, missing, repeats.
count() { stats | jq -r '"\(.devo.unique + .missing) made, \(.devo.unique) arrived, \(.missing) missing, \(.devo.duplicates) repeats"'; }
arrived() { [ "$(stats | jq '.missing == 0 and .devo.unique >= '"$1")" = true ]; }
exact() {
  echo "$(count)"
  [ "$(stats | jq '.missing == 0 and .devo.duplicates == 0')" = true ] || fail "an alert is missing or came twice"
}
# simulate starts a simulator on this machine, where containers reach it, with its files in a folder.
simulate() {
  "$work/simulator" --azure-listen "$gateway:0" --devo-listen "$gateway:0" --control-listen 127.0.0.1:0 --host "$gateway" \
    --quota 0 --backfill 100 --rate 0 --dir "$1" >"$1.log" 2>&1 &
  pids+=($!)
  until_true "the simulator" grep -q "simulator is ready" "$1.log"
  control=$(sed -n 's/.*simulator is ready.* control=\([^ ]*\) .*/\1/p' "$1.log")
}
# mend does what a hint says, as a person would: in the folder of the compose file.
mend() { echo "mended by: $1"; (cd "$work" && bash -c "$1"); }
hinted() { grep -o "chown [-R ]*65532 [^ ,\"]*" | tail -1; }

step images
mkdir -p "$work/deploy/nats" && cp "$root/deploy/nats/nats-server.conf" "$work/deploy/nats/"
"$root/deploy/test/compose/images.sh" make "$work/images"
[ -n "${READY_IMAGES:-}" ] || "${dc[@]}" -f "$root/docker-compose.yml" --project-directory "$root" --profile demo build >"$work/build.log" 2>&1 || { tail -40 "$work/build.log"; fail build; }
for i in "${images[@]}"; do
  size=$(docker image inspect -f '{{.Size}}' "defender-iot-collector/$i:$tag")
  limit=30
  [ "$i" != collector ] || limit=55
  [ "$i" != simulator ] || limit=none
  echo "image $i: $((size / 1000000)) MB, at most $limit; user $(docker image inspect -f '{{.Config.User}}' "defender-iot-collector/$i:$tag")"
  [ "$limit" = none ] || [ "$size" -le $((limit * 1000000)) ] || fail "image $i is too large"
done
docker run --rm "defender-iot-collector/collector:$tag" --version
docker create --name "copy-$tag" "defender-iot-collector/simulator:$tag" >/dev/null
docker cp "copy-$tag:/bin/simulator" "$work/simulator" >/dev/null
docker rm "copy-$tag" >/dev/null
gateway=$(docker network inspect bridge -f '{{(index .IPAM.Config 0).Gateway}}')
# An older engine does not tell it.
[ -n "$gateway" ] || gateway=$(ip -4 -o addr show docker0 | awk '{sub("/.*", "", $4); print $4}')
[ -n "$gateway" ] || fail "this machine's address in docker's network is not known"

step "first start without a configuration"
here up -d >"$work/up.log" 2>&1 && fail "it started without a configuration"
tail -1 "$work/up.log"
here logs --no-color provision | grep -E "there is no file|hint:" | tail -2
said provision "there is no file config/config.yaml" || fail "the missing file is not named"
said provision "hint: put your configuration there" || fail "no hint"
here down >/dev/null 2>&1

step "a wrong configuration"
simulate "$work/sim"
mkdir -p "$work/config" "$work/certs"
sed 's/^bus:/bos:/; $a bus: {urls: x}' "$work/sim/config.yaml" >"$work/config/config.yaml"
here up -d >/dev/null 2>&1 && fail "it started with a wrong configuration"
said provision "config/config.yaml:[0-9]*:[0-9]*: bus" || fail "the wrong line is not named"
here logs --no-color provision | grep CODE | tail -1 | cut -c1-300
here down >/dev/null 2>&1

step "root's files, as the known collector's image has them"
cp "$work/sim/config.yaml" "$work/config/config.yaml"
# So that each replica's figures can be read from here.
echo 'telemetry: {listen: "0.0.0.0:8080"}' >>"$work/config/config.yaml"
cp "$work"/sim/certs/* "$work/certs/"
chown -R 0:0 "$work/config" "$work/certs"
chmod 0600 "$work/config/config.yaml" "$work"/certs/*
chmod 0644 "$work/certs/azure-ca.crt" # the simulated cloud's, which a real configuration has not
chmod 0755 "$work" "$work/config" "$work/certs"
here up -d >/dev/null 2>&1 && fail "it read a file of root"
hint=$(here logs --no-color provision | hinted) || fail "no command that mends the configuration's owner"
here logs --no-color provision | grep "CODE:0006" | tail -1 | cut -c1-300
mend "$hint"
here up -d >/dev/null 2>&1 || fail "up"
until_true "the sender to name the command" said sender "chown 65532 certs/"
for n in 1 2 3 4; do
  hint=$(here logs --no-color --tail 5 sender fetcher | hinted || true)
  [ -z "$hint" ] || [ "$(stat -c %u "$work/${hint##* }")" = 65532 ] || mend "$hint"
  [ "$n" = 4 ] || here restart -t 30 sender fetcher >/dev/null 2>&1
  sleep 2
done
until_true "the alerts" arrived 100
exact
for s in fetcher dedup sender nats; do until_true "$s to be healthy" healthy "$s"; done
echo "healthy: nats, fetcher, dedup, sender"
docker exec "$(container sender)" sender --health=ready || fail "the sender is not ready"
[ "$(status provision)" = exited ] || fail "provision runs on"

step "three senders"
here up -d --scale sender=3 >/dev/null 2>&1
confirmed() { curl -sf --max-time 5 "http://$1:8080/metrics" | sed -n 's/^collector_sender_confirmed_total{.*} //p' | awk '{s += $1} END {printf "%d", s}'; }
address() { docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"; }
answering() { for c in $(container sender); do confirmed "$(address "$c")" >/dev/null || return 1; done; }
until_true "three senders" answering
for _ in 1 2 3 4 5 6; do add 5000; sleep 1; done
until_true "30,000 alerts" arrived 30100
for c in $(container sender); do
  n=$(confirmed "$(address "$c")")
  echo "$(docker inspect -f '{{.Name}}' "$c"): $n confirmed"
  [ "$n" -gt 0 ] || fail "a replica did nothing"
done
exact
here up -d --scale sender=1 >/dev/null 2>&1
[ "$(container sender | wc -l)" = 1 ] || fail "scaling back"
add 1000
until_true "alerts through one sender" arrived 31100
echo "back to one sender"
exact

step "a changed configuration, and up again"
sed -i 's/^inputs:/  console_1: {type: console}\ninputs:/' "$work/config/config.yaml"
here up -d >/dev/null 2>&1
add 100
until_true "the new output" said sender "<14>.*edr.microsoft_defender.iot_security.alert"
until_true "alerts" arrived 31200
here run --rm provision status 2>/dev/null | grep output
exact

step "down, alerts meanwhile, up"
here down >/dev/null 2>&1
[ -z "$(docker ps -q --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME")" ] || fail "containers are left"
add 3000
here up -d >/dev/null 2>&1
until_true "what came meanwhile" arrived 34200
sleep 12 # one more pull, which reads the overlap again
exact
here down -v >/dev/null 2>&1

step "demo"
mv "$work/config" "$work/config.real"
mv "$work/certs" "$work/certs.real"
here --profile demo up -d >/dev/null 2>&1 || fail "the demo does not start"
port() { control=http://$(docker port "$(container simulator)" 8081 | head -1) && [ "$control" != http:// ]; }
until_true "the simulator's port" port
until_true "the simulator" stats >/dev/null
add 50
until_true "alerts" arrived 70
for s in fetcher dedup sender; do [ "$(docker inspect -f '{{.RestartCount}}' "$(container "$s")")" = 0 ] || fail "$s was restarted"; done
exact
here --profile demo down -v >/dev/null 2>&1

step "everything in one container, started as the known collector's image is"
simulate "$work/one"
cp "$work/one/config.yaml" "$work/config/" 2>/dev/null || { mkdir -p "$work/config" && cp "$work/one/config.yaml" "$work/config/"; }
mkdir -p "$work/certs" "$work/state" && cp "$work"/one/certs/* "$work/certs/"
chown -R 65532 "$work/config" "$work/certs"
chown 0:0 "$work/state" && chmod 0700 "$work/state"
one() {
  docker run -d --name "one-$tag" --read-only --cap-drop ALL --security-opt no-new-privileges -v "$work/certs:/devo-collector/certs" \
    -v "$work/config:/devo-collector/config" -v "$work/credentials:/devo-collector/credentials" -v "$work/state:/devo-collector/state" \
    -e CONFIG_FILE=config.yaml "defender-iot-collector/collector:$tag" >/dev/null
}
one
[ "$(timeout 60 docker wait "one-$tag")" = 1 ] || fail "it ran on a state folder that it may not enter"
docker logs "one-$tag" 2>&1 | tail -2 | cut -c1-300
hint=$(docker logs "one-$tag" 2>&1 | hinted) || fail "no command that mends the state folder's owner"
mend "$hint"
docker rm "one-$tag" >/dev/null
one
until_true "alerts" arrived 100
docker exec "one-$tag" collector --health || fail "not healthy"
docker stop -t 30 "one-$tag" >/dev/null
[ "$(docker inspect -f '{{.State.ExitCode}}' "one-$tag")" = 0 ] || fail "its stop was no orderly one"
add 500
docker start "one-$tag" >/dev/null
until_true "alerts after the stop" arrived 600
exact

step "done"
