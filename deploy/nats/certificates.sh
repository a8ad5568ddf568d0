#!/bin/sh
# Makes the certificates of the bus: an authority, and a certificate of the nats-servers. What is there already
# stays, so that it can be run again for what is missing; remove a certificate to have it made anew, by the same
# authority. Needs openssl.
#
#   deploy/nats/certificates.sh [--clients] [FOLDER [NAME...]]
#
# FOLDER: default ./secrets. NAMEs: the names and IP addresses that the services reach the servers by, default those of
# the compose files. --clients: a certificate for each program as well. DAYS: how long they hold, default 825 (the
# authority: 3650).
set -eu
clients=
if [ "${1:-}" = --clients ]; then clients=1; shift; fi
folder=${1:-secrets}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- nats nats-2 nats-3 localhost 127.0.0.1
command -v openssl >/dev/null || { echo "certificates.sh: there is no openssl" >&2; exit 1; }
umask 077
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

if [ ! -e "$folder/nats-ca.crt" ]; then
  key "$folder/nats-ca.key"
  # The file that says what the authority may do; no use is made of the system's openssl.cnf.
  printf '[req]\ndistinguished_name=dn\nx509_extensions=ca\nprompt=no\n[dn]\nCN=Collector bus authority\n[ca]\nbasicConstraints=critical,CA:true,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n' >"$work/ca.cnf"
  openssl req -x509 -new -sha256 -key "$folder/nats-ca.key" -days 3650 -config "$work/ca.cnf" -out "$folder/nats-ca.crt"
  echo "made $folder/nats-ca.crt and nats-ca.key; keep the key away from the services"
fi

# certificate FILE NAME USAGE SUBJECT-ALTERNATIVE-NAMES
certificate() {
  if [ -e "$folder/$1.crt" ]; then return; fi
  key "$work/$1.key"
  printf '[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=%s\n' "$2" >"$work/req.cnf"
  printf 'basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\nsubjectAltName=%s\n' "$3" "$4" >"$work/ext.cnf"
  openssl req -new -sha256 -key "$work/$1.key" -config "$work/req.cnf" -out "$work/$1.csr"
  openssl x509 -req -sha256 -in "$work/$1.csr" -CA "$folder/nats-ca.crt" -CAkey "$folder/nats-ca.key" \
    -set_serial "0x$(openssl rand -hex 16)" -days "${DAYS:-825}" -extfile "$work/ext.cnf" -out "$work/$1.crt" 2>/dev/null
  mv "$work/$1.key" "$work/$1.crt" "$folder/"
  echo "made $folder/$1.crt and $1.key"
}

names=
for n in "$@"; do
  case $n in
    *[!0-9.]*) kind=DNS; case $n in *:*) kind=IP;; esac ;;
    *) kind=IP ;;
  esac
  names="${names:+$names,}$kind:$n"
done
# Both usages: the servers of a cluster are each other's clients.
certificate nats-server "$1" serverAuth,clientAuth "$names"
if [ -n "$clients" ]; then
  for program in fetcher dedup sender collector operator admin; do
    certificate "$program" "$program" clientAuth "DNS:$program"
  done
fi
# Everybody may read what is no secret; a container's user has to.
chmod 0644 "$folder"/*.crt
