# Everything in one container: deploy/compose/embedded.yml, and `docker run` in place of the known collector's image.
# Sourced by run.sh.

files=(-f "$root/deploy/compose/embedded.yml")
quick collector

step "one container: first up with nothing but a configuration"
simulate "$work/one"
configure "$work/one" 65532
export TZ=Asia/Tokyo
here up -d >/dev/null 2>&1 || fail "up"
until_true "alerts" arrived 100
until_true "the collector to be healthy" healthy collector
hardened collector
line=$(docker logs "$(container collector)" 2>&1 | grep -o '^20[0-9-]*.[0-9:]*' | tail -1)
ahead=$((($(date -ud "${line/T/ }" +%s) - $(date -u +%s) + 1800) / 3600))
echo "log lines with TZ=$TZ are $ahead h ahead of UTC: $line"
[ "$ahead" = 9 ] || fail "TZ has no effect"
exact

step "one container: down, alerts meanwhile, up"
here down >/dev/null 2>&1
add 500
here up -d >/dev/null 2>&1
until_true "what came meanwhile" arrived 600
sleep 12 # one more pull, which reads the overlap again
exact
here down -v >/dev/null 2>&1

step "one container: root's files and root's ./state, as the known collector's image left them"
simulate "$work/two"
configure "$work/two" 0:0
mkdir "$work/state" && chmod 0700 "$work/state"
export STATE=./state
here up -d >/dev/null 2>&1
end=$((SECONDS + 240))
until arrived 100; do
  [ $SECONDS -lt $end ] || fail "gave up waiting for the alerts"
  mend_named < <(docker logs "$(container collector)" 2>&1)
  sleep 0.5
done
[ "$(stat -c %u "$work/state")" = 65532 ] || fail "nothing said whose the state must be"
exact

step "one container: as the owner of the files instead"
here down >/dev/null 2>&1
chown -R 0:0 "$work/config" "$work/certs" "$work/state"
add 100
COLLECTOR_USER=0:0 here up -d >/dev/null 2>&1
until_true "alerts" arrived 200
echo "user $(docker inspect -f '{{.Config.User}}' "$(container collector)")"
exact
here down >/dev/null 2>&1

step "one container: docker run, with the known image's folders"
simulate "$work/three"
configure "$work/three" 65532
rm -rf "$work/state" && mkdir -p "$work/state" && chmod 0700 "$work/state"
one() {
  docker run -d --name "one-$tag" --read-only --cap-drop ALL --security-opt no-new-privileges -v "$work/certs:/devo-collector/certs" \
    -v "$work/config:/devo-collector/config" -v "$work/credentials:/devo-collector/credentials" -v "$work/state:/devo-collector/state" \
    -e CONFIG_FILE=config.yaml "defender-iot-collector/collector:$tag" >/dev/null
}
one
[ "$(timeout 60 docker wait "one-$tag")" = 1 ] || fail "it ran on a state folder that it may not enter"
docker logs "one-$tag" 2>&1 | tail -2 | cut -c1-300
mend "$(docker logs "one-$tag" 2>&1 | hinted)"
docker rm "one-$tag" >/dev/null
one
until_true "alerts" arrived 100
docker stop -t 30 "one-$tag" >/dev/null
[ "$(docker inspect -f '{{.State.ExitCode}}' "one-$tag")" = 0 ] || fail "its stop was no orderly one"
add 500
docker start "one-$tag" >/dev/null
until_true "alerts after the stop" arrived 600
exact
