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
  # Straight to a directory it is a layout as skopeo and umoci know one, and we: what goes in by a pipe comes out.
  mkdir dir
  bocker-pull manifest 127.0.0.1:5000/group/oci:7 | bocker-pull fetch | tar -C dir -x
  is "$(umoci list --layout dir)" 127.0.0.1:5000/group/oci:7
  is "$(skopeo inspect oci:dir:127.0.0.1:5000/group/oci:7 | jq -c .Layers)" "$(skopeo inspect --tls-verify=false docker://127.0.0.1:5000/group/oci:7 | jq -c .Layers)"
  umoci raw unpack --rootless --image dir:127.0.0.1:5000/group/oci:7 raw
  is "$(sha256sum < raw/two/big)" "$(sha256sum < two/big)"
  bocker-pull archive dir >again.tar
  is "$(tar xOf again.tar index.json | jq -r '.manifests[].annotations[]')" 127.0.0.1:5000/group/oci:7 "the name that it was asked for by"
  tar -C dir -c . | bocker-pull archive | cmp - again.tar
  is "$(tar xOf again.tar --wildcards 'blobs/*' | sha256sum)" "$(bocker-pull manifest 127.0.0.1:5000/group/oci:7 | bocker-pull fetch | tar xO --wildcards 'blobs/*' | sha256sum)"
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
  # What a registry wants known is said once: an index and a manifest say the same.
  pulls "$evil/many-left"
  pull --platform linux/amd64 "$evil/few-left" 2>err
  is "$(cat err)" "bocker-pull: $evil: 3 of 100 pulls in 6 h are left
bocker-pull: $evil: this ends soon"
  whole image.tar few-left
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
  # More than the machine may pause, where that would be another reason.
  export BOCKER_PULL_TIMEOUT=10
  pulls "$evil/good"
  refuses "Connection refused$" 127.0.0.1:9/x
  refuses "(Name or service not known|Temporary failure in name resolution)$" no-such-host.invalid/x
  export BOCKER_PULL_TIMEOUT=2
  started=$SECONDS
  refuses "no answer for 2 s$" "$evil/slow"
  refuses "no answer for 2 s$" "$evil/slow-body"
  BOCKER_PULL_TIMEOUT=5 refuses "the registry is too slow$" "$evil/drip"
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
  # A token that ends in the middle is replaced. One blob after the other: each token is good for two requests, and with several
  # on their way others could use up the very one that a request was denied for.
  bocker-pull manifest "$evil/expires" | bocker-pull fetch --jobs 1 >image.tar
  whole image.tar expires
  [ "$(grep -c 'GET /token/expires' requests)" -ge 3 ] || fail "no token was replaced: $(cat requests)"
  # One for the manifest, one for all blobs at once.
  is "$(grep -c 'GET /token/bearer?' requests)" 2
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

# Files of logins, in a home of their own.
logins() {
  export HOME=$PWD/home XDG_RUNTIME_DIR=$PWD/run
  unset DOCKER_CONFIG XDG_CONFIG_HOME REGISTRY_AUTH_FILE
  mkdir -p home/.docker home/.config/containers run/containers
}
# auths HOST[/PATH] LOGIN: a file with one login
auths() { printf '{"auths":{"%s":{"auth":"%s"}}}' "$1" "$(printf %s "$2" | base64 -w 0)"; }

