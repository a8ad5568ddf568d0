# What a team does with its installation, and what happens to it: a user for each service and TLS on the bus. Sourced by
# team.sh and soak.sh. The version that runs is in VERSION, the number of senders in `senders`.

files+=(-f "$root/deploy/compose/secure.yml")
operator() { here run --rm operator "$@" 2>"$work/operator.err"; }
quick nats fetcher dedup sender
senders=1
replayed=0 # what replays have sent on purpose, and may have sent twice

# counted WHAT: nothing that came twice is uncounted; with `whole` behind it, nothing is missing either.
counted() {
  local seen resent
  # In this order: what is counted as possibly resent is so before it is sent.
  seen=$(stats)
  resent=$(operator status --json | jq '[.outputs[].resent] | add') || { cat "$work/operator.err"; fail "the operator's status"; }
  printf '%s: %s, possibly resent %s, replayed %s\n' "$1" "$(jq -r '"\(.devo.unique + .missing) made, \(.devo.unique) arrived, \(.missing) missing, \(.devo.duplicates) repeats"' <<<"$seen")" "$resent" "$replayed"
  [ "$(jq ".devo.duplicates <= $resent + $replayed" <<<"$seen")" = true ] || fail "an alert came twice uncounted"
  [ "${2:-}" != whole ] || [ "$(jq .missing <<<"$seen")" = 0 ] || fail "an alert is missing"
}

up() { here up -d --scale "sender=$senders" >"$work/up.log" 2>&1 || { tail -5 "$work/up.log"; fail "up"; }; }
# secured makes passwords and certificates, and starts everything.
secured() {
  mkdir "$work/secrets" && chown 65532 "$work/secrets"
  docker run --rm -v "$work/secrets:/secrets" "defender-iot-collector/collector:$tag" nats-config --passwords /secrets >/dev/null || fail "the passwords"
  "$root/deploy/nats/certificates.sh" "$work/secrets" >/dev/null
  up
}
scaled() {
  senders=$1
  up
  until_true "$senders senders" answering "$senders"
}
# replay OPTION... sends a window again, to its end.
replay() {
  operator replay --by stored "$@" >"$work/replay" || { cat "$work/replay" "$work/operator.err"; fail "replay"; }
  tail -1 "$work/replay"
  local figures
  figures=$(sed -n 's/.* confirmed \([0-9]*\) of \([0-9]*\), possibly resent \([0-9]*\).*/\1 \2 \3/p' "$work/replay" | tail -1)
  read -r confirmed selected again <<<"$figures"
  [ "$confirmed" = "$selected" ] || fail "the replay is not whole"
  replayed=$((replayed + selected + again))
}
# another VERSION [TAGS] makes the images of another version, with programs that are built here.
another() {
  local i
  # With the cache of an earlier build, as images.sh.
  (cd "$root" && GOCACHE=${BUILD_CACHE:-$(go env GOCACHE)} make -s build BIN="$work/$1" VERSION="$1" TAGS="${2:-}" >/dev/null)
  for i in collector fetcher dedup sender; do
    mkdir "$work/$1/$i.image" && mv "$work/$1/$i" "$work/$1/$i.image/"
    printf 'FROM defender-iot-collector/%s:%s\nCOPY %s /bin/\n' "$i" "$tag" "$i" >"$work/$1/$i.image/Dockerfile"
    docker build -q -t "defender-iot-collector/$i:$1" "$work/$1/$i.image" >/dev/null
  done
  rm -rf "${work:?}/$1"
}
# upgraded VERSION replaces all programs that are of another version.
upgraded() {
  export VERSION=$1
  local sender
  up
  for sender in $(container sender); do
    [[ "$(docker inspect -f '{{.Config.Image}}' "$sender")" == *:"$1" ]] || fail "a sender is still of another version"
    docker exec "$sender" sender --version
  done
}
# upgraded_past VERSION does so with programs whose envelopes the present ones cannot read: the fetcher first, so that the
# others must say what they wait for.
upgraded_past() {
  VERSION=$1 here up -d --no-deps fetcher >"$work/up.log" 2>&1 || { tail -5 "$work/up.log"; fail "up with a new fetcher"; }
  until_true "dedup to say that it is too old" said dedup "reading alerts of a newer version"
  here logs --no-color dedup | grep "reading alerts of a newer version" | cut -c1-250
  upgraded "$1"
}
# down_and_up COMMAND... does that between the two.
down_and_up() {
  here down >/dev/null 2>&1
  "$@"
  up
}
reconciled() {
  operator reconcile --from 2000-01-01 --to 2100-01-01 >"$work/reconcile" || { cat "$work/reconcile" "$work/operator.err"; fail "reconcile"; }
  cat "$work/reconcile"
}
