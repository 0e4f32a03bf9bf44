# Room that was taken, given back, and counted. Check 39.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh

# MiB that an import may fill, as docs/ARCHITECTURE.md has it
room() { stat -f -c '%a %S' "$BOCKER_ROOT" | awk '{ print int($1 * $2 / 2^20) - 32 }'; }
# free MEGABYTES WHAT: a file of this size has room now, not half a minute later
free() {
  fallocate -l "$1M" "$BOCKER_ROOT/$ps/rootfs/now" || fail "$2: no room for $1 MiB"
  rm "$BOCKER_ROOT/$ps/rootfs/now"
}
# store SIZE: with an image, and a container $ps
store() {
  bocker-store init --size "$1" 2>/dev/null
  mkdir base && img=$(bocker-store import base) && ps=$(bocker-store snapshot "$img" -- x)
}

test_what_failed_for_want_of_room_gives_it_back() {
  store 200M
  fallocate -l 60M "$BOCKER_ROOT/$ps/rootfs/fill"
  # parts: of both there is room for the first only, and nearly all is gone then.
  parts() {
    local all
    sync -f "$BOCKER_ROOT"
    all=$(room)
    [ "$all" -gt 65 ] || fail "too little room: $all"
    head -c $((all - 10))M /dev/zero >two/a && head -c 65M /dev/zero >two/b
  }
  mkdir big two
  local full='^bocker-store: no room: 6[56] MiB more would not leave the store its reserve \(bocker rm what is not needed, or a larger store\)$'
  parts && cp two/a big/f && truncate -s +1M big/f && cat two/b >>big/f
  fails 1 "$full" bocker-store import big
  free 65 "after import"
  parts && tar -C two -cf two.tar a b
  fails 1 "$full" sh -c 'bocker-store import - < two.tar'
  free 65 "after import -"
  parts && tar -C two -cf two.tar a b
  python3 - "$repo/tests" <<'PY'
import sys
sys.path.insert(0, sys.argv[1])
import mklayer
mklayer.write("image.tar", mklayer.one(mklayer.Layer().file("a", b"x"), open("two.tar", "rb").read()))
PY
  fails 1 "$full" sh -c 'bocker-store unpack < image.tar'
  free 65 "after unpack"
  # What a crash left goes by gc, of a store that is nearly full.
  btrfs subvolume create "$BOCKER_ROOT/.new_img_42100" >/dev/null && sync -f "$BOCKER_ROOT" && fallocate -l $(($(room) - 10))M "$BOCKER_ROOT/.new_img_42100/f"
  ! fallocate -l 65M "$BOCKER_ROOT/$ps/rootfs/now" 2>/dev/null || fail "the store is not full"
  rm -f "$BOCKER_ROOT/$ps/rootfs/now"
  is "$(bocker-store gc)" .new_img_42100
  free 65 "after gc"
}

# Before an import is refused it waits for what others have deleted.
test_what_others_deleted_counts_as_room() {
  store 512M
  mkdir tree && head -c 100M /dev/zero >tree/f
  btrfs subvolume create "$BOCKER_ROOT/other" >/dev/null
  for n in $(seq 24); do fallocate -l 16M "$BOCKER_ROOT/other/$n"; done
  sync -f "$BOCKER_ROOT"
  fails 1 '^bocker-store: no room: 100 MiB' bocker-store import tree
  btrfs subvolume delete "$BOCKER_ROOT/other" >/dev/null
  # By itself btrfs takes up to half a minute. All of this store was given to data: a moment more, until some is for metadata.
  imported() { bocker-store import tree 2>/dev/null | grep -q '^img_'; }
  eventually 15 imported
}

# On the disk below the pool, what was freed in it is free as well; and what that disk keeps for root is root's.
test_room_on_the_disk_below() {
  mkdir below && mount -t tmpfs -o size=160M below below
  export BOCKER_ROOT=$HOST_DIR/below/store
  bocker-store init 2>/dev/null
  mkdir tree more && head -c 50M /dev/urandom >tree/f && head -c 20M /dev/urandom >more/f
  local made
  for made in 1 2 3 4 5; do bocker-store import --source "n$made" tree >out 2>err || break; done
  like "$(cat err)" '^bocker-store: no room: 50 MiB more would not leave the disk below the store its reserve \(room on that disk, or bocker rm what is not needed\)$'
  for round in 1 2 3; do
    bocker-store rm n1
    bocker-store import --source n1 tree >out 2>err || fail "round $round, after rm: $(cat err)"
  done
  # By hand, so that nobody has waited for it.
  btrfs subvolume delete "$(bocker-store path n1)" >/dev/null
  bocker-store import --source n1 tree >out 2>err || fail "after a deletion: $(cat err)"
  fails 1 '^bocker-store: no room: ' bocker-store import tree
  bocker-store init --undo
  # The loop device lets go of the store's file a moment later.
  eventually 20 umount below
  # Of 160 MiB 64 are root's.
  truncate -s 160M disk && mkfs.ext4 -q -m 40 disk && mount -o loop disk below
  bocker-store init 2>/dev/null
  bocker-store import tree >out 2>err && bocker-store import more >out 2>err || fail "on ext4: $(cat err)"
  fails 1 '^bocker-store: no room: .*disk below' bocker-store import tree
  sync -f "$BOCKER_ROOT" || fail "the disk below is full"
  bocker-store init --undo
  eventually 20 umount below
}

# Only a store that init made is mounted anew by setup.
test_the_way_out_where_the_btrfs_is_the_users_own() {
  truncate -s 200M disk && mkfs.btrfs -q disk >/dev/null && mkdir "$BOCKER_ROOT" && mount -o loop disk "$BOCKER_ROOT"
  chmod 700 "$BOCKER_ROOT"
  # Somebody's file of that name is not what is mounted.
  truncate -s 200M "$BOCKER_ROOT.btrfs"
  mkdir tree && img=$(bocker-store import tree)
  mount -o remount,ro "$BOCKER_ROOT"
  fails 1 ': Read-only file system \(its disk fails, or it is mounted read-only: see dmesg\)$' bocker-store rm "$img"
  umount "$BOCKER_ROOT"
  rm "$BOCKER_ROOT.btrfs" && rmdir "$BOCKER_ROOT"
  bocker-store init 2>/dev/null
  img=$(bocker-store import tree)
  mount -o remount,ro "$BOCKER_ROOT"
  fails 1 ': Read-only file system \(the disk below is full or fails; .*; bocker setup\)$' bocker-store rm "$img"
  mount -o remount,rw "$BOCKER_ROOT"
  bocker-store rm "$img"
}