test_pull_logins_from_files() {
  evil
  logins
  refuses "401 Unauthorized: who\? \(no such image, or it needs a login\)" "$evil/login"
  # Each place, and a more specific key before a less specific one.
  local file
  for file in home/.docker/config.json home/.config/containers/auth.json run/containers/auth.json; do
    auths "$evil" user:secret >"$file"
    pulls "$evil/login"
    rm "$file"
  done
  auths "https://$evil/v1/" user:secret | jq .auths >home/.dockercfg
  pulls "$evil/login"
  rm home/.dockercfg
  jq -s '{auths: (.[0].auths + .[1].auths)}' <(auths "$evil" user:wrong) <(auths "$evil/login" user:secret) >home/.docker/config.json
  pulls "$evil/login"
  mkdir elsewhere && mv home/.docker/config.json elsewhere
  DOCKER_CONFIG=$PWD/elsewhere pulls "$evil/login"
  REGISTRY_AUTH_FILE=$PWD/elsewhere/config.json pulls "$evil/login"
  REGISTRY_AUTH_FILE=$PWD/none refuses "read $PWD/none: No such file or directory" "$evil/login"
  auths "$evil" user:mistaken >run/containers/auth.json
  refuses "401 Unauthorized: who\? \(the login of $PWD/run/containers/auth.json is refused\)" "$evil/login"
  printf '{"auths":{"%s":{"auth":"%s"' "$evil" secret >run/containers/auth.json
  refuses "read $PWD/run/containers/auth.json: it is not a file of logins" "$evil/login"
  unlike "$(cat err)" secret
  # Where nobody asks, nothing is read and nothing is sent.
  pulls "$evil/good"
  unlike "$(grep /v2/good requests)" 'auth=[^-]'
}

test_pull_logins_at_a_token_server() {
  evil
  logins
  refuses "401 Unauthorized: wrong password \(no such image, or it needs a login\)" "$evil/login-token"
  auths "$evil" user:secret >home/.docker/config.json
  : >requests
  pulls "$evil/login-token"
  like "$(cat requests)" "^GET /token/login-token\?.* auth=Basic $(printf user:secret | base64) "
  is "$(grep -c 'GET /v2/.* auth=Basic' requests || true)" 0 "the login went to the registry, too"
  auths "$evil" user:mistaken >home/.docker/config.json
  refuses "401 Unauthorized: wrong password \(the login of $PWD/home/.docker/config.json is refused\)" "$evil/login-token"
  # An identity token, in both spellings.
  printf '{"auths":{"%s":{"auth":"dTpw","identitytoken":"identity/secret+x="}}}' "$evil" >home/.docker/config.json
  pulls "$evil/login-identity"
  unlike "$(grep -v ^POST requests)" identity/secret
  auths "$evil" '<token>:identity/secret+x=' >home/.docker/config.json
  pulls "$evil/login-identity"
  auths "$evil" '<token>:mistaken' >home/.docker/config.json
  refuses "401 Unauthorized: bad form \(the login of $PWD/home/.docker/config.json is refused\)" "$evil/login-identity"
  refuses "a login follows no redirect" "$evil/login-identity-away"
  is "$(cat foreign)" "" "requests to the foreign port"
}

test_pull_logins_from_helpers() {
  evil
  logins
  mkdir helpers
  mount --bind helpers /usr/local/bin
  helper() { printf '#!/bin/sh\n%s\n' "$2" >"helpers/docker-credential-$1" && chmod 755 "helpers/docker-credential-$1"; }
  # shellcheck disable=SC2016 # expanded by the helper
  answer='read -r server || :; echo "$* $server" >>'$PWD'/asked; printf '\''{"ServerURL":"%s","Username":"user","Secret":"secret"}'\'' "$server"'
  helper good "$answer"
  echo '{"credsStore":"good"}' >home/.docker/config.json
  pulls "$evil/login"
  # Twice: for the manifest, and for the blobs.
  is "$(cat asked)" "get $evil
get $evil"
  printf '{"credsStore":"none","credHelpers":{"%s":"good"}}' "$evil" >home/.docker/config.json
  pulls "$evil/login"
  # shellcheck disable=SC2016
  helper token 'cat >/dev/null; echo "{\"Username\":\"<token>\",\"Secret\":\"identity/secret+x=\"}"'
  echo '{"credsStore":"token"}' >home/.docker/config.json
  pulls "$evil/login-identity"
  # One that is not there hinders nobody whose image is for all; the one in PATH is not run.
  echo '{"credsStore":"desktop"}' >home/.docker/config.json
  mkdir path && cp helpers/docker-credential-good path/docker-credential-desktop
  PATH=$PWD/path:$PATH pulls "$evil/bearer"
  PATH=$PWD/path:$PATH refuses "401 Unauthorized: who\? \(docker-credential-desktop is not in /usr/local/bin, /usr/bin, /bin\)" "$evil/login"
  helper lost 'echo credentials not found in native keychain; exit 1'
  echo '{"credsStore":"lost"}' >home/.docker/config.json
  refuses "401 Unauthorized: who\? \(no such image, or it needs a login\)" "$evil/login"
  auths "$evil" user:secret >home/.dockercfg && jq .auths home/.dockercfg >cfg && mv cfg home/.dockercfg
  pulls "$evil/login"
  umount /usr/local/bin
}

