# bocker-store: images, layers and containers on btrfs.
# shellcheck shell=bash disable=SC2154,SC2016,SC2094 # repo: tests/lib.sh; words for another shell; named pipes

store() { bocker-store init --size 512M; }

# A small tree that holds one of everything.
everything() {
  mkdir -p "$1/dir/.hidden" "$1/.dot"
  echo content > "$1/file"
  ln "$1/file" "$1/dir/another"
  ln -s ../file "$1/dir/link"
  ln -s /nowhere/at/all "$1/dangling"
  mkfifo "$1/pipe"
  mknod "$1/null" c 1 3
  mknod "$1/block" b 7 0
  python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$1/socket"
  printf x > "$1/$(printf 'not\377utf8')"
  printf x > "$1/new
line"
  printf x > "$1/$(printf 'n%.0s' $(seq 255))"
  cp /bin/busybox "$1/setuid" && chmod 4755 "$1/setuid"
  cp /bin/busybox "$1/capable" && setcap cap_net_raw+ep "$1/capable"
  touch "$1/sparse" && truncate -s 64M "$1/sparse" && printf end >> "$1/sparse"
  printf middle | dd of="$1/sparse" bs=1 seek=1000000 conv=notrunc status=none
  chmod 2775 "$1/dir" && chmod 1777 "$1/.dot" && chmod 000 "$1/dir/.hidden"
  chown 1000:2147483646 "$1/file" && chown -h 5:6 "$1/dangling" "$1/pipe"
  setfattr -n user.empty -v '' "$1/file" && setfattr -n user.bytes -v 0x000a3d00ff "$1/dir"
  setfattr -n system.posix_acl_default -v 0x0200000001000700ffffffff04000500ffffffff20000500ffffffff "$1/.dot"
  touch -hd '2001-02-03 04:05:06.789012345' "$1/dangling" "$1/pipe" "$1/file" "$1/dir/.hidden"
  touch -d '1969-12-31 23:59:58.5' "$1/dir" && touch -d '2038-01-19 03:14:08.000000001' "$1/.dot" "$1"
}

listing() { python3 "$repo/tests/listing.py" "$1"; }
names() { ls -A "$BOCKER_ROOT"; }
layers() { find "$BOCKER_ROOT/layers" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l; }

no_loops() { ! losetup -a | grep -qF "$HOST_DIR/"; }
blocks_signals() { grep -q '^SigBlk:.*4007$' "/proc/$1/status"; }
has_layers() { [ "$(layers)" -gt 0 ]; }
is_building() { find "$BOCKER_ROOT" -maxdepth 1 -name '.new_*' | grep -q .; }

image() {
  mkdir -p tree/bin && echo hello > tree/bin/hello
  bocker-store import tree
}

test_init_makes_finds_and_mounts_the_pool() {
  # Whatever the umask, nobody else comes in, also before it is mounted.
  (umask 000; bocker-store init --size 300M)
  is "$(stat -c '%a %U' "$BOCKER_ROOT")" "700 root"
  is "$(stat -c '%a %s' "$BOCKER_ROOT.btrfs")" "600 314572800"
  is "$(findmnt -no FSTYPE "$BOCKER_ROOT")" btrfs
  like "$(findmnt -no OPTIONS "$BOCKER_ROOT")" '(^|,)nodev(,|$)'
  [ "$(du -k "$BOCKER_ROOT.btrfs" | cut -f1)" -lt 20000 ] || fail "the pool is not sparse"
  # Again: nothing happens.
  before=$(census)
  bocker-store init
  is "$(census)" "$before"
  # A reboot: the file is there, not mounted.
  img=$(image)
  umount "$BOCKER_ROOT"
  is "$(stat -c %a "$BOCKER_ROOT")" 700 "mode below the mount"
  fails 1 'no btrfs is mounted at .*/bocker \(bocker setup\)$' bocker-store images
  like "$(bocker-store images --setup 2>err)" "^$img"
  is "$(wc -l < err)" 1
  like "$(cat err)" '^bocker-store: mounted '
  umount "$BOCKER_ROOT"
  bocker-store init
  like "$(bocker-store images)" "^$img"
  # Back to nothing.
  bocker-store init --undo
  is "$(echo "$BOCKER_ROOT"*)" "$BOCKER_ROOT*" "what undo left"
  eventually 5 no_loops
  bocker-store init --undo
  fails 1 'there is no store at .*/bocker \(bocker setup\)$' bocker-store ps
}

test_init_recovers_from_a_crash() {
  # In the middle of formatting: another name, half-written.
  head -c 100000 /dev/urandom > "$BOCKER_ROOT.btrfs.new"
  store
  is "$(ls "$BOCKER_ROOT".btrfs*)" "$BOCKER_ROOT.btrfs"
  bocker-store init --undo
  # Directory made, nothing else.
  mkdir "$BOCKER_ROOT"
  store
  img=$(image)
  # Two mounts of the same file would be its end: the device is found again.
  umount "$BOCKER_ROOT"
  eventually 20 no_loops
  mkdir other && mount -o loop "$BOCKER_ROOT.btrfs" other
  bocker-store init
  is "$(losetup -a | grep -cF "$HOST_DIR/")" 1 "loop devices"
  like "$(bocker-store images)" "^$img"
  umount other
}

# What init and undo made is gone: mount, file, directory, loop device, the host's ids.
nothing_is_left() {
  ! findmnt -n "$BOCKER_ROOT" || fail "$1: it is still mounted"
  is "$(echo "$BOCKER_ROOT"*)" "$BOCKER_ROOT*" "$1: files"
  [ ! -e /run/bocker ] || fail "$1: /run/bocker is there"
  eventually 5 no_loops
}

test_init_and_undo_at_once() {
  local jobs job
  for round in 1 2 3 4 5; do
    jobs=()
    for verb in init "init --undo" init "init --undo"; do
      # shellcheck disable=SC2086 # words
      bocker-store $verb 2>>err & jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || fail "round $round: $(cat err)"; done
    is "$(findmnt -no TARGET "$BOCKER_ROOT" | wc -l | tr 1 0)" 0 "round $round: mounts on each other"
    bocker-store init --undo
    nothing_is_left "round $round"
  done
  unlike "$(cat err)" 'init did not make'
  # Who only looks at the store is no reason to refuse.
  bocker-store init
  # That is half a second: strace stops it after the first try, so that all of it is left whenever the other one goes.
  exec 9<"$BOCKER_ROOT"
  strace -qq -o tried -e inject=umount2:signal=STOP:when=1 bocker-store init --undo 9<&- & job=$!
  eventually 20 grep -qs EBUSY tried
  exec 9<&-
  kill -CONT "$(pgrep -P "$job")"
  wait "$job" || fail "undo with somebody inside"
  nothing_is_left "undo with somebody inside"
}

# Who comes later waits for the lock, and then looks again.
test_init_and_undo_look_under_the_lock() {
  local job
  mkdir -m 700 /run/bocker && exec 9</run/bocker
  later() {
    flock 9
    bocker-store "$@" 2>err 9<&- & job=$!
    sleep 0.5
    [ -d "/proc/$job" ] || fail "$* does not wait"
  }
  comes() { flock -u 9; wait "$job" || fail "$1: $(cat err)"; is "$(cat err)" "" "$1"; }
  bocker-store init --dry-run >script
  later init
  sh -e script
  comes "init of what somebody has made meanwhile"
  is "$(findmnt -no TARGET "$BOCKER_ROOT" | wc -l)" 1 "mounts"
  later init --undo
  # It may be about to look at it.
  eventually 20 umount "$BOCKER_ROOT"
  rmdir "$BOCKER_ROOT" && rm "$BOCKER_ROOT.btrfs"
  comes "undo of what somebody has undone meanwhile"
  exec 9<&-
  nothing_is_left undo
}

test_a_pool_whose_file_is_gone_is_taken_back() {
  store
  rm "$BOCKER_ROOT.btrfs"
  bocker-store init
  bocker-store init --undo 2>err
  is "$(cat err)" ""
  nothing_is_left "undo without the file"
}

