# bocker-pull and what a machine's files say about registries: mirrors, short names, certificates, proxies.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh
# shellcheck source=tests/system/pull.sh
source "$repo/tests/system/pull.sh"

# A home and an /etc/containers of their own.
configured() {
  logins
  mkdir -p etc/certs.d etc/registries.conf.d
  mkdir -p /etc/containers && mount --bind etc /etc/containers
}

# same NAME: pulls, and the shell that a dry run prints does the same
same() {
  pulls "$1"
  is "$(bocker-pull manifest --dry-run "$1" | sh -e 2>/dev/null)" "$(cat records)" "records of $1"
  bocker-pull fetch --dry-run <records | sh -e >said.tar 2>/dev/null
  cmp image.tar said.tar || fail "$1: the shell makes another archive"
}

test_pull_from_mirrors() {
  registry
  evil
  push m/group/a:1 oci
  configured
  cat >etc/registries.conf <<EOF
[[registry]]
location = "$evil"
[[registry]]
prefix = "h.example/group"
location = "127.0.0.1:9/none"
[[registry.mirror]]
location = "127.0.0.1:5000/m/group"
[[registry]]
prefix = "fall.example"
location = "$evil"
[[registry.mirror]]
location = "127.0.0.1:9"
[[registry.mirror]]
location = "127.0.0.1:5000/empty"
[[registry]]
prefix = "both.example"
location = "127.0.0.1:9"
[[registry.mirror]]
location = "127.0.0.1:5000/empty"
[[registry]]
prefix = "pinned.example"
location = "$evil"
[[registry.mirror]]
location = "127.0.0.1:5000/m"
pull-from-mirror = "digest-only"
[[registry]]
location = "no.example/group"
blocked = true
EOF
  pulls "$evil/good"
  # The mirror has it; the registry itself is not there. The name stays what was asked for.
  pulls h.example/group/a:1
  digest=$(awk -F'\t' '$1 == "manifest" { print $3 }' records)
  is "$(head -1 records)" "image	h.example/group/a@$digest"
  pulls "h.example/group/a@$digest"
  refuses "Connection refused \(before that, its mirrors: No image named 'h.example/group/a:2' exists\)" h.example/group/a:2
  # The mirrors have it not; the registry has.
  : >requests
  pulls fall.example/good:1
  like "$(cat requests)" "GET /v2/good/manifests/1 "
  is "$(grep -c /v2/good/blobs requests)" 3
  refuses "Connection refused \(before that, its mirrors: No image named 'both.example/a:latest' exists\)" both.example/a
  refuses "No image named 'pinned.example/404:1' exists$" pinned.example/404:1
  pulls "pinned.example/group/a@$digest"
  unlike "$(cat requests)" group/a "asked the registry, not the mirror"
  refuses "pull no.example/group/a:1: /etc/containers/registries.conf blocks no.example/group$" no.example/group/a:1
  # The shell does the same.
  same h.example/group/a:1
  same fall.example/good:1
  # A user's file replaces the machine's.
  mkdir -p home/.config/containers
  touch home/.config/containers/registries.conf
  BOCKER_PULL_TIMEOUT=10 refuses "get https://h.example/v2/group/a/manifests/1: (Name or service not known|Temporary failure)" h.example/group/a:1
  rm home/.config/containers/registries.conf
  echo 'registry = [' >etc/registries.conf
  refuses "read /etc/containers/registries.conf: line 1: " "$evil/good"
  umount /etc/containers
}

test_pull_short_names() {
  registry
  push group/a:1 oci
  configured
  printf '[aliases]\na = "127.0.0.1:5000/group/a"\ncentos = "docker.io/library/centos"\n' >etc/registries.conf.d/1.conf
  pull a 1 2>err
  is "$(cat err)" "bocker-pull: a is 127.0.0.1:5000/group/a here (/etc/containers/registries.conf.d/1.conf)"
  whole image.tar a
  like "$(head -1 records)" "^image	127.0.0.1:5000/group/a@sha256:"
  echo 'unqualified-search-registries = ["127.0.0.1:5000"]' >etc/registries.conf
  pull group/a:1 2>err
  is "$(cat err)" "bocker-pull: group/a is 127.0.0.1:5000/group/a here (/etc/containers/registries.conf)"
  # Of several none is asked: docker.io stays what it is.
  echo 'unqualified-search-registries = ["127.0.0.1:5000", "h.example"]' >etc/registries.conf
  like "$(bocker-pull manifest --dry-run group/a:1)" "^base=https://registry-1.docker.io/v2/group/a$"
  like "$(bocker-pull manifest --dry-run centos:7 2>&1)" "^base=https://registry-1.docker.io/v2/library/centos$"
  umount /etc/containers
}

