# As a team runs it: a user for each service and TLS on the bus, senders that come and go, killed containers, a
# partition, a replay, new images, down and up. It says the counts at each step. Sourced by run.sh.

files=(-f "$root/docker-compose.yml" -f "$root/deploy/compose/secure.yml")
here() { "${dc[@]}" "${files[@]}" -f "$work/quick.yml" --project-directory "$work" "$@"; }
operator() { here run --rm operator "$@" 2>"$work/operator.err"; }
quick nats fetcher dedup sender

# counted WHAT: nothing is missing, and what came twice is counted as possibly resent.
counted() {
  local resent
  resent=$(operator status --json | jq '[.outputs[].resent] | add') || { cat "$work/operator.err"; fail "the operator's status"; }
  echo "$1: $(count), possibly resent $resent"
  [ "$(stats | jq ".missing == 0 and .devo.duplicates <= $resent + ${replayed:-0}")" = true ] || fail "an alert is missing or came twice uncounted"
}
# killed SERVICE kills its program as the kernel would; the engine starts it again.
killed() {
  local c
  c=$(container "$1" | head -1)
  kill -9 "$(docker inspect -f '{{.State.Pid}}' "$c")"
}

step "team: up with least privilege"
mkdir -p "$work/deploy/nats" && cp "$root"/deploy/nats/*.conf "$root/deploy/nats/health.sh" "$work/deploy/nats/"
simulate "$work/sim"
configure "$work/sim" 65532
mkdir "$work/secrets" && chown 65532 "$work/secrets"
docker run --rm -v "$work/secrets:/secrets" "defender-iot-collector/collector:$tag" nats-config --passwords /secrets >/dev/null || fail "the passwords"
"$root/deploy/nats/certificates.sh" "$work/secrets" >/dev/null
here up -d >"$work/up.log" 2>&1 || { tail -5 "$work/up.log"; fail "up"; }
until_true "the alerts" arrived 100
counted "up"

step "team: three senders, and back"
here up -d --scale sender=3 >/dev/null 2>&1
until_true "three senders" answering 3
for _ in 1 2 3; do add 2000; sleep 1; done
until_true "6,000 alerts" arrived 6100
here up -d --scale sender=1 >/dev/null 2>&1
[ "$(container sender | wc -l)" = 1 ] || fail "scaling back"
add 500
until_true "alerts through one sender" arrived 6600
counted "scaled"

step "team: programs are killed"
for s in fetcher dedup sender nats; do
  add 500
  killed "$s"
  add 500
done
until_true "what came meanwhile" arrived 10600
counted "killed"

step "team: the bus is cut off"
nats=$(container nats)
network=$(docker inspect -f '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}' "$nats")
add 500
docker network disconnect -f "$network" "$nats"
add 500
sleep 15 # longer than the acknowledgement wait and the lease
docker network connect --alias nats "$network" "$nats"
add 500
until_true "what came meanwhile" arrived 12100
counted "cut off"

step "team: a replay"
before=$(stats | jq .devo.duplicates)
operator replay --by stored --from 2000-01-01 --to 2100-01-01 >"$work/replay" || { cat "$work/replay" "$work/operator.err"; fail "replay"; }
tail -1 "$work/replay"
replayed=$(($(stats | jq .devo.duplicates) - before))
[ "$replayed" -ge 12100 ] || fail "$replayed of 12,100 came again"
grep -q "confirmed 12100 of 12100" "$work/replay" || fail "the replay is not whole"
counted "replayed"

step "team: new images while alerts flow"
for i in collector fetcher dedup sender; do
  printf 'FROM defender-iot-collector/%s:%s\nLABEL another=image\n' "$i" "$tag" | docker build -q -t "defender-iot-collector/$i:$tag-next" - >/dev/null
done
(for _ in 1 2 3 4 5; do add 200; sleep 1; done) &
pids+=($!)
old=$(container sender)
VERSION=$tag-next here up -d >/dev/null 2>&1 || fail "up with new images"
wait "${pids[-1]}"
unset 'pids[-1]'
export VERSION=$tag-next
[ "$(container sender)" != "$old" ] || fail "the sender is still the old one"
until_true "what came meanwhile" arrived 13100
counted "upgraded"

step "team: down, alerts meanwhile, up"
here down >/dev/null 2>&1
add 500
here up -d >/dev/null 2>&1
until_true "what came meanwhile" arrived 13600
counted "down and up"
operator reconcile --from 2000-01-01 --to 2100-01-01 >"$work/reconcile" || { cat "$work/reconcile" "$work/operator.err"; fail "reconcile"; }
cat "$work/reconcile"
here down -v >/dev/null 2>&1