# mkfs opens its file by name, more than once: two of them at a time would write to one file.
test_init_killed_in_mkfs() {
  cp /usr/sbin/mkfs.btrfs mkfs
  cat >slow <<END
#!/bin/sh
echo begin >> $HOST_DIR/log
until [ -e $HOST_DIR/go ]; do sleep 0.05; done
$HOST_DIR/mkfs "\$@"
status=\$?
echo end >> $HOST_DIR/log
exit \$status
END
  chmod 755 slow && mount --bind slow /usr/sbin/mkfs.btrfs
  bocker-store init & local job=$!
  eventually 20 test -e log
  kill -9 "$job"
  wait "$job" || true
  # It goes on only when the next one has had time to come.
  bocker-store init & job=$!
  sleep 0.5
  touch go
  wait "$job"
  is "$(xargs < log)" "begin end begin end"
  img=$(image)
  bocker-store init --undo
  rm go
  bocker-store init & job=$!
  eventually 20 grep -qz 'end.*begin.*end.*begin' log
  kill -9 "$job"
  wait "$job" || true
  bocker-store init --undo & job=$!
  sleep 0.5
  touch go
  wait "$job"
  nothing_is_left "undo after a kill"
  umount /usr/sbin/mkfs.btrfs
}

# By whatever name the store is called: beside it lies its file, at it is the mount, to it lead the links.
test_one_store_by_several_names() {
  local real=$BOCKER_ROOT ps
  mkdir real && ln -s real link && ln -s bocker other
  for BOCKER_ROOT in "$HOST_DIR/real/../bocker" "$HOST_DIR/link/../bocker/" "./real/..//bocker" bocker; do
    store
    is "$(echo "$real"*)" "$real $real.btrfs" "made as $BOCKER_ROOT"
    img=$(image) ps=$(bocker-store snapshot "$img")
    is "$(readlink "/run/bocker/$ps")" "$real"
    BOCKER_ROOT=$HOST_DIR/other
    is "$(bocker-store path "$ps")" "$real/$ps"
    BOCKER_ROOT=$HOST_DIR/other/../link/../bocker bocker-store init --undo
    is "$(echo "$real"*)" "$real*" "what undo left"
    [ ! -e /run/bocker ] || fail "claims are left: $(ls /run/bocker)"
  done
  fails 1 'use other: it is a link that leads nowhere$' timeout 5 bocker-store --root other init
  fails 1 'a\\nb: there is a line break in its name' bocker-store --root $'a\nb' init
  BOCKER_ROOT=$real
  nothing_is_left "every name"
  is "$(find . -mindepth 1 | sort | grep -v tree | xargs)" "./.stderr ./link ./other ./real"
}

test_run_bocker_that_is_not_ours() {
  store
  # Not the ids that are used by name below.
  img=$(image) ps=$(bocker-store snapshot --ids 42002-42050 "$img")
  # What is no link counts for nothing, and goes where it can.
  rm "/run/bocker/$ps"
  touch "/run/bocker/$ps" && mkdir /run/bocker/ps_42099
  is "$(bocker-store gc)" "/run/bocker/$ps"
  is "$(ls /run/bocker)" ps_42099
  fails 1 'all 1 container ids' bocker-store snapshot --ids 42099-42099 "$img"
  rmdir /run/bocker/ps_42099
  # A link to a container that is gone, and one to a container that is there.
  other=$(bocker-store snapshot --ids 42002-42050 "$img")
  ln -s "$BOCKER_ROOT" /run/bocker/ps_42100
  like "$(bocker-store gc --dry-run)" '/run/bocker/ps_42100 '
  is "$(bocker-store gc)" /run/bocker/ps_42100
  is "$(ls /run/bocker)" "$other"
  # Others may have made the links.
  chmod 777 /run/bocker
  line='^bocker-store: use /run/bocker: others may write to it, its mode is 777 \(chmod 700 /run/bocker\)$'
  fails 1 "$line" bocker-store snapshot "$img"
  fails 1 "$line" bocker-store gc
  fails 1 "$line" bocker-store path --stopped "$ps"
  chmod 700 /run/bocker
  bocker-store rm "$other"
  rmdir /run/bocker
  line='^bocker-store: use /run/bocker: it is no directory \(rm /run/bocker\)$'
  for target in /nowhere /tmp; do
    ln -sfn "$target" /run/bocker
    fails 1 "$line" timeout 5 bocker-store snapshot "$img"
    fails 1 "$line" timeout 5 bocker-store gc
    fails 1 "$line" timeout 5 bocker-store init --undo
    fails 1 "$line" timeout 5 bocker-store --root "$HOST_DIR/new" init
    [ ! -e new ] || fail "a store was made before the refusal"
  done
  rm /run/bocker
  is "$(names)" "$img
$ps"
}

test_init_refuses_what_is_not_its_own() {
  mkdir -p "$BOCKER_ROOT" && echo mine > "$BOCKER_ROOT/file"
  fails 1 '/bocker: there are files in it \(another BOCKER_ROOT\)$' bocker-store init
  rm "$BOCKER_ROOT/file"
  ln -s /etc/passwd "$BOCKER_ROOT.btrfs"
  fails 1 'bocker.btrfs: it is not a regular file$' bocker-store init
  rm "$BOCKER_ROOT.btrfs"
  fails 2 "btrfs needs 128M" bocker-store init --size 1M
  fails 2 "invalid value 'x'" bocker-store init --size x
  fails 1 "the store needs a directory of its own" bocker-store --root / init
  # Not a tool in sight. Positive control: the next init works.
  mount -t tmpfs none /sbin 2>/dev/null || true
  mkdir bare && cp "$(command -v bocker-store)" bare/
  # shellcheck disable=SC2016 # expanded inside
  fails 1 'needs btrfs-progs \(apt install btrfs-progs\)$' unshare -m sh -c '
    cp /usr/bin/env bare/; mount -t tmpfs none /usr/sbin; exec bare/bocker-store init'
  umount /sbin 2>/dev/null || true
  # A btrfs of somebody else stays, with its mode.
  truncate -s 200M their.btrfs && mkfs.btrfs -q their.btrfs && mount -o loop their.btrfs "$BOCKER_ROOT"
  echo theirs > "$BOCKER_ROOT/file"
  fails 1 "others may enter it.*\(chmod 700 " bocker-store init
  chmod 700 "$BOCKER_ROOT"
  bocker-store init
  img=$(image)
  bocker-store init --undo 2>err
  like "$(cat err)" 'init did not make; it stays$'
  is "$(cat "$BOCKER_ROOT/file")" theirs
  bocker-store rm "$img"
  umount "$BOCKER_ROOT"
}

# The store is private (check 18): others reach nothing in it, and it is not used where they would.
test_nobody_but_root() {
  mkdir tree && cp /usr/bin/id tree/su && chmod 4755 tree/su
  store
  img=$(bocker-store import tree)
  chmod 711 "$HOST_DIR"
  nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
  for path in "" "$img" "$img/rootfs" "$img/rootfs/su"; do
    ! nobody stat "$BOCKER_ROOT/$path" >/dev/null 2>&1 || [ -z "$path" ] || fail "nobody reaches '$path'"
  done
  ! nobody ls "$BOCKER_ROOT" 2>/dev/null || fail "nobody lists the store"
  ! nobody cat "$BOCKER_ROOT.btrfs" 2>/dev/null || fail "nobody reads the pool"
  cp "$(command -v bocker-store)" tool && chmod 755 tool
  fails 1 '^bocker-store: needs root \(try sudo\)$|needs root' nobody ./tool images
  # Positive control: root does, and a setuid program in a bind mount of the store keeps its bit.
  [ -u "$BOCKER_ROOT/$img/rootfs/su" ] || fail "setuid is gone"
  mkdir inside && mount --bind "$BOCKER_ROOT/$img/rootfs" inside
  is "$(nobody inside/su -u 2>&1)" 0 "setuid inside a container's mount"
  umount inside
  # Others may not enter, or nothing works.
  chmod 755 "$BOCKER_ROOT"
  fails 1 "others may enter it, its mode is 755 \(chmod 700 " bocker-store images
  bocker-store init
  is "$(stat -c %a "$BOCKER_ROOT")" 700
}

