#!/bin/bash
# What only a real systemd can show, with cgroup v2. It runs this in a guest of tests/v2, which is the disposable host: everything here
# is a unit's process, the limits are where systemd has its own, and `systemctl` is nobody's stand-in.
set -u
cd "$(dirname "$0")/.." || exit 1
export HOST_DIR=/var/tmp/host
export BOCKER_ROOT=$HOST_DIR/bocker BOCKER_NETWORKS=$HOST_DIR/networks
mkdir -p "$HOST_DIR"

# The image that all take; it says so once that there is no NAT here.
image() {
  img=$(cat "$HOST_DIR/img" 2>/dev/null) && return
  a_tree "$HOST_DIR/tree"
  bocker setup 2>"$HOST_DIR/setup" || fail "$(cat "$HOST_DIR/setup")"
  img=$(bocker init "$HOST_DIR/tree")
  img=${img##* }
  echo "$img" >"$HOST_DIR/img"
}
top=/sys/fs/cgroup
# What a container is limited to, in the files' own words.
limits() { cd "$top/$1" && grep . cpu.max cpu.weight memory.max pids.max; }
state() { systemctl show -P ActiveState "bocker-$1.service"; }

test_limits_outlive_what_systemd_does() {
  image
  like "$(bocker-cg doctor)" '^ok	systemd	the first container.s create tells it'
  # By several at once: one unit, and nobody complains.
  local n
  for n in 101 102 103; do bocker-cg create "ps_42$n" cpus=1 >"out$n" 2>&1 & done
  wait
  is "$(cat out101 out102 out103)" $'/ps_42101\n/ps_42102\n/ps_42103'
  for n in 101 102 103; do bocker-cg delete "ps_42$n"; done
  is "$(systemctl show -P ActiveState bocker-controllers.service)" active
  like "$(bocker-cg doctor)" '^ok	systemd	knows which controllers are needed'
  bocker run -d --name web --cpus 0.5 --cpu-shares 512 --memory 64M --pids-limit 50 "$img" sleep 1000 >id
  local id want=$'cpu.max:50000 100000\ncpu.weight:59\nmemory.max:67108864\npids.max:50'
  id=$(cat id)
  is "$(limits "$id")" "$want"
  systemctl daemon-reload
  is "$(limits "$id")" "$want" "after a daemon-reload"
  systemd-run --quiet -p Type=oneshot -p CPUWeight=50 -p IOWeight=50 true
  is "$(limits "$id")" "$want" "when a unit has come and gone that needs them"
  systemctl daemon-reexec
  systemctl daemon-reload
  is "$(limits "$id")" "$want" "after a daemon-reexec"
  is "$(bocker exec web cat /proc/self/cgroup)" "0::/"
  # The control: systemd does take away what it does not know of.
  systemctl stop bocker-controllers.service
  systemctl daemon-reload
  [ ! -e "$top/$id/cpu.max" ] || fail "systemd hands it down anyway: this shows nothing"
  # Whoever is next puts it right again.
  bocker-cg run cpus=1 -- true
  bocker rm -f web >/dev/null
  is "$(systemctl show -P ActiveState bocker-controllers.service)" active
  is "$(find "$top" -maxdepth 1 -name 'ps_*' -o -maxdepth 1 -name 'run_*')" ""
}

# What is not root's: a part that systemd has handed to a user.
test_a_user_has_what_was_delegated() {
  local tool said
  tool=$(command -v bocker-cg)
  # by_user PROPERTY...: what a unit of its own makes of it
  by_user() {
    systemd-run --quiet -p Type=oneshot -p User=1000 -p StandardOutput=truncate:/run/out -p StandardError=truncate:/run/err "$@" \
      "$tool" run memory.max=64M pids=9 -- sh -c 'cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup) && cat memory.max pids.max'
  }
  by_user -p Delegate=yes
  is "$(cat /run/out /run/err)" $'67108864\n9'
  said=$(by_user 2>&1) && fail "a user has made a cgroup where nothing was delegated: $(cat /run/out)"
  like "$(cat /run/err)" 'it is not ours \(systemd-run' "$said"
}

test_a_container_that_is_to_go_on() {
  image
  # Its log, line by line, as no program of ours is needed for.
  words() { cut -d ' ' -f 4- "$BOCKER_ROOT/$1/log" | xargs; }
  # Once more where it fails, and no more.
  bocker run -d --restart on-failure:1 --name twice "$img" sh -c 'echo began; exit 3' >id
  local id
  id=$(cat id)
  failed() { [ "$(state "$id")" = failed ]; }
  eventually 60 failed
  is "$(words "$id")" 'began began'
  is "$(bocker rm twice)" "Removed: twice"
  # It goes on where nobody asked for its end; then it stays so over a start of the machine.
  bocker run -d --restart unless-stopped --name server "$img" sh -c 'trap "echo ended; exit 7" TERM; echo up; sleep 1000 & wait' >id
  id=$(cat id)
  up() { [ "$(words "$id")" = "$1" ]; }
  eventually 30 up 'up'
  kill -KILL "$(cut -d ' ' -f 2 "$BOCKER_ROOT/$id/status")"
  eventually 30 up 'up up'
  is "$(bocker stop server)" server
  is "$(words "$id")" 'up up ended'
  is "$(state "$id") $(systemctl is-enabled "bocker-$id.service")" 'inactive disabled'
  is "$(bocker rm server)" "Removed: server"
  # Nothing of ours is left, and systemd has nothing to complain of.
  is "$(find /etc/systemd/system -name 'bocker-ps*')" ""
  is "$(systemctl list-units --all --plain --no-legend 'bocker-ps*')" ""
  is "$(bocker ps -a --format '{{.Names}}')" ""
}

# As after a start of the machine: nothing is mounted.
test_the_store_is_mounted_again() {
  image
  # shellcheck disable=SC2154 # lib.sh's
  sed "s|=/usr/local/bin/|=$(dirname "$(command -v bocker)")/|; /^RequiresMountsFor/d" "$repo/scripts/bocker-gc.service" >/run/systemd/system/bocker-gc.service
  mkdir -p /run/systemd/system/bocker-gc.service.d
  printf '%s\n' '[Service]' "Environment=BOCKER_ROOT=$BOCKER_ROOT BOCKER_NETWORKS=$BOCKER_NETWORKS" StandardError=append:/run/gc >/run/systemd/system/bocker-gc.service.d/store.conf
  bocker run -d --restart always --name web "$img" sleep 1000 >id
  bocker run -d --rm --name once "$img" sleep 1000 >/dev/null
  local id
  id=$(cat id)
  running() { [[ $(cat "$BOCKER_ROOT/$id/status") = running* ]]; }
  eventually 30 running
  is "$(systemctl show -P ActiveState bocker-gc.service)" active "$(cat /run/gc)"
  systemctl stop "bocker-$id.service" bocker-gc.service
  # The machine stops: whatever watched it with it.
  pkill -KILL -x bocker-exec
  gone() { umount "$BOCKER_ROOT" 2>/dev/null; ! mountpoint -q "$BOCKER_ROOT"; }
  eventually 20 gone
  # Its container wants the store first.
  systemctl daemon-reload
  systemctl start "bocker-$id.service"
  is "$(systemctl show -P ActiveState bocker-gc.service)" active
  eventually 30 running
  is "$(bocker ps -a --format '{{.Names}}')" web
  is "$(bocker rm -f web)" "Removed: web"
}

if [ -z "${SYSTEMD_TEST:-}" ]; then
  echo "guest: Linux $(uname -r), $(systemctl --version | head -1)"
  status=0
  for name in $(sed -nE 's/^(test_[a-z0-9_]+)\(\).*/\1/p' "$0"); do
    started=${EPOCHREALTIME/./} result=ok
    SYSTEMD_TEST=$name timeout -k 5 300 bash -euo pipefail -c \
      'source tests/lib.sh; source tests/systemd.sh; cd "$HOST_DIR"; "$SYSTEMD_TEST"' >/run/said 2>&1 || result=FAILED status=1
    printf '%-6s systemd.sh %s (%d ms)\n' "$result" "$name" $(((${EPOCHREALTIME/./} - started) / 1000))
    [ "$result" = ok ] || sed 's/^/    /' /run/said
  done
  # No unit of ours has failed.
  failed=$(systemctl list-units --plain --no-legend --state=failed 'bocker*')
  [ -z "$failed" ] || { echo "    failed: $failed"; status=1; }
  echo "guest: status $status"
  sync
  echo o >/proc/sysrq-trigger
  sleep 10
fi
