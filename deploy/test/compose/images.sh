#!/usr/bin/env bash
# Stands in for the two images that the product takes from a registry, for a machine without one: golang from the Go
# toolchain that is installed here, and nats from nats-server's module. FOR TESTS ONLY: both carry the label
# test-only=true and are not what a registry holds under these names. BUILD_CACHE names the GOCACHE of an earlier
# `make build`, if there is one of its own: then the images need not compile everything again.
#
#   images.sh make FOLDER     makes those that are not there, in FOLDER, and notes their names in FOLDER/made
#   images.sh remove FOLDER   removes those
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
folder=${2:?folder}
golang=golang:1.26
nats=$(sed -n 's/^ *image: \(nats:.*\)/\1/p' "$root/docker-compose.yml")

# take FILE... copies programs and the libraries that they load into the current folder, under the same paths.
take() {
  local f
  for f in "$@"; do
    printf '%s\n' "$f"
    ldd "$f" 2>/dev/null | grep -o '/[^ ]*' || true
  done | sort -u | while read -r f; do
    mkdir -p ".$(dirname "$f")"
    cp -L "$f" ".$f"
  done
}

make_golang() {
  local goroot p
  goroot=$(go env GOROOT)
  mkdir -p golang/{tmp,root,etc/ssl/certs,bin} && cd golang
  for p in sh mkdir ln cp rm make gofmt env; do
    p=$(command -v "$p" || true)
    [ -n "$p" ] && [ -x "$p" ] && case $p in "$goroot"/*) ;; *) take "$p"; echo "$p" ;; esac
  done >programs
  # One folder on the PATH for all of them, wherever they are here.
  while read -r p; do [ -e "bin/${p##*/}" ] || ln -s "$p" "bin/${p##*/}"; done <programs
  cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" etc/ssl/certs/ca-certificates.crt
  # Modules that are here already need not come over the network again.
  local modules
  modules=$(go env GOMODCACHE)
  mkdir -p "$modules/cache/download"
  # What `make build` has compiled here need not be compiled again: the flags are the same.
  local cache=${BUILD_CACHE:-}
  [ -n "$cache" ] || { cache=${PWD%/*}/build-cache && mkdir "$cache"; } # beside what is taken as it is: no path twice
  # Straight into the engine, without copies and without what no build reads.
  local go=${goroot##*/}
  tar -cf - --exclude=testdata --exclude='*_test.go' --anchored --exclude="$go/test" --exclude="$go/api" --exclude="$go/doc" --exclude="$go/src/cmd" \
    --transform "s,^$go/,usr/local/go/,S" --transform 's,^cache/download/,go/pkg/mod/cache/download/,S' \
    --transform "s,^$(basename "$cache")/,root/.cache/go-build/,S" \
    . -C "$(dirname "$cache")" "$(basename "$cache")/" -C "$(dirname "$goroot")" "$go/" -C "$modules" cache/download/ |
    docker import -c "LABEL test-only=true" -c "ENV PATH=/usr/local/go/bin:/bin HOME=/root GOPATH=/go GOTOOLCHAIN=local CGO_ENABLED=0" - "$golang" >/dev/null
}

make_nats() {
  mkdir -p nats/{bin,data,etc/nats} && cd nats
  # With the flags of `make build`: what that has compiled is taken.
  (cd "$root/pkg" && GOCACHE=${BUILD_CACHE:-$(go env GOCACHE)} CGO_ENABLED=0 go build -trimpath -pgo "$root/services/collector/cmd/bench/programs.pprof" -o "$OLDPWD/bin/nats-server" github.com/nats-io/nats-server/v2)
  # The image in the registry has busybox, for health checks.
  CGO_ENABLED=0 go build -o bin/nc "$root/deploy/test/compose/nc.go"
  local p
  for p in sh timeout dd rm sleep tail; do
    p=$(readlink -f "$(command -v "$p")")
    take "$p"
    [ -e "bin/${p##*/}" ] || ln -s "$p" "bin/${p##*/}"
  done
  [ -e bin/sh ] || ln -s "$(readlink -f "$(command -v sh)")" bin/sh
  tar -cf - * | docker import -c "LABEL test-only=true" -c "ENV PATH=/bin" -c 'CMD ["nats-server"]' - "$nats" >/dev/null
}

case $1 in
make)
  mkdir -p "$folder"
  for image in golang nats; do
    name=${!image}
    docker image inspect "$name" >/dev/null 2>&1 && continue
    echo "$name" >>"$folder/made"
    (cd "$folder" && "make_$image")
    echo "made $name, for tests only"
  done
  ;;
remove)
  # What builds from these left behind carries their label.
  [ ! -e "$folder/made" ] || docker images -q --filter dangling=true --filter label=test-only=true | sort -u | xargs -r docker rmi -f >/dev/null 2>&1 || true
  [ ! -e "$folder/made" ] || while read -r name; do docker rmi -f "$name" >/dev/null 2>&1 || true; done <"$folder/made"
  ;;
*) exit 2 ;;
esac