test_import_is_exact() {
  store
  everything tree
  img=$(bocker-store import tree)
  like "$img" '^img_42[0-9]{3}$'
  is "$(listing "$BOCKER_ROOT/$img/rootfs")" "$(listing tree)"
  [ "$(du -k "$BOCKER_ROOT/$img/rootfs/sparse" | cut -f1)" -lt 200 ] || fail "the hole was filled"
  is "$(bocker-store images)" "IMAGE_ID		SOURCE
$img		tree"
  jq -e '.os == "linux" and .rootfs.diff_ids == []' "$BOCKER_ROOT/$img/config" >/dev/null
  # From btrfs the blocks are shared.
  cp -a tree "$BOCKER_ROOT/again"
  before=$(btrfs filesystem usage -b "$BOCKER_ROOT" | awk '/^ *Used:/ { print $2; exit }')
  head -c 20000000 /dev/urandom > "$BOCKER_ROOT/again/big" && sync -f "$BOCKER_ROOT"
  two=$(bocker-store import --source 'my tree' "$BOCKER_ROOT/again")
  sync -f "$BOCKER_ROOT"
  after=$(btrfs filesystem usage -b "$BOCKER_ROOT" | awk '/^ *Used:/ { print $2; exit }')
  [ $((after - before)) -lt 30000000 ] || fail "import took $((after - before)) bytes"
  is "$(listing "$BOCKER_ROOT/$two/rootfs")" "$(listing "$BOCKER_ROOT/again")"
  like "$(bocker-store images)" "^$two		my tree\$"
  rm -r "$BOCKER_ROOT/again"
}

test_import_refuses() {
  fails 1 "^bocker-store: No directory named 'nowhere' exists\$" bocker-store import --setup nowhere
  [ ! -e "$BOCKER_ROOT.btrfs" ] || fail "a store was made for nothing"
  store
  touch file
  for name in nowhere file '' "$(printf 'x%.0s' $(seq 10000))"; do
    fails 1 "No directory named '" bocker-store import "$name"
  done
  fails 1 'store itself' bocker-store import "$HOST_DIR"
  is "$(names)" ""
  mkdir escapes
  img=$(bocker-store import --source "$(printf 'a\033[2Jb\nc')" escapes)
  is "$(bocker-store images | tail -n +2)" "$img		a\\u{1b}[2Jb\\nc"
}

test_snapshot_commit_rm_as_the_original() {
  store
  img=$(image)
  one=$(bocker-store snapshot "$img" -- cat '/etc/os  release' -x)
  like "$one" '^ps_42[0-9]{3}$'
  two=$(bocker-store snapshot "$img")
  is "$(cat "$BOCKER_ROOT/$one/image")" "$img"
  is "$(bocker-store ps | head -1)" "CONTAINER_ID		COMMAND"
  like "$(bocker-store ps)" "^$one		cat /etc/os  release -x\$"
  is "$(bocker-store ps | wc -l)" 3
  is "$(bocker-store ps --json | jq -c "select(.id == \"$one\") | {command, id, image, running}")" \
    "{\"command\":\"cat /etc/os  release -x\",\"id\":\"$one\",\"image\":\"$img\",\"running\":false}"
  is "$(bocker-store path "$one")" "$BOCKER_ROOT/$one"
  is "$(bocker-store path "$img")" "$BOCKER_ROOT/$img"
  # A change in the container is the container's, until it is committed.
  echo changed > "$BOCKER_ROOT/$one/rootfs/bin/hello"
  is "$(cat "$BOCKER_ROOT/$img/rootfs/bin/hello")" hello
  echo log > "$BOCKER_ROOT/$one/log"
  echo "exited 0" > "$BOCKER_ROOT/$one/status"
  is "$(bocker-store cat "$one" log)" log
  is "$(bocker-store commit "$one" "$img")" ""
  is "$(cat "$BOCKER_ROOT/$img/rootfs/bin/hello")" changed
  is "$(cat "$BOCKER_ROOT/$two/rootfs/bin/hello")" hello
  is "$(ls "$BOCKER_ROOT/$img")" "config
rootfs
source"
  is "$(bocker-store images | tail -1)" "$img		tree"
  is "$(bocker-store rm "$one")$(bocker-store rm "$two")$(bocker-store rm "$img")" ""
  is "$(names)" ""
}

test_names_that_are_none() {
  store
  img=$(image) ps=$(bocker-store snapshot "$img")
  before=$(census)
  long=$(printf 'x%.0s' $(seq 10000))
  for name in .. . path level gen "" / "$img/" "../bocker/$img" ps_42001 ps_999999 img_42150x "$img
" 42002 layers .new_x $'\377' "$long" rootfs; do
    [ "$name" != "$long" ] || name=$long
    fails 1 "^bocker-store: No container named '.*' exists\$" bocker-store rm "$name"
    fails 1 "^bocker-store: No container named '.*' exists\$" bocker-store path "$name"
    fails 1 "^bocker-store: No container named '.*' exists\$" bocker-store path --running "$name"
    fails 1 "^bocker-store: No container named '.*' exists\$" bocker-store cat "$name" cmd
    fails 1 "^bocker-store: No image named '.*' exists\$" bocker-store snapshot "$name"
    fails 1 "^bocker-store: No container named '.*' exists\$" bocker-store commit "$name" "$img"
    # What can be a name is one from then on.
    case $name in
      path | level | gen | 42002 | layers | rootfs) ;;
      *) fails 1 "^bocker-store: No image named '.*' exists\$" bocker-store commit "$ps" "$name" ;;
    esac
  done
  [ "$(wc -c < "$HOST_DIR/.stderr")" -lt 200 ] || fail "a long line for a long name"
  for name in -x --explode -; do
    ! bocker-store rm "$name" 2>err || fail "rm $name"
    is "$(wc -l < err)" 1 "lines for $name"
  done
  fails 1 "No container named '-x' exists" bocker-store rm -- -x
  # The wrong kind.
  fails 1 "^bocker-store: No image named '$ps' exists\$" bocker-store snapshot "$ps"
  fails 1 "^bocker-store: No container named '$img' exists\$" bocker-store commit "$img" "$img"
  fails 1 "^bocker-store: No container named '$img' exists\$" bocker-store path --running "$img"
  fails 1 "^bocker-store: Container '$ps' exists but is not running\$" bocker-store path --running "$ps"
  for file in nothing rootfs .. ../.. /etc/passwd "" "$long" rootfs/bin/hello; do
    fails 1 "^bocker-store: '$ps' has no " bocker-store cat "$ps" "$file"
  done
  ln -s /etc/passwd "$BOCKER_ROOT/$ps/log"
  fails 1 "has no log" bocker-store cat "$ps" log
  rm "$BOCKER_ROOT/$ps/log" && mkfifo "$BOCKER_ROOT/$ps/log"
  fails 1 "has no log" timeout 5 bocker-store cat "$ps" log
  rm "$BOCKER_ROOT/$ps/log"
  is "$(census)" "$before"
  # A plain directory with an id's name is none of ours.
  mkdir "$BOCKER_ROOT/ps_42003"
  fails 1 "No container named 'ps_42003'" bocker-store rm ps_42003
  rmdir "$BOCKER_ROOT/ps_42003"
}

test_running_containers_are_left_alone() {
  store
  img=$(image) ps=$(bocker-store snapshot "$img") other=$(bocker-store snapshot "$img")
  echo "exited 0" > "$BOCKER_ROOT/$ps/status"
  runs "$ps"
  is "$(bocker-store path --running "$ps")" "$BOCKER_ROOT/$ps"
  is "$(bocker-store ps --json | jq -r 'select(.running).id')" "$ps"
  fails 1 "^bocker-store: Container '$ps' is running \(kill -KILL [0-9]+ ends it\)\$" bocker-store rm "$ps"
  fails 1 "^bocker-store: Container '$ps' is running \(.*made from $img.*\)\$" bocker-store commit "$other" "$img"
  fails 1 "^bocker-store: Container '$ps' is running" bocker-store commit "$ps" "$img"
  fails 1 "^bocker-store: Container '$ps' is running" bocker-store init --undo
  bocker-store rm "$other"
  stops
  # What the file says is not what counts.
  like "$(cat "$BOCKER_ROOT/$ps/status")" running
  fails 1 'exists but is not running$' bocker-store path --running "$ps"
  bocker-store commit "$ps" "$img"
  bocker-store rm "$ps"
}

