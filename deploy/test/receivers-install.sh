#!/bin/sh
# Puts rsyslog and syslog-ng, as Debian packages them, into a folder of their own for the receiver tests:
#
#   deploy/test/receivers-install.sh [FOLDER]        default: bin/receivers
#
# The packages are unpacked, not installed: the two exclude each other as packages, and installing either
# would make it the machine's logger. What is there already is left alone. Root is needed only where apt
# has no package lists yet.
set -eu

folder=${1:-bin/receivers}

fail() {
	echo "receivers-install: $*" >&2
	exit 1
}

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
	fail "needs apt-get and dpkg-deb: run it on Debian, or in a container of it"

# unpack NAME PACKAGE...: the packages and the libraries that this machine lacks, into FOLDER/NAME.
unpack() {
	name=$1
	shift
	into=$folder/$name
	if [ -e "$into/complete" ]; then
		echo "receivers-install: $name is there: $(cat "$into/complete")"
		return
	fi
	for p in "$@"; do
		if [ -z "$(apt-cache madison "$p")" ]; then
			[ "$(id -u)" = 0 ] || fail "apt knows no package $p: run apt-get update as root first"
			apt-get update -qq
			break
		fi
	done
	# Only asked, not done: the list says what would be installed beside what is there.
	missing=$(apt-get install -s --no-install-recommends --reinstall "$@" | awk '$1 == "Inst" {print $2}')
	[ -n "$missing" ] || fail "apt-get offers nothing for $*"
	rm -rf "$into"
	mkdir -p "$into/packages" "$into/root"
	# shellcheck disable=SC2086 # a list of names
	(cd "$into/packages" && apt-get download -qq -o APT::Sandbox::User=root $missing)
	for p in "$into"/packages/*.deb; do
		dpkg-deb -x "$p" "$into/root"
	done
	(cd "$into/packages" && for p in "$1"_*.deb; do dpkg-deb -f "$p" Version; done) >"$into/version"
	rm -rf "$into/packages"
	mv "$into/version" "$into/complete"
	echo "receivers-install: $name $(cat "$into/complete") is in $into"
}

unpack rsyslog rsyslog rsyslog-gnutls rsyslog-openssl
unpack syslog-ng syslog-ng-core
