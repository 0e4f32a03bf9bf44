# bocker-pull: against Debian's docker-registry, and against one that misbehaves.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh

listens() { (exec 3<>"/dev/tcp/${1%:*}/${1#*:}") 2>/dev/null; }

# A real registry on 127.0.0.1:5000.
registry() {
  mkdir -p registry
  cat > registry.yml <<EOF
version: 0.1
log: { level: error, accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: $HOST_DIR/registry } }
http: { addr: 127.0.0.1:5000 }
EOF
  docker-registry serve registry.yml >registry.log 2>&1 &
  eventually 20 listens 127.0.0.1:5000
}

# push NAME:TAG FORMAT: an image of three layers, made on the spot
push() {
  [ -d layout ] || {
    umoci init --layout layout
    umoci new --image layout:image
    mkdir -p one two
    echo one > one/file
    head -c 5000000 /dev/urandom > two/big
    umoci insert --image layout:image one /one
    umoci insert --image layout:image two /two
    umoci insert --image layout:image --whiteout /one/file
    umoci config --image layout:image --config.cmd /bin/sh --architecture amd64
  }
  skopeo copy -q --insecure-policy --dest-tls-verify=false --format "$2" oci:layout:image "docker://127.0.0.1:5000/$1"
}

# The misbehaving one on $evil; requests go to the file `requests`.
evil=127.0.0.1:5001
evil() {
  : > requests
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 5001 requests 127.0.0.1:5002 >evil.ready &
  eventually 20 grep -qs ready evil.ready
  # What it must not be able to send us to: says ready, and logs whatever comes.
  : > foreign
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 5002 foreign >other.ready &
  eventually 20 grep -qs ready other.ready
}

pull() { bocker-pull manifest "$@" >records && bocker-pull fetch <records >image.tar; }

# pulls NAME...: works, and the result is whole
pulls() {
  pull "$@" 2>err || fail "pull $*: $(cat err)"
  is "$(cat err)" "" "stderr of pull $*"
  whole image.tar "$*"
}
whole() {
  local name
  is "$(tar tf "$1" | tail -1)" index.json "last entry ($2)"
  rm -rf unpacked && mkdir unpacked && tar xf "$1" -C unpacked
  for name in unpacked/blobs/sha256/*; do is "$(sha256sum < "$name")" "${name##*/}  -" "digest ($2)"; done
}

# refuses PATTERN NAME...: manifest or fetch fails with one line and status 1, and nothing complete comes out
refuses() {
  local pattern=$1 status=0
  shift
  pull "$@" 2>err || status=$?
  is "$status" 1 "status of pull $* ($(cat err))"
  is "$(wc -l < err)" 1 "lines on stderr of pull $*: $(cat err)"
  like "$(cat err)" "^bocker-pull: .*$pattern" "stderr of pull $*"
  if [ -s records ]; then unlike "$(tar tf image.tar 2>/dev/null || true)" index.json "pull $*"; fi
  # The same as a pipeline: still one line, and its end is marked.
  set +o pipefail
  bocker-pull manifest "$@" 2>err | bocker-pull fetch 2>>err | cat >image.tar
  set -o pipefail
  is "$(wc -l < err)" 1 "lines on stderr of the pipeline for $*: $(cat err)"
  is "$(tar tf image.tar | tail -1)" failed "last entry of the pipeline for $*"
}

