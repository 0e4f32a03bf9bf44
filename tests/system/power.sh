# Power cuts (check 38): what the disk holds at some moment, mounted elsewhere.
#
# The store's pool lies on a btrfs of the test's own, so that a copy of it by reference is one moment of the block device:
# what the kernel had written by then is in it, and nothing that came after.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh

# What a container was started with; the second is more than btrfs keeps beside a file's name.
long=$(printf 'word%.0s ' $(seq 600))
listing() { python3 "$repo/tests/listing.py" "$(bocker-store path "$1")/rootfs"; }
no_loops() { ! losetup -a | grep -qF "$HOST_DIR/"; }

# The store, on a disk that can be copied; and what images are made of, with files of every size.
store() {
  truncate -s 8G disk && mkfs.btrfs -q disk >/dev/null && mkdir outer
  # Nobody cuts this one's power.
  mount -o loop,nodev,nobarrier disk outer
  bocker-store init --size 1G 2>/dev/null
  umount "$BOCKER_ROOT"
  mv "$BOCKER_ROOT.btrfs" outer/pool
  on outer/pool "$BOCKER_ROOT"
  python3 - "$repo/tests" <<'PY'
import random, sys
sys.path.insert(0, sys.argv[1])
import mklayer
draw = random.Random(38)
sizes = [0, 1, 100, 2047, 2049, 4096, 5000, 70_000, 300_000] + [draw.randrange(9000) for _ in range(30)]
def layer(name):
    made = mklayer.Layer().dir("./").dir("d/").dir(f"d/{name}/")
    for n, size in enumerate(sizes):
        made.file(f"d/{name}/{n}", draw.randbytes(size), mode=0o640 + n % 8, mtime=n)
    return made
base = layer("base")
pulled = mklayer.one(base, layer("one"), layer("two"))
mklayer.write("pulled.tar", pulled)
mklayer.write("failed.tar", mklayer.cut(pulled, 6, mklayer.Layer().add("failed").tar()))
mklayer.write("loaded.tar", mklayer.one(base, layer("three")))
PY
  mkdir tree && tar -xf <(tar -xOf loaded.tar "$(tar -tf loaded.tar | sed -n 4p)" | gzip -dc) -C tree
  # Of everything once, and what comes out when nothing is in a hurry.
  img=$(bocker-store import --source base tree)
  bocker-store tag "$(bocker-store load < loaded.tar | sed 's/.*: //')" loaded:1
  bocker-store save loaded:1 > saved.tar
  bocker-store rm loaded:1
  expected() { mkdir -p wanted; listing "$1" > "wanted/$1"; }
  expected base
  pull && expected pulled:1 && bocker-store rm pulled:1
  load && expected loaded:1 && bocker-store rm loaded:1
  import && expected imported:1 && bocker-store rm imported:1
  commit && expected committed:1 && bocker-store rm committed:1
}

# on FILE DIR: mounted as init does it
on() { mount -o loop,nodev,noatime "$1" "$2"; }

pull() { bocker-store unpack --source pulled:1 < pulled.tar >/dev/null; }
# The registry goes away before the end; the layers that were complete stay.
fetch() { ! bocker-store unpack --source pulled:1 < failed.tar; }
load() { bocker-store load < saved.tar >/dev/null; }
import() { bocker-store import --source imported:1 tree >/dev/null; }
# A container, with what its program would have written; the image that it becomes.
commit() {
  local ps
  ps=$(bocker-store snapshot base -- some words)
  rm -r "$BOCKER_ROOT/$ps/rootfs/d/base"
  cp -r tree/d "$BOCKER_ROOT/$ps/rootfs/more"
  find "$BOCKER_ROOT/$ps/rootfs" -exec touch -d @1 {} +
  bocker-store commit "$ps" committed:1 >/dev/null
  bocker-store rm "$ps"
  # Once more, in its place.
  ps=$(bocker-store snapshot committed:1 -- some words)
  bocker-store commit "$ps" committed:1 >/dev/null
  bocker-store rm "$ps"
}

# cut NAME: the power goes now; what is on the disk is outer/NAME
cut() { cp --reflink=always outer/pool "outer/$1"; }

# The transaction is written down, but not the data of files that nobody has brought to the disk. So it does every
# half a minute, and for many another reason.
commit_transaction() { btrfs subvolume snapshot "$BOCKER_ROOT/$img" "$BOCKER_ROOT/.new_other" >/dev/null; }

