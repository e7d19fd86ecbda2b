#!/bin/sh
# Makes the keys and certificates of the tests anew, good for a hundred years: sh tests/tls/make.sh, in any directory.
# Nothing outside of the tests trusts this authority, and its own key is thrown away.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

# sign NAME SUBJECT EXTENSIONS [END]: a certificate of the authority in the working directory of this script.
sign() {
  key "$1-key.pem"
  openssl req -new -key "$1-key.pem" -subj "$2" -out "$work/$1.csr"
  printf '%s\n' "$3" > "$work/$1.ext"
  openssl ca -batch -config "$work/ca.cnf" -in "$work/$1.csr" -out "$work/$1.full" -extfile "$work/$1.ext" ${4:+-enddate "$4"} 2>/dev/null
  openssl x509 -in "$work/$1.full" -out "$1.pem"
}

authority() {
  key "$work/ca-key.pem"
  : > "$work/index.txt"
  echo 1000 > "$work/serial"
  echo 1000 > "$work/crlnumber"
  cat > "$work/ca.cnf" <<CNF
[ca]
default_ca = it
[it]
database = $work/index.txt
serial = $work/serial
crlnumber = $work/crlnumber
new_certs_dir = $work
certificate = $(pwd)/$2
private_key = $work/ca-key.pem
default_md = sha256
default_startdate = 20200101000000Z
default_enddate = 21200101000000Z
policy = any
unique_subject = no
email_in_dn = no
[any]
commonName = optional
organizationName = optional
organizationalUnitName = optional
CNF
  printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n' > "$work/ca.ext"
  openssl req -new -key "$work/ca-key.pem" -subj "/CN=$1" -out "$work/ca.csr"
  openssl ca -batch -selfsign -config "$work/ca.cnf" -keyfile "$work/ca-key.pem" -in "$work/ca.csr" -out "$work/ca.full" \
    -extfile "$work/ca.ext" 2>/dev/null
  openssl x509 -in "$work/ca.full" -out "$2"
}

serving="basicConstraints=CA:FALSE
extendedKeyUsage=serverAuth
subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"
calling="basicConstraints=CA:FALSE
extendedKeyUsage=clientAuth"

authority "gitamp test authority" ca.pem
sign server "/CN=server" "$serving"
sign renewed "/CN=renewed" "$serving"
sign client "/O=shop/OU=edge/CN=gw-1" "$calling
subjectAltName=URI:spiffe://example.org/ns/shop/sa/gateway,DNS:gw-1.example.org,DNS:gw-1,email:team@example.org,IP:192.0.2.7"
sign other "/CN=gw-2" "$calling
subjectAltName=DNS:gw-2.example.org"
sign ended "/CN=late" "$calling" 20210101000000Z
sign revoked "/CN=gone" "$calling"
sign again "/CN=gone" "$calling"

# list NAME END: of what is revoked so far.
list() { openssl ca -config "$work/ca.cnf" -gencrl -crl_lastupdate 20200101000000Z -crl_nextupdate "$2" -out "$1" 2>/dev/null; }

list empty.crl 21200101000000Z
openssl ca -config "$work/ca.cnf" -revoke revoked.pem 2>/dev/null
list revoked.crl 21200101000000Z
list stale.crl 20210101000000Z
authority "somebody else's authority" foreign-ca.pem
sign foreign "/CN=gw-1" "$calling"