test_pull_from_a_real_registry() {
  registry
  for format in oci v2s2; do
    push "group/$format:7" "$format"
    pulls "127.0.0.1:5000/group/$format" 7
    pulls "localhost:5000/group/$format:7"
    pulls "127.0.0.1:5000/group/$format@$(awk -F'\t' '$1 == "manifest" { print $3 }' records)"
    # What skopeo says is there is what we have.
    is "$(skopeo inspect --raw --tls-verify=false "docker://127.0.0.1:5000/group/$format:7" | sha256sum)" \
      "$(bocker-pull manifest --raw "127.0.0.1:5000/group/$format:7" | sha256sum)"
    is "$(skopeo inspect --insecure-policy oci-archive:image.tar | jq -c .Layers)" \
      "$(skopeo inspect --tls-verify=false "docker://127.0.0.1:5000/group/$format:7" | jq -c .Layers)"
    rm -rf copy && skopeo copy -q --insecure-policy oci-archive:image.tar dir:copy
    is "$(jq -S . copy/manifest.json | sha256sum)" "$(bocker-pull manifest --raw "127.0.0.1:5000/group/$format:7" | jq -S . | sha256sum)"
    is "$(bocker-pull manifest "127.0.0.1:5000/group/$format:7" | awk -F'\t' '$1 == "layer" { s += $4 } END { print s }')" \
      "$(jq '[.layers[].size] | add' copy/manifest.json)"
  done
  rm -rf oci && skopeo copy -q --insecure-policy oci-archive:image.tar oci:oci:image && umoci unpack --rootless --image oci:image bundle
  is "$(sha256sum < bundle/rootfs/two/big)" "$(sha256sum < two/big)"
  # Layers in zstd pass as they are.
  skopeo copy -q --insecure-policy --dest-decompress oci:layout:image dir:plain
  skopeo copy -q --insecure-policy --dest-compress --dest-compress-format zstd dir:plain dir:packed
  # Without what skopeo remembers of earlier copies: it would send the gzipped ones instead.
  mount -t tmpfs cache /var/lib/containers
  skopeo copy -q --insecure-policy --dest-tls-verify=false dir:packed docker://127.0.0.1:5000/group/zstd:7
  pulls 127.0.0.1:5000/group/zstd:7
  is "$(awk -F'\t' '$1 == "layer" { print $2 }' records | sort -u)" application/vnd.oci.image.layer.v1.tar+zstd
  layer() { awk -F'\t' -v word="$1" '$1 == word { print substr($3, 8) }' records; }
  for layer in $(layer layer); do zstd -dc "unpacked/blobs/sha256/$layer" | sha256sum | sed 's/^/sha256:/; s/ .*//'; done >diffs
  is "$(cat diffs)" "$(jq -r '.rootfs.diff_ids[]' "unpacked/blobs/sha256/$(layer config)")"
  # The same registry's noes.
  refuses "No image named '127.0.0.1:5000/group/oci:8' exists$" 127.0.0.1:5000/group/oci 8
  refuses "No image named '127.0.0.1:5000/none:latest' exists$" 127.0.0.1:5000/none
  rm "$(find registry -path "*$(jq -r '.layers[1].digest' copy/manifest.json | cut -d: -f2)/data")"
  refuses "404 Not Found: blob unknown" 127.0.0.1:5000/group/v2s2:7
}

test_pull_says_the_shell_that_does_the_same() {
  registry
  evil
  push demo:1 oci
  for name in 127.0.0.1:5000/demo:1 "$evil/bearer:1" "$evil/index:1" "$evil/good/2" "$evil/redirect"; do
    bocker-pull manifest "$name" >records
    is "$(bocker-pull manifest --dry-run "$name" | sh -e)" "$(cat records)" "records of $name"
    bocker-pull fetch <records >image.tar
    bocker-pull fetch --dry-run <records | sh -e >said.tar
    cmp image.tar said.tar || fail "$name: the shell makes another archive"
  done
  bocker-pull manifest --explain "$name" >again 2>err
  cmp records again
  like "$(cat err)" '^curl .*/manifests/latest' "--explain"
  is "$(bocker-pull fetch --explain <records 2>err | sha256sum)" "$(sha256sum < image.tar)"
  like "$(cat err)" '^curl .*/blobs/sha256' "--explain"
  # A dry run asks nobody.
  : > requests
  bocker-pull manifest --dry-run "$evil/good" >/dev/null
  bocker-pull fetch --dry-run <records >/dev/null
  is "$(cat requests)" "" "requests of a dry run"
}

test_pull_names_that_make_no_sense() {
  evil
  long=$(printf 'a%.0s' {1..10000})
  for name in "" . .. ../x a/../b Centos 'a b' $'a\nb' a%2fb "$long" 'a:' 'a:-x' "a:$long" a@sha256:00 host:99999/a 256.1.1.1/a https://a/b; do
    fails 2 "is not an image name: " bocker-pull_to_file "$name"
    case $name in 256*) ;; *) fails 2 "is not an image name: " bocker-pull_to_file "$evil/$name" ;; esac
  done
  fails 2 "unexpected argument '-x'" bocker-pull_to_file -x
  fails 2 "given twice" bocker-pull_to_file "$evil/good:1" 2
  fails 2 "not a platform" bocker-pull_to_file --platform amd64 "$evil/good"
  fails 2 "not provided" bocker-pull_to_file
  is "$(cat requests)" "" "requests for bad names"
  pulls "$evil/good" 7
  is "$(bocker-pull manifest '' 2>/dev/null || true)" failed "the mark of a failure"
  # shellcheck disable=SC2119
  is "$(bocker-pull fetch </dev/null 2>err | tar t)" failed
  is "$(cat err)" "bocker-pull: read records: they end before 'end' (bocker-pull manifest NAME makes them)"
}
# fails wants silence on stdout, and a pipe would get the mark.
bocker-pull_to_file() { bocker-pull manifest "$@" >refused; }