test_rm_of_what_never_started() {
  store
  img=$(image) ps=$(bocker-store snapshot "$img")
  # Something ran, or runs, or is about to: nothing happens.
  echo "exited 3" > "$BOCKER_ROOT/$ps/status"
  bocker-store rm --unstarted "$ps"
  runs "$ps"
  bocker-store rm --unstarted "$ps"
  : > "$BOCKER_ROOT/$ps/status"
  bocker-store rm --unstarted "$ps"
  fails 1 "^bocker-store: Container '$ps' is running \(it is starting\)$" bocker-store rm "$ps"
  stops
  [ -d "$BOCKER_ROOT/$ps" ] || fail "rm --unstarted removed a container that ran"
  bocker-store rm --unstarted "$ps"
  [ ! -e "$BOCKER_ROOT/$ps" ] || fail "rm --unstarted left it"
  bocker-store rm --unstarted "$(bocker-store snapshot "$img")"
  fails 1 "No container named '$img' exists" bocker-store rm --unstarted "$img"
  is "$(names)" "$img"
}

test_a_container_is_held_for_who_works_on_it() {
  store
  img=$(image)
  sleep 300 & other=$!
  ps=$(bocker-store snapshot --holder=$other "$img")
  like "$(cat "$BOCKER_ROOT/$ps/holder")" "^$other [0-9]+ new [0-9]+,[0-9a-f-]{36}$"
  starting="^bocker-store: Container '$ps' is starting: process $other has it \\(wait for it, or kill -KILL $other\\)$"
  fails 1 "$starting" bocker-store rm "$ps"
  fails 1 "$starting" bocker-store rm --unstarted --holder "$ps"
  fails 1 "$starting" bocker-store path --stopped --holder "$ps"
  # Between its end and the end of the clean-up it is waited for.
  echo "exited 3" > "$BOCKER_ROOT/$ps/status"
  is "$(echo "$ps" | bocker-store orphans)" ""
  bocker-store path --stopped --holder "$ps" >path & waiting=$!
  sleep 0.3
  kill -0 $waiting || fail "it did not wait"
  kill -9 $other; wait $other 2>/dev/null || true
  wait $waiting || fail "the holder has died"
  is "$(cat path)" "$BOCKER_ROOT/$ps"
  # Ours now: for this shell, in a command substitution, too.
  like "$(cat "$BOCKER_ROOT/$ps/holder")" "^$BASHPID [0-9]+$"
  (exec bocker-store path --stopped --holder=1 "$ps") >/dev/null 2>err & waiting=$!
  sleep 0.3
  bocker-store rm --holder "$ps"
  status=0; wait $waiting || status=$?
  is "$status $(cat err)" "1 bocker-store: No container named '$ps' exists"
  # What has the holder's number and began at another time holds nothing.
  ps=$(bocker-store snapshot "$img")
  echo "$BASHPID 1" > "$BOCKER_ROOT/$ps/holder"
  bocker-store rm "$ps"
}

# What a killed `run` leaves of a container goes with gc; what waits for its start, or ran, stays.
test_gc_takes_containers_that_were_never_to_be() {
  store
  local img dead started auto born held before
  img=$(image)
  # Whose maker has died: as a run's, and then held by another that died, too, as by a start.
  dead=$(sh -c 'echo $(bocker-store snapshot --holder=$$ "$0")' "$img")
  held=$(sh -c 'echo $(bocker-store snapshot --holder=$$ "$0")' "$img")
  sh -c 'echo $(bocker-store path --stopped --holder=$$ "$0")' "$held" >/dev/null
  born=$(bocker-store snapshot "$img")
  started=$(sh -c 'echo $(bocker-store snapshot --holder=$$ "$0")' "$img")
  auto=$(sh -c 'echo $(bocker-store snapshot --auto-remove --holder=$$ "$0")' "$img")
  echo "exited 0" > "$BOCKER_ROOT/$started/status"
  echo "exited 0" > "$BOCKER_ROOT/$auto/status"
  # One of before the last start of the machine: what it wrote of its own start may be lost.
  before=$(sh -c 'echo $(bocker-store snapshot --holder=$$ "$0")' "$img")
  sed -i 's/,.*/,e5ab5e2c-0000-4000-8000-000000000000/' "$BOCKER_ROOT/$before/holder"
  # One whose maker lives.
  lives=$(bocker-store snapshot --holder=$$ "$img")
  is "$(printf '%s\n' "$dead" "$held" "$born" "$lives" | bocker-store orphans)" "$dead"
  # Who does not see the maker leaves it alone.
  is "$(unshare --pid --fork --mount-proc bocker-store gc)" "$auto"
  is "$(bocker-store gc)" "$dead"
  is "$(bocker-store ps -aq | sort)" "$(printf '%s\n' "$held" "$born" "$started" "$before" "$lives" | sort)"
}

# Who stops several containers has each until the last has ended; what comes after each may wait so long.
test_who_may_wait_gives_up_never() {
  store
  local ps first other waiting
  ps=$(bocker-store snapshot "$(image)")
  echo "exited 0" > "$BOCKER_ROOT/$ps/status"
  sleep 300 & other=$!
  bocker-store path --stopped --holder=$other "$ps" >/dev/null
  bocker-store path --stopped --wait --holder "$ps" >path & waiting=$!
  bocker-store path --stopped --holder "$ps" >/dev/null 2>err & first=$!
  if wait $first; then fail "the control: it has waited"; fi
  like "$(cat err)" "in use: process $other has it"
  # By now the one that came before it would have given up, too.
  sleep 1
  kill -0 $waiting || fail "it has not waited"
  kill -9 $other; wait $other 2>/dev/null || true
  wait $waiting || fail "the holder has died"
  is "$(cat path)" "$BOCKER_ROOT/$ps"
}

# Who watched one that has ended has its lock a moment longer; that is waited for.
test_one_that_has_ended_is_let_go() {
  store
  local ps status
  ps=$(bocker-store snapshot "$(image)")
  status=$BOCKER_ROOT/$ps/status
  echo "exited 0" > "$status"
  (exec flock -x "$status" sh -c 'touch held; sleep 1') &
  eventually 5 test -e held
  is "$(bocker-store path --stopped "$ps")" "$BOCKER_ROOT/$ps"
  wait
  # The control.
  exec 9<>"$status"; flock -x 9
  echo "running 4242" > "$status"
  fails 1 "^bocker-store: Container '$ps' is running \(kill -KILL 4242 ends it\)$" bocker-store path --stopped "$ps"
  echo > "$status"
  fails 1 "^bocker-store: Container '$ps' is running \(it is starting\)$" bocker-store path --stopped "$ps"
  exec 9>&-
}

# Two at once: who comes second waits without the lock that the first one needs for its start.
test_who_waits_for_a_container_lets_it_start() {
  store
  ps=$(bocker-store snapshot "$(image)")
  echo "exited 3" > "$BOCKER_ROOT/$ps/status"
  : > "$BOCKER_ROOT/$ps/holder"
  sleep 300 & other=$!
  # As the kernel has them, proc_locks(5); a look of our own would be in the way.
  lock() { grep -qE -- "$1.*:$(stat -c %i "$BOCKER_ROOT/$ps/$2") " /proc/locks; }
  # It has looked, and found nobody; before it can write itself down somebody else does.
  flock -x "$BOCKER_ROOT/$ps/holder" sh -c 'touch got; until [ -e go ]; do sleep 0.02; done; cut -d " " -f 1,22 "/proc/$1/stat" >"$0"' \
    "$BOCKER_ROOT/$ps/holder" $other & one=$!
  eventually 5 test -e got
  bocker-store path --stopped --holder "$ps" >path & waiting=$!
  eventually 5 lock '-> FLOCK.* WRITE' holder
  lock 'FLOCK.* READ' status || fail "it has no lock: this test shows nothing"
  touch go
  wait $one
  eventually 9 eval '! lock "FLOCK.* READ" status'
  kill -0 $waiting || fail "it did not wait"
  kill -9 $other; wait $other 2>/dev/null || true
  wait $waiting
  is "$(cat path)" "$BOCKER_ROOT/$ps"
}