test_pull_logins_say_the_shell_that_does_the_same() {
  evil
  logins
  same() {
    pulls "$1"
    is "$(bocker-pull manifest --dry-run "$1" | sh -e)" "$(cat records)" "records of $1"
    bocker-pull fetch --dry-run <records | sh -e >said.tar
    cmp image.tar said.tar || fail "$1: the shell makes another archive"
    bocker-pull manifest --dry-run "$1" >said
    unlike "$(cat said)" "secret|$(printf user:secret | base64)|$(printf '<token>:identity' | base64)"
  }
  auths "$evil" user:secret >"home/.docker/config.json"
  same "$evil/login"
  same "$evil/login-token"
  same "$evil/bearer"
  same "$evil/good"
  printf '{"auths":{"%s":{"username":"user","password":"secret"}}}' "$evil" >home/.docker/config.json
  same "$evil/login"
  mkdir helpers
  mount --bind helpers /usr/local/bin
  printf '#!/bin/sh\necho credentials not found; exit 1\n' >helpers/docker-credential-none
  printf '#!/bin/sh\ncat >/dev/null; echo "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"identity/secret+x=\\"}"\n' >helpers/docker-credential-token
  chmod 755 helpers/*
  echo '{"credsStore":"none"}' >home/.config/containers/auth.json
  same "$evil/login"
  echo '{"credsStore":"token"}' >home/.docker/config.json
  same "$evil/login-identity"
  printf '{"auths":{"%s":{"identitytoken":"identity/secret+x="}}}' "$evil" >home/.docker/config.json
  same "$evil/login-identity"
  umount /usr/local/bin
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

# Names that are not loopback to the tool, an authority of their own (ca.pem), and certificates of it (cert.pem, key.pem).
certificates() {
  printf '127.0.0.1 localhost registry.test cdn.test auth.test mirror.test\n' > hosts
  mount --bind hosts /etc/hosts
  local key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
  openssl req -x509 "${key[@]}" -days 2 -keyout ca.key -out ca.pem -subj /CN=ca -addext basicConstraints=critical,CA:TRUE 2>/dev/null
  openssl req "${key[@]}" -keyout key.pem -out request.pem -subj /CN=registry.test 2>/dev/null
  printf 'subjectAltName=DNS:registry.test,DNS:cdn.test,DNS:auth.test,DNS:mirror.test\n' > extensions
  openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out cert.pem 2>/dev/null
}

# The misbehaving one as registry.test:8443, and cdn.test:8444, over TLS.
evil_over_tls() {
  certificates
  : > requests
  : > cdn
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 8443 requests cdn.test:8444 cert.pem key.pem >registry.ready &
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 8444 cdn - cert.pem key.pem >cdn.ready &
  # shellcheck disable=SC2034 # for those that source this
  cdn=$!
  eventually 20 grep -qs ready registry.ready
  eventually 20 grep -qs ready cdn.ready
}

test_pull_over_tls() {
  # HTTP/2 is not asked for (check 26).
  OFFER_H2=1 evil_over_tls
  SSL_CERT_FILE=$PWD/ca.pem pulls registry.test:8443/good
  # Without the authority: refused, and not tried over plain HTTP.
  refuses "invalid peer certificate: UnknownIssuer" registry.test:8443/good
  export SSL_CERT_FILE=$PWD/ca.pem
  pulls registry.test:8443/bearer-cdn
  is "$(grep -c 'auth=Bearer secret-bearer-cdn' requests)" 4 "manifest and three blobs"
  like "$(cat cdn)" '^GET /cdn/sha256'
  unlike "$(cat cdn)" 'auth=[^-]' "the token went elsewhere"
  logins
  auths registry.test:8443 user:secret >home/.docker/config.json
  : >cdn
  pulls registry.test:8443/login-cdn
  like "$(cat cdn)" '^GET /cdn/sha256'
  : >requests
  pulls registry.test:8443/login-port
  is "$(grep -c '^GET /cdn/sha256' cdn) $(grep -c 'auth=Basic' requests)" "6 4" "three blobs each, of another host and another port; and the login for the manifest and these"
  refuses . registry.test:8443/login-away
  like "$(cat requests)" "^GET /token/login-away.* auth=Basic"
  like "$(cat cdn)" "^GET /token/login-away"
  unlike "$(cat cdn)" 'auth=[^-]' "the login went elsewhere"
  refuses "is refused: it is not https" registry.test:8443/redirect-private
  refuses "is refused: it is an address inside" registry.test:8443/redirect-metadata
  refuses "is refused: it is not https" registry.test:8443/redirect-loopback
  refuses "is refused: it is an address inside" registry.test:8443/redirect-literal
  refuses "is refused: it is not https" registry.test:8443/bearer-foreign
  umount /etc/hosts
}

# real_registry_over_tls AUTH...: Debian's registry as registry.test:8443, with these lines of configuration
real_registry_over_tls() {
  mkdir -p registry
  printf '%s\n' 'version: 0.1' 'log: { level: error, accesslog: { disabled: true } }' \
    "storage: { filesystem: { rootdirectory: $HOST_DIR/registry } }" \
    "http: { addr: '127.0.0.1:8443', tls: { certificate: $HOST_DIR/cert.pem, key: $HOST_DIR/key.pem } }" "$@" >tls.yml
  docker-registry serve tls.yml >registry.log 2>&1 &
  real=$!
  eventually 20 listens 127.0.0.1:8443
}

test_pull_from_a_real_registry_with_logins() {
  certificates
  registry
  logins
  export SSL_CERT_FILE=$PWD/ca.pem
  push group/a:1 oci
  # With passwords.
  # shellcheck disable=SC2016 # perl's own $
  perl -e 'print "user:", crypt("secret", q($2y$05$abcdefghijklmnopqrstuu)), "\n"' >htpasswd
  real_registry_over_tls "auth: { htpasswd: { realm: x, path: $HOST_DIR/htpasswd } }"
  refuses "401 Unauthorized: authentication required \(no such image, or it needs a login\)" registry.test:8443/group/a:1
  # What skopeo writes we read.
  REGISTRY_AUTH_FILE=$PWD/auth.json skopeo login -u user -p secret registry.test:8443 >/dev/null
  REGISTRY_AUTH_FILE=$PWD/auth.json pulls registry.test:8443/group/a:1
  refuses "401" registry.test:8443/group/a:1
  auths registry.test:8443 user:mistaken >home/.docker/config.json
  refuses "401 Unauthorized: authentication required \(the login of .*config.json is refused\)" registry.test:8443/group/a:1
  kill "$real" && wait "$real" 2>/dev/null || :
  # With tokens.
  python3 "$repo/tests/token-server.py" 127.0.0.1 8444 tokens cert.pem key.pem >tokens.ready &
  eventually 20 grep -qs ready tokens.ready
  real_registry_over_tls "auth: { token: { realm: 'https://auth.test:8444/token', service: real, issuer: tests, rootcertbundle: $HOST_DIR/ca.pem } }"
  refuses "401 Unauthorized" registry.test:8443/group/a:1
  auths registry.test:8443 user:secret >home/.docker/config.json
  : >tokens
  pulls registry.test:8443/group/a:1
  is "$(grep -c '^GET .*scope=repository%3Agroup%2Fa%3Apull .*Basic' tokens)" 2 "tokens for manifest and fetch: $(cat tokens)"
  is "$(skopeo inspect --insecure-policy oci-archive:image.tar | jq -c .Layers)" \
    "$(skopeo inspect --tls-verify=false docker://127.0.0.1:5000/group/a:1 | jq -c .Layers)"
  refuses "No image named" registry.test:8443/group/a:2
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
