# bocker-pull fetch: several blobs at once, their bytes in order; and what an interrupted one leaves for the next.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh
# shellcheck source=tests/system/pull.sh
source "$repo/tests/system/pull.sh"

# good.tar and $first, $big: what everything here is to come to, and the digests of the two layers
good() {
  pulls "$evil/good"
  cp image.tar good.tar
  { read -r first; read -r big; } < <(awk -F'\t' '$1 == "layer" { print $3 }' records)
}
# The layers and the configuration are the honest one's.
as_good() { is "$(tar xOf "$1" --wildcards 'blobs/*' | sha256sum)" "$(tar xOf good.tar --wildcards 'blobs/*' | sha256sum)" "$2"; }

test_pull_fetches_several_at_once_and_in_order() {
  evil
  good
  # Neither layer comes before both are asked for.
  pulls "$evil/together"
  as_good image.tar together
  bocker-pull manifest "$evil/together" >records
  fails 1 "418 I'm a teapot: nobody else came" sh -c "bocker-pull fetch --jobs 1 <records >image.tar"
  # The second is there first, and waits.
  pulls "$evil/second-first"
  as_good image.tar second-first
  for jobs in 1 2 16; do
    bocker-pull manifest "$evil/good" | bocker-pull fetch --jobs "$jobs" | cmp - good.tar
  done
  bocker-pull manifest "$evil/good/2" >records
  bocker-pull fetch <records >many.tar
  bocker-pull fetch --jobs 1 <records | cmp - many.tar
  # The first flows while the second does not come; a failure of the second does not wait for the first's reader.
  bocker-pull manifest "$evil/second-hangs" >records
  bocker-pull fetch <records >flow.tar &
  fetch=$!
  flows() { [ "$(tar xOf flow.tar "blobs/sha256/${first#sha256:}" 2>/dev/null | sha256sum)" = "${first#sha256:}  -" ]; }
  eventually 20 flows
  kill "$fetch"
  for jobs in 0 17 x; do fails 2 "'$jobs' is not a number of blobs at once" sh -c "bocker-pull fetch --jobs $jobs >image.tar"; done
}

test_pull_waits_for_a_slow_reader() {
  evil
  export BOCKER_PULL_TIMEOUT=5
  good
  bocker-pull manifest "$evil/two-seconds" >records
  # It reads nothing for longer than we would wait for a registry.
  bocker-pull fetch <records 2>err | { sleep 9; cat >image.tar; } || fail "$(cat err)"
  is "$(cat err)" ""
  as_good image.tar "a slow reader"
}

test_pull_needs_no_room_for_what_comes_early() {
  evil
  good
  mkdir small
  mount -t tmpfs -o size=64k small small
  for dir in "$PWD/small" "$PWD/none"; do
    TMPDIR=$dir pulls "$evil/good"
    cmp image.tar good.tar
    TMPDIR=$dir pulls "$evil/together"
    as_good image.tar "together in $dir"
  done
  is "$(ls -A small)" ""
  umount small
}

test_pull_takes_only_so_much_for_many_big_layers() {
  registry
  umoci init --layout layout
  umoci new --image layout:image
  local n
  for n in 1 2 3 4; do
    mkdir "l$n"
    head -c 50000000 /dev/urandom >"l$n/file"
    umoci insert --image layout:image "l$n" "/l$n"
  done
  umoci config --image layout:image --architecture amd64
  skopeo copy -q --insecure-policy --dest-tls-verify=false oci:layout:image docker://127.0.0.1:5000/big:1
  bocker-pull manifest 127.0.0.1:5000/big:1 >records
  python3 - <<'EOF'
import hashlib, resource, subprocess, tarfile, time
with open("records", "rb") as records:
    fetch = subprocess.Popen(["bocker-pull", "fetch"], stdin=records, stdout=subprocess.PIPE)
# Long enough for all that may come early.
time.sleep(3)
with tarfile.open(fileobj=fetch.stdout, mode="r|") as stream:
    for entry in stream:
        digest = hashlib.file_digest(stream.extractfile(entry), "sha256").hexdigest()
        assert not entry.name.startswith("blobs/") or entry.name.endswith(digest), entry.name
assert entry.name == "index.json", entry.name
assert fetch.wait() == 0
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
assert peak < 65536, f"{peak} KiB"
EOF
}

test_pull_goes_on_where_another_was_interrupted() {
  evil
  good
  partial=cache/$big.partial
  bocker-pull manifest "$evil/half" >records
  bocker-pull fetch --cache cache <records >image.tar &
  fetch=$!
  has() { [ "$(stat -c %s "$partial" 2>/dev/null)" = 100000 ]; }
  eventually 20 has
  kill -KILL "$fetch"
  wait "$fetch" || true
  is "$(stat -c %a cache)" 700
  is "$(stat -c %a "$partial")" 600
  cp -a cache kept
  : >requests
  bocker-pull fetch --cache cache <records >image.tar
  as_good image.tar "the rest"
  like "$(cat requests)" "GET /v2/half/blobs/$big .*range=bytes=100000-300281"
  is "$(ls -A cache)" "" "what was written out leaves"
  # Without the option nothing is read or kept.
  : >requests
  bocker-pull fetch <records >image.tar
  like "$(cat requests)" "GET /v2/half/blobs/$big .*range=-"
  # A registry without ranges; a part that is wrong; one that is too long; all of it.
  again() {
    rm -rf cache && cp -a kept cache
    case $1 in
      junk) tr '\0-\377' 'x' <kept/"$big.partial" >"$partial" ;;
      long) head -c 400000 /dev/zero >"$partial" ;;
      zeros) head -c 300282 /dev/zero >"$partial" ;;
      whole) tar xOf good.tar "blobs/sha256/${big#sha256:}" >"$partial" ;;
    esac
    : >requests
    bocker-pull manifest "$2" | bocker-pull fetch --cache cache >image.tar
    as_good image.tar "$1"
    is "$(ls -A cache)" "" "the cache after $1"
  }
  again half "$evil/good"
  again junk "$evil/half"
  is "$(grep -c "/blobs/$big" requests)" 2 "once for the rest, once for all"
  again long "$evil/half"
  again zeros "$evil/half"
  again whole "$evil/half"
  is "$(grep -c "/blobs/$big" requests || true)" 0 "all of it was there"
  # What is wrong for good leaves nothing that would be tried again. Of another, which was on its way when that was found, something may
  # lie there until it is found wrong, too: each time at least one goes.
  rm -rf cache
  bocker-pull manifest "$evil/wrong-digest" >records
  for _ in 1 2 3 4; do
    fails 1 "what came is sha256:" sh -c "bocker-pull fetch --cache cache <records >image.tar"
    wrong=$(sed -n 's|^bocker-pull: .*/blobs/\(sha256:[0-9a-f]*\): what came is sha256:.*|\1|p' "$HOST_DIR/.stderr")
    like "$wrong" '^sha256:' "$(cat "$HOST_DIR/.stderr")"
    is "$(find cache -type f -size +0 -name "$wrong*")" ""
    [ -n "$(find cache -type f -size +0)" ] || break
  done
  is "$(find cache -type f -size +0)" ""
  # Not in a place where others write.
  mkdir -m 777 open
  fails 1 "open open: others may write to it" sh -c "bocker-pull fetch --cache open <records >image.tar"
  # Old ones leave.
  rm -rf cache && cp -a kept cache
  bocker-pull manifest "$evil/good/2" | bocker-pull fetch --cache cache --cache-max 200000 >/dev/null
  is "$(ls -A cache)" "$big.partial"
  bocker-pull manifest "$evil/good/2" | bocker-pull fetch --cache cache --cache-max 50K >/dev/null
  is "$(ls -A cache)" ""
  fails 2 "'x' is not a size" sh -c "bocker-pull fetch --cache cache --cache-max x >image.tar"
}

