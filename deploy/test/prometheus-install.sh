#!/bin/sh
# Puts Debian's prometheus and promtool into a folder, for `make rules-test`:
#
#   deploy/test/prometheus-install.sh [FOLDER]        default: bin/prometheus
#
# Unpacked, not installed. The programs need libc alone, so the package's other dependencies (its old web pages) are
# left out. What is there already is left alone. Root is needed only where apt has no package lists yet.
set -eu

folder=${1:-bin/prometheus}

fail() {
	echo "prometheus-install: $*" >&2
	exit 1
}

[ ! -e "$folder/complete" ] || exit 0
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
	fail "needs apt-get and dpkg-deb: run it on Debian, or in a container of it"
if [ -z "$(apt-cache madison prometheus)" ]; then
	[ "$(id -u)" = 0 ] || fail "apt knows no package prometheus: run apt-get update as root first"
	apt-get update -qq
fi
rm -rf "$folder"
mkdir -p "$folder/package"
(cd "$folder/package" && apt-get download -qq -o APT::Sandbox::User=root prometheus)
dpkg-deb -x "$folder"/package/*.deb "$folder/package/root"
mv "$folder/package/root/usr/bin/prometheus" "$folder/package/root/usr/bin/promtool" "$folder/"
dpkg-deb -f "$folder"/package/*.deb Version >"$folder/package/version"
mv "$folder/package/version" "$folder/complete"
rm -rf "$folder/package"
echo "prometheus-install: prometheus $(cat "$folder/complete") is in $folder"