test_pull_index_and_platform() {
  evil
  digest() { awk -F'\t' '$1 == "manifest" { print $3 }' records; }
  pulls "$evil/good"
  good=$(digest)
  pulls --platform linux/amd64 "$evil/index"
  is "$(digest)" "$good"
  # An artifact without a platform is not the image for all.
  pulls --platform linux/amd64 "$evil/signed"
  is "$(digest)" "$good"
  pulls --platform linux/arm64 "$evil/index"
  pulls --platform linux/amd64 "$evil/nested"
  is "$(digest)" "$good"
  refuses "no image for linux/arm64, only for linux/amd64 \(choose one with --platform\)" --platform linux/arm64 "$evil/nested"
}

test_pull_refuses_what_is_no_image() {
  evil
  pulls "$evil/docker"
  refuses "it has no image for linux/[a-z0-9]*, only for linux/s390x \(choose one with --platform\)" "$evil/no-platform"
  refuses "schema 1" "$evil/schema1"
  refuses "not a container image but holds application/vnd.cncf.helm.config" "$evil/chart"
  refuses "not a container image but holds text/x-recipe" "$evil/artifact"
  refuses "what would be a layer is application/vnd.in-toto\\+json" "$evil/attestation"
  refuses "only sha256 digests are known here" "$evil/sha512"
  refuses "both an index and a manifest" "$evil/both"
  refuses "names 2 layers, the manifest 1" "$evil/fewer-layers"
  refuses "media type is not of the form" "$evil/record-in-type"
  refuses "it is text/html, not a manifest" "$evil/html"
  refuses "it is text/html, not a manifest" "$evil/html@sha256:$(printf 'a%.0s' {1..64})"
  refuses "not a manifest" "$evil/encoded"
}

test_pull_status_codes() {
  evil
  pulls "$evil/good"
  refuses "401 Unauthorized: no \(no such image, or it needs a login\)" "$evil/401"
  refuses "401 Unauthorized: who\? " "$evil/basic"
  refuses "403 Forbidden: no " "$evil/403"
  refuses "No image named '$evil/404:latest' exists$" "$evil/404"
  refuses "404 Not Found: blob unknown" "$evil/blob-404"
  refuses "418 I'm a teapot: no" "$evil/418"
  refuses "429 Too Many Requests: slow down \(try again in 3600 s\)" "$evil/429-long"
  refuses "500 Internal Server Error: no" "$evil/500"
  # A hostile message reaches no terminal as it is.
  refuses 'u\{1b\}' "$evil/escape"
  unlike "$(tr -d '\n' < err)" '[[:cntrl:]]'
  # These pass after a while; nothing is said about it.
  : > requests
  pulls "$evil/429"
  pulls "$evil/503-twice"
  is "$(grep -c /503-twice/manifests/latest requests)" 3
  pulls "$evil/reset-once"
  refuses "." "$evil/reset"
}

