# Killed by force at any step (checks 36 and 37): what is listed is whole, one gc takes the rest, and the next try works.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh

# The store with one image, and what the verbs take; $before is what there is to come back to.
store() {
  bocker-store init --size 512M
  mkdir -p tree/d && echo first > tree/a && echo middle > tree/d/b && echo last > tree/z
  base=$(bocker-store import --source base tree)
  printf 'file a first\ndir d\nfile d/b middle\n' > lower
  printf 'file z last\n' > upper
  python3 "$repo/tests/mklayer.py" layout pulled.tar lower upper
  img=$(bocker-store unpack --source loaded:1 < pulled.tar)
  bocker-store save loaded:1 > loaded.tar
  bocker-store rm "$img"
  mkdir -m 700 "$BOCKER_ROOT/layers" /run/bocker 2>/dev/null || true
  before=$(there)
}

there() { ls -d "$BOCKER_ROOT"*; find "$BOCKER_ROOT" /run/bocker -mindepth 1 -path '*/rootfs' -prune -o -print | sort; btrfs subvolume list "$BOCKER_ROOT" | wc -l; }
all() { { bocker-store images; bocker-store ps; } | awk '/^(img|ps)_/ { print $1 }' | sort -u; }

# whole WHAT: every image and container that is listed has all that it should, and every name an image
whole() {
  local id
  for id in $(all); do
    is "$(cat "$BOCKER_ROOT/$id/rootfs/"{a,d/b,z} | tr -d '\n')" firstmiddlelast "$1: $id"
    [ -s "$BOCKER_ROOT/$id/source" ] || fail "$1: the texts of $id"
    case $id in ps_*) is "$(cat "$BOCKER_ROOT/$id/"{cmd,image})" "$(printf 'x\n%s' "$base")" "$1: $id" ;; esac
  done
  is "$(bocker-store path base)" "$BOCKER_ROOT/$base" "$1"
}

# back WHAT: one gc takes what nobody lists; then all but the one image is removed, and nothing else is there
back() {
  bocker-store gc >>gone
  is "$(bocker-store fsck)$(bocker-store gc)" "" "$1: after one gc"
  local id
  for id in $(all); do [ "$id" = "$base" ] || bocker-store rm --force "$id"; done
  is "$(there)" "$before" "$1: what is left"
}

container() { bocker-store snapshot base -- x; }

# Each verb, and what it needs.
commit_new() { set -- "$(container)"; words=(commit "$1" new:1); }
commit_over() { set -- "$(container)"; bocker-store commit "$1" old:1 >/dev/null; words=(commit "$1" old:1); }
rm_image() { set -- "$(container)"; bocker-store commit "$1" old:1 >/dev/null; bocker-store tag old:1 more; words=(rm --force "$(basename "$(bocker-store path old:1)")"); }
rm_container() { words=(rm "$(container)"); }
load() { words=(load); input=loaded.tar; }
unpack() { words=(unpack --source pulled:1); input=pulled.tar; }

test_every_verb_killed_at_every_step() {
  store
  local verb call calls n input status killed=0 words
  for verb in commit_new commit_over rm_image rm_container load unpack; do
    # So often at most: some of them are done for each file. What load does more than unpack is names.
    calls="ioctl:6 renameat2:2 renameat:1 unlinkat:3 symlinkat:1 mkdirat:2 syncfs:2 write:3"
    case $verb in load) calls="renameat:1 symlinkat:1 mkdirat:3" ;; esac
    for call in $calls; do
      for n in $(seq "${call#*:}"); do
        input=/dev/null
        $verb
        status=0
        strace -f -qq -o /dev/null -e "inject=${call%:*}:signal=SIGKILL:when=$n" bocker-store "${words[@]}" <$input >out 2>&1 || status=$?
        whole "$verb killed at $call $n"
        [ "$verb" != commit_over ] || bocker-store path old:1 >/dev/null
        back "$verb killed at $call $n"
        # It did not come so far.
        [ "$status" = 137 ] || { is "$status" 0 "$verb after all of $call: $(cat out)"; break; }
        killed=$((killed + 1))
      done
    done
  done
  [ "$killed" -gt 45 ] || fail "only $killed kills"
  like "$(cat gone)" '\.new_'
}

# stage NAME: the process of a pull that runs at present with these words
stage() { ps -eo pid=,args= | awk -v name="$1" 'index($0, name) && !/awk/ { print $1; exit }'; }
runs() { [ -n "$(stage "$1")" ]; }
has() { [ "$(stat -c %s "$BOCKER_ROOT.cache"/*.partial 2>/dev/null | sort -n | tail -1)" -ge "$1" ] 2>/dev/null; }
nothing_runs() { ! runs bocker-pull && ! runs bocker-store && ! runs "bocker pull"; }

named() { [ "$(find "$BOCKER_ROOT/layers" -mindepth 1 -maxdepth 1 -name 'sha256:*' | wc -l)" = 1 ]; }

# Bytes of the large layer, whose digest begins so, that the registry was asked for.
asked() { sed -n 's/^GET .*sha256:1a576ada.* range=\(bytes=\)\{0,1\}\([0-9]*\)-.*/\2/p' requests | awk '{ sum += '$big' - $1 } END { print sum + 0 }'; }