test_ids_are_unique_and_end() {
  store
  img=$(image)
  for _ in $(seq 20); do bocker-store snapshot --ids 42010-42027 "$img" >> ids 2>> errors & done
  wait
  is "$(sort ids | uniq -d)" "" "ids that were given twice"
  is "$(wc -l < ids)" 18 "containers"
  is "$(wc -l < errors)" 2 "refusals"
  line='^bocker-store: all 18 container ids from 42010 to 42027 are taken \(bocker rm .*BOCKER_SUBNET\)$'
  like "$(head -1 errors)" "$line"
  fails 1 "$line" bocker-store snapshot --ids 42010-42027 "$img"
  is "$(find "$BOCKER_ROOT" -maxdepth 1 -name '.new_*')" ""
  # A claim of the dead is not a container.
  bocker-store rm ps_42020
  btrfs subvolume create "$BOCKER_ROOT/.new_ps_42020" >/dev/null
  is "$(bocker-store snapshot --ids 42010-42027 "$img")" ps_42020
  like "$(bocker-store snapshot --ids 45000-45001 "$img")" '^ps_4500[01]$'
  for range in 42254-42002 1-2 x 42002 42002-999999; do fails 2 'range within' bocker-store snapshot --ids "$range" "$img"; done
}

test_253_containers_and_images_beyond() {
  store
  img=$(image)
  for _ in $(seq 253); do bocker-store snapshot "$img"; done > ids
  is "$(sort -u ids | wc -l)" 253
  fails 1 'all 253 container ids from 42002 to 42254 are taken' bocker-store snapshot "$img"
  # Images are not bound to addresses.
  mkdir empty
  for n in $(seq 42002 42254); do [ -e "$BOCKER_ROOT/img_$n" ] || btrfs subvolume create "$BOCKER_ROOT/img_$n" >/dev/null; done
  is "$(bocker-store import empty)" img_42255
}

test_gc_knows_the_dead_from_the_living() {
  store
  img=$(image)
  for name in .new_ps_42100 .new_img_42100; do btrfs subvolume snapshot "$BOCKER_ROOT/$img" "$BOCKER_ROOT/$name" >/dev/null; done
  mkdir -m 700 "$BOCKER_ROOT/layers"
  btrfs subvolume create "$BOCKER_ROOT/layers/.new_layer_x" >/dev/null
  btrfs subvolume create "$BOCKER_ROOT/layers/sha256:$(printf '0%.0s' $(seq 64))" >/dev/null
  rm -f running stop
  flock -x "$BOCKER_ROOT/.new_img_42100" sh -c 'touch running; until [ -e stop ]; do sleep 0.02; done' &
  eventually 5 test -e running
  like "$(bocker-store gc --dry-run)" 'btrfs subvolume delete .*/.new_ps_42100 '
  is "$(bocker-store gc)" ".new_ps_42100
layers/.new_layer_x
layers/sha256:$(printf '0%.0s' $(seq 64))"
  touch stop; wait
  is "$(bocker-store gc)" .new_img_42100
  is "$(bocker-store gc)" ""
  is "$(names)" "$img
layers"
}

test_subvolumes_inside() {
  store
  img=$(image) ps=$(bocker-store snapshot "$img")
  at=$BOCKER_ROOT/$ps/rootfs
  btrfs subvolume create "$at/one" >/dev/null
  mkdir "$at/one/x" && btrfs subvolume create "$at/one/x/two" >/dev/null
  btrfs subvolume snapshot -r "$at/one/x/two" "$at/one/x/three" >/dev/null
  btrfs subvolume create "$at/$(printf 'bad\nname\377')" >/dev/null
  echo precious > "$at/one/x/two/file"
  fails 1 "^bocker-store: Container '$ps' holds 4 btrfs subvolumes of its own \(" bocker-store commit "$ps" "$img"
  is "$(cat "$BOCKER_ROOT/$img/rootfs/bin/hello")" hello
  bocker-store rm "$ps"
  is "$(names)" "$img"
  is "$(btrfs subvolume list "$BOCKER_ROOT" | wc -l)" 1
  # A dry run names them by number.
  ps=$(bocker-store snapshot "$img")
  btrfs subvolume create "$BOCKER_ROOT/$ps/rootfs/one" >/dev/null
  bocker-store rm --dry-run "$ps" > script
  [ -e "$BOCKER_ROOT/$ps" ] || fail "a dry run acted"
  sh -e script
  is "$(names)" "$img"
}

test_listings_show_no_control_characters() {
  store
  img=$(image)
  ps=$(bocker-store snapshot "$img" -- sh -c "$(printf 'a\nb\033]0;x\007\233')")
  is "$(bocker-store ps | tail -1 | tr -d '\200-\377')" "$ps		sh -c a\\nb\\u{1b}]0;x\\u{7}"
  printf 'raw\033[2J\nb\tc\r\n' > "$BOCKER_ROOT/$ps/log"
  # In a pipe byte for byte; on a terminal spelled out.
  bocker-store cat "$ps" log | cmp - "$BOCKER_ROOT/$ps/log"
  is "$(script -qec "bocker-store cat $ps log" /dev/null | tr -d '\r' | cat -v)" 'raw\u{1b}[2J
b	c\r'
  # A reader that has enough is no failure to speak of.
  head -c 3000000 /dev/zero > "$BOCKER_ROOT/$ps/log"
  (set +o pipefail; bocker-store cat "$ps" log 2>err | head -c 1 >/dev/null)
  is "$(cat err)" ""
}

test_unpack_what_is_unusual_but_right() {
  store
  python3 "$repo/tests/mklayer.py" good good
  for file in good/*.tar; do
    img=$(bocker-store unpack --source x < "$file" 2>err) || fail "$file: $(cat err)"
    is "$(cat err)" "" "stderr for $file"
    # The same once more: the layers are there.
    is "$(bocker-store rm "$(bocker-store unpack --source y < "$file")")" ""
    case $file in
      */backwards.tar) is "$(cat "$BOCKER_ROOT/$img/rootfs/d/f")" three ;;
      */same-layer-twice.tar) is "$(cat "$BOCKER_ROOT/$img/rootfs/same")" same; is "$(wc -l < "$BOCKER_ROOT/$img/layers")" 3 ;;
      */var-run.tar) is "$(readlink "$BOCKER_ROOT/$img/rootfs/var/run") $(cat "$BOCKER_ROOT/$img/rootfs/run/x")" "/run x" ;;
      */dangling-parent.tar) [ -f "$BOCKER_ROOT/$img/rootfs/made/later/x" ] || fail "$file" ;;
      */absolute-hardlink.tar | */hardlink-through*) is "$(stat -c %h "$BOCKER_ROOT/$img/rootfs/h")" 2 ;;
      */127-layers.tar) is "$(find "$BOCKER_ROOT/$img/rootfs" -type f | wc -l)" 127 ;;
    esac
    bocker-store rm "$img"
    is "$(names) $(layers)" "layers 0" "left by $file"
  done
}

