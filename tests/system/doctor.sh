# What a host has and lacks: bocker doctor and those of the tools. What is wrong is made so, and the way out that is printed is run.
# shellcheck shell=bash disable=SC2154 # HOST_DIR: tests/host; repo: tests/lib.sh

# well TEXT: three words a line, nothing bad
well() {
  is "$(awk -F '\t' 'NF != 3 || $1 !~ /^(ok|warn|bad)$/' <<<"$1")" "" "lines"
  unlike "$1" $'^bad\t'
}
# found WHAT: its line
found() { grep -P "^[a-z]+\t$1\t" out; }

# The store has no room any more. What the kernel had reserved for the first file is free again, in part, when it is on the disk.
fill() {
  fallocate -l "$(df --output=avail -B1 "$BOCKER_ROOT" | tail -1)" "$BOCKER_ROOT/full" 2>/dev/null || :
  for _ in 1 2 3; do
    btrfs filesystem sync "$BOCKER_ROOT"
    cat /dev/zero >>"$BOCKER_ROOT/full" 2>/dev/null || :
  done
}

test_doctor_of_the_store() {
  local before
  status=0
  # None yet.
  bocker-store doctor >out
  well "$(cat out)"
  like "$(found store)" "^warn.store.$BOCKER_ROOT is not there yet: bocker setup makes it$"
  [ ! -e "$BOCKER_ROOT" ] || fail "it made a store"
  mkdir "$BOCKER_ROOT" && touch "$BOCKER_ROOT/file"
  bocker-store doctor >out || status=$?
  is "$status" 1
  like "$(found store)" '^bad.store.*another BOCKER_ROOT$'
  rm -r "$BOCKER_ROOT"
  bocker-store init --size 512M 2>/dev/null
  before=$(census)
  bocker-store doctor >out
  well "$(cat out)"
  is "$(census)" "$before" "it only looks"
  is "$(grep -cv '^ok' out)" 0 "all is well: $(cat out)"
  like "$(found metadata)" 'MiB of [0-9]+ MiB used'
  # A link that a crash left, and a name.
  mkdir -p /run/bocker && ln -s "$BOCKER_ROOT" /run/bocker/ps_42077
  bocker-store doctor >out
  like "$(found leftovers)" '^warn.leftovers.1 that a crash left: bocker gc$'
  bocker-store gc >/dev/null
  mkdir "$BOCKER_ROOT/stranger"
  bocker-store doctor >out
  like "$(found content)" '^warn.content.1 findings, as stranger: .*bocker-store fsck lists them$'
  rmdir "$BOCKER_ROOT/stranger"
  # Read-only, and the way out.
  mount -o remount,ro "$BOCKER_ROOT"
  status=0; bocker-store doctor >out || status=$?
  is "$status" 1
  like "$(found writing)" "^bad.writing.*mount -o remount,rw $BOCKER_ROOT$"
  mount -o remount,rw "$BOCKER_ROOT"
  chmod 755 "$BOCKER_ROOT"
  status=0; bocker-store doctor >out || status=$?
  is "$status" 1
  eval "$(found store | sed 's/.*: //')"
  bocker-store doctor >out
  # Full.
  fill
  status=0; bocker-store doctor >out || status=$?
  like "$(found room)" '^bad.room.full: no image can be pulled: bocker prune'
  is "$status" 1
  rm "$BOCKER_ROOT/full"
  # Not mounted, and the way out.
  umount "$BOCKER_ROOT"
  bocker-store doctor >out
  like "$(found store)" "^warn.store.$BOCKER_ROOT.btrfs is not mounted: bocker setup mounts it"
  bocker-store init 2>/dev/null
  bocker-store doctor >out
  well "$(cat out)"
}

test_doctor_of_the_control_groups() {
  [ "$HOST_CGROUPS" != v2 ] || return 0
  local before
  before=$(census)
  bocker-cg doctor >out
  well "$(cat out)"
  is "$(census)" "$before" "it only looks"
  is "$(grep -c '^ok.controller ' out)" 8
  like "$(found swap)" '^ok.swap.counted'
  # Both versions at once: what we use is version 1's.
  mkdir /sys/fs/cgroup/unified
  mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
  bocker-cg doctor >out
  like "$(found 'control groups')" '^ok.control groups.version 1 below /sys/fs/cgroup, beside version 2 .*hybrid'
  is "$(bocker-cg run memory=64M -- grep -c :/run_ /proc/self/cgroup)" 7
  umount /sys/fs/cgroup/unified
  rmdir /sys/fs/cgroup/unified
  # One hierarchy is not there, and the way out brings it.
  umount /sys/fs/cgroup/freezer
  bocker-cg doctor >out
  like "$(found 'controller freezer')" '^warn.*without it no pause: no hierarchy has it: mkdir -p'
  eval "$(found 'controller freezer' | sed 's/.*has it: //')"
  bocker-cg doctor >out
  like "$(found 'controller freezer')" '^ok'
  umount /sys/fs/cgroup/memory
  status=0; bocker-cg doctor >out || status=$?
  is "$status" 1
  like "$(found 'control groups')" '^bad.control groups.no memory hierarchy below /sys/fs/cgroup \(mount -t cgroup -o memory'
  mount -t cgroup -o memory cgroup /sys/fs/cgroup/memory
  umount /sys/fs/cgroup/devices
  status=0; bocker-cg doctor >out || status=$?
  is "$status" 1
  like "$(found 'controller devices')" '^bad.*containers need devices=all: no hierarchy has it'
}

