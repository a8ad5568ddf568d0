#!/usr/bin/env bash
# The container form, on the engine of this machine: first start, wrong files, scaling, a changed configuration, nats
# away, down and up, demo, everything in one container. It prints what it counted, ends with 1 if one alert is missing
# or came twice, and removes everything that it started.
name=compose-test
source "$(dirname "$0")/engine.sh"
quick nats fetcher dedup sender

step "what the images are"
for i in "${images[@]}"; do
  size=$(docker image inspect -f '{{.Size}}' "defender-iot-collector/$i:$tag")
  limit=30
  [ "$i" != collector ] || limit=55
  echo "image $i: $((size / 1000000)) MB, at most $limit; user $(docker image inspect -f '{{.Config.User}}' "defender-iot-collector/$i:$tag")"
  [ "$size" -le $((limit * 1000000)) ] || fail "image $i is too large"
done
docker run --rm "defender-iot-collector/collector:$tag" --version

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

ended
step "done"
