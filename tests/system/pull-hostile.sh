# bocker-pull against registries that mean harm: what does not match, places inside, bodies without end, outages.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh
# shellcheck source=tests/system/pull.sh
source "$repo/tests/system/pull.sh"

# Each blob kind in each way that it can be wrong, and documents that lie about themselves, through `bocker pull`: one line,
# status 1, and nothing is there afterwards (check 24). The same names with nothing wrong work.
test_what_does_not_match_never_becomes_visible() {
  evil
  bocker setup 2>/dev/null
  export BOCKER_PULL_TIMEOUT=5
  image=@$(bocker-pull digest "$evil/good" | cut -d @ -f 2)
  index=@$(bocker-pull digest "$evil/index" | cut -d @ -f 2)
  for name in bend/{config,first,last,entry}/none "bend/manifest/none$image" "bend/index/none$index" one-byte-chunks; do
    img=$(bocker pull "$evil/$name" 2>err | sed 's/Created: //')
    like "$img" '^img_[0-9]+$' "$name: $(cat err)"
    is "$(ls "$BOCKER_ROOT/$img/rootfs")" "one
two" "$name"
    bocker rm "$img" >/dev/null
  done
  before=$(census)
  # wrong NAME PATTERN
  wrong() {
    local status=0 said=${1//\//-}
    bocker pull "$evil/$1" >"$said.out" 2>"$said.err" </dev/null || status=$?
    is "$status $(wc -l <"$said.err") $(cat "$said.out")" "1 1 " "$1: $(cat "$said.err")"
    like "$(cat "$said.err")" "^bocker-(pull|store): .*${2:-}" "$1"
    echo "$1" >>tried
  }
  each() {
    for how in shorter longer empty other packed cut more; do wrong "bend/$1/$how${2:-}"; done
    # Of the right length: it is bocker-pull that says so, before bocker-store looks once more.
    for how in flipped zeros; do wrong "bend/$1/$how${2:-}" 'what came is sha256:'; done
  }
  jobs=()
  # Where the length is only known at the end, a blob that is too short is asked for again and again.
  each first & jobs+=($!)
  each entry & jobs+=($!)
  each manifest "$image" & jobs+=($!)
  each index "$index" & jobs+=($!)
  for job in "${jobs[@]}"; do wait "$job" || fail "one of the parts"; done
  # What was right stays, and is not asked for again: of these the other layer, and of those what came of it early.
  bocker gc >>removed
  each last
  each config
  bocker gc >>removed
  wrong wrong-diff 'its diff id is'
  wrong called-index 'it is .*manifest.v1\+json, and called .*index.v1\+json'
  wrong entry-called-index 'it is .*manifest.v1\+json, and called .*index.v1\+json'
  wrong both 'both an index and a manifest'
  for twice in key-twice digest-twice; do wrong $twice 'duplicate field'; done
  for size in negative-size float-size huger-size; do wrong $size 'not a manifest: invalid '; done
  wrong huge-size 'its sizes are impossible'
  wrong large-config 'its configuration has 1099511627776 bytes'
  wrong encoded 'not a manifest'
  is "$(wc -l <tried)" $((6 * 9 + 12)) "names tried"
  is "$(bocker images | wc -l)" 1 "images"
  # Layers that were right stay for another try, until gc.
  bocker gc >>removed
  unlike "$(grep -v "^$BOCKER_ROOT.cache/" removed)" '^[^l]' "what gc removed"
  is "$(census)" "$before"
}

# A realm or a redirect to a place inside the network is refused before anything is sent there, however it is spelled
# (check 25).
test_pull_is_sent_nowhere_inside() {
  evil_over_tls
  export SSL_CERT_FILE=$PWD/ca.pem
  count=$(python3 - "$repo/tests/evil-registry.py" <<'PY'
import re, sys
text = open(sys.argv[1]).read()
start = text.index("ELSEWHERE = ")
OTHER = "h:1"
exec(text[start:text.index("\n\n", start)])
print(len(ELSEWHERE))
PY
  )
  [ "$count" -gt 30 ] || fail "only $count places"
  for ((n = 0; n < count; n++)); do
    fails 1 "^bocker-pull: get https://registry.test:8443/v2/realm/.*: its token server '.*' is (refused: it (is|holds)|not a URL)" \
      bocker-pull_to_file "registry.test:8443/realm:$n"
    unlike "$(cat "$HOST_DIR/.stderr")" secret
    fails 1 "^bocker-pull: get https://registry.test:8443/v2/goto/.*: its redirect to .* is refused: it (is|holds)" \
      bocker-pull_to_file "registry.test:8443/goto:$n"
    unlike "$(cat "$HOST_DIR/.stderr")" secret
  done
  is "$(grep -c '^GET /v2/realm' requests) $(grep -c '^GET /v2/goto' requests)" "$count $count" "each was asked once"
  is "$(cat cdn)" "" "requests to the other port"
  # Where a manifest says that a layer lies is nothing that we ask.
  bocker-pull manifest registry.test:8443/urls >records
  fails 1 '404 Not Found: blob unknown$' sh -c 'bocker-pull fetch <records >image.tar'
  is "$(cat cdn)" ""
  # By its name, with a certificate, it is another registry's host.
  pulls registry.test:8443/bearer-cdn
  like "$(cat cdn)" '^GET /cdn/sha256'
  # But not where the registry is outside and that name leads inside; nor with the token server. Where both are outside, yes.
  ip addr add 93.184.216.34/32 dev lo
  sed 's/registry.test//' hosts >hosts.new
  echo '93.184.216.34 registry.test' >>hosts.new
  cat hosts.new >hosts
  python3 "$repo/tests/evil-registry.py" 93.184.216.34 8443 requests cdn.test:8444 cert.pem key.pem >outside.ready &
  eventually 20 grep -qs ready outside.ready
  bocker-pull manifest registry.test:8443/redirect-cdn >records
  : >cdn
  connections() { python3 -c 'import os, subprocess, sys; print(subprocess.run(["strace", "-f", "-qq", "-e", "trace=connect", *sys.argv[1:]], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, stdin=open("records")).stderr.decode().count("htons(8444)"))' "$@"; }
  way_out='which is an address inside this network \(if it should be: BOCKER_PULL_INSIDE=cdn.test\)$'
  fails 1 "it leads to cdn.test, $way_out" sh -c 'bocker-pull fetch <records >image.tar'
  is "$(connections bocker-pull fetch)" 0
  # A proxy that this is not for changes nothing, nor an address inside that such a registry has beside its own.
  is "$(http_proxy=http://127.0.0.1:9 connections bocker-pull fetch)" 0
  is "$(https_proxy=http://127.0.0.1:9 no_proxy=test connections bocker-pull fetch)" 0
  echo '10.9.9.9 registry.test' >>hosts
  is "$(connections bocker-pull fetch)" 0
  grep -v 10.9.9.9 hosts >hosts.new
  cat hosts.new >hosts
  fails 1 "token server 'https://cdn.test:8444/.*it leads to cdn.test, $way_out" bocker-pull_to_file registry.test:8443/token-at-cdn
  # Another permission is none, nor is one for everything.
  fails 1 "it leads to cdn.test, $way_out" sh -c 'BOCKER_PULL_INSIDE=registry.test,test,x.cdn.test bocker-pull fetch <records >image.tar'
  for word in '*' cdn.test:8444 https://cdn.test; do
    BOCKER_PULL_INSIDE=$word fails 1 "^bocker-pull: read BOCKER_PULL_INSIDE: '.*' is not a host \(HOST or HOST,HOST, without ports\)$" \
      bocker-pull_to_file registry.test:8443/redirect-cdn
  done
  is "$(cat cdn)" ""
  # What its user names may be inside: as a filter, and through bocker, which hands the setting on.
  BOCKER_PULL_INSIDE=other.test,CDN.test bocker-pull fetch <records >image.tar
  whole image.tar "outside to inside, allowed"
  bocker --PULL_INSIDE=cdn.test pull registry.test:8443/token-at-cdn >out 2>err || fail "$(cat err)"
  like "$(cat out)" '^Created: img_'
  like "$(cat cdn)" '^GET /cdn/sha256'
  like "$(cat cdn)" '^GET /token/token-at-cdn'
  # Named is that host: not what is inside by another name or by its address, and not without TLS.
  for n in 0 5 28; do BOCKER_PULL_INSIDE=cdn.test fails 1 'is refused: it is' bocker-pull_to_file "registry.test:8443/goto:$n"; done
  bocker setup --undo >/dev/null 2>&1
  : >cdn
  sed 's/cdn.test//' hosts >hosts.new
  echo '93.184.216.34 cdn.test' >>hosts.new
  cat hosts.new >hosts
  kill "$cdn" && wait "$cdn" 2>/dev/null || true
  rm cdn.ready
  python3 "$repo/tests/evil-registry.py" 93.184.216.34 8444 cdn - cert.pem key.pem >cdn.ready &
  eventually 20 grep -qs ready cdn.ready
  bocker-pull fetch <records >image.tar
  whole image.tar "outside to outside"
  [ "$(connections bocker-pull fetch)" -gt 0 ] || fail "no connection is seen"
  umount /etc/hosts
}

# Where a login is, it is in no process's words or environment, and in nothing that is said, kept or printed (check 25).
test_a_login_is_seen_by_nobody() {
  evil
  logins
  mkdir helpers
  mount --bind helpers /usr/local/bin
  # The helper writes down what it was given, and what its caller was.
  cat >helpers/docker-credential-x <<'HELPER'
#!/bin/sh
cat >/dev/null
for pid in $$ $PPID; do tr '\0' '\n' </proc/$pid/cmdline; tr '\0' '\n' </proc/$pid/environ; done >>/run/seen
printf '{"ServerURL":"x","Username":"user","Secret":"secret"}'
HELPER
  chmod 755 helpers/docker-credential-x
  pair=$(printf user:secret | base64)
  clean() { ! grep -aHE "secret|$pair|identity/" "$@" || fail "that was a secret"; }
  for how in file helper; do
    rm -rf cache
    if [ $how = file ]; then auths "$evil" user:secret >home/.docker/config.json
    else echo '{"credsStore":"x"}' >home/.docker/config.json; fi
    bocker-pull manifest --explain "$evil/login-hang" >records 2>said
    bocker-pull fetch --explain --progress-fd 7 --cache cache <records 7>lines >image.tar 2>>said &
    fetch=$!
    eventually 20 sh -c 'stat -c %s cache/*.partial 2>/dev/null | grep -qx 1000'
    # One may have ended since.
    for pid in /proc/[0-9]*; do tr '\0' '\n' <"$pid/cmdline" && tr '\0' '\n' <"$pid/environ" || true; done 2>/dev/null >processes
    like "$(cat processes)" '^--progress-fd$'
    ls -R cache >names
    kill "$fetch"
    wait "$fetch" 2>/dev/null || true
    clean records said lines image.tar processes names
    : >said
    # Refused, sent elsewhere, told by a registry that repeats what it heard.
    for name in login-away token-denied echo goto:0 realm:0 401; do
      bocker-pull manifest "$evil/$name" >>said 2>&1 || true
    done
    like "$(cat said)" '403 Forbidden: not with Basic …, … or … '
    is "$(wc -l <said)" 6 "lines said: $(cat said)"
    clean said
  done
  printf '{"auths":{"%s":{"identitytoken":"identity/secret+x="}}}' "$evil" >home/.docker/config.json
  bocker-pull manifest "$evil/login-identity" >records
  fails 1 'a login follows no redirect' bocker-pull_to_file "$evil/login-identity-away"
  cp "$HOST_DIR/.stderr" said
  clean records said
  clean /run/seen
  # Of a registry's words a short one leaves nothing, whether it is in them or not; a long one all but itself.
  auths "$evil" user:five5 >home/.docker/config.json
  for name in echo token-denied; do fails 1 '403 Forbidden \(the login of .*config.json is refused\)$' bocker-pull_to_file "$evil/$name"; done
  bocker-pull manifest "$evil/echo-kindly" 2>said >records
  is "$(cat said)" ""
  auths "$evil" user:secret >home/.docker/config.json
  fails 1 '403 Forbidden: not with Basic …, … or … \(' bocker-pull_to_file "$evil/echo"
  bocker-pull manifest "$evil/echo-kindly" 2>said >records
  is "$(cat said)" "bocker-pull: $evil: not with Basic …, … or …"
  like "$(cat /run/seen)" '^get$'
  # It was used: what is not there was sent.
  like "$(cat requests)" "^GET /v2/login-hang/.* auth=Basic $pair "
  umount /usr/local/bin
}

# measured SECONDS VERB WORDS...: fails with one line, in that time, with less than 64 MiB; stdout to the file `out`
measured() {
  python3 - "$@" <<'EOF'
import resource, subprocess, sys, time
most, words = float(sys.argv[1]), sys.argv[2:]
started = time.monotonic()
with open("out-" + "-".join(words).replace("/", "-"), "wb") as out:
    done = subprocess.run(["bocker-pull", *words], stdout=out, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
took, peak = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
lines = done.stderr.decode().splitlines()
assert done.returncode == 1 and len(lines) == 1 and lines[0].startswith("bocker-pull: "), (words, done.returncode, lines)
assert len(lines[0]) < 1000, (words, len(lines[0]))
assert took < most and peak < 65536, f"{words}: {took} s, {peak} KiB"
print(words, f"{took:.1f} s {peak} KiB", lines[0])
EOF
}

# Bodies without end, heads without end, a byte now and then, more than anybody needs: bounded in time and memory (check 26).
test_pull_is_bounded_in_time_and_memory() {
  evil
  pulls "$evil/good"
  pulls "$evil/one-byte-chunks"
  export BOCKER_PULL_TIMEOUT=2
  jobs=()
  in_time() { measured "$@" >>took & jobs+=($!); }
  ended() { for job in "${jobs[@]}"; do wait "$job" || fail "$(cat took)"; done; jobs=(); }
  # A byte each half second: no longer than three times our patience, and some time for the machine. The others run meanwhile.
  for name in drip-manifest drip-token drip-error raw/drip-head slow slow-body; do in_time 20 manifest "$evil/$name"; done
  in_time 20 tags "$evil/tags-drip"
  for name in drip drip-unannounced; do
    in_time 20 blob "$evil/$name" "$(awk -F'\t' '$1 == "layer" { print $3 }' records | tail -1)"
  done
  slow=("${jobs[@]}") jobs=()
  # Without end, or as large as it may be: at once, but for the time that the registry needs to make it, which our patience outlasts.
  for name in endless announced-endless endless-error token-endless many-layers 100k-layers many-entries brackets; do
    BOCKER_PULL_TIMEOUT=30 in_time 20 manifest "$evil/$name"
  done
  ended
  for name in header headers status interim chunk-size chunk-extension chunk-huge trailers chunks h2 noise; do
    in_time 20 manifest "$evil/raw/$name"
  done
  ended
  export BOCKER_PULL_TIMEOUT=30
  in_time 20 tags "$evil/tags-page"
  in_time 25 tags "$evil/tags-endless"
  in_time 20 config "$evil/many-ids"
  in_time 20 manifest "$evil/redirect-loop"
  jobs+=("${slow[@]}")
  ended
  is "$(wc -l <took)" $((9 + 8 + 11 + 4)) "$(cat took)"
  for said in "many-layers.* it has 20000 layers, more than 127" "100k-layers.*longer than 4194304 bytes" "redirects more than 10 times" \
    "many-entries.*it has no image for" "many-ids.* names 100002 layers, the manifest 2" "more than 1000 pages" "tags-page.*longer than"; do
    like "$(cat took)" "$said"
  done
}

# At whichever point it stops, whatever it stops with, it costs one request more of what was lost, and nothing else (check 28).
test_an_outage_costs_a_retry() {
  evil
  pulls "$evil/good"
  cp image.tar good.tar
  : >requests
  outages() {
    local part=$1 how dir name
    for how in "${@:2}"; do
      name=outage/$part/$how dir=outage-$part-$how
      mkdir "$dir"
      bocker-pull manifest "$evil/$name" >"$dir/records" 2>"$dir/err" && bocker-pull fetch <"$dir/records" >"$dir/image.tar" 2>>"$dir/err" ||
        fail "$name: $(cat "$dir/err")"
      is "$(cat "$dir/err")" "" "$name"
      is "$(tar xOf "$dir/image.tar" --wildcards 'blobs/*' | sha256sum)" "$(tar xOf good.tar --wildcards 'blobs/*' | sha256sum)" "$name"
    done
  }
  jobs=()
  for part in token manifest config first last; do
    outages "$part" connect reset status head body half half-reset & jobs+=($!)
    outages "$part" last 500 502 503 504 & jobs+=($!)
    outages "$part" 429 503-wait & jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || fail "one of the parts"; done
  # Of each part one request more; of a token, one for each of the two programs and the one that was lost.
  for how in connect reset status head body half half-reset last 500 502 503 504 429 503-wait; do
    for part in manifest config first last; do
      is "$(grep -c "^GET /v2/outage/$part/$how/" requests)" 5 "requests for $part, $how"
    done
    is "$(grep -c "^GET /token/outage/token/$how?" requests)" 3 "requests for a token, $how"
  done
  # A part of a blob that has come is not asked for again.
  like "$(grep /last/half/ requests)" 'range=bytes=[1-9][0-9]*-'
  # One that nobody listens for, for a moment, once it has begun.
  # It is tried again for 1.4 s: of three such moments the machine may draw out two.
  for name in goes-away goes-away/2 goes-away/3; do
    eventually 20 listens "$evil"
    ! pull "$evil/$name" 2>err || break
  done
  is "$(cat err)" "" "stderr of pull $name"
  whole image.tar "$name"
}

# Over six pulls, five of them killed, every byte of every layer goes out of the registry once; likewise where the registry is what
# ends them (check 28).
test_what_was_fetched_is_not_fetched_again() {
  evil
  pulls "$evil/good"
  awk -F'\t' '$1 == "config" || $1 == "layer" { sum += $4; if ($4 > big) big = $4 } END { print sum, big }' records >sizes
  read -r sum big <sizes
  bocker rm "$(bocker pull "$evil/good" 2>/dev/null | sed 's/Created: //')" >/dev/null
  before=$(census)
  has() { [ "$(stat -c %s "$BOCKER_ROOT.cache"/*.partial 2>/dev/null | sort -n | tail -1)" = "$1" ]; }
  # It has been made, not only sent.
  has_lower() { [ -n "$(find "$BOCKER_ROOT/layers" -maxdepth 1 -name 'sha256:*')" ]; }
  for step in 1 2 3 4 5; do
    setsid bocker pull "$evil/portions" >out 2>err &
    group=$!
    eventually 20 has $((step * 50000))
    eventually 20 has_lower
    # The first time the lower layer, which has come, is kept; a KILL then would lose it.
    signal=KILL; [ $step != 1 ] || signal=TERM
    kill -$signal -- "-$group"
    wait "$group" 2>/dev/null || true
  done
  img=$(bocker pull "$evil/portions" | sed 's/Created: //')
  sent() { awk -v path="/v2/$1/" '$1 == "SENT" && index($2, path) == 1 { sum += $4 } END { print sum }' requests; }
  # The configuration is small, and each pull asks for it.
  small=$(awk -F'\t' '$1 == "config" { print $4 }' records)
  is "$(sent portions)" $((sum + 5 * small)) "bytes sent"
  bocker rm "$img" >/dev/null
  # Four tries in one pull, the other two in the next.
  fails 1 "it ends after 200000 of $big bytes" bocker pull "$evil/portions-down"
  img=$(bocker pull "$evil/portions-down" | sed 's/Created: //')
  is "$(sent portions-down)" $((sum + small)) "bytes sent"
  bocker rm "$img" >/dev/null
  is "$(ls -A "$BOCKER_ROOT.cache")" ""
  bocker gc >/dev/null
  is "$(census)" "$before"
}