test_unpack_refuses_broken_streams() {
  store
  python3 "$repo/tests/mklayer.py" broken broken
  for file in broken/*.tar; do
    status=0
    bocker-store unpack < "$file" >out 2>err || status=$?
    is "$status $(cat out)" "1 " "status and stdout for $file"
    # Who failed before us has said so.
    want=1
    case $file in */failed*) want=0 ;; esac
    is "$(wc -l < err)" "$want" "lines for $file: $(cat err)"
    [ "$(wc -c < err)" -lt 500 ] || fail "a long line for $file"
    unlike "$(cat err)" 'panicked' "$file"
    # Layers that were right stay for another try where the registry went away, until gc.
    [ "$want" = 1 ] || bocker-store gc >/dev/null
    is "$(names) $(layers)" "layers 0" "left by $file"
    is "$(bocker-store gc)" "" "gc after $file"
  done
  # Cut anywhere it is incomplete, and nothing is left.
  python3 "$repo/tests/mklayer.py" good good
  size=$(stat -c %s good/backwards.tar)
  for cut in $(seq 0 700 $((size - 1100))); do
    ! head -c "$cut" good/backwards.tar | bocker-store unpack >out 2>err || fail "cut at $cut"
    is "$(wc -l < err) $(wc -c < out) $(names) $(layers)" "1 0 layers 0" "after a cut at $cut: $(cat err)"
  done
  fails 1 'it is empty' bocker-store unpack
}

test_unpack_keeps_hostile_layers_inside() {
  store
  mkdir -p sentinel/d && echo outside > sentinel/file && chmod 640 sentinel/file && mkfifo sentinel/pipe
  before=$(listing sentinel)
  python3 "$repo/tests/mklayer.py" attacks attacks "$HOST_DIR/sentinel"
  # These do nothing wrong inside a root of their own, and must work there; all others are refused.
  inside=" link-absolute link-relative link-parent-chain link-over-layers link-as-leaf link-as-leaf-same-layer
    link-then-directory link-then-hardlink link-chmod link-proc-self absolute-name whiteout-through-link opaque-through-link
    whiteout-of-link replace-link-to-dir device foreign-attributes pax-newline-value old-directory everything-twice "
  inside=$(tr -s '[:space:]' ' ' <<<"$inside")
  count=0
  for file in attacks/*.tar; do
    name=$(basename "$file" .tar)
    status=0
    /usr/bin/time -f %M -o memory timeout 60 bocker-store unpack --source x < "$file" >out 2>err || status=$?
    [ "$(tail -1 memory)" -lt 65536 ] || fail "$name took $(tail -1 memory) KiB"
    is "$(listing sentinel)" "$before" "the tree outside after $name"
    case $inside in
      *" $name "*)
        is "$status" 0 "status for $name ($(cat err))"
        root=$BOCKER_ROOT/$(cat out)/rootfs
        case $name in
          link-absolute | link-relative | link-over-layers) [ -f "$root$HOST_DIR/sentinel/escape" ] || fail "$name went nowhere" ;;
          absolute-name) is "$(cat "$root$HOST_DIR/sentinel/file")" inside ;;
          link-as-leaf*) is "$(cat "$root/f") $(stat -c %F "$root/f")" "inside regular file" ;;
          link-then-directory) is "$(stat -c '%F %a %u' "$root/l")" "directory 777 7" ;;
          whiteout-of-link) [ ! -L "$root/l" ] || fail "$name" ;;
          # A device is a name: the mount is nodev.
          device) is "$(stat -c %F "$root/dev")" "block special file"; ! head -c 1 "$root/dev" 2>/dev/null || fail "the device works" ;;
          foreign-attributes) is "$(getfattr -dm- "$root/f" 2>/dev/null | grep -v selinux)" ""; like "$(cat err)" 'left out: security.selinux, trusted.overlay.redirect$' ;;
        esac
        bocker-store rm "$(cat out)"
        ;;
      *)
        is "$status $(cat out) $(wc -l < err)" "1  1" "status, stdout and lines for $name ($(cat err))"
        ;;
    esac
    count=$((count + 1))
    is "$(names) $(layers)" "layers 0" "left by $name"
  done
  [ "$count" -gt 60 ] || fail "only $count attacks"
}

# Somebody removed a layer of an image that is there: `have` asks for that layer alone, its configuration does not come.
test_a_layer_that_is_gone_is_made_again() {
  store
  printf 'dir d\nfile d/f base\n' > base
  printf 'file g one\n' > one
  printf 'file h two\n' > two
  python3 "$repo/tests/mklayer.py" layout whole.tar base one two
  local img layer n blob at
  img=$(bocker-store unpack --source a < whole.tar)
  # The layout as it comes from bocker-pull fetch: marker, manifest, configuration, layers, index.json.
  mapfile -t at < <(tar tf whole.tar | grep -v '/$')
  for n in 1 2 3; do
    layer=$(sed -n "${n}p" "$BOCKER_ROOT/$img/layers")
    blob=$(cut -f 1 "$BOCKER_ROOT/layers/$layer/origin")
    btrfs -q subvolume delete "$BOCKER_ROOT/layers/$layer"
    mkdir x && tar xf whole.tar -C x
    tar cf part.tar -C x "${at[0]}" "${at[1]}" "blobs/sha256/${blob#sha256:}" index.json
    rm -r x
    # As the image that it is, and as another.
    if [ "$n" = 2 ]; then
      is "$(bocker-store unpack --source b < part.tar | sed 's/^img_.*/img/')" img
    else
      is "$(bocker-store unpack --source a < part.tar)" "$img"
    fi
    is "$(bocker-store fsck)" ""
    is "$(cat "$BOCKER_ROOT/layers/$layer/rootfs/d/f")" base
  done
  is "$(layers)" 3
  # Without the blob it is incomplete.
  btrfs -q subvolume delete "$BOCKER_ROOT/layers/$layer"
  mkdir x && tar xf whole.tar -C x && tar cf part.tar -C x "${at[0]}" "${at[1]}" index.json
  fails 1 'incomplete: no layer sha256:' sh -c 'bocker-store unpack --source c < part.tar'
}

test_layers_are_shared_and_go_with_their_last_image() {
  store
  printf 'dir d\nfile d/f base\n' > base
  printf 'file g one\n' > one
  printf 'file h two\n' > two
  python3 "$repo/tests/mklayer.py" layout a.tar base one
  python3 "$repo/tests/mklayer.py" layout b.tar base two
  a=$(bocker-store unpack --source a < a.tar) b=$(bocker-store unpack --source b < b.tar)
  is "$(layers)" 3
  is "$(head -1 "$BOCKER_ROOT/$a/layers")" "$(head -1 "$BOCKER_ROOT/$b/layers")"
  while read -r layer; do
    is "$(btrfs property get -ts "$BOCKER_ROOT/layers/$layer" ro)" ro=true
  done < "$BOCKER_ROOT/$a/layers"
  # The configuration as it was.
  is "$(sha256sum < "$BOCKER_ROOT/$a/config" | cut -d' ' -f1)" \
    "$(tar xOf a.tar "$(tar tf a.tar | sed -n 3p)" | sha256sum | cut -d' ' -f1)"
  ps=$(bocker-store snapshot "$a")
  is "$(bocker-store ps | tail -1)" "$ps		/bin/sh"
  bocker-store rm --dry-run "$a" > script
  is "$(grep -c '^btrfs subvolume delete ' script)" 2
  like "$(cat script)" "$(tail -1 "$BOCKER_ROOT/$a/layers") "
  bocker-store rm "$a"
  is "$(layers)" 2
  is "$(cat "$BOCKER_ROOT/$ps/rootfs/d/f" "$BOCKER_ROOT/$b/rootfs/d/f")" "basebase"
  bocker-store rm "$b"
  is "$(layers)" 0
  # While somebody unpacks, layers stay: they may be the ones that are needed.
  mkfifo slow
  bocker-store unpack --source slow < slow > slow.out &
  exec 9> slow
  head -c 6000 a.tar >&9
  eventually 20 has_layers
  is "$(bocker-store gc)" ""
  tail -c +6001 a.tar >&9
  exec 9>&-
  wait
  is "$(cat "$BOCKER_ROOT/$(cat slow.out)/rootfs/g")" one
}

test_many_unpack_the_same_at_once() {
  store
  for n in 1 2 3 4 5; do { echo "dir d$n"; seq -f "file d$n/%g x" 200; } > "l$n"; done
  python3 "$repo/tests/mklayer.py" layout a.tar l1 l2 l3 l4 l5
  for n in 1 2 3 4 5 6; do bocker-store unpack --source "$n" < a.tar >> ids 2>> errors & done
  for n in 1 2 3 4 5; do bocker-store gc >> gone; done
  wait
  is "$(cat errors gone)" ""
  is "$(sort -u ids | wc -l) $(layers)" "6 5"
  while read -r id; do is "$(find "$BOCKER_ROOT/$id/rootfs" -type f | wc -l)" 1000; done < ids
  while read -r id; do bocker-store rm "$id" & done < ids
  wait
  bocker-store gc > gone
  is "$(names) $(layers)" "layers 0"
}

