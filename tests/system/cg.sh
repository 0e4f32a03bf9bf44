# shellcheck shell=bash disable=SC2154 # HOST_CGROUPS: tests/host
# bocker-cg in a disposable host, on version 1 here and on version 2 in user-mode-linux (tests/v2).

cg=/sys/fs/cgroup
v2() { [ "$HOST_CGROUPS" = v2 ]; }
# The container's directories.
dirs() {
  local name
  if v2; then echo "$cg/$1"; else for name in cpu cpuacct memory pids devices freezer blkio; do echo "$cg/$name/$1"; done; fi
}
# file ID CONTROLLER FILE-OF-V1 [FILE-OF-V2]
file() { if v2; then echo "$cg/$1/${4:-$3}"; else echo "$cg/$2/$1/$3"; fi; }
cpu_file() { if v2; then echo "$cg/$1/cpu.weight"; else echo "$cg/cpu/$1/cpu.shares"; fi; }
memory_file() { if v2; then echo "$cg/$1/memory.max"; else echo "$cg/memory/$1/memory.limit_in_bytes"; fi; }
of_512() { if v2; then echo 59; else echo 512; fi; }
cgroups() { find "$cg" -name '*ps_4*' -type d | sort; }
# Every limit and every cgroup, as the kernel has them.
cgroup_state() {
  local dir file
  for dir in $(cgroups); do
    for file in cpu.shares cpu.weight cpu.cfs_quota_us cpu.max memory.limit_in_bytes memory.max memory.memsw.limit_in_bytes \
      memory.swap.max memory.soft_limit_in_bytes memory.low pids.max devices.list cpuset.cpus cpuset.mems; do
      [ ! -e "$dir/$file" ] || echo "$dir/$file $(cat "$dir/$file")"
    done
  done
  ! v2 || cat "$cg/cgroup.subtree_control"
}

test_cg_create_limits_and_delete() {
  is "$(bocker-cg create ps_42045 cpu.shares=512 memory=512000000 2>&1)" /ps_42045
  is "$(cat "$(cpu_file ps_42045)")" "$(of_512)"
  is "$(cat "$(memory_file ps_42045)")" 512000000
  is "$(bocker-cg get ps_42045 memory)" 512000000
  is "$(bocker-cg get ps_42045 cpu.weight)" 59 "of 512 shares, on both versions"
  bocker-cg create ps_42046 cpu.weight=100 memory.max=1M
  is "$(cat "$(memory_file ps_42046)")" 1048576
  is "$(bocker-cg get ps_42046 cpu.weight) $(bocker-cg get ps_42046 cpu-shares)" "100 1024" "in both scales"
  is "$(bocker-cg list)" "$(printf 'ps_42045\nps_42046')"
  is "$(bocker-cg list --json | jq -r .id | tail -1)" ps_42046
  bocker-cg list | true
  bocker-cg delete ps_42045
  is "$(bocker-cg delete ps_42045 2>&1)" "" "already gone is no error"
  bocker-cg delete ps_42046
  is "$(cgroups)" ""
}

test_cg_exec_joins_everywhere() {
  bocker-cg create ps_42045
  bocker-cg exec ps_42045 -- cat /proc/self/cgroup >joined
  if v2; then
    is "$(cat joined)" 0::/ps_42045
  else
    is "$(grep -cE ':(cpu|cpuacct|memory|pids|devices|freezer|blkio):/ps_42045$' joined)" 7
    is "$(grep -c ps_42045 joined)" 7 "only these"
  fi
  # A child is counted there, too.
  bocker-cg exec ps_42045 -- sh -c 'cat /proc/self/cgroup; :' | diff joined -
  bocker-cg exec --dry-run ps_42045 -- cat /proc/self/cgroup | sh -e | diff joined -
  # Where it is in one hierarchy only, that one.
  if ! v2; then
    rmdir "$cg"/{cpu,cpuacct,pids,devices,freezer,blkio}/ps_42045
    is "$(bocker-cg exec ps_42045 -- grep -c ps_42045 /proc/self/cgroup)" 1
    is "$(bocker-cg list)" ps_42045
  fi
  bocker-cg delete ps_42045
}

test_cg_exec_statuses() {
  bocker-cg create ps_42045
  fails 127 '^bocker-cg: execute nosuch: No such file or directory$' bocker-cg exec ps_42045 -- nosuch
  touch plain
  fails 126 '^bocker-cg: execute ./plain: Permission denied$' bocker-cg exec ps_42045 -- ./plain
  fails 125 '^bocker-cg: no cgroup /ps_42046 \(bocker-cg create ps_42046' bocker-cg exec ps_42046 -- true
  fails 125 'not an id' bocker-cg exec ../x -- true
  fails 125 'not provided' bocker-cg exec ps_42045
  fails 125 'no cgroups below' bocker-cg --root /nowhere exec ps_42045 -- true
  local status=0
  bocker-cg exec ps_42045 -- sh -c 'exit 42' || status=$?
  is "$status" 42
  status=0
  bocker-cg exec ps_42045 -- sh -c 'kill -TERM $$' || status=$?
  is "$status" 143
  is "$(bocker-cg exec ps_42045 -- printf '%s|' a '' 'b c' $'\xff' --root -- | od -An -c | tr -d ' \n')" 'a||bc|377|--root|--|'
  is "$(echo hi | bocker-cg exec ps_42045 cat)" hi
  bocker-cg delete ps_42045
}

test_cg_the_limit_is_real() {
  bocker-cg create ps_42045 memory=64M
  local status=0
  # The control: within the limit.
  is "$(bocker-cg exec ps_42045 -- python3 -c 'print(len(bytearray(16 << 20)))')" 16777216
  bocker-cg exec ps_42045 -- python3 -c 'bytearray(256 << 20)' 2>/dev/null || status=$?
  is "$status" 137 "killed by the kernel"
  bocker-cg delete ps_42045
}

