#!/usr/bin/env bash
# The long form of what run.sh tries of a team's installation: alerts flow, and what a team does and what happens to it come
# at random, by SEED for DURATION (90s, 30m, 2h). It says the counts at each step, ends with 1 if one alert is missing, came
# twice without being counted, or needed more than 30 s to flow again, and removes everything that it started.
name=compose-soak
source "$(dirname "$0")/engine.sh"
source "$root/deploy/test/compose/actions.sh"
duration=${DURATION:-30m}
case $duration in
*h) duration=$((${duration%h} * 3600)) ;;
*m) duration=$((${duration%m} * 60)) ;;
*) duration=${duration%s} ;;
esac
SEED=${SEED:-$(date +%s)}
RANDOM=$SEED # only ever read in this shell, so that a seed is a plan
between() { drawn=$(($1 + RANDOM % ($2 - $1 + 1))); }
one_of() {
  between 1 $#
  drawn=${!drawn}
}

step "the second and the third version: as the first, and one whose envelopes the others cannot read"
another "$tag-next"
another "$tag-after" nextmajor

step "up with least privilege; seed $SEED, $duration s"
simulate "$work/sim"
sed -i 's/request_period_in_seconds: 10/request_period_in_seconds: 2/' "$work/sim/config.yaml"
configure "$work/sim" 65532
secured
until_true "the alerts" arrived 100
counted "up" whole
feed

do_scale() {
  one_of 1 2 3 4
  what="$drawn senders"
  scaled "$drawn"
}
do_kill() {
  one_of fetcher dedup sender nats
  local service=$drawn c
  what="kill $service"
  for c in $(container "$service"); do killed "$c"; done
}
do_kill_all() {
  local c
  what="kill all programs at once"
  for c in $(container nats) $(container fetcher) $(container dedup) $(container sender); do killed "$c" || true; done
}
do_partition() {
  one_of nats fetcher dedup
  local service=$drawn
  between 5 30
  what="$service off the network for $drawn s"
  cut_off "$service"
  sleep "$drawn"
  joined "$service"
}
do_freeze() {
  one_of fetcher dedup
  local service=$drawn
  between 5 40
  what="freeze $service for $drawn s"
  docker pause "$(container "$service")" >/dev/null
  sleep "$drawn"
  docker unpause "$(container "$service")" >/dev/null
}
do_replay() {
  between 1 5
  what="replay what was stored in the last $drawn minutes, a sender killed in it"
  (sleep 3 && killed "$(container sender | head -1)") &
  local killer=$!
  replay --from "$(date -u -d "-$drawn minutes" +%FT%TZ)" --to "$(date -u -d "+1 minute" +%FT%TZ)"
  wait "$killer"
}
do_upgrade() {
  local to=$tag-next
  [ "$VERSION" = "$tag" ] || to=$tag
  what="the other version, $to"
  upgraded "$to"
}
do_down_and_up() {
  between 1 10
  what="down for $drawn s and up"
  down_and_up sleep "$drawn"
}

slowest=0
# act does one thing and says how long alerts took to flow again, and all counts.
act() {
  local number=$1
  what=
  "$2"
  flows
  slowest=$(printf '%s\n' "$slowest" "$flowed" | sort -n | tail -1)
  counted "$number. $what ($SECONDS s), flowing after $flowed s"
}
actions=(do_scale do_kill do_kill_all do_partition do_freeze do_replay do_upgrade do_down_and_up)
end=$((SECONDS + duration)) n=0
deck=()
while [ $SECONDS -lt $end ]; do
  # Each once in a new order, then again.
  [ ${#deck[@]} -gt 0 ] || deck=("${actions[@]}")
  between 0 $((${#deck[@]} - 1))
  next=${deck[$drawn]}
  unset "deck[$drawn]"
  deck=("${deck[@]}")
  act $((n += 1)) "$next"
done

step "new images which write what the old ones cannot read"
[ "$VERSION" = "$tag" ] || upgraded "$tag"
upgraded_past "$tag-after"
fed
until_true "everything" everything
sleep 6 # some more pulls, which read the overlap again
counted "the end: $n steps, flowing again after $slowest s at most" whole
reconciled
here down -v >/dev/null 2>&1
step "done"
