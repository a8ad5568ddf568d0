#!/usr/bin/env bash
# The container form, on the engine of this machine: first start, wrong files, scaling, a changed configuration, nats
# away, down and up, demo, everything in one container. It prints what it counted, ends with 1 if one alert is missing
# or came twice, and removes everything that it started. Needs docker, docker-compose (or docker compose), curl, jq, openssl, and
# root, for files of other users.
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
not_run() { echo "compose-test: NOT RUN: $*" >&2; exit 1; }
for program in docker curl jq openssl go; do command -v "$program" >/dev/null || not_run "there is no $program"; done
docker info >/dev/null 2>&1 || not_run "no docker engine answers; start it (systemctl start docker, or dockerd &), then: make compose-test"
[ "$(id -u)" = 0 ] || not_run "it makes files of other users: run it as root"
dc=(docker-compose)
command -v docker-compose >/dev/null || dc=(docker compose)
"${dc[@]}" version >/dev/null 2>&1 || not_run "there is neither docker-compose nor docker compose"

work=$(mktemp -d)
simulator=$work/simulator
tag=compose-test-$$
export VERSION=$tag COMMIT=$tag COMPOSE_PROJECT_NAME=collector-$tag DEMO_PORT=0 DEMO_RATE=0 DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0
export GOPROXY=${GOPROXY:-$(go env GOPROXY)} GOSUMDB=${GOSUMDB:-$(go env GOSUMDB)} GONOSUMDB=${GONOSUMDB:-$(go env GONOSUMDB)}
images=(collector fetcher dedup sender simulator)
file=docker-compose.yml
# here is compose in the user's folder, with the file that is tried. quick.yml only asks for health more often.
here() { "${dc[@]}" -f "$root/$file" -f "$work/quick.yml" --project-directory "$work" "$@"; }
pids=()
# stop ends what this script runs beside itself, and waits for it.
stop() {
  [ "${#pids[@]}" -eq 0 ] || { kill "${pids[@]}" 2>/dev/null || true; wait "${pids[@]}" 2>/dev/null || true; }
}
source "$root/deploy/test/compose/check.sh"

clean() {
  local status=$?
  trap - EXIT
  set +e
  if [ "$status" -ne 0 ]; then
    for part in embedded team; do [ ! -e "$work/$part.log" ] || cat "$work/$part.log"; done
    echo "== failed; the last lines of all containers"
    here logs --no-color --tail 15 2>&1 | cut -c1-400 | tail -90
  fi
  stop
  docker rm -fv "one-$tag" "copy-$tag" >/dev/null 2>&1
  # By the projects' labels, whichever of the files made them.
  for project in "$COMPOSE_PROJECT_NAME" "$COMPOSE_PROJECT_NAME-embedded" "$COMPOSE_PROJECT_NAME-team"; do
    docker ps -aq --filter "label=com.docker.compose.project=$project" | xargs -r docker rm -fv >/dev/null 2>&1
    docker network ls -q --filter "label=com.docker.compose.project=$project" | xargs -r docker network rm >/dev/null 2>&1
    docker volume ls -q --filter "label=com.docker.compose.project=$project" | xargs -r docker volume rm >/dev/null 2>&1
  done
  for i in "${images[@]}"; do docker rmi -f "defender-iot-collector/$i:$tag" "defender-iot-collector/$i:$tag-next" >/dev/null 2>&1; done
  "$root/deploy/test/compose/images.sh" remove "$work/images"
  rm -rf "$work"
  left=$( (docker ps -aq --filter "name=$tag"; docker network ls -q --filter "name=$tag"; docker volume ls -q --filter "name=$tag"; docker images -q "defender-iot-collector/*:$tag") | wc -l)
  echo "left behind: $left containers, networks, volumes and images"
  exit "$status"
}
trap clean EXIT
trap 'exit 1' INT TERM