test_interrupted_unpack_and_import_leave_nothing() {
  store
  printf 'dir d\nfile d/f base\n' > base
  python3 "$repo/tests/mklayer.py" layout a.tar base
  mkfifo slow
  for signal in INT:130 TERM:143 HUP:129; do
    bash -c 'trap - INT; exec bocker-store unpack --source slow < slow 2>err >out' &
    pid=$!
    exec 9> slow
    head -c 5500 a.tar >&9
    eventually 20 blocks_signals "$pid"
    eventually 20 has_layers
    kill -"${signal%:*}" "$pid"
    status=0
    wait "$pid" || status=$?
    exec 9>&-
    is "$status $(wc -l < err) $(wc -c < out)" "${signal#*:} 1 0" "after ${signal%:*}: $(cat err)"
    like "$(cat err)" "interrupted by SIG${signal%:*}"
    is "$(names)" layers
    # A layer that was complete stays for the next try, until gc.
    bocker-store gc >/dev/null
    is "$(names) $(layers)" "layers 0"
  done
  # Killed outright: gc finds it, and nothing is listed.
  bocker-store unpack < slow &
  pid=$!
  exec 9> slow
  head -c 5500 a.tar >&9
  eventually 20 has_layers
  kill -KILL "$pid"
  wait "$pid" || true
  exec 9>&-
  is "$(bocker-store images | wc -l)" 1
  bocker-store gc >/dev/null
  is "$(names) $(layers)" "layers 0"
  mkdir big && head -c 100000000 /dev/urandom > big/file
  bash -c 'trap - INT; exec bocker-store import big 2>err >out' &
  pid=$!
  eventually 20 eval 'is_building || ! kill -0 "$pid" 2>/dev/null'
  kill -INT "$pid" 2>/dev/null || true
  status=0
  wait "$pid" || status=$?
  # It may have been faster than the signal.
  case $status in 0) ;; 130) is "$(wc -l < err)" 1 ;; *) fail "status $status" ;; esac
  is "$(find "$BOCKER_ROOT" -maxdepth 1 -name '.new_*')" ""
}

test_killed_at_any_step_nothing_half_made_is_listed() {
  store
  img=$(image)
  # The process dies at its Nth system call of a kind; the call does not happen.
  for call in ioctl openat write renameat2 mkdirat unlinkat flock; do
    for n in 1 2 3 4 5 6 8; do
      strace -f -qq -o /dev/null -e "inject=$call:signal=SIGKILL:when=$n" bocker-store snapshot "$img" -- x >/dev/null 2>&1 || true
      strace -f -qq -o /dev/null -e "inject=$call:signal=SIGKILL:when=$n" bocker-store import tree >/dev/null 2>&1 || true
    done
  done
  for id in $(bocker-store ps --json | jq -r .id); do
    is "$(bocker-store cat "$id" cmd)$(cat "$BOCKER_ROOT/$id/rootfs/bin/hello")" "xhello" "$id"
    for n in 1 2 3 4; do
      strace -f -qq -o /dev/null -e "inject=ioctl:signal=SIGKILL:when=$n" bocker-store commit "$id" "$img" >/dev/null 2>&1 || true
      is "$(cat "$BOCKER_ROOT/$img/rootfs/bin/hello")" hello "the image after a kill of commit"
    done
  done
  for id in $(bocker-store images --json | jq -r .id); do is "$(cat "$BOCKER_ROOT/$id/rootfs/bin/hello")" hello "$id"; done
  bocker-store gc >/dev/null
  is "$(names | grep -v '^img_\|^ps_\|^layers' || true)" ""
  is "$(bocker-store gc)" ""
}

test_full_disk() {
  bocker-store init --size 200M
  img=$(image) ps=$(bocker-store snapshot "$img")
  mkdir big && head -c 300000000 /dev/urandom > big/file
  fails 1 '^bocker-store: no room: .*\(bocker rm what is not needed' bocker-store import big
  is "$(names)" "$img
$ps"
  # Full to the brim, deleting works.
  head -c 300000000 /dev/zero > "$BOCKER_ROOT/$ps/rootfs/fill" 2>/dev/null || true
  sync -f "$BOCKER_ROOT" || true
  bocker-store rm "$ps"
  bocker-store rm "$img"
  is "$(names)" ""
}

# What rm takes from a full store is free when it has ended, not half a minute later.
test_a_full_store_has_room_after_rm() {
  bocker-store init --size 512M
  img=$(image)
  for round in 1 2; do
    ps=$(bocker-store snapshot "$img")
    for size in 64M 4M 1M; do
      for n in $(seq 20); do fallocate -l "$size" "$BOCKER_ROOT/$ps/rootfs/$size.$n" 2>/dev/null || break; done
    done
    ! fallocate -l 100M "$BOCKER_ROOT/$img/rootfs/more" 2>/dev/null || fail "round $round: the store is not full"
    rm -f "$BOCKER_ROOT/$img/rootfs/more"
    sync -f "$BOCKER_ROOT"
    # As what has run: rm holds a lock in it until it has ended.
    echo 'exited 0' > "$BOCKER_ROOT/$ps/status"
    bocker-store rm "$ps"
    ps=$(bocker-store snapshot "$img") || fail "round $round: no room for a snapshot"
    fallocate -l 100M "$BOCKER_ROOT/$ps/rootfs/more" || fail "round $round: no room for a file"
    bocker-store rm "$ps"
  done
}

test_what_is_printed_does_the_same() {
  # init
  bocker-store init --size 300M --dry-run > script
  [ ! -e "$BOCKER_ROOT" ] || fail "a dry run acted"
  sh -e script
  is "$(stat -c '%a' "$BOCKER_ROOT" "$BOCKER_ROOT.btrfs" | xargs) $(stat -c %s "$BOCKER_ROOT.btrfs")" "700 600 314572800"
  like "$(findmnt -no FSTYPE,OPTIONS "$BOCKER_ROOT")" '^btrfs .*nodev'
  # import, snapshot, commit, rm: each once by the tool and once by the shell, compared.
  everything tree
  mkdir -p 'tree/a b' && everything "tree/a b/it's"
  same() {
    is "$(ls -A "$BOCKER_ROOT/$1")" "$(ls -A "$BOCKER_ROOT/$2")" "files of $1 and $2"
    for file in source config image cmd; do
      [ ! -e "$BOCKER_ROOT/$1/$file" ] || cmp "$BOCKER_ROOT/$1/$file" "$BOCKER_ROOT/$2/$file"
    done
    is "$(listing "$BOCKER_ROOT/$1/rootfs")" "$(listing "$BOCKER_ROOT/$2/rootfs")" "rootfs of $1 and $2"
    is "$(stat -c %a "$BOCKER_ROOT/$1"/*)" "$(stat -c %a "$BOCKER_ROOT/$2"/*)"
  }
  img=$(bocker-store import "tree/a b/it's")
  bocker-store import --dry-run "tree/a b/it's" > script
  two=$(sh -e script)
  like "$two" '^img_'
  same "$img" "$two"
  ps=$(bocker-store snapshot "$img" -- sh -c 'echo "$HOME" * $(id)' '')
  bocker-store snapshot --dry-run "$img" -- sh -c 'echo "$HOME" * $(id)' '' > script
  other=$(sh -e script)
  like "$other" '^ps_'
  same "$ps" "$other"
  for id in "$ps" "$other"; do echo changed > "$BOCKER_ROOT/$id/rootfs/changed"; touch -d @1 "$BOCKER_ROOT/$id/rootfs/changed" "$BOCKER_ROOT/$id/rootfs"; done
  bocker-store commit "$ps" "$img"
  bocker-store commit --dry-run "$other" "$two" > script
  sh -e script
  same "$img" "$two"
  [ -e "$BOCKER_ROOT/$two/rootfs/changed" ] || fail "the shell's commit did nothing"
  for id in "$ps" "$other" "$img" "$two"; do bocker-store rm --dry-run "$id" > script; sh -e script; done
  is "$(names)" ""
  # unpack, without opaque directories.
  printf 'dir d\nfile d/f base mode=4755\nfile d/gone x\n' > base
  printf 'file d/.wh.gone\nfile d/g two x:user.a=00ff\n' > top
  python3 "$repo/tests/mklayer.py" layout a.tar base top
  img=$(bocker-store unpack --source 'a b' < a.tar)
  bocker-store unpack --source 'a b' --dry-run > script
  two=$(sh -e script < a.tar)
  is "$(listing "$BOCKER_ROOT/$two/rootfs" | grep -v '^\.	\|^\./d	')" "$(listing "$BOCKER_ROOT/$img/rootfs" | grep -v '^\.	\|^\./d	')"
  cmp "$BOCKER_ROOT/$img/config" "$BOCKER_ROOT/$two/config"
  cmp "$BOCKER_ROOT/$img/source" "$BOCKER_ROOT/$two/source"
  # --explain says and does.
  ps=$(bocker-store snapshot --explain "$img" -- x 2>said)
  [ -d "$BOCKER_ROOT/$ps/rootfs" ] || fail "explained, not done"
  like "$(cat said)" "^btrfs subvolume snapshot .*/$img "
  bocker-store rm "$ps"
  bocker-store init --undo --dry-run > script
  sh -e script
  is "$(echo "$BOCKER_ROOT"*)" "$BOCKER_ROOT*" "what undo by the shell left"
}

