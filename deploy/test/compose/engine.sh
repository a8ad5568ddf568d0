# What every test on this machine's engine begins and ends with: the base images and the five images by the Dockerfile, a
# project of its own, a simulator that containers reach, and the removal of all that was made. Sourced by run.sh, soak.sh
# and cluster.sh, which set `name`, the make target. Needs docker, docker-compose (or docker compose), curl, jq, openssl
# and root, for files of other users.
#
# READY_IMAGES=…/NAME:TAG takes images that are there instead of building them, to try these scripts themselves.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
not_run() { echo "$name: NOT RUN: $*" >&2; exit 1; }
for program in docker curl jq openssl go; do command -v "$program" >/dev/null || not_run "there is no $program"; done
docker info >/dev/null 2>&1 || not_run "no docker engine answers; start it (systemctl start docker, or dockerd &), then: make $name"
[ "$(id -u)" = 0 ] || not_run "it makes files of other users: run it as root"
dc=(docker-compose)
command -v docker-compose >/dev/null || dc=(docker compose)
"${dc[@]}" version >/dev/null 2>&1 || not_run "there is neither docker-compose nor docker compose"

work=$(mktemp -d)
simulator=$work/simulator
tag=$name-$$
export VERSION=$tag COMMIT=$tag COMPOSE_PROJECT_NAME=collector-$tag DEMO_PORT=0 DEMO_RATE=0 DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0
export GOPROXY=${GOPROXY:-$(go env GOPROXY)} GOSUMDB=${GOSUMDB:-$(go env GOSUMDB)} GONOSUMDB=${GONOSUMDB:-$(go env GONOSUMDB)}
images=(collector fetcher dedup sender simulator)
files=(-f "$root/docker-compose.yml")
# here is compose in the user's folder, with the files that are tried. quick.yml only asks for health more often.
here() { "${dc[@]}" "${files[@]}" -f "$work/quick.yml" --project-directory "$work" "$@"; }
pids=()
# stop ends what this script runs beside itself, and waits for it.
stop() {
  [ "${#pids[@]}" -eq 0 ] || { kill "${pids[@]}" 2>/dev/null || true; wait "${pids[@]}" 2>/dev/null || true; }
}
source "$root/deploy/test/compose/check.sh"

# Parts that run beside the script, in projects of their own (beside).
declare -A parts
# beside runs a part beside the rest, which is mostly waiting: in a folder and a project of its own.
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
# ended waits for the parts and shows what they said.
ended() {
  local part status
  for part in "${!parts[@]}"; do
    status=0
    wait "${parts[$part]}" || status=$?
    cat "$work/$part.log"
    [ "$status" = 0 ] || fail "$part"
  done
}

clean() {
  local status=$? part kind
  trap - EXIT
  set +e
  if [ "$status" -ne 0 ]; then
    for part in "${!parts[@]}"; do [ ! -e "$work/$part.log" ] || cat "$work/$part.log"; done
    echo "== failed; the last lines of all containers"
    here logs --no-color --tail 15 2>&1 | cut -c1-400 | tail -90
  fi
  stop
  docker rm -fv "one-$tag" "copy-$tag" >/dev/null 2>&1
  # By the projects' labels, whichever of the files made them.
  for part in "" "${!parts[@]}"; do
    label=label=com.docker.compose.project=$COMPOSE_PROJECT_NAME${part:+-$part}
    docker ps -aq --filter "$label" | xargs -r docker rm -fv >/dev/null 2>&1
    for kind in network volume; do docker "$kind" ls -q --filter "$label" | xargs -r docker "$kind" rm >/dev/null 2>&1; done
  done
  docker images --format '{{.Repository}}:{{.Tag}}' "defender-iot-collector/*:$tag*" | xargs -r docker rmi -f >/dev/null 2>&1
  "$root/deploy/test/compose/images.sh" remove "$work/images"
  rm -rf "$work"
  left=$( (docker ps -aq --filter "name=$tag"; docker network ls -q --filter "name=$tag"; docker volume ls -q --filter "name=$tag"
    docker images -q "defender-iot-collector/*:$tag*") | wc -l)
  echo "left behind: $left containers, networks, volumes and images"
  exit "$status"
}
trap clean EXIT
trap 'exit 1' INT TERM

# simulate starts a simulator on this machine, where containers reach it, with its files in a folder and options.
simulate() {
  local folder=$1
  shift
  "$simulator" --azure-listen "$gateway:0" --devo-listen "$gateway:0" --control-listen 127.0.0.1:0 --host "$gateway" \
    --quota 0 --backfill 100 --rate 0 --dir "$folder" "$@" >"$folder.log" 2>&1 &
  pids+=($!)
  until_true "the simulator" grep -q "simulator is ready" "$folder.log"
  control=$(sed -n 's/.*simulator is ready.* control=\([^ ]*\) .*/\1/p' "$folder.log")
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
"$root/deploy/test/compose/images.sh" make "$work/images"
echo "base images for the test made after $SECONDS s"
if [ -z "${READY_IMAGES:-}" ]; then
  "${dc[@]}" -f "$root/docker-compose.yml" --project-directory "$root" --profile demo build >"$work/build.log" 2>&1 || { tail -40 "$work/build.log"; fail build; }
else
  for i in "${images[@]}"; do docker tag "${READY_IMAGES/NAME/$i}" "defender-iot-collector/$i:$tag"; done
fi
docker create --name "copy-$tag" "defender-iot-collector/simulator:$tag" >/dev/null
docker cp "copy-$tag:/bin/simulator" "$simulator" >/dev/null
docker rm "copy-$tag" >/dev/null
gateway=$(docker network inspect bridge -f '{{(index .IPAM.Config 0).Gateway}}')
# An older engine does not tell it.
[ -n "$gateway" ] || gateway=$(ip -4 -o addr show docker0 | awk '{sub("/.*", "", $4); print $4}')
[ -n "$gateway" ] || fail "this machine's address in docker's network is not known"
mkdir -p "$work/deploy/nats" && cp "$root"/deploy/nats/*.conf "$root/deploy/nats/health.sh" "$work/deploy/nats/"