test_cg_create_is_all_or_nothing() {
  local before
  bocker-cg create ps_42045 memory=64M
  before=$(cgroup_state)
  fails 1 '/ps_42045: File exists \(bocker-cg delete ps_42045 removes it\)$' bocker-cg create ps_42045
  is "$(cgroup_state)" "$before" "the one that was there stays"
  bocker-cg delete ps_42045
  if ! v2; then
    # The last of the three is taken.
    mkdir "$cg/memory/ps_42045"
    fails 1 'create .*/memory/ps_42045: File exists' bocker-cg create ps_42045
    is "$(cgroups)" "$cg/memory/ps_42045"
    rmdir "$cg/memory/ps_42045"
    # A limit that the kernel refuses: less than a child of the top may have, by a file that is not there.
    mkdir fake fake/cpu fake/cpuacct fake/memory
    touch fake/{cpu,cpuacct,memory}/tasks
    ln -s /proc/version fake/memory/x
    mount -t tmpfs -o size=4k,nr_inodes=3 small fake/memory
    touch fake/memory/tasks
    fails 1 'bocker-cg: write 1048576 to fake/memory/ps_42045/memory.limit_in_bytes: No space left' \
      sh -c 'bocker-cg --root fake create ps_42045 memory=1M devices=all 2>&1 | grep -v "^bocker-cg: the number of processes is not limited: no pids hierarchy" >&2; exit 1'
    is "$(find fake -name 'ps_*' | wc -l)" 0 "rolled back"
    umount fake/memory
  fi
  local word
  for word in memory=1 memory=lots cpu.shares=1 memroy=64M =; do
    fails 2 '^bocker-cg: ' bocker-cg create ps_42045 "$word"
  done
  fails 2 "unknown limit 'pid' \(known: memory, .*cpu.shares" bocker-cg create ps_42045 pid=5
  is "$(cgroups)" ""
}

test_cg_delete_takes_children_and_waits_for_the_dying() {
  local dir
  bocker-cg create ps_42045
  # What a container may have made.
  for dir in $(dirs ps_42045); do mkdir -p "$dir/a/b" "$dir/c"; done
  bocker-cg delete ps_42045
  is "$(cgroups)" ""
  # A process that ends a moment later. Where the machine makes more of it than delete waits for: once more.
  local n deleted=no
  for n in 1 2 3 4 5; do
    bocker-cg create ps_42045
    bocker-cg exec ps_42045 -- sleep 0.2 &
    sleep 0.05
    if bocker-cg delete ps_42045 2>busy; then deleted=yes && is "$(cgroups)" ""; fi
    wait
    [ "$deleted" = no ] || break
    like "$(cat busy)" 'Device or resource busy'
    bocker-cg delete ps_42045
  done
  is "$deleted" yes "it does not wait: $(cat busy)"
  # One that does not.
  bocker-cg create ps_42045
  bocker-cg exec ps_42045 -- sleep 30 &
  local sleeper=$!
  eventually 10 in_it "$sleeper"
  fails 1 "remove .*: Device or resource busy \(processes in it: $sleeper; --kill ends them\)" bocker-cg delete ps_42045
  kill "$sleeper"
  wait "$sleeper" || true
  bocker-cg delete ps_42045
  is "$(cgroups)" ""
  # As a filter, with names for answers: what is gone already is none.
  bocker-cg create ps_42045 && bocker-cg create ps_42046
  is "$(printf 'ps_42046\tmore\nps_42045\nps_42047\n' | bocker-cg delete -)" $'/ps_42046\n/ps_42045'
  is "$(cgroups)" ""
  echo nonsense >words
  fails 2 "'nonsense' is not an id" sh -c 'bocker-cg delete - <words'
}

test_cg_delete_kills_when_told_to() {
  local how sleeper dir
  for how in tool shell; do
    bocker-cg create ps_42045 >/dev/null
    for dir in $(dirs ps_42045); do mkdir "$dir/child"; done
    # Deaf to all but KILL, in the group and in one below it.
    bocker-cg exec ps_42045 -- sh -c 'trap "" HUP INT TERM; sleep 60; sleep 60' &
    sleeper=$!
    eventually 10 sleeps
    for dir in $(dirs ps_42045); do pgrep -P "$sleeper" >"$dir/child/cgroup.procs"; done
    if [ "$how" = tool ]; then bocker-cg delete --kill ps_42045; else bocker-cg delete --kill --dry-run ps_42045 | sh -e; fi
    is "$(cgroups)" "" "by the $how"
    status=0; wait "$sleeper" || status=$?
    is "$status" 137
    # Killed and out of the cgroup, it is still to be reaped.
    eventually 10 eval '! sleeps'
  done
  bocker-cg delete --kill ps_42045
}
# shellcheck disable=SC2317,SC2329
sleeps() { pgrep -x sleep >/dev/null; }
in_it() { grep -q 'ps_4204[56]' "/proc/$1/cgroup" && [ "$(cat "/proc/$1/comm")" = sleep ]; }

test_cg_dry_run_is_what_it_does() {
  local words=(ps_42045 cpu.shares=512 memory=512M memory-reservation=1M cpus=1.5 pids=77 device=c:10:200:rw 'device=b:7:*:r')
  v2 || words+=(cpuset.cpus=0)
  bocker-cg create --dry-run "${words[@]}" >script
  is "$(cgroups)" "" "a dry run does nothing"
  is "$(sh -e script)" /ps_42045
  cgroup_state >shell
  bocker-cg delete --dry-run ps_42045 | sh -e
  is "$(cgroups)" ""
  bocker-cg create --explain "${words[@]}" >out 2>told
  is "$(cat out)" /ps_42045
  cgroup_state >tool
  diff shell tool
  # Version 2's controllers are enabled by now; all else is said again.
  diff <(grep -v subtree_control script | grep -v '^# version 2') told
  bocker-cg delete --dry-run ps_42045 >script
  bocker-cg delete --explain ps_42045 2>told
  diff script told
  is "$(cgroups)" ""
}

test_cg_create_that_is_told_to_end_leaves_nothing() {
  local n status
  for n in $(seq 20); do
    bocker-cg create ps_42045 memory=64M >out 2>/dev/null &
    sleep "0.00$((n % 10))"
    kill -TERM $! 2>/dev/null || true
    status=0; wait $! || status=$?
    # All or nothing, and who waits for it knows which.
    if [ "$status" = 0 ]; then bocker-cg delete ps_42045; else is "$status" 143; fi
    is "$(cgroups)" "" "after TERM in round $n (status $status)"
  done
}

test_cg_bad_words() {
  fails 2 'no command given' bocker-cg
  fails 2 "unrecognized subcommand 'fly'" bocker-cg fly
  local id
  for id in '' . .. / -x path ps_ ps_42001 ps_042045 ps_42045/.. ../../tmp "$(printf 'ps_%010000d' 4)"; do
    fails 2 . bocker-cg create "$id"
    fails 2 . bocker-cg delete "$id"
  done
  fails 1 'no cgroups below /nowhere' bocker-cg --root /nowhere create ps_42045
  fails 1 'no cgroups below' bocker-cg --root "$HOST_DIR" list
  fails 1 'Permission denied \(try sudo\)' setpriv --reuid 1000 --clear-groups bocker-cg create ps_42045
  fails 1 'no cgroup /ps_42045 \(bocker-cg create ps_42045' bocker-cg get ps_42045 memory
}

