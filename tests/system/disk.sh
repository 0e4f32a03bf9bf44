# df, prune and fsck.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh

store() { bocker-store init --size 512M; }
# data FILE MEGABYTES: what no file system makes smaller
data() { head -c "$(($2 << 20))" /dev/urandom > "$1"; }
# of NAME: its line of df without the name
of() { bocker-store df | awk -F '\t' -v name="$1" '$1 == name { print $2, $3 }'; }
mega() { echo $(($1 << 20)); }
shown() { bocker-store images | tail -n +2 | cut -f 3 | sort | xargs; }

test_df_knows_what_is_shared() {
  store
  is "$(bocker-store df)" ""
  mkdir tree && data tree/base 8
  img=$(bocker-store import tree)
  is "$(of "$img")" "$(mega 8) 0"
  ps=$(bocker-store snapshot "$img" -- x) two=$(bocker-store snapshot "$img" -- x)
  is "$(bocker-store df)" "$(printf '%s\t0\t%s\n' "$img" "$(mega 8)" "$(printf '%s\n' "$ps" "$two" | sort | head -1)" "$(mega 8)" \
    "$(printf '%s\n' "$ps" "$two" | sort | tail -1)" "$(mega 8)")"
  data "$BOCKER_ROOT/$ps/rootfs/own" 3
  # A hole takes nothing; a copy by reference, a hard link and what is overwritten are counted once, and whole.
  truncate -s 100M "$BOCKER_ROOT/$ps/rootfs/hole"
  cp --reflink=always "$BOCKER_ROOT/$ps/rootfs/own" "$BOCKER_ROOT/$ps/rootfs/again"
  ln "$BOCKER_ROOT/$ps/rootfs/own" "$BOCKER_ROOT/$ps/rootfs/link"
  is "$(of "$ps")" "$(mega 3) $(mega 8)"
  # Of a subvolume that the container made, too.
  btrfs subvolume create "$BOCKER_ROOT/$ps/rootfs/inner" >/dev/null && data "$BOCKER_ROOT/$ps/rootfs/inner/f" 2
  is "$(of "$ps")" "$(mega 5) $(mega 8)"
  rm "$BOCKER_ROOT/$two/rootfs/base"
  is "$(of "$two")" "0 0"
  bocker-store volume create vol >/dev/null && data "$BOCKER_ROOT/vol_vol/data/f" 4
  is "$(of vol_vol)" "$(mega 4) 0"
  is "$(bocker-store df --json | jq -c "select(.name == \"$ps\")")" "{\"exclusive\":$(mega 5),\"name\":\"$ps\",\"shared\":$(mega 8)}"
  is "$(bocker system df)" "$(bocker-store df)"
  is "$(bocker --dry-run system df --json | sh)" "$(bocker-store df --json)"
  # The kernel's own word, file by file, where each extent belongs to one file.
  bocker-store rm "$two"
  is "$(btrfs filesystem du -s --raw "$BOCKER_ROOT/vol_vol" | awk 'NR == 2 { print $2 }')" "$(mega 4)"
}

test_df_of_layers() {
  store
  data f 4
  python3 - "$repo/tests" <<'PY'
import sys
sys.path.insert(0, sys.argv[1])
import mklayer
big = open("f", "rb").read()
base = mklayer.Layer().dir("d/").file("d/f", big)
for name, more in ("a", b"x" * (1 << 20)), ("b", b"y" * (2 << 20)):
    mklayer.write(name + ".tar", mklayer.one(base, mklayer.Layer().file("d/" + name, more)))
PY
  a=$(bocker-store unpack --source a < a.tar) b=$(bocker-store unpack --source b < b.tar)
  is "$(of "$a") $(of "$b")" "0 $(mega 5) 0 $(mega 6)"
  is "$(bocker-store df | grep -c '^layers/sha256:')" 3
  is "$(bocker-store df | awk -F '\t' '/^layers/ { print $2, $3 }' | sort | xargs)" "0 $(mega 4) 0 $(mega 5) 0 $(mega 6)"
  # What an image's end frees is its own and that of the layers that go with it.
  bocker-store untag b
  is "$(bocker-store prune 2>/dev/null)" "$b	$(mega 2)"
  is "$(bocker-store prune --all 2>/dev/null | awk -F '\t' '{ sum += $2 } END { print NR, sum }')" "2 $(mega 7)"
  is "$(bocker-store prune --all --force | awk -F '\t' '{ sum += $2 } END { print NR, sum }')" "2 $(mega 7)"
  is "$(bocker-store df)" ""
}

test_prune_lists_first_and_removes_when_told() {
  store
  mkdir tree && data tree/f 2
  never=$(bocker-store import tree)
  lost=$(bocker-store import --source mine tree)
  kept=$(bocker-store import --source mine tree)
  other=$(bocker-store import --source other tree) && bocker-store untag other
  ended=$(bocker-store snapshot "$kept" -- x) && echo 'exited 0' > "$BOCKER_ROOT/$ended/status"
  fresh=$(bocker-store snapshot "$kept" -- x)
  running=$(bocker-store snapshot "$kept" -- x)
  # It waits without a process that comes and goes: the census would see that.
  mkfifo stop
  flock -x "$BOCKER_ROOT/$running/status" sh -c 'echo "running $$" > "$0/status"; : > running; : < stop' "$BOCKER_ROOT/$running" &
  eventually 5 test -e running
  data "$BOCKER_ROOT/$ended/rootfs/more" 1
  anonymous=$(bocker-store volume create) && bocker-store volume create chosen >/dev/null
  held=$(bocker-store volume create) && echo "$held" > "$BOCKER_ROOT/$fresh/volumes"
  theirs=$(bocker-store volume create) && echo "$theirs" > "$BOCKER_ROOT/$ended/volumes"
  before=$(census)
  is "$(bocker-store prune 2>err | sort)" "$(printf '%s\t%s\n' "$lost" "$(mega 2)" "$other" "$(mega 2)" | sort)"
  is "$(cat err)" "bocker-store: nothing was removed: 2 things, $(mega 4) bytes (--force removes)"
  is "$(bocker-store prune --containers 2>/dev/null | head -1)" "$ended	$(mega 1)"
  is "$(bocker-store prune --volumes 2>/dev/null | grep -c vol_)" 1
  is "$(bocker-store prune --volumes --containers 2>/dev/null | grep vol_ | cut -f 1 | sort)" \
    "$(printf 'vol_%s\n' "$anonymous" "$theirs" | sort)"
  is "$(bocker-store prune --all 2>/dev/null | cut -f 1 | sort)" "$(printf '%s\n' "$never" "$lost" "$other" | sort)"
  is "$(census)" "$before" "after only looking"
  # A dry run says it in shell; the shell does it.
  bocker-store prune --dry-run > script
  is "$(census)" "$before"
  sh -e script
  is "$(bocker-store prune 2>&1)" ""
  is "$(shown)" "mine:latest tree"
  is "$(bocker prune -f --volumes | cut -f 1 | sort)" "$(printf '%s\n' "$ended" "vol_$anonymous" "vol_$theirs" | sort)"
  is "$(bocker-store ps --json | jq -r .id | sort)" "$(printf '%s\n' "$fresh" "$running" | sort)"
  is "$(bocker-store volume ls -q | sort)" "$(printf '%s\n' chosen "$held" | sort)"
  : > stop; wait
  is "$(bocker --dry-run system prune | sh 2>/dev/null | cut -f 1)" "$running"
  is "$(bocker system prune --all --force | cut -f 1)" "$(printf '%s\n' "$running" "$never")"
  is "$(shown)" "mine:latest" "the image of the one that never began"
  is "$(bocker prune 2>&1)" ""
}

test_prune_and_df_on_a_full_disk() {
  bocker-store init --size 200M
  mkdir tree && data tree/f 1
  lost=$(bocker-store import --source mine tree) && bocker-store untag mine
  ps=$(bocker-store snapshot "$lost" -- x) && echo 'exited 0' > "$BOCKER_ROOT/$ps/status"
  volume=$(bocker-store volume create)
  head -c 300000000 /dev/zero > "$BOCKER_ROOT/$ps/rootfs/fill" 2>/dev/null || true
  head -c 300000000 /dev/zero > "$BOCKER_ROOT/vol_$volume/data/fill" 2>/dev/null || true
  is "$(bocker-store df | wc -l)" 3
  is "$(bocker-store diff "$ps")" "A /fill"
  is "$(bocker-store fsck)" ""
  is "$(bocker-store prune --containers --volumes 2>/dev/null | cut -f 1)" "$(printf '%s\n' "$ps" "$lost" "vol_$volume")"
  is "$(bocker-store prune --containers --volumes --force | cut -f 1)" "$(printf '%s\n' "$ps" "$lost" "vol_$volume")"
  is "$(ls -A "$BOCKER_ROOT")" ""
}

# Whether an image has had a name is its own, whatever is committed to it.
test_prune_never_takes_an_image_without_a_name() {
  store
  mkdir tree && echo x > tree/f
  plain=$(bocker-store import tree)
  named=$(bocker-store import --source mine tree)
  from_named=$(bocker-store snapshot mine -- x) from_plain=$(bocker-store snapshot "$plain" -- x)
  bocker-store commit "$from_named" "$plain"
  is "$(bocker-store prune 2>&1)" ""
  bocker-store commit "$from_plain" mine >/dev/null
  is "$(bocker-store prune 2>&1)" ""
  bocker-store untag mine
  is "$(bocker-store prune 2>&1)" "" "what a container was made from"
  bocker-store rm "$from_named"
  is "$(bocker-store prune 2>/dev/null | cut -f 1)" "$named"
  bocker-store commit "$from_plain" new >/dev/null
  bocker-store tag "$named" mine
  is "$(bocker-store prune 2>&1)" ""
  bocker-store commit --dry-run "$from_plain" mine > script && sh -e script >/dev/null
  bocker-store untag mine
  is "$(bocker-store prune 2>/dev/null | cut -f 1)" "$named"
}

test_fsck_finds_what_does_not_agree() {
  store
  printf 'dir d\nfile d/f base\n' > base
  python3 "$repo/tests/mklayer.py" layout a.tar base
  img=$(bocker-store unpack --source a < a.tar)
  mkdir tree && two=$(bocker-store import --source b tree)
  ps=$(bocker-store snapshot a -- x)
  bocker-store volume create vol >/dev/null
  before=$(census)
  is "$(bocker-store fsck)" ""
  is "$(census)" "$before"
  # finds WHAT: one line that says so, and status 1; nothing changed.
  finds() {
    local status=0
    before=$(census)
    bocker-store fsck > out 2>err || status=$?
    is "$status $(cat err)" "1 "
    is "$(cat out)" "$1"
    is "$(census)" "$before"
  }
  root=$BOCKER_ROOT
  layer=$(cat "$root/$img/layers")
  mkdir "$root/stray"; finds "stray	it is none of the store's"
  is "$(bocker-store fsck --json || true)" '{"finding":"it is none of the store'"'"'s","name":"stray"}'; rmdir "$root/stray"
  mkdir "$root/img_50000"; finds "img_50000	it is no subvolume"; rmdir "$root/img_50000"
  btrfs subvolume create "$root/.new_img_50000" >/dev/null
  finds ".new_img_50000	a crash left it half-made (bocker-store gc removes it)"
  bocker-store gc >/dev/null
  mv "$root/$two/rootfs" rootfs; finds "$two	it has no directory rootfs"; mv rootfs "$root/$two/rootfs"
  mv "$root/$ps/cmd" cmd; finds "$ps	it has no text file cmd"; mv cmd "$root/$ps/cmd"
  cp "$root/$two/config" config
  echo '{' > "$root/$two/config"; finds "$two	read config: EOF while parsing an object at line 1 column 1"
  cp "$root/$img/config" "$root/$two/config"; finds "$two	its layers are not those of its configuration"
  cp config "$root/$two/config"
  cp "$root/$img/layers" layers
  echo "sha256:$(printf %064d 0)" >> "$root/$img/layers"
  finds "$img	its layer sha256:$(printf %064d 0) is not there
$img	its layers are not those of its configuration"
  cp layers "$root/$img/layers"
  echo nothing > "$root/$ps/image"; finds "$ps	its file image names no image"; echo "$img" > "$root/$ps/image"
  echo gone > "$root/$ps/volumes"; finds "$ps	its volume gone is not there"; rm "$root/$ps/volumes"
  btrfs property set -ts "$root/layers/$layer" ro false; finds "layers/$layer	it is not read-only"
  btrfs property set -ts "$root/layers/$layer" ro true
  btrfs subvolume snapshot -r "$root/layers/$layer" "$root/layers/sha256:$(printf %064d 7)" >/dev/null
  finds "layers/sha256:$(printf %064d 7)	no image needs it (bocker-store gc removes it)"
  bocker-store gc >/dev/null
  mkdir "$root/layers/x"; finds "layers/x	it is no layer"
  btrfs subvolume create "$root/layers/x/hidden" >/dev/null
  id=$(btrfs subvolume list "$root" | awk '/hidden/ { print $2 }')
  finds "layers/x	it is no layer
subvolume $id	nothing in the store stands for it (btrfs subvolume list)"
  btrfs subvolume delete "$root/layers/x/hidden" >/dev/null; rmdir "$root/layers/x"
  rmdir "$root/vol_vol/data"; finds "vol_vol	it has no directory data"; mkdir "$root/vol_vol/data"
  ln -s nowhere "$root/names/odd"; finds "names/odd	it is no name"; rm "$root/names/odd"
  btrfs subvolume delete "$root/$two" >/dev/null
  finds "names/docker.io/library/b:latest	its image $two is gone (bocker-store gc removes it)"
  bocker-store gc >/dev/null
  mkdir "$HOST_DIR/other" "$HOST_DIR/other/$ps" && ln -sfn "$HOST_DIR/other" "/run/bocker/$ps"
  finds "$ps	it is a container of $HOST_DIR/other, too"
  ln -sfn "$root" "/run/bocker/$ps"
  # Control characters do not reach the terminal.
  mkdir "$root/$(printf 'a\033[2J')"; finds 'a\u{1b}[2J	it is none of the store'"'s"; rmdir "$root"/a*
  is "$(bocker-store fsck)" ""
}

# What is under way is no finding: a layer that no image lists yet, a subvolume that is locked.
test_fsck_while_others_work() {
  store
  printf 'dir d\nfile d/f base\n' > base
  python3 "$repo/tests/mklayer.py" layout a.tar base
  mkdir tree && echo x > tree/f
  for _ in 1 2 3; do
    while [ ! -e stop ]; do
      me=$BASHPID; img=$(bocker-store unpack --source "n$me" < a.tar) && bocker-store tag "$img" "n$me" && bocker-store rm "$img"
    done 2>> errors &
    while [ ! -e stop ]; do
      img=$(bocker-store import tree) && bocker-store rm "$(bocker-store snapshot "$img" -- x)" && bocker-store rm "$img"
    done 2>> errors &
  done
  for _ in $(seq 20); do bocker-store fsck >> found 2>> errors || true; done
  touch stop; wait
  is "$(cat errors found)" ""
  is "$(bocker-store fsck)" ""
}

# brim ID [links]: no room for a file's data in the store, or not even for a name: what is in a link's is metadata alone
brim() {
  local n size
  for size in 64M 4M 1M 64K; do
    for n in $(seq 50); do fallocate -l "$size" "$BOCKER_ROOT/$1/rootfs/$size.$RANDOM$n" 2>/dev/null || break; done
  done
  head -c 100000000 /dev/zero > "$BOCKER_ROOT/$1/rootfs/fill" 2>/dev/null || true
  sync -f "$BOCKER_ROOT"
  [ $# = 1 ] || python3 - "$BOCKER_ROOT/$1/rootfs" <<'PY'
import os, sys
try:
    for n in range(100_000):
        os.symlink("x" * 3000, f"{sys.argv[1]}/{os.urandom(8).hex()}")
except OSError as e:
    assert e.errno == 28, e
PY
}

# Check 39: whatever makes something fails in one line that names the way out, and leaves nothing; whatever deletes works.
test_nothing_is_made_on_a_full_disk_and_everything_deleted() {
  bocker-store init --size 200M
  bocker-net setup 2>/dev/null
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 5001 requests >ready 2>/dev/null &
  eventually 10 grep -qs ready ready
  a_tree tree && data tree/big 2
  tar -C tree -cf tree.tar .
  bocker-store import --source base tree >/dev/null
  bocker save base > base.tar
  local how full ps volume way_out='^bocker-store: .*\(.*bocker rm what is not needed'
  for how in data links; do
    full=$(bocker-store snapshot base -- x) ps=$(bocker-store snapshot base -- x)
    for id in "$full" "$ps"; do echo 'exited 0' > "$BOCKER_ROOT/$id/status"; done
    volume=$(bocker-store volume create) && bocker-store volume create vol >/dev/null
    mkdir -m 700 "$BOCKER_ROOT/layers" 2>/dev/null || true
    btrfs subvolume create "$BOCKER_ROOT/.new_img_42100" >/dev/null
    bocker tag base other
    [ "$how" = links ] && more=links || more=
    again() { brim "$full" $more; }
    again
    before=$(census)
    fails 1 "$way_out" bocker pull 127.0.0.1:5001/good
    fails 1 "$way_out" bocker load -i base.tar
    fails 1 "$way_out" bocker init tree
    fails 1 "$way_out" sh -c 'bocker import - < tree.tar'
    fails 1 "$way_out" bocker commit "$ps" mine:1
    fails 125 "$way_out" bocker run base true
    if [ "$how" = links ]; then
      # No data is in these: where only that is missing they work.
      fails 1 "$way_out" bocker commit "$ps" base
      fails 1 "$way_out" bocker tag base localhost:5000/a/b:1
      fails 1 "$way_out" bocker volume create more
    fi
    is "$(census)" "$before" "$how: what failed left something"
    is "$(bocker images | wc -l) $(bocker ps | wc -l)" "3 3"
    # Looking works, and taking out what is there.
    is "$(bocker-store df | wc -l) $(bocker export base | cmp - <(bocker export other) && bocker save base | cmp - base.tar && echo same)" "5 same"
    # And what makes room.
    # The next pull would go on from what is beside the store.
    like "$(bocker gc | xargs)" "^\\.new_img_42100( $BOCKER_ROOT\\.cache/sha256:[0-9a-f]+\\.partial)*$"
    again; is "$(bocker volume rm vol)" vol
    again; is "$(bocker rmi other)" "Removed: other"
    again; is "$(bocker volume prune --force)" "vol_$volume	0"
    again; is "$(bocker rm "$ps")" "Removed: $ps"
    again; is "$(bocker rm "$full")" "Removed: $full"
    is "$(bocker run base echo room)" room
    is "$(bocker prune --force | wc -l)" 1
  done
  is "$(bocker rmi base; ls -A "$BOCKER_ROOT")" "Removed: base
layers"
}

# The same where /run, which has the links to containers and the networks' names, has no room for one more.
test_no_room_in_run() {
  a_tree tree
  bocker init tree >out 2>/dev/null && img=$(sed 's/Created: //' out)
  bocker run "$img" true 2>/dev/null
  # Not one name more in either.
  for dir in /run/bocker /run/netns; do
    ps=$(bocker-store snapshot "$img" -- x)
    mkdir kept && cp -a $dir/. kept && mount -t tmpfs -o mode=700,size=4k,nr_inodes=$(($(ls kept | wc -l) + 1)) small $dir
    cp -a kept/. $dir && rm -r kept
    before=$(census)
    fails 125 "^bocker-(store|net): create $dir/[a-z_0-9]*: No space left on device \\(" bocker run "$img" true
    [ $dir = /run/netns ] || fails 1 "^bocker-store: create /run/bocker/ps_[0-9]+: No space left on device \\(make room in /run: df -i /run\\)$" bocker-store snapshot "$img"
    is "$(census)" "$before" "after a run without room in $dir"
    is "$(bocker gc)" ""
    is "$(bocker rm "$ps")" "Removed: $ps"
    umount $dir
    # The link that the mount had hidden.
    bocker gc >/dev/null
  done
  is "$(bocker run "$img" echo room)" room
}

# The pool takes room on the disk below as it is filled. What is told how much it needs stops before that is full; where
# it fills up all the same, btrfs ends all work, and nothing that was whole is lost.
test_the_disk_below_the_store_is_full() {
  local below=$HOST_DIR/below made way_out
  mkdir below tree && mount -t tmpfs -o size=160M below below
  export BOCKER_ROOT=$below/store
  bocker-store init 2>/dev/null
  data tree/f 20
  for made in 1 2 3 4 5 6 7 8; do bocker-store import --source "n$made" tree >out 2>err || break; done
  like "$(cat err)" '^bocker-store: no room: 20 MiB more would not leave the disk below the store its reserve \(room on that disk, or bocker rm what is not needed\)$' "import $made"
  [ "$made" -gt 3 ] || fail "no room for the image $made"
  bocker save n1 > n1.tar
  fails 1 '^bocker-store: no room: ' bocker load -i n1.tar
  like "$(findmnt -no OPTIONS "$BOCKER_ROOT")" '^rw,'
  is "$(bocker-store images | wc -l)" "$made"
  # A container knows no such limit.
  ps=$(bocker-store snapshot n1 -- x) && echo 'exited 0' > "$BOCKER_ROOT/$ps/status"
  head -c 100000000 /dev/urandom > "$BOCKER_ROOT/$ps/rootfs/fill" 2>/dev/null || true
  sync -f "$BOCKER_ROOT" 2>/dev/null && fail "the disk below is not full"
  way_out="(I/O error|Read-only file system) \\(the disk below is full or fails; make room there, then umount $BOCKER_ROOT; bocker setup\\)$"
  for words in images "tag n1 more" "rmi n1" "rm $ps" gc; do
    # shellcheck disable=SC2086 # words
    fails 1 "^bocker-store: .*$way_out" bocker $words
  done
  fails 125 "^bocker-store: .*$way_out" bocker run --pull never n1 true
  # The way out.
  mount -o remount,size=400M below
  umount "$BOCKER_ROOT" && bocker setup 2>/dev/null
  bocker gc >/dev/null
  is "$(bocker-store fsck)" ""
  for img in $(bocker-store images --json | jq -r .id); do cmp tree/f "$BOCKER_ROOT/$img/rootfs/f"; done
  is "$(bocker images | wc -l)" "$made"
  bocker setup --undo
}
