# As a team runs it: a user for each service and TLS on the bus, senders that come and go, killed containers, a
# partition, a replay, new images, down and up. It says the counts at each step. Sourced by run.sh.

source "$root/deploy/test/compose/actions.sh"

step "team: up with least privilege"
mkdir -p "$work/deploy/nats" && cp "$root"/deploy/nats/*.conf "$root/deploy/nats/health.sh" "$work/deploy/nats/"
simulate "$work/sim"
configure "$work/sim" 65532
secured
until_true "the alerts" arrived 100
counted "up" whole

step "team: three senders, and back"
scaled 3
for _ in 1 2 3; do add 2000; sleep 1; done
until_true "6,000 alerts" arrived 6100
scaled 1
[ "$(container sender | wc -l)" = 1 ] || fail "scaling back"
add 500
until_true "alerts through one sender" arrived 6600
counted "scaled" whole

step "team: programs are killed"
for s in fetcher dedup sender nats; do
  add 500
  killed "$(container "$s")"
  add 500
done
until_true "what came meanwhile" arrived 10600
counted "killed" whole

step "team: the bus is cut off"
add 500
cut_off nats
add 500
sleep 15 # longer than the acknowledgement wait and the lease
joined nats
add 500
until_true "what came meanwhile" arrived 12100
counted "cut off" whole

step "team: a replay"
before=$(stats | jq .devo.duplicates)
replay --from 2000-01-01 --to 2100-01-01
[ "$selected" = 12100 ] || fail "it is one of $selected alerts"
[ "$(($(stats | jq .devo.duplicates) - before))" -ge 12100 ] || fail "not all came again"
counted "replayed" whole

step "team: new images while alerts flow"
for i in collector fetcher dedup sender; do
  printf 'FROM defender-iot-collector/%s:%s\nLABEL another=image\n' "$i" "$tag" | docker build -q -t "defender-iot-collector/$i:$tag-next" - >/dev/null
done
(for _ in 1 2 3 4 5; do add 200; sleep 1; done) &
pids+=($!)
upgraded "$tag-next"
wait "${pids[-1]}"
unset 'pids[-1]'
until_true "what came meanwhile" arrived 13100
counted "upgraded" whole

step "team: down, alerts meanwhile, up"
down_and_up add 500
until_true "what came meanwhile" arrived 13600
counted "down and up" whole
reconciled
here down -v >/dev/null 2>&1