test_pull_certificates_and_insecure_registries() {
  evil_over_tls
  configured
  evil
  refuses "UnknownIssuer" registry.test:8443/good
  # Each tree of certificates; the authority of one host is none for another.
  local tree
  mkdir -p etc/docker home/.config/containers
  mkdir -p /etc/docker && mount --bind etc/docker /etc/docker
  for tree in etc/certs.d etc/docker/certs.d home/.config/containers/certs.d; do
    mkdir -p "$tree/registry.test:8443"
    cp ca.pem "$tree/registry.test:8443/ca.crt"
    pulls registry.test:8443/good
    refuses "UnknownIssuer" registry.test:8443/bearer-cdn
    [ "$tree" = home/.config/containers/certs.d ] || rm -r "$tree/registry.test:8443"
  done
  same registry.test:8443/good
  # Our own certificate, where the server wants one.
  : >mutual
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 8445 mutual - cert.pem key.pem ca.pem >mutual.ready &
  eventually 20 grep -qs ready mutual.ready
  mkdir etc/certs.d/registry.test:8445
  cp ca.pem etc/certs.d/registry.test:8445/ca.crt
  refuses . registry.test:8445/good
  is "$(cat mutual)" ""
  cp cert.pem etc/certs.d/registry.test:8445/me.cert
  refuses "me.cert: there is no /etc/containers/certs.d/registry.test:8445/me.key" registry.test:8445/good
  cp key.pem etc/certs.d/registry.test:8445/me.key
  same registry.test:8445/good
  echo junk >etc/certs.d/registry.test:8445/me.key
  refuses "me.cert: it and .*me.key are no pair" registry.test:8445/good
  rm -r etc/certs.d home/.config/containers/certs.d
  # Insecure: any certificate, or no TLS at all; every other registry stays as it was.
  printf '[[registry]]\nlocation = "%s"\ninsecure = true\n' registry.test:8443 registry.test:5001 >etc/registries.conf
  same registry.test:8443/good
  same registry.test:5001/good
  refuses "UnknownIssuer" cdn.test:8444/good
  # The other origin of a redirect is not insecure.
  refuses "UnknownIssuer" registry.test:8443/bearer-cdn
  # A loopback registry with TLS.
  printf '[[registry]]\nlocation = "127.0.0.1:8443"\ninsecure = false\n' >etc/registries.conf
  refuses "invalid peer certificate" 127.0.0.1:8443/good
  umount /etc/hosts /etc/containers /etc/docker
}

test_pull_through_a_proxy() {
  evil_over_tls
  logins
  export SSL_CERT_FILE=$PWD/ca.pem
  python3 "$repo/tests/connect-proxy.py" 127.0.0.1 8888 proxied >proxy.ready &
  eventually 20 grep -qs ready proxy.ready
  pulls registry.test:8443/good
  is "$(cat proxied)" ""
  for name in HTTPS_PROXY https_proxy ALL_PROXY; do
    : >proxied
    env "$name=http://127.0.0.1:8888" bocker-pull manifest registry.test:8443/good | cmp - records
    is "$(cat proxied)" "CONNECT registry.test:8443" "$name"
  done
  : >proxied
  export HTTPS_PROXY=http://127.0.0.1:8888 HTTP_PROXY=http://127.0.0.1:8888 http_proxy=http://127.0.0.1:8888
  NO_PROXY=registry.test pulls registry.test:8443/good
  NO_PROXY=.test pulls registry.test:8443/good
  # This machine is reached without.
  evil
  same "$evil/good"
  is "$(cat proxied)" ""
  export HTTPS_PROXY=http://127.0.0.1:9
  refuses "Connection refused" registry.test:8443/good
  umount /etc/hosts
}
