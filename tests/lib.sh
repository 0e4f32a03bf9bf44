# Sourced by every system test. Runs inside a disposable host (tests/host), with `set -eu`.
# shellcheck shell=bash

# shellcheck disable=SC2034 # for those that source this
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
fail() { echo "FAILED: $*" >&2; exit 1; }

# is ACTUAL EXPECTED [WHAT]
is() {
  [ "$1" = "$2" ] && return
  case $1$2 in
    *$'\n'*$'\n'*) fail "${3:-value}: expected (-) and got (+)
$(diff -U 0 <(echo "$2") <(echo "$1") | tail -n +3)" ;;
    *) fail "${3:-value}: expected
$2
got
$1" ;;
  esac
}

# like TEXT PATTERN [WHAT]: an extended regular expression matches the text, or a line of it. What bash can tell of one line
# needs no grep: under user-mode-linux (tests/v2) a program costs 40 ms.
like() { [[ $1 != *$'\n'* && $1 =~ $2 ]] || grep -qE -- "$2" <<<"$1" || fail "${3:-text}: expected a match of /$2/ in
$1"; }

unlike() { ! grep -qE -- "$2" <<<"$1" || fail "${3:-text}: expected no match of /$2/ in
$1"; }

# fails STATUS PATTERN COMMAND...: exactly this status, exactly one line on stderr that matches, nothing on stdout
fails() {
  local want=$1 pattern=$2 status=0 out err
  shift 2
  out=$("$@" 2>"$HOST_DIR/.stderr" </dev/null) || status=$?
  err=$(<"$HOST_DIR/.stderr")
  is "$status" "$want" "status of '$*' (stderr: $err)"
  is "$out" "" "stdout of '$*'"
  case $err in *$'\n'*) fail "several lines on stderr of '$*': $err" ;; esac
  like "$err" "$pattern" "stderr of '$*'"
}

# eventually SECONDS COMMAND...: true within that time, in looks, twenty a second: time in which the machine stood still is not counted
eventually() {
  local looks=$(($1 * 20))
  shift
  until "$@"; do
    [ $((looks -= 1)) -gt 0 ] || fail "not within time: $*"
    sleep 0.05
  done
}

# What the kernel and the store hold, one line each: links, names in /run/netns, state of bocker-net, listening sockets, mounts, cgroups,
# names in the store, nft rules, other processes (but for a subshell of the test's own that bash has not reaped yet, and what process 1 has
# not).
census() {
  # `down` does not wait for the last 15 ms of a relay, which has given back all but itself.
  local id
  for _ in $(seq 100); do
    for id in $(pgrep -af '^bocker-net relay' | awk '{ print $4 }'); do
      [ -e "/run/bocker-net/$id/ports" ] || { sleep 0.01; continue 2; }
    done
    break
  done
  ip -o link | sed -E 's/^[0-9]+: ([^:@]+).*/link \1/'
  find /run/netns -mindepth 1 -printf 'netns %f\n' 2>/dev/null || true
  find /run/bocker-net -mindepth 1 -printf 'state %P\n' 2>/dev/null || true
  ss -Hlntu | awk '{ print "listens " $1 " " $5 }' | sort
  awk '{ print "mount " $5 }' /proc/self/mountinfo | sort
  find /sys/fs/cgroup -mindepth 2 -type d -printf 'cgroup %p\n' 2>/dev/null | sort
  find "$BOCKER_ROOT" -mindepth 1 -maxdepth 2 -path '*/rootfs' -prune -o -mindepth 1 -maxdepth 2 -printf 'store %P\n' 2>/dev/null | sort
  nft -s list ruleset 2>/dev/null | sed 's/^/nft /' || true
  ps -e -o pid=,ppid=,stat=,args= | awk -v me=$$ '$1 != 1 && $1 != me && !($2 == 1 && $3 ~ /^Z/) && !/ps -e -o|tests\/lib.sh|awk|\[bash\] <defunct>|\[bash\]$/ { $1 = $2 = $3 = ""; sub(/^ */, ""); print "process " $0 }'
}

# a_tree DIR: a small root file system that can run things: busybox and its links
a_tree() {
  mkdir -p "$1"/{bin,etc,proc,sys,dev,tmp,root,run,var}
  chmod 1777 "$1/tmp"
  cp /bin/busybox "$1/bin/busybox"
  # All links by one program: a start of ln for each was most of what this took.
  perl -e 'my $dir = shift; for (@ARGV) { symlink "busybox", "$dir/$_" or die "$dir/$_: $!" }' "$1/bin" \
    sh cat echo ls ps sleep id env true false pwd mount umount hostname ip wc grep head tail yes touch mkdir rm \
    kill test stat seq dd date tr od nc ping wget sed awk find vi chmod ln sort uniq which
  echo 'root:x:0:0:root:/root:/bin/sh' > "$1/etc/passwd"
  echo 'user:x:1000:1000::/tmp:/bin/sh' >> "$1/etc/passwd"
  echo 'root:x:0:' > "$1/etc/group"
}

# A world behind an uplink, without a route back to any container.
a_world() {
  ip netns add world
  ip link add uplink type veth peer name eth0 netns world
  ip address add 192.0.2.1/24 dev uplink
  ip link set uplink up
  ip -n world address add 192.0.2.2/24 dev eth0
  ip -n world link set eth0 up
}

# pings ID ADDRESS: to be asked again, for until the carrier has come to a port, what is sent is lost
pings() { bocker-net exec "$1" -- busybox ping -c 1 -W 2 "$2" >/dev/null 2>&1; }

# ends_as CENSUS: what nobody waits for, the last of a supervisor, goes; then all is as it was
alone() { ! pgrep '^bocker' >/dev/null && ! pgrep -f '(^|[ /])ps_[0-9]+' >/dev/null; }
ends_as() { eventually 10 alone; is "$(census)" "$1"; }

# runs ID: holds the lock that bocker-exec holds, until the file `stop` is there
runs() {
  rm -f stop running
  flock -x "$BOCKER_ROOT/$1/status" sh -c 'echo "running $$" > "$0/status"; touch running; until [ -e stop ]; do sleep 0.02; done' "$BOCKER_ROOT/$1" &
  runner=$!
  eventually 5 test -e running
}
stops() { touch stop; wait "$runner"; }