# simulate starts a simulator on this machine, where containers reach it, with its files in a folder.
simulate() {
  "$simulator" --azure-listen "$gateway:0" --devo-listen "$gateway:0" --control-listen 127.0.0.1:0 --host "$gateway" \
    --quota 0 --backfill 100 --rate 0 --dir "$1" >"$1.log" 2>&1 &
  pids+=($!)
  until_true "the simulator" grep -q "simulator is ready" "$1.log"
  control=$(sed -n 's/.*simulator is ready.* control=\([^ ]*\) .*/\1/p' "$1.log")
}
# configure puts a simulator's configuration and certificates where the user has them, owned by $2, for it alone.
configure() {
  rm -rf "$work/config" "$work/certs"
  mkdir -p "$work/config" "$work/certs"
  cp "$1/config.yaml" "$work/config/config.yaml"
  cp "$1"/certs/* "$work/certs/"
  # So that each replica's figures can be read from here.
  echo 'telemetry: {listen: "0.0.0.0:8080"}' >>"$work/config/config.yaml"
  chown -R "$2" "$work/config" "$work/certs"
  chmod 0600 "$work/config/config.yaml" "$work"/certs/*
  chmod 0644 "$work/certs/azure-ca.crt" # the simulated cloud's, which a real configuration has not
  chmod 0755 "$work" "$work/config" "$work/certs"
}

step "images, all five by the Dockerfile"
mkdir -p "$work/deploy/nats" && cp "$root"/deploy/nats/*.conf "$root/deploy/nats/health.sh" "$work/deploy/nats/"
quick nats fetcher dedup sender
"$root/deploy/test/compose/images.sh" make "$work/images"
echo "base images for the test made after $SECONDS s"
if [ -z "${READY_IMAGES:-}" ]; then
  "${dc[@]}" -f "$root/docker-compose.yml" --project-directory "$root" --profile demo build >"$work/build.log" 2>&1 || { tail -40 "$work/build.log"; fail build; }
else # to try this script itself
  for i in "${images[@]}"; do docker tag "${READY_IMAGES/NAME/$i}" "defender-iot-collector/$i:$tag"; done
fi
for i in "${images[@]}"; do
  size=$(docker image inspect -f '{{.Size}}' "defender-iot-collector/$i:$tag")
  limit=30
  [ "$i" != collector ] || limit=55
  echo "image $i: $((size / 1000000)) MB, at most $limit; user $(docker image inspect -f '{{.Config.User}}' "defender-iot-collector/$i:$tag")"
  [ "$size" -le $((limit * 1000000)) ] || fail "image $i is too large"
done
docker run --rm "defender-iot-collector/collector:$tag" --version
docker create --name "copy-$tag" "defender-iot-collector/simulator:$tag" >/dev/null
docker cp "copy-$tag:/bin/simulator" "$simulator" >/dev/null
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

step "a wrong configuration"
simulate "$work/sim"
configure "$work/sim" 65532
sed 's/^bus:/bos:/; $a bus: {urls: x}' "$work/sim/config.yaml" >"$work/config/config.yaml"
here up -d >/dev/null 2>&1 && fail "it started with a wrong configuration"
said provision "config/config.yaml:[0-9]*:[0-9]*: bus" || fail "the wrong line is not named"
here logs --no-color provision | grep CODE | tail -1 | cut -c1-300

step "root's files, mode 0600"
configure "$work/sim" 0:0
here up -d >/dev/null 2>&1 && fail "it read a file of root"
here logs --no-color provision | grep "CODE:0006" | tail -1 | cut -c1-300
mend "$(here logs --no-color provision | hinted)"
here up -d >/dev/null 2>&1 || fail "up"
mend_until_read sender fetcher
until_true "the alerts" arrived 100
exact
for s in fetcher dedup sender nats; do until_true "$s to be healthy" healthy "$s"; done
echo "healthy: nats, fetcher, dedup, sender"
docker exec "$(container sender)" sender --health=ready || fail "the sender is not ready"
[ "$(status provision)" = exited ] || fail "provision runs on"

step "how the containers run"
for s in fetcher dedup sender nats provision; do hardened "$s"; done

step "three senders"
here up -d --scale sender=3 >/dev/null 2>&1
until_true "three senders" answering 3
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

# beside runs a part beside the rest, which is mostly waiting: in a folder and a project of its own.
declare -A parts
beside() {
  (
    trap stop EXIT
    trap 'exit 1' INT TERM
    pids=()
    mkdir "$work/$1"
    work=$work/$1
    export COMPOSE_PROJECT_NAME=$COMPOSE_PROJECT_NAME-$1
    source "$root/deploy/test/compose/$1.sh"
  ) >"$work/$1.log" 2>&1 &
  parts[$1]=$!
  pids+=("$!")
}
beside embedded
beside team

step "a changed configuration, and up again"
sed -i 's/^inputs:/  console_1: {type: console}\ninputs:/' "$work/config/config.yaml"
here up -d >/dev/null 2>&1
add 100
until_true "the new output" said sender "<14>.*edr.microsoft_defender.iot_security.alert"
until_true "alerts" arrived 31200
here run --rm provision status 2>/dev/null | grep output
exact

step "nats hangs, then a program"
for s in nats sender; do until_true "$s to be healthy" healthy "$s"; done
docker pause "$(container nats)" >/dev/null
add 100
until_true "nats to be unhealthy" unhealthy nats
until_true "the sender not to be ready" not_ready sender
cut -c1-200 "$work/ready"
docker exec "$(container sender)" sender --health || fail "the sender gave up with nats"
echo "nats unhealthy; the sender is not ready, and serves"
docker unpause "$(container nats)" >/dev/null
until_true "nats to be healthy" healthy nats
until_true "what came meanwhile" arrived 31300
docker pause "$(container dedup)" >/dev/null
until_true "dedup to be unhealthy" unhealthy dedup
docker unpause "$(container dedup)" >/dev/null
until_true "dedup to be healthy" healthy dedup
echo "dedup unhealthy while it hangs"
exact

step "down, alerts meanwhile, up"
here down >/dev/null 2>&1
[ -z "$(docker ps -aq --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME")" ] || fail "containers are left"
add 3000
here up -d >/dev/null 2>&1
until_true "what came meanwhile" arrived 34300
sleep 12 # one more pull, which reads the overlap again
exact
here down -v >/dev/null 2>&1

step "demo, without any configuration"
rm -rf "$work/config" "$work/certs"
here --profile demo up -d >/dev/null 2>&1 || fail "the demo does not start"
port() { control=http://$(docker port "$(container simulator)" 8081 | head -1) && [ "$control" != http:// ]; }
until_true "the simulator's port" port
until_true "the simulator" stats >/dev/null
add 50
until_true "alerts" arrived 70
for s in fetcher dedup sender; do [ "$(docker inspect -f '{{.RestartCount}}' "$(container "$s")")" = 0 ] || fail "$s was restarted"; done
published=$(docker port "$(container simulator)")
echo "published by the demo: $published"
[[ "$published" == "8081/tcp -> 127.0.0.1:"* ]] || fail "the demo is open to the network"
exact
here --profile demo down -v >/dev/null 2>&1

for part in "${!parts[@]}"; do
  status=0
  wait "${parts[$part]}" || status=$?
  cat "$work/$part.log"
  [ "$status" = 0 ] || fail "$part"
done
step "done"
