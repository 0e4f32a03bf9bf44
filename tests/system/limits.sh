# run, exec and limits, on cgroup v1 here and on v2 in user-mode-linux (tests/v2).
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh

image() {
  a_tree tree
  img=$(bocker init "$PWD/tree" 2>/dev/null | sed 's/Created: //')
}
version() { [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] && echo 2 || echo 1; }

# limit ID V1-CONTROLLER V1-FILE V2-FILE: as the kernel has it
limit() {
  if [ "$(version)" = 2 ]; then cat "/sys/fs/cgroup/$1/$4"; else cat "/sys/fs/cgroup/$2/$1/$3"; fi
}

start() {
  bocker "$@" </dev/null >out 2>err &
  runner=$!
  eventually 60 running
}
running() {
  for ps in $(bocker ps | awk 'NR > 1 { print $1 }'); do bocker-store path --running "$ps" >/dev/null 2>&1 && grep -qs "^running" "$BOCKER_ROOT/$ps/status" && return; done
  return 1
}

test_run_and_exec_under_limits() {
  image
  is "$(bocker run "$img" "cat /etc/hostname; exit 0")" "$(bocker ps | awk 'NR == 2 { print $1 }')"
  bocker rm "$(bocker ps | awk 'NR == 2 { print $1 }')" >/dev/null
  start run "$img" sleep 200
  if [ "$(version)" = 2 ]; then
    is "$(limit "$ps" '' '' memory.max)" 512000000
    is "$(limit "$ps" '' '' cpu.weight)" 59 "cpu.weight of 512 shares"
    # The cgroup namespace is private: the container sees itself as the root.
    is "$(bocker exec "$ps" cat /proc/1/cgroup)" 0::/
  else
    is "$(limit "$ps" memory memory.limit_in_bytes '')" 512000000
    is "$(limit "$ps" cpu cpu.shares '')" 512
    like "$(bocker exec "$ps" cat /proc/1/cgroup)" "memory:.*/$ps"
    like "$(bocker exec "$ps" cat /proc/1/cgroup)" "cpu.*:.*/$ps"
  fi
  # Not asked for, and there (checks 2 and 15): processes are counted, devices are few.
  is "$(limit "$ps" pids pids.max pids.max)" 2048
  is "$(bocker exec "$ps" head -c 3 /dev/zero | wc -c)" 3
  status=0; bocker exec "$ps" busybox mknod /tmp/tun c 10 200 2>err || status=$?
  like "$(cat err)" 'mknod: .*Operation not permitted'
  # What exec starts is counted there too.
  bocker exec "$ps" sleep 99 </dev/null &
  joined=$!
  file=cpu/; [ "$(version)" = 1 ] || file=
  eventually 20 joined_by_sleep_99 "/sys/fs/cgroup/$file$ps/cgroup.procs"
  kill "$joined"; wait "$joined" || true
  kill "$runner"
  status=0; wait "$runner" || status=$?
  is "$status" 143
  is "$(find /sys/fs/cgroup -name 'ps_*')" "" "cgroups left"

  start --CPU_SHARE=1024 --MEM_LIMIT=1024 run "$img" sleep 200
  if [ "$(version)" = 2 ]; then
    is "$(limit "$ps" '' '' memory.max)" 1024000000
    is "$(limit "$ps" '' '' cpu.weight)" 100
  else
    is "$(limit "$ps" memory memory.limit_in_bytes '')" 1024000000
    is "$(limit "$ps" cpu cpu.shares '')" 1024
  fi
  kill "$runner"; wait "$runner" || true
}
joined_by_sleep_99() {
  local pid
  for pid in $(cat "$1"); do [ "$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)" = "sleep 99 " ] && return; done
  return 1
}

test_the_memory_limit_bites() {
  image
  # The control first: the same within the limit.
  is "$(bocker --MEM_LIMIT=200 run "$img" "dd if=/dev/zero bs=20M count=1 2>/dev/null | wc -c")" 20971520
  status=0
  bocker --MEM_LIMIT=50 run "$img" dd if=/dev/zero of=/dev/null bs=200M count=1 >/dev/null 2>&1 || status=$?
  is "$status" 137 "status of what ran out of memory"
}

# Who ran out of memory is told, in the foreground and later.
test_out_of_memory_is_said() {
  image
  status=0
  bocker run --name front -m 50m "$img" dd if=/dev/zero of=/dev/null bs=200M count=1 2>err >/dev/null || status=$?
  is "$status" 137
  like "$(cat err)" '^bocker-cg: ps_[0-9]+: out of memory: [0-9]+ process(es)? killed at memory\..* 50 MiB$'
  is "$(grep -c 'out of memory' err)" 1 "once"
  is "$(bocker inspect --json front | jq -c '[.oom_killed, .exit]')" '[true,137]'
  like "$(bocker inspect front)" $'^oom\t[0-9]+ process(es)? killed at memory'
  # In the background, and no longer when the next time went well. It is not the image's either.
  # shellcheck disable=SC2016 # the container's shell
  bocker run -d --name back -m 50m "$img" '[ -e /again ] || { touch /again; dd if=/dev/zero of=/dev/null bs=200M count=1; exit $?; }' >/dev/null
  is "$(bocker wait back)" 137
  eventually 30 noted back true
  is "$(bocker ps --json --filter name=back | jq .oom_killed)" true
  bocker commit back mine:1 >/dev/null
  [ ! -e "$(bocker-store path mine:1)/oom" ] || fail "an image with an end"
  bocker start back >/dev/null
  is "$(bocker wait back)" 0
  eventually 30 noted back false
  unlike "$(bocker inspect back)" ^oom
  # The control: enough memory.
  is "$(bocker run --name fine -m 300m "$img" "dd if=/dev/zero bs=20M count=1 2>/dev/null | wc -c" 2>&1)" 20971520
  is "$(bocker inspect --json fine | jq .oom_killed)" false
  # Also below a cgroup with controllers that is not the root of all (tests/host on version 2), which a supervisor cannot join.
  eventually 30 eval '[ -z "$(find /sys/fs/cgroup -name "ps_*")$(ls /run/netns)" ]'
}
noted() { [ "$(bocker inspect --json "$1" | jq .oom_killed)" = "$2" ]; }