test_pull_integrity() {
  evil
  pulls "$evil/good"
  manifest=$(awk -F'\t' '$1 == "manifest" { print $3 }' records)
  pulls "$evil/good@$manifest"
  pulls "$evil/good/2"
  is "$(tar tf image.tar | sort | uniq -d | wc -l)" 1 "an image with the same layer twice has it twice"
  is "$(skopeo inspect --insecure-policy oci-archive:image.tar | jq '.Layers | length')" 2
  rm -rf copy && skopeo copy -q --insecure-policy oci-archive:image.tar dir:copy
  refuses "what came is sha256:[0-9a-f]*, not $manifest" "$evil/wrong-manifest@$manifest"
  refuses "which its header promises" "$evil/lying-header"
  refuses "what came is sha256:" "$evil/wrong-entry"
  refuses "it has [0-9]* bytes, not " "$evil/wrong-entry-size"
  refuses "what came is sha256:" "$evil/wrong-config"
  refuses "what came is sha256:" "$evil/wrong-digest"
  refuses "bytes or more, where the manifest says" "$evil/too-long"
  refuses "it ends after [0-9]* of [0-9]* bytes" "$evil/too-short"
  refuses "bytes are announced" "$evil/announced-long"
  refuses "bytes are announced" "$evil/announced-short"
  refuses "bytes or more, where the manifest says" "$evil/endless-blob"
  refuses "it ends after [0-9]* of 300282 bytes: " "$evil/truncated"
  # Records that somebody changed on the way.
  bocker-pull manifest "$evil/good" >records
  # shellcheck disable=SC2016 # sed's own $
  for change in '/^layer/d' 's/^image\t.*/image\tlocalhost\/x@sha256:'"$(printf 'a%.0s' {1..64})/" 's/^config\t.*//' '$d'; do
    sed "$change" records >changed
    fails 1 "read records: " sh -c 'bocker-pull fetch <changed >out.tar && cat out.tar'
  done
  sed 's/^end$/failed/' records >changed
  status=0
  bocker-pull fetch <changed >out.tar 2>err || status=$?
  is "$status:$(cat err):$(cat out.tar)" 1:: "silence after a failure before"
}

test_pull_resumes_a_broken_blob() {
  evil
  pulls "$evil/good"
  cp image.tar good.tar
  for name in broken-twice broken-no-ranges; do
    pulls "$evil/$name"
    is "$(tar xOf image.tar --wildcards 'blobs/*' | sha256sum)" "$(tar xOf good.tar --wildcards 'blobs/*' | sha256sum)" "$name"
  done
  is "$(grep -c '/broken-twice/.*range=bytes=[1-9]' requests)" 2 "closed ranges"
  refuses "another range" "$evil/broken-wrong-range"
  refuses "what came is" "$evil/broken-other"
}

test_pull_waits_only_so_long() {
  evil
  export BOCKER_PULL_TIMEOUT=2
  pulls "$evil/good"
  refuses "Connection refused$" 127.0.0.1:9/x
  refuses "(Name or service not known|Temporary failure in name resolution)$" no-such-host.invalid/x
  started=$SECONDS
  refuses "no answer for 2 s$" "$evil/slow"
  refuses "no answer for 2 s$" "$evil/slow-body"
  refuses "the registry is too slow$" "$evil/drip"
  # Packets to nowhere.
  ip link add nowhere type veth peer name end
  ip addr add 10.9.9.1/24 dev nowhere
  ip link set nowhere up
  ip link set end up
  ip neigh add 10.9.9.2 lladdr 02:00:00:00:00:02 dev nowhere nud permanent
  refuses "no connection within 1 s$" 10.9.9.2/x
  [ $((SECONDS - started)) -lt 40 ] || fail "that took $((SECONDS - started)) s"
}