test_cg_many_at_once() {
  local n status=0 pids=()
  for n in $(seq 2 21); do bocker-cg create "ps_$((42000 + n))" memory=64M & pids+=($!); done
  for n in "${pids[@]}"; do wait "$n" || status=$?; done
  is "$status" 0
  is "$(bocker-cg list | wc -l)" 20
  for n in $(seq 2 21); do bocker-cg delete "ps_$((42000 + n))" & done
  wait
  is "$(cgroups)" ""
}

# Every limit, as the kernel has it; a file's first, what is typed over them.
test_cg_limits_are_the_kernels() {
  printf 'memory=64M\npids=9\n\ncpus=2\ndevice=c:10:200:rw\n' >limits
  bocker-cg create ps_42045 --from limits cpus=0.5 memory-reservation=32M pids.max=7 >/dev/null
  is "$(bocker-cg get ps_42045 memory)" 67108864
  is "$(cat "$(file ps_42045 pids pids.max)")" 7
  is "$(cat "$(file ps_42045 cpu cpu.cfs_quota_us cpu.max)")" "$(if v2; then echo 50000 100000; else echo 50000; fi)"
  is "$(cat "$(file ps_42045 memory memory.soft_limit_in_bytes memory.low)")" 33554432
  v2 || like "$(cat "$cg/devices/ps_42045/devices.list")" '^c 10:200 rw$'
  bocker-cg delete ps_42045
  # Told nothing: 2048 processes, the default devices.
  bocker-cg create ps_42045 >/dev/null
  is "$(bocker-cg get ps_42045 pids)" 2048
  v2 || is "$(cat "$cg/devices/ps_42045/devices.list")" "$(printf 'c %s\n' '1:3 rwm' '1:5 rwm' '1:7 rwm' '1:8 rwm' '1:9 rwm' '5:0 rwm' '5:2 rw' '136:* rw')"
  v2 || is "$(bocker-cg get ps_42045 devices)" default
  bocker-cg delete ps_42045
  bocker-cg create ps_42045 pids=max devices=all >/dev/null
  is "$(bocker-cg get ps_42045 pids)" max
  v2 || is "$(bocker-cg get ps_42045 devices)" all
  bocker-cg delete ps_42045
  pids_limit_is_real
  fails 1 'read nosuch: No such file' bocker-cg create ps_42045 --from nosuch
  echo pids=some >limits
  fails 2 "limits line 1: limit 'pids=some': not a number from 1 to" bocker-cg create ps_42045 --from limits
  fails 2 "'memory-swap=1M': memory and swap together" bocker-cg create ps_42045 memory=2M memory-swap=1M
  is "$(cgroups)" ""
  if v2; then
    # This kernel has no cpusets.
    fails 1 'no cpuset controller in' bocker-cg create ps_42045 cpuset.cpus=0
  else
    bocker-cg create ps_42045 cpuset.cpus=1 memory=8M memory-swap=16M >/dev/null
    is "$(bocker-cg exec ps_42045 -- nproc)" 1
    is "$(bocker-cg exec ps_42045 -- sed -n 's/^Cpus_allowed_list:\t//p' /proc/self/status)" 1
    is "$(cat "$cg/memory/ps_42045/memory.memsw.limit_in_bytes")" 16777216
    bocker-cg delete ps_42045
    # A hierarchy that the host does not have. Devices: never in silence.
    umount "$cg/pids"
    bocker-cg create ps_42045 2>err >/dev/null
    like "$(cat err)" '^bocker-cg: the number of processes is not limited: no pids hierarchy \(mount -t cgroup -o pids cgroup /sys/fs/cgroup/pids\)$'
    bocker-cg delete ps_42045
    fails 1 'pids=5: no pids hierarchy \(mount' bocker-cg create ps_42045 pids=5
    umount "$cg/devices"
    fails 1 'the rules for devices: no devices hierarchy .*or devices=all goes without' bocker-cg create ps_42045 pids=max
    bocker-cg create ps_42045 pids=max devices=all >/dev/null
    bocker-cg delete ps_42045
  fi
  is "$(cgroups)" ""
}