# A pull goes on where it was, however often it is killed, and is whole in the end.
test_a_pull_killed_again_and_again() {
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 5001 requests >ready 2>/dev/null &
  eventually 10 grep -qs ready ready
  bocker-store init && mkdir -m 700 "$BOCKER_ROOT/layers" /run/bocker
  local before at=0 part status big=300282 group job img name
  before=$(there; census | grep -v '^process')
  # Each time the registry says 50,000 bytes more, and then nothing: it cannot have all before it is killed.
  for part in 50000 100000 150000; do
    : >requests
    setsid bocker pull 127.0.0.1:5001/portions >out 2>err &
    group=$!
    eventually 10 has "$part"
    kill -KILL -- "-$group"
    wait "$group" || true
    eventually 5 nothing_runs
    is "$(cat out)$(bocker images | sed 1d)" "" "killed at $part"
    # What had come is not asked for again.
    [ "$(asked)" -le $((big - at)) ] || fail "killed at $part: asked for $(asked) bytes, $at had come"
    at=$part
  done
  # One of its processes is killed: the others end by themselves, and nothing is listed. Who waits says that it was killed,
  # and who reads from it that something is missing.
  for name in "bocker-pull fetch" "bocker-store unpack"; do
    # Who asks the registry learns that nobody takes it any more by the next that comes, or by waiting for that in vain.
    BOCKER_PULL_TIMEOUT=6 bocker pull 127.0.0.1:5001/portions >out 2>err &
    job=$!
    at=$((at + 50000))
    eventually 10 has "$at"
    eventually 10 runs "$name"
    kill -KILL "$(stage "$name")"
    status=0; wait "$job" || status=$?
    [ "$status" != 0 ] || fail "a pull without its $name worked"
    [ "$(wc -l <err)" -le 2 ] || fail "lines: $(cat err)"
    eventually 5 nothing_runs
    is "$(cat out)$(bocker images | sed 1d)" "" "$name"
  done
  : >requests
  img=$(bocker pull 127.0.0.1:5001/portions 2>/dev/null | sed 's/Created: //')
  [ "$(asked)" -le $((big - at)) ] || fail "the last one asked for $(asked) bytes, $at had come"
  is "$(stat -c %s "$BOCKER_ROOT/$img/rootfs/"{one,two} | xargs)" "1000 300000"
  bocker rmi "$img" >/dev/null
  # What the killed ones had begun.
  unlike "$(bocker gc)" '^[^l]|^layers/[^.]'
  is "$(bocker gc)" ""
  is "$(there; census | grep -v '^process')" "$before"
}

# Killed within a layer, a pull keeps the one before: that has its name by then, and is not asked for again.
test_a_pull_killed_within_a_layer_keeps_the_one_before() {
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 5001 requests >ready 2>/dev/null &
  eventually 10 grep -qs ready ready
  bocker-store init 2>/dev/null
  local group first img
  # The registry says no more at the first time.
  setsid bocker pull 127.0.0.1:5001/half >out 2>err &
  group=$!
  eventually 10 has 100000
  eventually 10 named
  kill -KILL -- "-$group"
  wait "$group" || true
  eventually 5 nothing_runs
  named || fail "the layer is lost"
  first=$(cut -f 1 "$BOCKER_ROOT"/layers/sha256:*/origin)
  like "$(cat requests)" "/blobs/$first"
  : >requests
  img=$(bocker pull 127.0.0.1:5001/half 2>/dev/null | sed 's/Created: //')
  like "$(cat requests)" '/blobs/sha256:1a576ada.* range=bytes=100000-'
  unlike "$(cat requests)" "/blobs/$first"
  is "$(stat -c %s "$BOCKER_ROOT/$img/rootfs/"{one,two} | xargs)" "1000 300000"
  like "$(bocker gc)" '^layers/\.new_layer_[^ ]*$'
  is "$(bocker-store fsck)" ""
}

# At moments spread over its time, all of its processes at once.
test_commands_killed_at_any_moment() {
  store
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 5001 requests >ready 2>/dev/null &
  eventually 10 grep -qs ready ready
  local verb n ended=0 words started took group
  pull() { words=(pull 127.0.0.1:5001/good); }
  save() { words=(load -i loaded.tar); }
  commit() { set -- "$(container)"; words=(commit "$1" new:1); }
  remove() { set -- "$(container)"; words=(rm "$1"); }
  listed() {
    [ $verb = pull ] || { whole "$1"; return; }
    local id
    for id in $(all); do [ "$id" = "$base" ] || is "$(stat -c %s "$BOCKER_ROOT/$id/rootfs/"{one,two} | xargs)" "1000 300000" "$1"; done
  }
  for verb in pull save commit remove; do
    $verb
    started=$(date +%s%N)
    bocker "${words[@]}" >/dev/null 2>&1
    took=$(($(date +%s%N) - started))
    listed "$verb"
    back "$verb"
    for n in 1 2 3 4 5 6; do
      $verb
      setsid bocker "${words[@]}" >out 2>&1 &
      group=$!
      sleep "$(awk "BEGIN { print $took * $n / 7e9 }")"
      # What was measured is too long where the machine made a pause meanwhile.
      kill -KILL -- "-$group" 2>/dev/null || { ended=$((ended + 1)) took=$((took / 2)); }
      wait "$group" || true
      eventually 5 nothing_runs
      listed "$verb killed at $n/7"
      back "$verb killed at $n/7"
    done
  done
  [ "$ended" -lt 12 ] || fail "$ended of 24 had ended before they were killed"
}
