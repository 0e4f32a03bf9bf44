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

# like TEXT PATTERN [WHAT]: an extended regular expression matches the text
like() { grep -qE -- "$2" <<<"$1" || fail "${3:-text}: expected a match of /$2/ in
$1"; }

unlike() { ! grep -qE -- "$2" <<<"$1" || fail "${3:-text}: expected no match of /$2/ in
$1"; }

# fails STATUS PATTERN COMMAND...: exactly this status, exactly one line on stderr that matches, nothing on stdout
fails() {
  local want=$1 pattern=$2 status=0 out err
  shift 2
  out=$("$@" 2>"$HOST_DIR/.stderr" </dev/null) || status=$?
  err=$(cat "$HOST_DIR/.stderr")
  is "$status" "$want" "status of '$*' (stderr: $err)"
  is "$out" "" "stdout of '$*'"
  is "$(wc -l <<<"$err")" 1 "lines on stderr of '$*': $err"
  like "$err" "$pattern" "stderr of '$*'"
}

# eventually SECONDS COMMAND...: true within that time
eventually() {
  local until=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$until" ] || fail "not within time: $*"
    sleep 0.05
  done
}

# What the kernel and the store hold, one line each: links, names in /run/netns, mounts, cgroups,
# names in the store, nft rules, other processes (but for a subshell of the test's own that bash has not reaped yet).
census() {
  ip -o link | sed -E 's/^[0-9]+: ([^:@]+).*/link \1/'
  find /run/netns -mindepth 1 -printf 'netns %f\n' 2>/dev/null || true
  awk '{ print "mount " $5 }' /proc/self/mountinfo | sort
  find /sys/fs/cgroup -mindepth 2 -type d -printf 'cgroup %p\n' 2>/dev/null | sort
  find "$BOCKER_ROOT" -mindepth 1 -maxdepth 2 -path '*/rootfs' -prune -o -mindepth 1 -maxdepth 2 -printf 'store %P\n' 2>/dev/null | sort
  nft list ruleset 2>/dev/null | sed 's/^/nft /' || true
  ps -e -o pid=,args= | awk -v me=$$ '$1 != 1 && $1 != me && !/ps -e -o|tests\/lib.sh|awk|\[bash\] <defunct>|\[bash\]$/ { $1 = ""; print "process" $0 }'
}

# a_tree DIR: a small root file system that can run things: busybox and its links
a_tree() {
  mkdir -p "$1"/{bin,etc,proc,sys,dev,tmp,root,run,var}
  chmod 1777 "$1/tmp"
  cp /bin/busybox "$1/bin/busybox"
  local name
  for name in sh cat echo ls ps sleep id env true false pwd mount umount hostname ip wc grep head tail yes touch mkdir rm \
    kill test stat seq dd date tr od nc ping wget sed awk find vi chmod ln sort uniq which; do
    ln -sf busybox "$1/bin/$name"
  done
  echo 'root:x:0:0:root:/root:/bin/sh' > "$1/etc/passwd"
  echo 'user:x:1000:1000::/tmp:/bin/sh' >> "$1/etc/passwd"
  echo 'root:x:0:' > "$1/etc/group"
}