# Check 15: the device cgroup, below what capabilities say. With mknod of ours, so that only it can be what refuses.
test_cg_devices() {
  local shell='
    mknod n c 1 3 && echo x >n && mknod z c 1 5 && head -c1 z | wc -c && head -c1 /dev/urandom | wc -c
    mknod f c 1 7 && ! echo x >f; mknod t c 5 0
    for node in "tun c 10 200" "fuse c 10 229" "mem c 1 1" "loop b 7 0" "any c 240 1"; do ! mknod $node || echo "made $node"; done
    for node in ./made-*; do ! true <$node || echo "opened $node"; done; true <>/dev/ptmx && echo ptmx'
  mknod made-loop b 7 0; mknod made-mem c 1 1; mknod made-kmsg c 1 11
  bocker-cg create ps_42045 >/dev/null
  is "$(bocker-cg exec ps_42045 -- sh -c "$shell" 2>err)" "$(printf '1\n1\nptmx')"
  is "$(grep -c "mknod: .*Operation not permitted" err)" 5
  is "$(grep -c "cannot open ./made-.*Operation not permitted" err)" 3
  rm -f n z f t
  # The control: without rules the same may be made and opened.
  local read='true <made-kmsg' write='true >made-kmsg'
  bocker-cg set ps_42045 devices=all
  bocker-cg exec ps_42045 -- sh -c "mknod tun c 10 200 && $read && $write"
  # And back, in both ways; what may be read is not what may be written.
  bocker-cg set ps_42045 devices=default device=c:1:11:r
  bocker-cg exec ps_42045 -- sh -c "$read"
  ! bocker-cg exec ps_42045 -- sh -c "$write" 2>/dev/null || fail "written to what may be read"
  bocker-cg set --dry-run ps_42045 devices=default | sh -e
  ! bocker-cg exec ps_42045 -- sh -c "$read" 2>/dev/null || fail "the rule is still there"
  bocker-cg set --dry-run ps_42045 devices=all | sh -e
  bocker-cg exec ps_42045 -- sh -c "$read && $write"
  fails 2 "limit 'device' \(devices=default or devices=all" bocker-cg set ps_42045 device=c:1:1:r
  bocker-cg delete ps_42045
  v2 || devices_by_bpf
}
# The rules of version 2 on this kernel, too, where its tree is mounted beside version 1: a cgroup without controllers will do.
devices_by_bpf() {
  mkdir two
  mount -t cgroup2 cgroup2 two
  local top=two/${HOST_DIR##*/}
  mkdir "$top" "$top/ps_42045"
  # shellcheck disable=SC2064
  trap "rmdir '$PWD/$top/ps_42045' '$PWD/$top'" EXIT
  inside() { sh -c 'echo $$ >"$0/cgroup.procs"; exec sh -c "$1" 2>&1' "$top/ps_42045" "$1"; }
  refused() { like "$(! inside "$1" || echo "it was not")" 'Operation not permitted$'; }
  mknod kmsg c 1 11
  inside 'true <kmsg && true >kmsg && mknod made c 10 200 && rm made'
  bocker-cg --root "$top" set ps_42045 devices=default device=b:7:0:r
  inside 'true <>/dev/null && head -c1 /dev/urandom >/dev/null && mknod made c 1 3 && rm made && true <>/dev/ptmx'
  refused 'mknod made c 10 200'
  refused 'true <kmsg'
  # One takes the place of the other, and none is left in the end.
  bocker-cg --root "$top" set ps_42045 devices=default device=c:1:11:r
  inside 'true <kmsg'
  refused 'true >kmsg'
  bocker-cg --root "$top" set --dry-run ps_42045 devices=default | sh -e
  refused 'true <kmsg'
  bocker-cg --root "$top" set ps_42045 devices=all
  bocker-cg --root "$top" set ps_42045 devices=all
  inside 'true <kmsg && true >kmsg && mknod made c 10 200'
}

pids_limit_is_real() {
  bocker-cg create ps_42045 pids=12 >/dev/null
  # The control first.
  is "$(bocker-cg exec ps_42045 -- sh -c 'sleep 0.1 & sleep 0.1 & wait; echo ok')" ok
  fails 2 'sh: .*Cannot fork' bocker-cg exec ps_42045 -- sh -c 'for n in 1 2 3 4 5 6 7 8 9 10 11 12 13; do sleep 60 >/dev/null 2>&1 & done'
  is "$(bocker-cg stats ps_42045 | cut -f5)" 11 "all that were possible, but for the shell"
  bocker-cg delete --kill ps_42045
}

test_cg_set_is_all_or_nothing() {
  local before
  bocker-cg create ps_42045 memory=64M cpus=1 >/dev/null
  bocker-cg exec ps_42045 -- sleep 60 &
  eventually 10 sleeps
  bocker-cg set ps_42045 memory=128M cpus=0.25 pids=99 cpu.shares=1024
  is "$(bocker-cg get ps_42045 memory) $(bocker-cg get ps_42045 pids)" "134217728 99"
  is "$(bocker-cg get ps_42045 cpus)" 0.25
  before=$(cgroup_state)
  bocker-cg set --dry-run ps_42045 memory=256M pids=5 cpus=max >script
  is "$(cgroup_state)" "$before" "a dry run does nothing"
  sh -e script
  cgroup_state >shell
  bocker-cg set ps_42045 memory=128M pids=99 cpus=0.25
  is "$(cgroup_state)" "$before"
  bocker-cg set --explain ps_42045 memory=256M pids=5 cpus=max 2>told
  diff script told
  diff shell <(cgroup_state)
  # The kernel refuses the last of them: a processor that is not there, more swap than counted, no room for what is in use.
  before=$(cgroup_state)
  if v2; then
    fails 1 'cpuset.cpus: no such file .*cpuset.cpus=900 was refused, all is as before' bocker-cg set ps_42045 pids=6 memory=300M cpuset.cpus=900
  else
    fails 1 'cpuset.cpus=0: no cgroup .*/cpuset/ps_42045 \(bocker-cg create ps_42045 cpuset.cpus=LIST' bocker-cg set ps_42045 pids=6 cpuset.cpus=0
    fails 1 'write 4096 to .*/memory.limit_in_bytes: Device or resource busy \(memory=4096 was refused, all is as before\)' \
      bocker-cg set ps_42045 pids=6 cpus=3 memory=4096
  fi
  is "$(cgroup_state)" "$before"
  fails 1 'no cgroup /ps_42046' bocker-cg set ps_42046 pids=6
  fails 2 'not provided' bocker-cg set ps_42045
  if ! v2; then
    # Version 1 keeps both above one at every moment, in both directions.
    bocker-cg set ps_42045 memory=32M memory-swap=64M
    bocker-cg set ps_42045 memory=128M memory-swap=256M
    is "$(cat "$cg/memory/ps_42045/memory.memsw.limit_in_bytes")" 268435456
    bocker-cg set ps_42045 memory=32M memory-swap=32M
    fails 1 'Invalid argument \(.*memory-swap=SIZE, too\) \(memory=64M was refused, all is as before\)' bocker-cg set ps_42045 pids=9 memory=64M
    is "$(bocker-cg get ps_42045 pids)" 5
    bocker-cg set ps_42045 memory=max memory-swap=max
    bocker-cg delete --kill ps_42045
    bocker-cg create ps_42045 cpuset.cpus=0 >/dev/null
    fails 1 'cpuset.cpus=900 was refused, all is as before' bocker-cg set ps_42045 pids=6 cpuset.cpus=900
    bocker-cg set ps_42045 cpuset.cpus=0-1
    is "$(bocker-cg get ps_42045 cpuset.cpus) $(bocker-cg get ps_42045 pids)" "0-1 2048"
  fi
  bocker-cg delete --kill ps_42045
  wait
}

test_cg_freeze_and_thaw() {
  local how counter before n
  bocker-cg create ps_42045 >/dev/null
  bocker-cg exec ps_42045 -- sh -c 'for n in 1 2 3 4 5 6; do while :; do busybox true; done & done; while :; do echo x >>count; busybox true; done' &
  counter=$!
  eventually 10 test -s count
  for how in tool shell; do
    if [ "$how" = tool ]; then bocker-cg freeze ps_42045; else bocker-cg freeze --dry-run ps_42045 | sh -e; fi
    before=$(wc -c <count)
    sleep 0.2
    is "$(wc -c <count)" "$before" "frozen by the $how"
    fails 125 'ps_42045 is frozen \(bocker-cg thaw ps_42045\)' bocker-cg exec ps_42045 -- true
    bocker-cg freeze ps_42045
    if [ "$how" = tool ]; then bocker-cg thaw ps_42045; else bocker-cg thaw --dry-run ps_42045 | sh -e; fi
    eventually 10 grows "$before"
  done
  # Shells that start one program after the other are in vfork(2) most of the time.
  for n in $(seq "$(if v2; then echo 3; else echo 30; fi)"); do bocker-cg freeze ps_42045; bocker-cg thaw ps_42045; done
  # A frozen one, and one that froze itself further down, can be deleted.
  bocker-cg freeze ps_42045
  bocker-cg delete --kill ps_42045
  is "$(cgroups)" ""
  status=0; wait "$counter" || status=$?
  is "$status" 137
  fails 1 'no cgroup /ps_42045' bocker-cg freeze ps_42045
  fails 1 'no cgroup /ps_42045' bocker-cg thaw ps_42045
  local inner
  for how in tool shell; do
    bocker-cg create ps_42045 >/dev/null
    inner=$(if v2; then echo "$cg/ps_42045/a"; else echo "$cg/freezer/ps_42045/a"; fi)
    mkdir "$inner"
    sleep 60 & counter=$!
    echo "$counter" >"$inner/cgroup.procs"
    if v2; then echo 1 >"$inner/cgroup.freeze"; else echo FROZEN >"$inner/freezer.state"; fi
    mkdir -p "$inner/b/c"
    if [ "$how" = tool ]; then bocker-cg delete --kill ps_42045; else bocker-cg delete --kill --dry-run ps_42045 | sh -e; fi
    is "$(cgroups)" "" "by the $how"
    status=0; wait "$counter" || status=$?
    is "$status" 137
  done
}
grows() { [ "$(wc -c <count)" -gt "$1" ]; }

# Docker's words and both kernels' are one; what `get` says can be set again.
test_cg_one_vocabulary() {
  local word key
  bocker-cg create ps_42045 memory=64M cpu-quota=20000 cpu-period=50000 pids-limit=7 >/dev/null
  is "$(bocker-cg get ps_42045 cpu.max)" 0.4
  is "$(if v2; then cat "$cg/ps_42045/cpu.max"; else cat "$cg/cpu/ps_42045/"cpu.cfs_{quota,period}_us | tr '\n' ' ' | sed 's/ $//'; fi)" "20000 50000"
  bocker-cg get ps_42045 >said
  like "$(cat said)" $'^cpu-period\t50000$'
  like "$(cat said)" $'^memory\t67108864$'
  is "$(bocker-cg get --json ps_42045 | jq -r '.memory + " " + .pids + " " + .id')" "67108864 7 ps_42045"
  # All of it once more, as it was said.
  cgroup_state >before
  local words=()
  while IFS=$'\t' read -r key word; do words+=("$key=$word"); done <said
  bocker-cg set ps_42045 "${words[@]}"
  cgroup_state | diff before -
  bocker-cg set ps_42045 cpus=1
  is "$(bocker-cg get ps_42045 cpus memory | tr '\n' ' ')" $'cpus\t1 memory\t67108864 '
  if v2; then
    bocker-cg set ps_42045 memory.high=32M
    is "$(cat "$cg/ps_42045/memory.high")" 33554432
    fails 1 "limit 'memory-swappiness=5': version 2" bocker-cg set ps_42045 memory-swappiness=5
    fails 1 "limit 'oom-kill-disable=true': version 2" bocker-cg set ps_42045 oom-kill-disable=true
    fails 2 'version 2' bocker-cg get ps_42045 oom-kill-disable
  else
    fails 1 "limit 'memory.high=32M': version 1" bocker-cg set ps_42045 memory.high=32M
    bocker-cg set ps_42045 memory-swappiness=5
    is "$(bocker-cg get ps_42045 memory.swappiness)" 5
    # Nobody is killed for want of memory: they wait, and can be killed.
    bocker-cg set ps_42045 oom-kill-disable=true memory=16M
    bocker-cg exec ps_42045 -- python3 -c 'bytearray(256 << 20)' & local waiter=$!
    eventually 20 grep -q 'under_oom 1' "$cg/memory/ps_42045/memory.oom_control"
    is "$(bocker-cg get ps_42045 oom-kill-disable)" true
    is "$(bocker-cg delete --kill ps_42045 2>&1)" "" "the kernel killed nobody"
    status=0; wait "$waiter" || status=$?
    is "$status" 137
    bocker-cg create ps_42045 cpuset.mems=0 >/dev/null
    is "$(cat "$cg/cpuset/ps_42045/"cpuset.{mems,cpus} | tr '\n' ' ')" "0 $(cat "$cg/cpuset/cpuset.cpus") "
  fi
  bocker-cg delete --kill ps_42045
  is "$(cgroups)" ""
}

# What may be had of a disk in a second: a loop device of 8 MiB.
test_cg_disks() {
  truncate -s 8M disk
  local dev major written read=device-read-bps began
  dev=$(losetup -f --show disk)
  # shellcheck disable=SC2064
  trap "losetup -d '$dev'" EXIT
  major=$(lsblk -dno MAJ:MIN "$dev" | tr -d ' ')
  bocker-cg create ps_42045 devices=all >/dev/null
  if [ ! -e "$(file ps_42045 blkio blkio.throttle.read_bps_device io.max)" ]; then
    # This kernel (user-mode-linux) has no throttling: said, and nothing has changed.
    fails 1 "no such file .*$read=$dev:1M was refused, all is as before" bocker-cg set ps_42045 "$read=$dev:1M"
    bocker-cg delete ps_42045
    return
  fi
  written() { cat "$(file ps_42045 blkio "blkio.throttle.$1_device" io.max)"; }
  bocker-cg set ps_42045 "$read=$dev:1M" "device-write-iops=$major:100"
  if v2; then is "$(written x)" "$major rbps=1048576 wbps=max riops=max wiops=100"; else
    is "$(written read_bps) $(written write_iops)" "$major 1048576 $major 100"; fi
  is "$(bocker-cg get ps_42045 | grep device- | tr '\n' ' ')" "$(printf 'device-read-bps\t%s:1048576 device-write-iops\t%s:100 ' "$major" "$major")"
  # The kernel's own words; none again; refused: all as before.
  bocker-cg set ps_42045 "io.max=$major rbps=2M wbps=3M" "blkio.throttle.write_iops_device=$major 0"
  is "$(bocker-cg get ps_42045 | grep device- | tr '\n' ' ')" "$(printf 'device-read-bps\t%s:2097152 device-write-bps\t%s:3145728 ' "$major" "$major")"
  fails 1 "lsblk -d\) \(device-read-bps=999:1:5 was refused, all is as before" bocker-cg set ps_42045 "$read=$dev:5" device-read-bps=999:1:5
  is "$(bocker-cg get ps_42045 device-read-bps)" "$major:2097152"
  bocker-cg set ps_42045 "$read=$dev:max" "device-write-bps=$dev:0"
  is "$(bocker-cg get ps_42045 | grep -c device-)" 0
  fails 2 '/dev/null is no block device' bocker-cg set ps_42045 "$read=/dev/null:1M"
  bocker-cg delete ps_42045
  # It bites: 1 MiB at half of that a second; the control without.
  unlimited() {
    began=${EPOCHREALTIME/./}
    bocker-cg run -- dd if="$dev" of=/dev/null bs=64k count=16 iflag=direct status=none || fail "dd: $?"
    [ $((${EPOCHREALTIME/./} - began)) -lt 1000000 ]
  }
  # A machine that stands still for a second does not do so three times.
  unlimited || unlimited || unlimited || fail "slow without a limit"
  began=${EPOCHREALTIME/./}
  bocker-cg run "$read=$dev:512K" -- dd if="$dev" of=/dev/null bs=64k count=16 iflag=direct status=none
  [ $((${EPOCHREALTIME/./} - began)) -gt 1300000 ] || fail "fast: $((${EPOCHREALTIME/./} - began)) us"
  is "$(cgroups)" ""
}

runs_left() { find "$cg" -name 'run_*' -o -name 'leaf_*'; }

# A command of the host's in a cgroup of its own.
test_cg_run() {
  local status before name
  before=$(census)
  is "$(bocker-cg run memory.max=64M pids=9 -- sh -c 'name=$(bocker-cg list); bocker-cg get "$name" memory; bocker-cg get "$name" pids; grep -c "$name\$" /proc/self/cgroup' | tr '\n' ' ')" \
    "67108864 9 $(if v2; then echo 1; else echo 7; fi) "
  # What was not asked for is not limited: the devices of the host are there.
  is "$(bocker-cg run -- sh -c 'bocker-cg get "$(bocker-cg list)" pids')" max
  for status in 0 3 $(v2 || echo 125 126 127); do
    fails "$status" '^$' bocker-cg run -- sh -c "exit $status"
  done
  fails 127 '^bocker-cg: execute nosuch: No such file or directory$' bocker-cg run -- nosuch
  touch plain
  fails 126 '^bocker-cg: execute ./plain: Permission denied$' bocker-cg run -- ./plain
  fails 143 '^$' bocker-cg run -- sh -c 'kill -TERM $$'
  fails 125 "not a number" bocker-cg run pids=x -- true
  fails 125 'not provided' bocker-cg run pids=5
  fails 125 'no cgroups below' bocker-cg --root /nowhere run -- true
  v2 || fails 125 'Permission denied \(try sudo\)' setpriv --reuid 1000 --clear-groups bocker-cg run -- true
  is "$(echo in | bocker-cg run -- cat)" in
  is "$(runs_left)" ""
  # A signal for us is the command's; what it leaves behind is killed, also in cgroups that it made.
  bocker-cg run -- sh -c 'trap "exit 7" TERM USR1
    name=$(bocker-cg list)
    for dir in $(find /sys/fs/cgroup -name "$name"); do mkdir "$dir/inner"; done
    setsid sleep 60 & if [ -e /sys/fs/cgroup/$name ]; then echo $! >/sys/fs/cgroup/$name/inner/cgroup.procs; else echo $! >/sys/fs/cgroup/memory/$name/inner/cgroup.procs; fi
    touch ready; while :; do sleep 0.05; done' &
  local runner=$!
  eventually 20 test -e ready
  kill -USR1 "$runner"
  status=0; wait "$runner" || status=$?
  is "$status" 7
  is "$(runs_left)" ""
  # A real-time signal, too.
  bocker-cg run -- python3 -c 'import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [40]); open("waits", "w"); raise SystemExit(signal.sigwait([40]))' &
  runner=$!
  eventually 20 test -e waits
  kill -40 "$runner"
  status=0; wait "$runner" || status=$?
  is "$status" 40 "its own, of signal 40"
  # In shell the same.
  bocker-cg run --dry-run memory.max=64M -- sh -c 'grep -q run_ /proc/self/cgroup; exit $?' >script
  is "$(runs_left)" "" "a dry run does nothing"
  sh -e script
  bocker-cg run --dry-run -- sh -c 'exit 5' >script
  status=0; sh -e script || status=$?
  is "$status" 5
  is "$(census)" "$before"
}

test_cg_run_says_who_ran_out_of_memory() {
  local status=0
  # The control: within the limit nothing is said.
  is "$(bocker-cg run memory=64M -- python3 -c 'print(len(bytearray(16 << 20)))' 2>&1)" 16777216
  bocker-cg run memory=64M -- python3 -c 'bytearray(256 << 20)' 2>err || status=$?
  is "$status" 137
  is "$(cat err)" "bocker-cg: out of memory: 1 process killed at $(if v2; then echo memory.max; else echo memory.limit_in_bytes; fi) 64 MiB"
  # Of a container's, and further down: by delete, and noted.
  bocker-cg create ps_42045 memory=32M >/dev/null
  bocker-cg exec ps_42045 -- sh -c 'python3 -c "bytearray(99 << 20)"; python3 -c "bytearray(99 << 20)"; :' 2>/dev/null
  is "$(bocker-cg stat ps_42045 | awk '$1 == "memory.events.oom_kill" { print $2 }')" 2
  mkdir dir
  bocker-cg delete --record "$PWD/dir" ps_42045 2>err
  like "$(cat err)" '^bocker-cg: ps_42045: out of memory: 2 processes killed at memory.* 32 MiB$'
  is "$(wc -l <err)" 1
  like "$(cat dir/oom)" '^2 processes killed at memory.* 32 MiB$'
  bocker-cg create ps_42045 memory=32M >/dev/null
  is "$(bocker-cg delete --record "$PWD/dir" ps_42045 2>&1)" ""
  is "$(ls dir)" "" "this time nobody was killed"
  bocker-cg delete --record '' ps_42045
  is "$(cgroups)$(runs_left)" ""
}

# Who killed `run` by force has the command killed, too, and gc takes the rest.
test_cg_run_that_was_killed() {
  local runner name
  bocker-cg run -- sh -c 'sleep 60 & touch ready; sleep 61' &
  runner=$!
  eventually 20 test -e ready
  name=$(bocker-cg list)
  like "$name" "^run_${runner}_[0-9]+\$"
  is "$(bocker-cg gc)" "" "it runs"
  fails 1 'Device or resource busy \(processes in it' bocker-cg delete "$name"
  kill -KILL "$runner"
  wait "$runner" || true
  eventually 10 eval '! pgrep -f "^sh -c sleep 60" >/dev/null'
  # A container's neighbours are others' to judge.
  is "$(bocker-cg list --busy)" ""
  like "$(bocker-cg doctor | grep leftovers)" "^warn.leftovers.1 of bocker-cg run that was killed \($name\): bocker-cg gc$"
  is "$(bocker-cg gc)" "/$name"
  is "$(runs_left)" ""
  # Killed and out of the cgroup, it is still to be reaped.
  eventually 10 eval '! pgrep -x sleep >/dev/null'
  is "$(bocker-cg gc)" ""
  # One of a PID namespace below, where it has another number than here.
  unshare --pid --fork --kill-child --mount-proc bocker-cg run -- sleep 61 & pid=$!
  eventually 5 pgrep -x sleep
  name=$(bocker-cg list)
  like "$name" '^run_1_'
  is "$(bocker-cg gc)" "" "it runs below"
  pgrep -x sleep >/dev/null || fail "it was killed"
  kill -KILL $pid && { wait $pid || true; }
  # Its process 1 ends after all others, and while it is there gc leaves the cgroup alone.
  eventually 10 eval '! pgrep -x "sleep|bocker-cg" >/dev/null'
  is "$(bocker-cg gc)" "/$name"
}

# At each call that makes or removes something, and in between.
test_cg_run_killed_at_every_step() {
  v2 && return # strace does not run in user-mode-linux.
  local call n status killed=0 before
  before=$(census)
  for call in mkdir:8 rmdir:8 write:4 clone3:2 signalfd4:2 wait4:3; do
    for n in $(seq "${call#*:}"); do
      status=0
      strace -qq -o /dev/null -e "inject=${call%:*}:signal=SIGKILL:when=$n" bocker-cg run memory=64M pids=9 -- sh -c 'sleep 60 & exit 3' 2>err || status=$?
      # It did not come so far.
      if [ "$status" = 3 ]; then is "$(runs_left)" "" "after all of $call"; break; fi
      is "$status" 137 "$call $n: $(cat err)"
      killed=$((killed + 1))
      eventually 10 nothing_left
    done
  done
  [ "$killed" -gt 15 ] || fail "only $killed kills"
  is "$(census)" "$before"
}
# The command was about to join, or to die, a moment ago.
nothing_left() { bocker-cg gc >/dev/null 2>&1; [ -z "$(runs_left)" ] && ! pgrep -x sleep >/dev/null; }

# Version 2's rules for who is not root: as in a scope that systemd has delegated.
test_cg_run_in_a_part_of_the_tree() {
  v2 || return 0
  local own=$cg/own word
  echo +memory +pids >"$cg/cgroup.subtree_control"
  mkdir "$own"
  for word in "$own" "$own"/cgroup.{procs,subtree_control,threads}; do chown 1000 "$word"; done
  in_own() { sh -c 'echo $$ >"$0/cgroup.procs"; exec setpriv --reuid 1000 --clear-groups "$@"' "$own" "$@"; }
  like "$(in_own bocker-cg run memory.max=64M -- sh -c 'cat /proc/self/cgroup; cat /sys/fs/cgroup/own/run_*/memory.max' | tr '\n' ' ')" '^0::/own/run_[0-9]+_[0-9]+ 67108864 $'
  is "$(find "$own" -mindepth 1 -type d)$(cat "$own/cgroup.subtree_control")" "" "all is as it was"
  fails 7 '^$' in_own bocker-cg run pids=9 -- sh -c 'exit 7'
  fails 125 'no cpu controller in /sys/fs/cgroup/own' in_own bocker-cg run cpus=1 -- true
  is "$(find "$own" -mindepth 1 -type d)" ""
  # With others there: limits cannot be, and that is said; without any it can.
  in_own sleep 60 &
  eventually 20 grep -q . "$own/cgroup.procs"
  fails 125 'has other processes.*systemd-run --user --scope -p Delegate=yes' in_own bocker-cg run memory.max=64M -- true
  in_own bocker-cg run -- true
  kill "$(cat "$own/cgroup.procs")"
  wait || true
  fails 125 'it is not ours \(systemd-run' setpriv --reuid 1000 --clear-groups bocker-cg run pids=9 -- true
  like "$(in_own bocker-cg doctor)" 'warn.rights./sys/fs/cgroup/own is ours, without cpu io: Delegate='
  rmdir "$own"
}

test_cg_stat() {
  local line
  bocker-cg create ps_42045 memory=64M pids=6 cpus=0.1 >/dev/null
  bocker-cg exec ps_42045 -- python3 -c 'import os, time
held = bytearray(20 << 20); del held
t = time.process_time()
while time.process_time() - t < 0.3: pass
for n in range(9):
  try:
    if os.fork() == 0: time.sleep(60)
  except OSError: pass
open("ready", "w"); time.sleep(60)' &
  eventually 60 test -e ready
  bocker-cg stat ps_42045 >figures
  figure() { awk -F '\t' -v name="$1" '$1 == name { print $2 }' figures; }
  [ "$(figure memory.peak)" -ge 20971520 ] && [ "$(figure memory.peak)" -gt "$(figure memory.current)" ] || fail "peak: $(cat figures)"
  is "$(figure memory.limit) $(figure pids.limit) $(figure pids.current)" "67108864 6 6"
  [ "$(figure pids.events.max)" -ge 3 ] || fail "forks that were refused: $(figure pids.events.max)"
  [ "$(figure cpu.nr_throttled)" -ge 1 ] && [ "$(figure cpu.throttled_usec)" -ge 1000 ] || fail "throttled: $(cat figures)"
  [ "$(figure cpu.usage_usec)" -ge 300000 ] || fail "cpu: $(figure cpu.usage_usec)"
  is "$(figure memory.events.oom_kill) $(figure cgroup.frozen)" "0 0"
  bocker-cg freeze ps_42045
  is "$(bocker-cg stat --json ps_42045 | jq -c '[.id, .["memory.limit"], .["cgroup.frozen"]]')" '["ps_42045",67108864,1]'
  fails 1 'no cgroup /ps_42046' bocker-cg stat ps_42046
  bocker-cg delete --kill ps_42045
  is "$(cgroups)" ""
}

test_cg_stats_again_and_again() {
  local watcher
  bocker-cg create ps_42045 memory=64M >/dev/null
  bocker-cg create ps_42046 >/dev/null
  bocker-cg exec ps_42045 -- sh -c 'while :; do :; done' &
  bocker-cg stats --stream ps_42045 ps_42046 >out & watcher=$!
  # New samples, of one that uses the processor by then.
  used() { awk '$1 == "ps_42045" { print $4 }' out; }
  # shellcheck disable=SC2317,SC2329
  grown() { [ "$(wc -l <out)" -ge 6 ] && [ "$(used | tail -n 1)" -gt "$(used | head -n 1)" ]; }
  eventually 30 grown
  is "$(cut -f1 out | head -4 | tr '\n' ' ')" "ps_42045 ps_42046 ps_42045 ps_42046 "
  if ! v2; then
    # On a terminal a table, drawn again.
    "$repo/tests/terminal.py" "?MEM USAGE,?MEM USAGE,^C" bocker-cg stats --stream ps_42045 >screen || fail "$(cat screen)"
    like "$(cat screen)" '^status 130'
    like "$(tr -d '\r' <screen)" $'^(\e\\[2A\e\\[J)?CONTAINER ID +CPU % +MEM USAGE / LIMIT +MEM % +BLOCK I/O +PIDS$'
    like "$(tr -d '\r' <screen)" '^ps_42045 +[0-9.]+% +[0-9.]+[KM]iB / 64MiB +[0-9.]+% +[-0-9.kMB]+ / [-0-9.kMB]+ +1$'
    "$repo/tests/terminal.py" "?PIDS" bocker-cg stats >screen || fail "$(cat screen)"
    is "$(grep -c 'CONTAINER ID' screen)" 1 "once"
  fi
  # When what was named is gone, it ends.
  bocker-cg delete --kill ps_42045
  bocker-cg delete ps_42046
  wait "$watcher"
  fails 1 'no cgroup /ps_42045' bocker-cg stats --stream ps_42045
  is "$(cgroups)" ""
}

test_cg_stats() {
  local line id memory limit cpu pids read written kills
  bocker-cg create ps_42045 memory=64M >/dev/null
  bocker-cg create ps_42046 memory=max >/dev/null
  bocker-cg exec ps_42045 -- python3 -c 'import time
held = bytearray(20 << 20)
t = time.process_time()
while time.process_time() - t < 0.1: pass
open("ready", "w"); time.sleep(60)' &
  eventually 30 test -e ready
  line=$(bocker-cg stats ps_42045)
  IFS=$'\t' read -r id memory limit cpu pids read written kills <<<"$line"
  is "$id $limit $pids $kills" "ps_42045 67108864 1 0"
  [ "$memory" -ge 20971520 ] && [ "$memory" -le 50331648 ] || fail "memory: $memory"
  [ "$cpu" -ge 100000 ] && [ "$cpu" -le 20000000 ] || fail "cpu: $cpu"
  like "$read $written" '^[0-9]+ [0-9]+$'
  # Of what can be dropped at once nothing is counted. (In user-mode-linux this is no disk.)
  v2 || bocker-cg exec ps_42046 -- head -c 16M /dev/zero >big
  IFS=$'\t' read -r id memory limit cpu pids read written kills <<<"$(bocker-cg stats ps_42046)"
  is "$id $limit $pids $kills" "ps_42046 max 0 0"
  [ "$memory" -lt 8388608 ] || fail "memory with the cache: $memory"
  # The OOM killer struck, and is known to have.
  status=0
  bocker-cg set ps_42046 memory=16M
  bocker-cg exec ps_42046 -- python3 -c 'bytearray(256 << 20)' 2>/dev/null || status=$?
  is "$status" 137
  is "$(bocker-cg stats --json ps_42046 | jq -c '[.id, .memory_limit, .oom_kills, .pids]')" '["ps_42046",16777216,1,0]'
  is "$(bocker-cg stats | cut -f1)" "$(printf 'ps_42045\nps_42046')"
  is "$(bocker-cg stats ps_42046 ps_42047 2>err | cut -f1)" ps_42046
  like "$(cat err)" '^bocker-cg: no cgroup /ps_42047'
  bocker-cg stats | true
  bocker-cg delete --kill ps_42045
  bocker-cg delete ps_42046
}

test_cg_top() {
  bocker-cg create ps_42045 >/dev/null
  local evil=$'\e[2Jx\ny'
  # Below a directory of its own making, too, and in a PID namespace.
  bocker-cg exec ps_42045 -- unshare --pid --fork --kill-child sh -c 'python3 -c "import time; time.sleep(60)" "$0" & setpriv --reuid 65534 --clear-groups sleep 60; :' "$evil" &
  eventually 20 sleeps
  eventually 20 pgrep -x python3 >/dev/null
  bocker-cg top ps_42045 >out
  is "$(wc -l <out)" 3 "sh, sleep and python3 alone: who waits outside is not in the container: $(cat out)"
  like "$(cat out)" $'^[0-9]+\t[0-9]+\tnobody\t0:00:0[0-9]\tsleep 60$'
  grep -qF 'time.sleep(60) \u{1b}[2Jx\ny' out || fail "escapes: $(cat out)"
  is "$(LC_ALL=C tr -d '\t\n -~' <out | wc -c)" 0 "control characters"
  is "$(bocker-cg top --json ps_42045 | jq -r 'select(.user == "nobody") | .command')" "sleep 60"
  # Without a PID namespace of their own all are shown.
  bocker-cg create ps_42046 >/dev/null
  bocker-cg exec ps_42046 -- sleep 61 &
  eventually 10 in_it "$!"
  is "$(bocker-cg top ps_42046 | cut -f1,3,5)" "$(printf '%s\troot\tsleep 61' "$!")"
  fails 1 'no cgroup /ps_42047' bocker-cg top ps_42047
  bocker-cg delete --kill ps_42045
  bocker-cg delete --kill ps_42046
  is "$(cgroups)" ""
}
