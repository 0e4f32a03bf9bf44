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
  for ps in $(bocker ps | awk 'NR > 1 { print $1 }'); do bocker-store path --running "$ps" >/dev/null 2>&1 && return; done
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