# same IMAGE WANTED: it holds what it held when nothing was in a hurry
same() { [ "$(listing "$1")" = "$(cat "wanted/$2")" ]; }

# The machine is off: what the disk holds, and nothing in /run.
off() {
  umount "$BOCKER_ROOT"
  rm -r /run/bocker
}

# wrong NAME: prints what is wrong with the store that is found after this cut: what is listed is whole; what is not goes by
# one gc; and what was asked for can be had again.
wrong() {
  local id source name
  btrfs check --readonly "outer/$1" >checked 2>&1 || { echo "btrfs check: $(cat checked)"; return; }
  on "outer/$1" "$BOCKER_ROOT"
  while IFS=$'\t' read -r id source; do
    if [ ! -f "wanted/$source" ]; then echo "$id came from '$source'"
    elif ! same "$id" "$source"; then echo "$id is not the whole of $source"; diff <(listing "$id") "wanted/$source" | head -n 5 >&2 || true
    else echo "$source" >>whole; fi
  done < <(bocker-store images --json | jq -r '[.id, .source] | @tsv')
  bocker-store ps --json | jq -r --arg long "$long" \
    'select(.image == "" or .command != "some words" and .command != $long) | "\(.id) is \(.command) of \(.image)"'
  # From what is there already, whatever that is.
  for name in pull load; do $name 2>/dev/null; done
  for name in pulled:1 loaded:1; do same "$name" "$name" || echo "$name does not heal"; done
  bocker-store gc >gone
  [ ! -s gone ] || cat gone >>half
  bocker-store fsck || true
  [ -z "$(bocker-store gc)" ] || echo "one gc is not enough"
  for id in $(bocker-store ps --json | jq -r .id) $(bocker-store images --json | jq -r .id); do bocker-store rm --force "$id"; done
  bocker-store gc; bocker-store fsck || true; btrfs subvolume list "$BOCKER_ROOT"
  umount "$BOCKER_ROOT"
}

# What a verb has made when it has ended stays whole or was never there, from then on.
test_power_cut_after_each_verb() {
  store
  local verbs="fetch pull load import commit"
  for verb in $verbs; do
    $verb
    commit_transaction
    cut "$verb"
    bocker-store gc >/dev/null
  done
  bocker-store snapshot base -- some words >/dev/null
  bocker-store snapshot base -- "$long" >/dev/null
  commit_transaction
  cut snapshot
  # The same import without its sync is found out: the test would see what a tool forgets.
  bocker-store import --source imported:1 --dry-run tree | sed '/^sync -f/d' | sh -e >/dev/null
  commit_transaction
  cut unsynced
  off
  for verb in $verbs snapshot; do
    : >whole
    is "$(wrong "$verb")" "" "after $verb"
    like "$(cat whole)" '^base$' "after $verb: a complete image"
  done
  like "$(wrong unsynced)" "img_[0-9]+ (is not the whole of imported:1|came from '')"
}

# At 20 moments, while everything is done at once, again and again.
test_power_cut_at_any_moment() {
  store
  local verb n rounds
  for verb in pull load import commit; do : >"rounds.$verb"; done
  for verb in pull load import; do
    while [ ! -e stop ]; do $verb && echo >>"rounds.$verb" && sleep 0.1 && bocker-store rm "${verb}ed:1"; done 2>>err &
  done
  while [ ! -e stop ]; do commit && echo >>rounds.commit && bocker-store tag committed:1 other && bocker-store rm other && bocker-store rm committed:1; done 2>>err &
  # more VERB: it has gone round once more
  more() { [ "$(wc -l <"rounds.$1")" -gt "$rounds" ]; }
  for n in $(seq -w 20); do
    # At every fifth each has done something since, also one that was held up.
    for verb in pull load import commit; do
      [ $((10#$n % 5)) = 0 ] || break
      rounds=$(wc -l <"rounds.$verb")
      eventually 60 more "$verb"
    done
    sleep "0.$((RANDOM % 3))$((RANDOM % 10))"
    cut "$n"
  done
  touch stop
  wait
  is "$(cat err)" ""
  off
  : >half; : >whole
  for n in $(seq -w 20); do is "$(wrong "$n")" "" "cut $n"; done
  # Some were in the middle of something, and every kind of image was there.
  like "$(cat half)" '\.new_'
  is "$(sort -u whole | xargs)" "base committed:1 imported:1 loaded:1 pulled:1"
}