test_pull_takes_only_so_much() {
  evil
  pulls "$evil/good"
  for name in endless announced-endless token-endless endless-blob endless-error; do
    status=0
    pull_measured "$evil/$name" || status=$?
    is "$status" 1 "status of $name"
    is "$(wc -l < err)" 1 "stderr of $name: $(cat err)"
    [ "$(cat peak)" -lt 65536 ] || fail "$name took $(cat peak) KiB"
  done
  like "$(cat err)" "403 Forbidden"
}
# The largest resident size of either, in KiB, in the file `peak`.
pull_measured() {
  python3 - "$1" 2>err <<'EOF'
import resource, subprocess, sys
status = 0
with open("records", "wb") as out:
    status = subprocess.run(["bocker-pull", "manifest", sys.argv[1]], stdout=out).returncode
if status == 0:
    with open("records", "rb") as records, open("image.tar", "wb") as out:
        status = subprocess.run(["bocker-pull", "fetch"], stdin=records, stdout=out).returncode
open("peak", "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(status)
EOF
}

test_pull_tokens() {
  evil
  pulls "$evil/bearer"
  like "$(cat requests)" 'GET /v2/bearer/blobs/.* auth=Bearer secret-bearer '
  like "$(cat requests)" '^GET /token/bearer\?a=b&service=evil&scope=repository%3Abearer%3Apull auth=- ' "our own scope"
  pulls "$evil/expires"
  refuses "403 Forbidden: denied" "$evil/token-denied"
  refuses "does not answer with a token" "$evil/token-junk"
  refuses "answers 404" "$evil/token-404"
  refuses "token server 'http://127.0.0.1:5002/token/x' is refused" "$evil/bearer-foreign"
  refuses "token server 'file:///etc/passwd' is refused" "$evil/bearer-file"
  is "$(cat foreign)" "" "requests to the foreign port"
  # The foreign port does answer whoever asks.
  curl -s http://127.0.0.1:5002/token/x >/dev/null
  like "$(cat foreign)" "GET /token/x"
}

test_pull_redirects() {
  evil
  pulls "$evil/redirect"
  like "$(cat requests)" "GET /cdn/sha256"
  refuses "redirects more than 10 times" "$evil/redirect-loop"
  refuses "redirect to http://10.0.0.1/x is refused: it is not https" "$evil/redirect-private"
  refuses "redirect to https://169.254.169.254/latest is refused: it is an address inside" "$evil/redirect-metadata"
  refuses "redirect to http://127.0.0.1:5002/x is refused" "$evil/redirect-loopback"
  refuses "redirect to https://127.0.0.1:9/x is refused" "$evil/redirect-literal"
  refuses "redirect to file:///etc/passwd is refused" "$evil/redirect-file"
  is "$(cat foreign)" "" "requests to the foreign port"
}

test_pull_over_tls() {
  # Names that are not loopback to the tool, and a certificate authority of their own.
  printf '127.0.0.1 localhost registry.test cdn.test\n' > hosts
  mount --bind hosts /etc/hosts
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=ca \
    -addext basicConstraints=critical,CA:TRUE 2>/dev/null
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out request.pem -subj /CN=registry.test 2>/dev/null
  printf 'subjectAltName=DNS:registry.test,DNS:cdn.test\n' > extensions
  openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out cert.pem 2>/dev/null
  : > requests
  : > cdn
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 8443 requests cdn.test:8444 cert.pem key.pem >registry.ready &
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 8444 cdn - cert.pem key.pem >cdn.ready &
  eventually 20 grep -qs ready registry.ready
  eventually 20 grep -qs ready cdn.ready

  SSL_CERT_FILE=$PWD/ca.pem pulls registry.test:8443/good
  # Without the authority: refused, and not tried over plain HTTP.
  refuses "invalid peer certificate: UnknownIssuer" registry.test:8443/good
  export SSL_CERT_FILE=$PWD/ca.pem
  pulls registry.test:8443/bearer-cdn
  is "$(grep -c 'auth=Bearer secret-bearer-cdn' requests)" 4 "manifest and three blobs"
  like "$(cat cdn)" '^GET /cdn/sha256'
  unlike "$(cat cdn)" 'auth=[^-]' "the token went elsewhere"
  refuses "is refused: it is not https" registry.test:8443/redirect-private
  refuses "is refused: it is an address inside" registry.test:8443/redirect-metadata
  refuses "is refused: it is not https" registry.test:8443/redirect-loopback
  refuses "is refused: it is an address inside" registry.test:8443/redirect-literal
  refuses "is refused: it is not https" registry.test:8443/bearer-foreign
  umount /etc/hosts
}

test_pull_manners() {
  evil
  # A closed pipe ends it in silence.
  set +o pipefail
  is "$(bocker-pull manifest "$evil/good" 2>err | true)" ""
  bocker-pull manifest "$evil/good" | bocker-pull fetch 2>>err | head -c 1000 >/dev/null
  set -o pipefail
  is "$(cat err)" "" "stderr where the reader has gone"
  fails 1 "write stdout: No space left on device" sh -c "bocker-pull manifest $evil/good >/dev/full"
  # Bars on a terminal, silence elsewhere and with -q.
  bocker-pull manifest "$evil/good" >records
  TERM=xterm script -qec 'bocker-pull fetch <records >image.tar' bars >/dev/null </dev/null
  like "$(cat bars)" '##.*100%' "progress"
  TERM=xterm script -qec 'bocker-pull fetch -q <records >image.tar' bars >/dev/null </dev/null
  unlike "$(cat bars)" '##' "progress with -q"
  TERM=xterm script -qec 'bocker-pull fetch <records' terminal >/dev/null </dev/null || true
  like "$(cat terminal)" "stdout is a terminal"
  whole image.tar "-q"
}