test_setup_makes_the_store_first() {
  mkdir tree
  img=$(bocker-store import --setup tree 2>err)
  is "$(wc -l < err)" 1
  like "$(cat err)" "^bocker-store: made the store $BOCKER_ROOT"
  is "$(bocker-store import --setup tree 2>&1 | wc -l)" 1 "lines when there is one"
  like "$img" '^img_'
  bocker-store init --undo
  eventually 20 no_loops
  # Many at once make one.
  for n in $(seq 8); do bocker-store import --setup tree >"out.$n" 2>"err.$n" & done
  wait
  is "$(cat out.* | sort -u | wc -l)" 8
  is "$(losetup -a | grep -cF "$HOST_DIR/")" 1 "loop devices"
  is "$(bocker-store images | wc -l)" 9
}

# Several layers with what is hard about layers; umoci is the judge.
test_the_same_tree_as_umoci() {
  store
  {
    echo 'dir ./ mode=755 mtime=1000000000.5'
    echo 'dir etc mtime=1000000001.000000001'
    echo 'file etc/passwd root mode=600 uid=1000 gid=2147483646 mtime=1000000002.123456789'
    echo 'file setuid x mode=6755 uid=5'
    echo 'file capable x mode=755 x:security.capability=0100000200200000000000000000000000000000'
    echo 'file attributes x x:user.one=000a3d00ff x:user.two=31'
    echo 'dir attributed mode=3777 x:user.dir=31 mtime=1000000003'
    echo 'symlink link etc/passwd uid=7 gid=8 mtime=1000000004.7'
    echo 'hard hard etc/passwd'
    echo 'fifo pipe mode=644 mtime=1000000005.1'
    echo 'char null mode=666 major=1 minor=3'
    echo 'block disk mode=660 major=7 minor=0 gid=6'
    echo 'dir run mtime=1000000006' 'file x'
    echo 'dir var mtime=1000000006'
    echo 'symlink var/run ../run'
    printf '%s\n' 'file \xff\xfe x'
    echo "file $(printf 'n%.0s' $(seq 255)) x"
    echo "file $(printf 'long%.0s/' $(seq 60))end x"
    for dir in opaque opaque-late whiteout; do
      echo "dir $dir mtime=1000000007"
      echo "file $dir/one x"
      echo "dir $dir/sub mtime=1000000008"
      echo "file $dir/sub/two x"
    done
  } > one
  {
    # Over a link that is a directory, and a hard link to a lower layer's file.
    echo 'file var/run/pid 1'
    echo 'hard hard-later etc/passwd'
    echo 'hard hard-absolute /setuid'
    echo 'file opaque/.wh..wh..opq'
    echo 'file opaque/new y'
    echo 'dir opaque/sub mode=700 mtime=1000000011'
    echo 'file opaque/sub/new y'
    echo 'dir opaque-late mtime=1000000011'
    echo 'dir opaque-late/sub mtime=1000000011'
    echo 'file opaque-late/sub/new y'
    echo 'file opaque-late/.wh..wh..opq'
    echo 'file whiteout/.wh.one'
    echo 'file whiteout/.wh.sub'
    echo 'file .wh.pipe'
    echo 'dir attributed mode=755 mtime=1000000012'
    echo 'file etc/shadow y mode=0'
  } > two
  {
    echo 'file .wh.link'
    echo 'file whiteout/one again'
    echo 'dir etc mode=750 mtime=1000000015'
    echo 'hard etc/again etc/passwd'
  } > three
  sed -i 's/ file x$//' one
  python3 "$repo/tests/mklayer.py" layout image.tar one two three
  img=$(bocker-store unpack --source x < image.tar 2>err)
  is "$(cat err)" ""
  skopeo copy -q --insecure-policy oci-archive:image.tar oci:layout:image
  umoci raw unpack --image layout:image judge
  # Without the directories that no layer describes: their time is the time of unpacking. Where a whiteout removes
  # something after a directory's entry, the time is what the entry says here; umoci leaves the time of the removal.
  described() { listing "$1" | grep -v '^\./long[^	]*	dir	' | sed -E '/^(\.|\.\/opaque-late\/sub)\t/s/[0-9]{19}/TIME/'; }
  described judge > judge.list
  described "$BOCKER_ROOT/$img/rootfs" > ours.list
  [ "$(wc -l < judge.list)" -gt 25 ] || fail "the judge has too little"
  diff judge.list ours.list || fail "not what umoci unpacks"
  is "$(cd "$BOCKER_ROOT/$img/rootfs" && stat -c %.9Y . opaque-late/sub | xargs)" "1000000000.500000000 1000000011.000000000"
  # skopeo's own order of entries, too.
  skopeo copy -q --insecure-policy oci:layout:image oci-archive:other.tar
  again=$(bocker-store unpack < other.tar)
  is "$(listing "$BOCKER_ROOT/$again/rootfs")" "$(listing "$BOCKER_ROOT/$img/rootfs")"
  python3 "$repo/tests/mklayer.py" pack packed.tar layout
  again=$(bocker-store unpack < packed.tar)
  is "$(listing "$BOCKER_ROOT/$again/rootfs")" "$(listing "$BOCKER_ROOT/$img/rootfs")"
  # What GNU tar makes of a whole tree: sparse, long names, attributes.
  everything tree
  rm tree/socket
  for format in gnu pax; do
    tar -C tree --format=$format --sparse --xattrs --xattrs-include='*' --acls -cf layer.tar .
    python3 - "$repo/tests" <<'PY'
import sys
sys.path.insert(0, sys.argv[1])
import mklayer
mklayer.write("image.tar", mklayer.one(open("layer.tar", "rb").read()))
PY
    img=$(bocker-store unpack --source x < image.tar 2>err)
    # The gnu format has neither attributes nor fractions.
    if [ "$format" = pax ]; then
      is "$(listing "$BOCKER_ROOT/$img/rootfs" | grep -v '^\./\.dot')" "$(listing tree | grep -v '^\./\.dot')" "a tree through GNU tar"
    else
      plain() { listing "$1" | cut -f1-4,6,7; }
      is "$(plain "$BOCKER_ROOT/$img/rootfs")" "$(plain tree)" "a tree through GNU tar, old format"
    fi
    [ "$(du -k "$BOCKER_ROOT/$img/rootfs/sparse" | cut -f1)" -lt 200 ] || fail "the hole was filled"
  done
}