test_doctor_of_what_runs_them() {
  local before
  bocker-store init --size 512M 2>/dev/null
  before=$(census)
  bocker-exec --doctor >out
  well "$(cat out)"
  is "$(census)" "$before" "it only looks"
  for word in namespaces 'user namespaces' seccomp terminals 'a user namespace' 'system calls'; do like "$(found "$word")" '^ok'; done
  like "$(found 'mapped owners')" "^ok.*the file system of $BOCKER_ROOT can show them"
  # A file system that cannot, and who is not root.
  mkdir -p plain && mount -t ramfs ramfs plain
  status=0; BOCKER_ROOT=$PWD/plain bocker-exec --doctor >out || status=$?
  is "$status" 1
  like "$(found 'mapped owners')" '^bad.*mount_setattr\(2\).*--userns=host does without'
  umount plain
  status=0; setpriv --reuid 1000 --clear-groups bocker-exec --doctor >out || status=$?
  is "$status" 1
  like "$(found rights)" '^bad.rights.*sudo'
  fails 125 "cannot be used with" bocker-exec --doctor --root /
}

# What its leftovers are about: one gc of all takes those of bocker-cg run, too.
test_gc_takes_what_a_killed_run_left() {
  bocker setup 2>/dev/null
  bocker-cg run -- sleep 60 &
  local runner=$!
  eventually 20 eval '[ -n "$(bocker-cg list)" ] && pgrep -x sleep >/dev/null'
  is "$(bocker gc)" "" "it runs"
  kill -KILL "$runner"; wait "$runner" || true
  like "$(bocker gc)" "^/run_${runner}_[0-9]+$"
  is "$(bocker-cg list)$(find /sys/fs/cgroup -name 'run_*')" ""
}

test_doctor_of_all() {
  # One that fails does not keep the others.
  mkdir "$BOCKER_ROOT" && touch "$BOCKER_ROOT/file"
  status=0; bocker doctor >out 2>err || status=$?
  [ "$status" != 0 ] || fail "a bad store, and status 0"
  like "$(found store)" ^bad
  like "$(found 'control groups')" ^ok
  like "$(found seccomp)" ^ok
  bocker --dry-run doctor >script
  status=0; sh script >said 2>/dev/null || status=$?
  [ "$status" != 0 ] || fail "the script's status"
  # What changes from one to the next is a number.
  diff <(sed 's/[0-9]\+//g' out) <(sed 's/[0-9]\+//g' said)
  rm -r "$BOCKER_ROOT"
}

# The whole of a host: well after `bocker setup`, and then one thing after another away, each with a line that says so.
test_doctor_of_a_well_host() {
  bocker-store init --size 512M 2>/dev/null
  bocker setup 2>/dev/null
  local before word table
  # Tables are listed in the order in which they were made.
  sorted() { census >now; sort now; }
  before=$(sorted)
  bocker doctor >out 2>err || fail "status $? on a well host: $(grep -v ^ok out; cat err)"
  well "$(cat out)"
  is "$(cat err)" ""
  is "$(sorted)" "$before" "it only looks"
  # Of the store, of the network, of the control groups, of what runs containers.
  for word in store writing room content bridge setup 'nft ip' 'nft bridge' 'control groups' seccomp 'a user namespace' 'mapped owners'; do
    like "$(found "$word")" '^ok' "$word: $(cat out)"
  done
  # sick PATTERN: the status is 1, and of what is bad this is all
  sick() {
    status=0; bocker doctor >out || status=$?
    is "$status" 1 "$(cat out)"
    is "$(grep -c ^bad out)" 1 "$(grep ^bad out)"
    like "$(cat out)" "$1"
    like "$(found seccomp)" ^ok "the others say theirs all the same"
  }
  # A table of bridge0's, and the way out.
  for table in 'ip bocker' 'bridge bocker'; do
    # shellcheck disable=SC2086 # words
    nft delete table $table
    sick $'^bad\tsetup\tsomething was taken away \\(bocker-net setup puts it back'
    bocker-net setup 2>/dev/null
    bocker doctor >out || fail "$table is back, and: $(grep -v ^ok out)"
    is "$(sorted)" "$before"
  done
  # A controller is not there: one that a container can do without is told, one that it cannot is bad.
  if [ "$HOST_CGROUPS" != v2 ]; then
    umount /sys/fs/cgroup/pids
    bocker doctor >out || fail "$(grep ^bad out)"
    like "$(found 'controller pids')" '^warn.*without it no limits of processes'
    eval "$(found 'controller pids' | sed 's/.*has it: //')"
    umount /sys/fs/cgroup/devices
    sick $'^bad\tcontroller devices\t'
    mount -t cgroup -o devices cgroup /sys/fs/cgroup/devices
  fi
  # The store is full.
  fill
  sick $'^bad\troom\tfull: no image can be pulled: bocker prune'
}
