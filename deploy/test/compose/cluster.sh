#!/usr/bin/env bash
# Three nodes under faults, alerts flowing: docker-compose.yml with deploy/compose/cluster.yml. For each fault a line of the
# table that is printed in the end. It ends with 1 if one alert is missing, came twice without being counted as possibly
# resent, or if alerts do not flow within 30 s after a node's loss that two can bear, or after the return of one that they
# cannot, and removes everything that it started. ROUNDS is how often a leader is killed; ONLY names some of the faults, by
# their functions.
name=cluster-fault
source "$(dirname "$0")/engine.sh"
files+=(-f "$root/deploy/compose/cluster.yml")
nodes=(nats nats-2 nats-3)
quick "${nodes[@]}" fetcher dedup sender
rounds=${ROUNDS:-6}
away=20 # seconds, longer than a claim's and an election's time-outs and than the fetcher's lease

# jsz is what a node that answers says of the streams.
jsz() {
  local node at
  for node in "${nodes[@]}"; do
    at=$(address "$(container "$node")")
    [ -z "$at" ] || curl -sf --max-time 3 "http://$at:8222/jsz?acc=COLLECTOR&streams=1" && return
  done
  return 1
}
# led_by STREAM sets `node` to its leader, or for META to the leader of the cluster.
led_by() {
  has_leader() {
    node=$(jsz | jq -r --arg stream "$1" 'if $stream == "META" then .meta_cluster.leader
      else (.account_details[]?.stream_detail[]? | select(.name == $stream) | .cluster.leader) end // empty')
    [ -n "$node" ]
  }
  until_true "a leader of $1" has_leader "$1"
}
back() {
  local one
  docker start $(for one in "$@"; do container "$one"; done) >/dev/null
}
lost() {
  local one
  docker kill $(for one in "$@"; do container "$one"; done) >/dev/null
}
all_healthy() { for node in "${nodes[@]}"; do until_true "$node to be healthy" healthy "$node"; done; }
# The nodes' containers stay the same; asking compose each time would take longer than many a recovery.
declare -A id
container() { [ -n "${id[$1]:-}" ] && echo "${id[$1]}" || here ps -q "$1"; }

figures() { stats | jq -r '"\(.devo.unique + .missing) \(.devo.unique) \(.devo.duplicates)"'; }
resent() { here run --rm provision status --json 2>/dev/null | jq '[.outputs[].resent] | add'; }
# fault NAME COMMAND... has alerts flow while the command does something, waits until all have arrived, and adds a line.
printf '%s\n' "fault|created|arrived|missing|duplicates|counted as possibly resent|flowed again after" >"$work/table"
was=(0 0 0) was_resent=0
fault() {
  local title=$1 now missing
  shift
  [[ " ${ONLY:-$1} " == *" $1 "* ]] || return 0
  step "$title"
  slowest=0
  feed
  flows
  "$@"
  fed
  all_healthy
  until_true "everything" everything
  sleep 6 # some more pulls, which read the overlap again
  now=($(figures))
  missing=$((now[0] - now[1]))
  now_resent=$(resent)
  echo "$title|$((now[0] - was[0]))|$((now[1] - was[1]))|$missing|$((now[2] - was[2]))|$((now_resent - was_resent))|$slowest s" | tee -a "$work/table"
  [ "$missing" = 0 ] || fail "$missing alerts are missing"
  # Over all so far, since an alert that is counted in one fault may come again in the next.
  [ "${now[2]}" -le "$now_resent" ] || fail "$((now[2] - now_resent)) alerts came twice uncounted"
  was=("${now[@]}") was_resent=$now_resent
}
# flowing demands that alerts come through, and remembers how long it took.
flowing() {
  flows
  echo "$1: flowing after $flowed s"
  slowest=$(printf '%s\n' "$slowest" "$flowed" | sort -n | tail -1)
}

one_lost() {
  for node in "${nodes[@]}"; do
    lost "$node"
    flowing "$node lost"
    back "$node"
    until_true "$node to be healthy" healthy "$node"
    flowing "$node back"
  done
}
leaders_lost() {
  local streams=(UNIQUE RAW META KV_hashes KV_ledgers KV_checkpoints) i
  for ((i = 0; i < rounds; i++)); do
    led_by "${streams[$((i % ${#streams[@]}))]}"
    lost "$node"
    flowing "$node, leader of ${streams[$((i % ${#streams[@]}))]}, lost"
    back "$node"
    # Not even healthy again before the next one is lost, but there: else two are away.
    until_true "$node to be healthy" healthy "$node"
  done
}
two_lost() {
  local before
  lost nats-2 nats-3
  before=$(stats | jq .devo.unique)
  sleep "$away"
  echo "arrived while two are away: $(($(stats | jq .devo.unique) - before))"
  back nats-2 nats-3
  flowing "both back"
}
two_lost_one_back() {
  led_by UNIQUE
  local first=$node second
  for second in "${nodes[@]}"; do [ "$second" = "$first" ] || break; done
  lost "$first" "$second"
  sleep "$away"
  back "$second"
  flowing "$second back"
  back "$first"
  flowing "$first back"
}
all_lost() {
  lost "${nodes[@]}"
  sleep 5
  back "${nodes[@]}"
  flowing "all back"
}
cut_off_one() {
  local stream
  for stream in UNIQUE RAW; do
    led_by "$stream"
    cut_off "$node"
    flowing "$node, leader of $stream, off the network"
    sleep "$away"
    joined "$node"
    flowing "$node back"
    until_true "$node to be healthy" healthy "$node"
  done
}
frozen() {
  led_by UNIQUE
  docker pause "$(container "$node")" >/dev/null
  flowing "$node, leader of UNIQUE, frozen"
  sleep "$away"
  docker unpause "$(container "$node")" >/dev/null
  flowing "$node goes on"
}

step "up with three nodes"
simulate "$work/sim"
sed -i 's/request_period_in_seconds: 10/request_period_in_seconds: 2/' "$work/sim/config.yaml"
configure "$work/sim" 65532
here up -d >"$work/up.log" 2>&1 || { tail -5 "$work/up.log"; fail "up"; }
for node in "${nodes[@]}"; do id[$node]=$(container "$node"); done
until_true "the alerts" arrived 100
jsz | jq -r '.account_details[].stream_detail[] | "\(.name): \(1 + (.cluster.replicas | length)) copies, leader \(.cluster.leader)"'

fault "one node lost, each in turn" one_lost
fault "the leader lost, $rounds times" leaders_lost
fault "two nodes lost for $away s" two_lost
fault "two nodes lost, one back before the other" two_lost_one_back
fault "all three lost" all_lost
fault "the leader off the network for $away s" cut_off_one
fault "the leader frozen for $away s" frozen

step "all faults"
column -t -s '|' "$work/table" 2>/dev/null || cat "$work/table"
here run --rm provision reconcile --from 2000-01-01 --to 2100-01-01 2>"$work/reconcile.err" || { cat "$work/reconcile.err"; fail "reconcile"; }
here down -v >/dev/null 2>&1
step "done"