test_pull_fetches_a_blob_once_for_two() {
  evil
  good
  bocker-pull manifest "$evil/when-told" >records
  : >requests
  # opened PID: it has the blob's file open: writes it, or waits for who does
  opened() { [ -n "$(find "/proc/$1/fd" -lname "*/$big.partial" 2>/dev/null)" ]; }
  for n in 1 2 3; do bocker-pull fetch --cache cache <records >"$n.tar" 2>"$n.err" & pids[n]=$!; done
  for n in 1 2 3; do eventually 20 opened "${pids[n]}"; done
  touch go
  for n in 1 2 3; do
    wait "${pids[n]}" || fail "$n: $(cat "$n.err")"
    as_good "$n.tar" "number $n"
  done
  is "$(grep -c "/blobs/$big" requests)" 1
  is "$(ls -A cache)" ""
  # The one that has it is killed: another goes on.
  rm go
  bocker-pull fetch --cache cache <records >1.tar &
  one=$!
  begun() { [ "$(stat -c %s "cache/$big.partial" 2>/dev/null)" = 100000 ]; }
  eventually 20 begun
  bocker-pull fetch --cache cache <records >2.tar 2>err &
  two=$!
  eventually 20 opened "$two"
  kill -KILL "$one"
  wait "$one" || true
  touch go
  wait "$two" || fail "$(cat err)"
  as_good 2.tar "the one that goes on"
  is "$(ls -A cache)" ""
}
