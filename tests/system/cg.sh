# shellcheck shell=bash disable=SC2154 # HOST_CGROUPS: tests/host
# bocker-cg in a disposable host, on version 1 here and on version 2 in user-mode-linux (tests/v2).

cg=/sys/fs/cgroup
v2() { [ "$HOST_CGROUPS" = v2 ]; }
# The container's directories.
dirs() { if v2; then echo "$cg/$1"; else echo "$cg/cpu/$1" "$cg/cpuacct/$1" "$cg/memory/$1"; fi; }
cpu_file() { if v2; then echo "$cg/$1/cpu.weight"; else echo "$cg/cpu/$1/cpu.shares"; fi; }
memory_file() { if v2; then echo "$cg/$1/memory.max"; else echo "$cg/memory/$1/memory.limit_in_bytes"; fi; }
of_512() { if v2; then echo 59; else echo 512; fi; }
cgroups() { find "$cg" -name '*ps_4*' -type d | sort; }
# Every limit and every cgroup, as the kernel has them.
cgroup_state() {
  local dir file
  for dir in $(cgroups); do
    for file in cpu.shares cpu.weight memory.limit_in_bytes memory.max pids.max; do
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
  is "$(bocker-cg get ps_42045 cpu.shares)" "$(of_512)"
  bocker-cg create ps_42046 cpu.weight=100 memory.max=1M
  is "$(cat "$(memory_file ps_42046)")" 1048576
  is "$(bocker-cg get ps_42046 cpu.weight)" "$(if v2; then echo 100; else echo 1024; fi)"
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
    is "$(grep -cE ':(cpu|cpuacct|memory):/ps_42045$' joined)" 3
    is "$(grep -c ps_42045 joined)" 3 "only these"
  fi
  # A child is counted there, too.
  bocker-cg exec ps_42045 -- sh -c 'cat /proc/self/cgroup; :' | diff joined -
  bocker-cg exec --dry-run ps_42045 -- cat /proc/self/cgroup | sh -e | diff joined -
  # Where it is in one hierarchy only, that one.
  if ! v2; then
    rmdir "$cg/cpuacct/ps_42045" "$cg/cpu/ps_42045"
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
      bocker-cg --root fake create ps_42045 memory=1M
    is "$(find fake -name 'ps_*' | wc -l)" 0 "rolled back"
    umount fake/memory
  fi
  local word
  for word in memory=1 memory=lots cpu.shares=1 memroy=64M =; do
    fails 2 '^bocker-cg: ' bocker-cg create ps_42045 "$word"
  done
  fails 2 "unknown limit 'pids' \(known: cpu.shares, .*memory.max\)" bocker-cg create ps_42045 pids=5
  is "$(cgroups)" ""
}

test_cg_delete_takes_children_and_waits_for_the_dying() {
  local dir
  bocker-cg create ps_42045
  # What a container may have made.
  for dir in $(dirs ps_42045); do mkdir -p "$dir/a/b" "$dir/c"; done
  bocker-cg delete ps_42045
  is "$(cgroups)" ""
  # A process that ends a moment later.
  bocker-cg create ps_42045
  bocker-cg exec ps_42045 -- sleep 0.2 &
  sleep 0.05
  bocker-cg delete ps_42045
  is "$(cgroups)" ""
  wait
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
    ! pgrep -x sleep >/dev/null || fail "the child is left"
  done
  bocker-cg delete --kill ps_42045
}
# shellcheck disable=SC2317,SC2329
sleeps() { pgrep -x sleep >/dev/null; }
in_it() { grep -q ps_42045 "/proc/$1/cgroup" && [ "$(cat "/proc/$1/comm")" = sleep ]; }

test_cg_dry_run_is_what_it_does() {
  local words=(ps_42045 cpu.shares=512 memory=512M)
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
  for n in $(seq 40); do
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
  fails 1 'No such file or directory \(bocker-cg create ps_42045' bocker-cg get ps_42045 memory
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
