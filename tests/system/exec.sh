# shellcheck shell=bash disable=SC2016 # what is in single quotes is for the container's shell
# bocker-exec: namespaces, mounts, streams, signals, statuses, and what hostile images try.

# a_container: ps_1/rootfs with a busybox root; a sentinel beside it that nothing may touch
a_container() {
  mkdir -p ps_1
  a_tree "$HOST_DIR/ps_1/rootfs"
  R=$HOST_DIR/ps_1/rootfs
  echo untouched > sentinel
  sentinel=$(stat -c '%a %u %s %y' sentinel)
}

untouched() {
  is "$(cat "$HOST_DIR/sentinel")" untouched "the sentinel's content"
  is "$(stat -c '%a %u %s %y' "$HOST_DIR/sentinel")" "$sentinel" "the sentinel"
}

x() { bocker-exec --root "$R" "$@"; }
# The same for the background, where $! has to be the supervisor
b() { exec bocker-exec --root "$R" "$@"; }
status_of() { local status=0; "$@" >/dev/null 2>&1 </dev/null || status=$?; echo "$status"; }
config() { printf '{"config":%s}' "$1" > ps_1/config; }
running() { [ "$(cut -d' ' -f1 ps_1/status 2>/dev/null)" = running ]; }

test_statuses() {
  a_container
  for n in 0 1 125 126 127 255; do is "$(status_of x -- sh -c "exit $n")" "$n" "exit $n"; done
  # PID 1 cannot kill itself; from outside it can be.
  fails 127 '^bocker-exec: exec nosuch: No such file or directory \(PATH is /' x -- nosuch
  fails 127 '^bocker-exec: exec /bin/nosuch: No such file or directory$' x -- /bin/nosuch
  fails 126 '^bocker-exec: exec /etc: Permission denied$' x -- /etc
  fails 126 '^bocker-exec: exec /etc/passwd: Permission denied$' x -- /etc/passwd
  echo 'no program' > "$R/bin/text" && chmod 755 "$R/bin/text"
  fails 126 '^bocker-exec: exec text: Exec format error$' x -- text
  printf '#!/no/interpreter -x\n' > "$R/bin/script" && chmod 755 "$R/bin/script"
  fails 127 "exec script: the file is there, its interpreter '/no/interpreter' is not" x -- script
  cp /usr/bin/env "$R/bin/dynamic"
  fails 127 'exec dynamic: the file is there, the dynamic linker it was built for is not' x -- dynamic
  # Later in PATH is better than not executable.
  mkdir "$R/first" && touch "$R/first/true"
  is "$(status_of x --env PATH=/first:/bin -- true)" 0
  fails 126 'Permission denied' x --env PATH=/first -- true
  fails 125 '^bocker-exec: no command given, and the image has no ENTRYPOINT or CMD$' x
  fails 125 "^bocker-exec: open $HOST_DIR/none: No such file or directory$" bocker-exec --root "$HOST_DIR/none" -- true
  fails 125 "Not a directory" bocker-exec --root "$HOST_DIR/sentinel" -- true
  fails 125 'unexpected argument' x --nonsense
  fails 125 'not a host name' x --hostname 'a b' -- true
  rm "$R/bin/sh"
  fails 127 '^bocker-exec: exec /bin/sh: No such file or directory \(the image has no shell: give the command as several words\)$' \
    x -- /bin/sh -c 'echo hi'
}

test_streams() {
  a_container
  is "$(printf 'a\0b' | x -- od -c | head -1)" '0000000   a  \0   b'
  x -- sh -c 'echo out; echo err >&2' > out 2> err
  is "$(cat out)" out && is "$(cat err)" err
  # Without a log the descriptors are the caller's own.
  x -- stat -Lc '%d:%i' /proc/self/fd/1 > out
  is "$(cat out)" "$(stat -c '%d:%i' out)" "no copying without a log"
  is "$(x -- cat < /dev/null)" ""
  # A caller that closed all three
  is "$(status_of bash -c 'bocker-exec --root "$1" -- true <&- >&- 2>&-' _ "$R")" 0
}

test_log() {
  a_container
  echo before > log && chmod 600 log
  status=0
  x --log log -- sh -c 'echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three; exit 9' > out 2> err || status=$?
  is "$status" 9
  is "$(cat out)" $'one\nthree' && is "$(cat err)" two
  is "$(cat log)" $'before\none\ntwo\nthree'
  rm log && x --log log -- true && is "$(stat -c %a log)" 600
  # Much, binary, and a slow reader: every byte arrives, in both places.
  x -- dd if=/dev/urandom of=/data bs=1M count=8 2>/dev/null
  x --log log -- cat /data | (sleep 0.5; sha256sum) > sum
  is "$(cut -c1-64 sum)" "$(sha256sum < "$R/data" | cut -c1-64)" "through a slow pipe"
  is "$(sha256sum < log)" "$(sha256sum < "$R/data")" "in the log"
  # A reader that goes away ends the payload.
  local start=$SECONDS
  is "$(x --log log -- yes 2>/dev/null | head -1)" y
  [ $((SECONDS - start)) -lt 5 ] || fail "yes went on"
  # Signals arrive while a reader is slow.
  b --log log -- sh -c 'yes' > >(sleep 6) &
  sleep 0.5; start=$SECONDS; kill -TERM $!; status=0; wait $! || status=$?
  is "$status" 143
  [ $((SECONDS - start)) -lt 3 ] || fail "a slow reader delayed the signal"
  ln -s "$HOST_DIR/sentinel" loglink
  fails 125 'open loglink: Too many symbolic links' x --log loglink -- true
  untouched
}

test_a_full_disk_costs_the_log_only() {
  a_container
  mkdir small && mount -t tmpfs -o size=4k tmpfs small
  status=0
  x --log small/log -- sh -c 'i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; exit 4' > out 2> err || status=$?
  is "$status" 4
  is "$(wc -l < out)" 3000
  is "$(cat err)" 'bocker-exec: write small/log: No space left on device (the log is incomplete; the command goes on)'
  umount small
}

# The kernel keeps SIGPIPE from process 1: its default action is done for it.
test_a_reader_that_has_gone_ends_the_first_process() {
  a_container
  status=0
  timeout 20 bash -c '{ bocker-exec --root "$1" --log log -- sh -c "while :; do echo y; done" 2>err; echo $? >status; } | head -1 >out' _ "$R" || status=$?
  is "$status" 0
  is "$(cat out)" y
  is "$(cat status)" 141
  is "$(cat err)" ""
  # Who handles it, or ignores it, goes on.
  for how in 'echo got >\&2; exit 5' ''; do
    { status=0; timeout 20 bocker-exec --root "$R" --log log -- sh -c "trap '$how' PIPE; i=0; while [ \$i -lt 99 ]; do echo y; i=\$((i+1)); sleep 0.01; done; exit 4" 2>/dev/null || status=$?; echo "$status" >status; } | head -1 >out
    if [ -n "$how" ]; then is "$(cat status)" 5 handled; else is "$(cat status)" 4 ignored; fi
  done
  # A child dies by itself, as without us.
  { status=0; timeout 20 bocker-exec --root "$R" --log log -- sh -c 'trap : PIPE; yes; echo $? >/said; exit 3' || status=$?; echo "$status" >status; } | head -1 >out
  is "$(cat status) $(cat "$R/said")" '3 141'
}

test_lost_output_is_a_failure() {
  a_container
  status=0; x --log log -- echo hi >/dev/full 2>err || status=$?
  is "$status" 125
  is "$(cat err)" 'bocker-exec: write stdout: No space left on device'
  is "$(cat log)" hi
  # A status of the payload's own says enough.
  status=0; x --log log -- sh -c 'echo hi; exit 3' >/dev/full 2>err || status=$?
  is "$status" 3
  # And it goes on as long as it likes.
  status=0; x --log log -- sh -c 'i=0; while [ $i -lt 30 ]; do echo line; i=$((i+1)); sleep 0.01; done' >/dev/full 2>err || status=$?
  is "$status $(wc -l <log) $(wc -l <err)" '125 32 1'
}

test_a_file_size_limit_cuts_the_log_only() {
  a_container
  status=0
  (ulimit -f 4; exec bocker-exec --root "$R" --log log -- sh -c 'i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; exit 4') 2>err | cat >out || status=$?
  is "$status" 4
  is "$(wc -l <out)" 3000
  is "$(cat err)" 'bocker-exec: write log: File too large (the log is incomplete; the command goes on)'
  # The payload has the signal as it was.
  is "$(awk '/^SigIgn/ { print $2 }' <(x -- cat /proc/self/status))" 0000000000000000
}

test_signals() {
  a_container
  local signal number
  for signal in INT:130 TERM:143 HUP:129 QUIT:131 USR1:138 ALRM:142 RTMIN:162; do
    number=${signal#*:} signal=${signal%:*}
    # A background process of this shell would have INT and QUIT ignored: python starts it with the defaults.
    is "$(python3 - "$signal" "$R" <<'P'
import subprocess, sys, time, signal
p = subprocess.Popen(["bocker-exec", "--root", sys.argv[2], "--", "sleep", "20"], restore_signals=True,
    preexec_fn=lambda: [signal.signal(s, signal.SIG_DFL) for s in (signal.SIGINT, signal.SIGQUIT)])
time.sleep(0.3)
p.send_signal(getattr(signal, "SIG" + sys.argv[1]))
print(p.wait(5))
P
)" "$number" "default action of $signal"
  done
  # A handler gets it.
  b --status ps_1/status -- sh -c 'trap "echo got; exit 5" TERM; while :; do sleep 0.1; done' > out &
  eventually 5 running; sleep 0.2
  kill -TERM $!; status=0; wait $! || status=$?
  is "$status" 5 && is "$(cat out)" got
  # One that ignores it lives on, and KILL of the payload is 137.
  b --status ps_1/status -- sh -c 'trap "" TERM; while :; do sleep 0.1; done' &
  eventually 5 running; sleep 0.2
  kill -TERM $!; sleep 0.3; running || fail "an ignored signal killed it"
  kill -KILL "$(cut -d' ' -f2 ps_1/status)"; status=0; wait $! || status=$?
  is "$status" 137
  is "$(cat ps_1/status)" "exited 137"
  # At once: before the payload is there.
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    is "$(python3 - "$R" <<'P'
import subprocess, sys, time, signal, os
p = subprocess.Popen(["bocker-exec", "--root", sys.argv[1], "--", "sleep", "20"])
# as soon as it takes signals
while True:
    blocked = [l for l in open(f"/proc/{p.pid}/status") if l.startswith("SigBlk")][0]
    if int(blocked.split()[1], 16) & (1 << 14): break
p.send_signal(signal.SIGTERM)
print(p.wait(5))
P
)" 143 "an early signal"
  done
  # The payload starts with nothing blocked or ignored, whatever the caller had.
  (trap '' INT HUP USR1 PIPE; x -- grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status) > out
  is "$(sort -u -k2 out | awk '{ print $2 }' | sort -u)" 0000000000000000
  # But what the caller ignores does not pass: nohup.
  (trap '' HUP; exec bocker-exec --root "$R" -- sleep 1) &
  sleep 0.3; kill -HUP $!; status=0; wait $! || status=$?
  is "$status" 0 "a HUP under nohup"
  # Stop and go on, as a job of a shell.
  set -m
  b --status ps_1/status -- sh -c 'while :; do sleep 0.05; done' &
  local supervisor=$! payload
  eventually 5 running; payload=$(cut -d' ' -f2 ps_1/status)
  kill -TSTP "$supervisor"
  # shellcheck disable=SC2317,SC2329
  state() { [ "$(awk '/^State/ { print $2 }' "/proc/$1/status")" = "$2" ]; }
  eventually 5 state "$payload" T
  eventually 5 state "$supervisor" T
  kill -CONT "$supervisor"
  # shellcheck disable=SC2317,SC2329
  awake() { ! state "$payload" T; }
  eventually 5 awake
  kill -TERM "$supervisor"
  # With job control wait(1) ends when the job stops, too.
  status=147; until [ "$status" != 147 ]; do status=0; wait "$supervisor" || status=$?; done
  is "$status" 143
  set +m
}

test_the_namespaces() {
  a_container
  local kind inside outside
  for kind in mnt uts ipc pid; do
    inside=$(x -- ls -l "/proc/self/ns/$kind" | sed 's/.*-> //') outside=$(readlink "/proc/self/ns/$kind")
    [ "$inside" != "$outside" ] || fail "$kind is the host's"
  done
  is "$(x -- ls -l /proc/self/ns/net | sed 's/.*-> //')" "$(readlink /proc/self/ns/net)" "the network is the caller's"
  is "$(x --cgroupns host -- ls -l /proc/self/ns/cgroup | sed 's/.*-> //')" "$(readlink /proc/self/ns/cgroup)"
  [ "$(x --cgroupns private -- ls -l /proc/self/ns/cgroup | sed 's/.*-> //')" != "$(readlink /proc/self/ns/cgroup)" ] || fail cgroupns
  if [ "$HOST_CGROUPS" != v2 ]; then
    is "$(x -- ls -l /proc/self/ns/cgroup | sed 's/.*-> //')" "$(readlink /proc/self/ns/cgroup)" "auto on v1"
  fi
  is "$(x --hostname ps_1 -- hostname)" ps_1
  [ "$(hostname)" != ps_1 ] || fail "the host's name changed"
  is "$(x -- sh -c 'echo $$')" 1
  is "$(x -- sh -c 'set -- /proc/[0-9]*; echo $#')" 1 "processes"
  # In a session of its own
  is "$(x -- sh -c 'cut -d" " -f6 /proc/1/stat')" 1
}

test_the_mounts() {
  a_container
  x --hostname h --address 10.0.0.9 -- cat /proc/self/mountinfo > inside
  awk '{ print $5, $6, $(NF-2) }' inside | sed 's/,relatime//' | grep -v '^/ ' > got
  cat > want <<'T'
/etc/resolv.conf rw,nosuid,nodev,noexec tmpfs
/etc/hosts rw,nosuid,nodev,noexec tmpfs
/etc/hostname rw,nosuid,nodev,noexec tmpfs
/proc rw,nosuid,nodev,noexec proc
/sys ro,nosuid,nodev,noexec sysfs
/dev rw,nosuid,noexec tmpfs
/dev/pts rw,nosuid,noexec devpts
/dev/shm rw,nosuid,nodev,noexec tmpfs
/dev/mqueue rw,nosuid,nodev,noexec mqueue
T
  is "$(cat got)" "$(cat want)"
  is "$(wc -l < inside)" 10 "mounts, / included"
  unlike "$(cat inside)" 'shared:|master:' "propagation"
  like "$(awk '$5 == "/" { print $6 }' inside)" '^rw,nodev(,relatime)?$'
  is "$(x --nameserver 10.0.0.1 --nameserver ::1 -- cat /etc/resolv.conf)" $'nameserver 10.0.0.1\nnameserver ::1'
  like "$(x --hostname h --address 10.0.0.9 -- cat /etc/hosts)" $'^10.0.0.9\th$'
  # Mounted, not written; and writable inside.
  is "$(x -- sh -c 'echo nameserver 1.1.1.1 > /etc/resolv.conf; cat /etc/resolv.conf')" 'nameserver 1.1.1.1'
  is "$(stat -c %s "$R/etc/resolv.conf" "$R/etc/hosts" "$R/etc/hostname" | tr '\n' ' ')" '0 0 0 '
  is "$(x -- sh -c 'ls /dev | tr "\n" " "')" 'fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero '
  is "$(x -- stat -c '%a %t:%T' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty | tr '\n' ' ')" \
    '666 1:3 666 1:5 666 1:7 666 1:8 666 1:9 666 5:0 '
  is "$(x -- sh -c 'echo gone > /dev/null; head -c3 /dev/zero | od -An -tx1')" ' 00 00 00'
  fails 1 'Read-only file system' x -- touch /sys/x
  # A device node in the image opens nothing; a setuid program works, also on a store that is mounted nosuid.
  mknod "$R/null" c 1 3
  fails 1 'Permission denied' x -- cat /null
  mkdir store && mount -t tmpfs -o nosuid,noexec,nodev tmpfs store
  a_tree "$HOST_DIR/store/rootfs" && mkdir store/rootfs/{lib,lib64}
  ldd /usr/bin/id | grep -oE '/[^ ]+' | while read -r name; do cp -L --parents "$name" store/rootfs/; done
  cp /usr/bin/id store/rootfs/bin/suid && chmod 4755 store/rootfs/bin/suid
  is "$(bocker-exec --root store/rootfs --user 1000 -- suid)" 'uid=1000(user) gid=1000 euid=0(root) groups=1000' "setuid"
  umount store
}

test_hostile_roots() {
  local name case
  # /proc, /dev and /sys as links or files are refused, in one line, with nothing done.
  for name in proc dev sys; do
    for case in "../../../..$HOST_DIR/outside" "/etc" file; do
      rm -rf ps_1 outside && mkdir outside && a_container
      rmdir "$R/$name"
      if [ "$case" = file ]; then touch "$R/$name"; else ln -s "$case" "$R/$name"; fi
      fails 125 "^bocker-exec: mount /$name: the image has a link or a file there, not a directory$" x -- true
      fails 125 "^bocker-exec: mount /$name: " x --dry-run -- true
      is "$(ls outside)" "" "made outside"
      untouched
    done
    rm -rf ps_1 && a_container && rmdir "$R/$name"
    is "$(status_of x -- true)" 0 "a missing /$name is made"
    is "$(stat -c '%F %a' "$R/$name")" 'directory 755'
  done
  # /etc/resolv.conf
  for case in "../../../../../../../..$HOST_DIR/sentinel" "$HOST_DIR/sentinel" ../run/systemd/resolve/stub-resolv.conf; do
    rm -rf ps_1 && a_container
    ln -s "$case" "$R/etc/resolv.conf"
    is "$(x -- cat /etc/resolv.conf)" 'nameserver 8.8.8.8' "through $case"
    x -- sh -c 'echo written >> /etc/resolv.conf'
    untouched
  done
  rm -rf ps_1 && a_container && mkdir "$R/etc/resolv.conf"
  fails 125 '^bocker-exec: mount /etc/resolv.conf: the image has a directory there, not a file$' x -- true
  rm -rf ps_1 && a_container && ln -s resolv.conf "$R/etc/resolv.conf"
  fails 125 '^bocker-exec: mount /etc/resolv.conf: Too many symbolic links' x -- true
  rm -rf ps_1 && a_container && rm -r "${R:?}/etc" && ln -s "$HOST_DIR" "$R/etc"
  is "$(x -- cat /etc/hosts | head -1)" $'127.0.0.1\tlocalhost'
  untouched
  [ ! -e hosts ] || fail "made outside"
}

test_workdir() {
  a_container
  is "$(x --workdir /made/here -- pwd)" /made/here
  config '{"WorkingDir":"/tmp/x y"}'
  is "$(x --config ps_1/config -- pwd)" '/tmp/x y'
  is "$(x --config ps_1/config --workdir / -- pwd)" /
  is "$(x --workdir relative/.. -- pwd)" /
  ln -s "../../../..$HOST_DIR" "$R/out"
  is "$(x --workdir /out/new -- pwd)" "$HOST_DIR/new" "in-root"
  [ ! -e new ] || fail "made outside"
  exec 7<"$HOST_DIR"
  local n
  for n in 3 4 5 6 7 8 9 10 20; do
    fails 125 '^bocker-exec: enter /proc/self/fd/' x --workdir "/proc/self/fd/$n" -- cat sentinel
    # Where there is no such descriptor this is /proc/self/fd.
    unlike "$(x --workdir "/proc/self/fd/$n/.." -- sh -c 'pwd; cat sentinel' 2>&1)" 'untouched|unreachable'
  done
  exec 7<&-
  fails 125 '^bocker-exec: enter ' x --workdir "/$(printf 'x%.0s' $(seq 5000))" -- true
  fails 125 '^bocker-exec: enter /etc/passwd: Not a directory' x --workdir /etc/passwd -- true
  fails 125 '^bocker-exec: enter /proc/self/root' x --workdir /proc/self/root/../.. -- cat "$HOST_DIR/sentinel"
  untouched
}

test_users() {
  a_container
  printf 'root:x:0:0::/root:/bin/sh\nuser:x:1000:100::/home/u:/bin/sh\n1001:x:0:0::/:\nwrap:x:4294967296:0::/:\n' > "$R/etc/passwd"
  printf 'users:x:100:\naudio:x:29:user,x\nvideo:x:44:root,user\n' > "$R/etc/group"
  who() { x --user "$1" -- sh -c 'grep -E "^(Uid|Gid|Groups)" /proc/self/status | tr -s "\t " " "; echo $HOME' | tr '\n' ';'; }
  is "$(who user)" 'Uid: 1000 1000 1000 1000;Gid: 100 100 100 100;Groups: 29 44 100 ;/home/u;'
  is "$(who 1000:44)" 'Uid: 1000 1000 1000 1000;Gid: 44 44 44 44;Groups: 44 ;/home/u;'
  is "$(who 1001)" 'Uid: 1001 1001 1001 1001;Gid: 0 0 0 0;Groups: 0 ;/;'
  is "$(who '')" 'Uid: 0 0 0 0;Gid: 0 0 0 0;Groups: 0 44 ;/root;'
  local bad
  for bad in 4294967296 2147483648 -1 0x0 1000:99999999999 '0 ' wrap nobody user:nogroup; do
    fails 125 "^bocker-exec: user '$bad': " x "--user=$bad" -- id
  done
  config '{"User":"user"}'
  is "$(x --config ps_1/config -- id -u)" 1000
  is "$(x --config ps_1/config --user 0 -- id -u)" 0
  # Hostile databases: an error within time, nothing opened outside.
  rm "$R/etc/passwd" && mkfifo "$R/etc/passwd"
  fails 125 "read the image's /etc/passwd: not a regular file" timeout 5 bocker-exec --root "$R" --user user -- id
  rm "$R/etc/passwd" && truncate -s 1G "$R/etc/passwd"
  fails 125 "read the image's /etc/passwd: larger than 1 MiB" x --user user -- id
  rm "$R/etc/passwd" && mknod "$R/etc/passwd" c 1 5
  fails 125 "read the image's /etc/passwd: not a regular file" x --user user -- id
  rm "$R/etc/passwd" && mkfifo fifo && ln -s "../../../../..$HOST_DIR/fifo" "$R/etc/passwd"
  fails 125 "no such user" timeout 5 bocker-exec --root "$R" --user user -- id
  # Killed with the supervisor although the identity changed.
  b --user 1000 --status ps_1/status -- sleep 20 &
  eventually 5 running
  kill -KILL $!; wait $! || true
  # shellcheck disable=SC2317,SC2329
  gone() { ! pgrep -x sleep > /dev/null; }
  eventually 2 gone
}

test_configuration() {
  a_container
  config '{"Env":["A=image","B=b=c"],"Entrypoint":["/bin/echo","entry"],"Cmd":["cmd"]}'
  is "$(x --config ps_1/config)" 'entry cmd'
  is "$(x --config ps_1/config -- echo given)" given
  is "$(SECRET=1 LD_PRELOAD=/x x --config ps_1/config --hostname h --env A=flag -- env | sort | tr '\n' ' ')" \
    'A=flag B=b=c HOME=/root HOSTNAME=h PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin '
  local bad
  for bad in '"HOME"' '"*"' '"PATH*"' '"=x"' '""'; do
    config "{\"Env\":[$bad]}"
    fails 125 "^bocker-exec: read the image's Env: .* is not KEY=VALUE$" x --config ps_1/config -- env
  done
  config '{"Env":["A=b\u0000c"]}'
  fails 125 'contains a NUL' x --config ps_1/config -- env
  echo '{' > ps_1/config
  fails 125 '^bocker-exec: read ps_1/config: not an image configuration' x --config ps_1/config -- env
  truncate -s 1G ps_1/config
  fails 125 'larger than 4 MiB' x --config ps_1/config -- env
}

test_no_descriptor_reaches_the_payload() {
  a_container
  python3 - "$R" <<'P'
import os, subprocess, sys, time
for n in range(40):
    os.set_inheritable(os.open("/etc", os.O_RDONLY), True)
supervisor = subprocess.Popen(["bocker-exec", "--root", sys.argv[1], "--log", "log", "--status", "ps_1/status", "--",
    "sleep", "100"], close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
pid = None
while not pid:
    time.sleep(0.05)
    words = open("ps_1/status").read().split() if os.path.exists("ps_1/status") else []
    pid = words[1] if words[:1] == ["running"] else None
payload = sorted(os.listdir(f"/proc/{pid}/fd"))
leaked = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd) and os.readlink("/proc/self/fd/" + fd) == "/etc"]
supervisor.terminate()
assert supervisor.wait() == 143
assert len(leaked) == 40, leaked
assert payload == ["0", "1", "2"], payload
P
}

test_status_file() {
  a_container
  b --status ps_1/status -- sleep 20 &
  local supervisor=$!
  eventually 5 running
  is "$(stat -c %a ps_1/status)" 600
  local pid
  pid=$(cut -d' ' -f2 ps_1/status)
  is "$(cat "/proc/$pid/comm")" sleep
  fails 125 '^bocker-exec: container is already running$' x --status ps_1/status -- true
  is "$(cat ps_1/status)" "running $pid" "untouched by who did not get it"
  flock -n ps_1/status true && fail "not locked"
  kill -TERM "$supervisor"; wait "$supervisor" || true
  is "$(cat ps_1/status)" 'exited 143'
  flock -n ps_1/status true || fail "still locked"
  is "$(status_of x --status ps_1/status -- nosuch)" 127
  is "$(cat ps_1/status)" ''
  ln -s "$HOST_DIR/sentinel" link
  fails 125 'Too many symbolic' x --status link -- true
  untouched
}

test_join() {
  a_container
  fails 125 'open ps_1/status: No such file' bocker-exec --join ps_1/status -- true
  echo 'running 1' > ps_1/status
  fails 125 "^bocker-exec: Container 'ps_1' exists but is not running$" bocker-exec --join ps_1/status -- true
  rm ps_1/status
  b --status ps_1/status --hostname ps_1 -- sleep 60 &
  local supervisor=$! kind
  eventually 5 running
  j() { bocker-exec --join ps_1/status "$@"; }
  local pid
  pid=$(cut -d' ' -f2 ps_1/status)
  for kind in mnt uts ipc pid net cgroup; do
    is "$(j -- ls -l "/proc/self/ns/$kind" | sed 's/.*-> //')" "$(readlink "/proc/$pid/ns/$kind")" "$kind"
  done
  is "$(j -- hostname)" ps_1
  is "$(echo hi | j -- cat)" hi
  is "$(j -- sh -c 'echo $HOSTNAME $HOME; pwd')" $'ps_1 /root\n/'
  is "$(status_of j -- sh -c 'exit 9')" 9
  is "$(status_of j -- sh -c 'kill -TERM $$')" 143
  fails 127 'exec nosuch: No such file' j -- nosuch
  is "$(j --user user --workdir /tmp -- sh -c 'id -u; pwd' | tr '\n' ' ')" '1000 /tmp '
  is "$(j -- ls -l /proc/1/root/ | grep -c sentinel)" 0
  is "$(j -- ls /proc/self/fd | tr '\n' ' ')" '0 1 2 3 ' "its descriptors, and ls's own"
  exec 7<"$HOST_DIR"
  fails 125 '^bocker-exec: enter /proc/self/fd/7' j --workdir /proc/self/fd/7 -- pwd
  exec 7<&-
  # Signals
  (exec bocker-exec --join ps_1/status -- sleep 30) &
  local joined=$!
  sleep 0.4; kill -TERM "$joined"; local status=0; wait "$joined" || status=$?
  is "$status" 143
  # What is printed does the same.
  j --dry-run --env 'A=a b' -- sh -c 'hostname; echo "$A"; readlink /proc/self/ns/mnt' > dry
  like "$(cat dry)" 'nsenter'
  is "$(sh -e dry)" "$(j --env 'A=a b' -- sh -c 'hostname; echo "$A"; readlink /proc/self/ns/mnt')"
  # It ends with the container.
  (exec bocker-exec --join ps_1/status -- sleep 30) &
  joined=$!
  sleep 0.4; kill -TERM "$supervisor"; wait "$supervisor" || true
  status=0; wait "$joined" || status=$?
  is "$status" 137
  fails 125 'exists but is not running' j -- true
}

test_the_supervisor_takes_all_with_it() {
  a_container
  # shellcheck disable=SC2317,SC2329
  gone() { ! pgrep -x sleep > /dev/null; }
  b --status ps_1/status -- sh -c 'sleep 77 & sleep 77' &
  eventually 5 running; sleep 0.2
  kill -KILL $!; wait $! || true
  eventually 2 gone
  fails 125 'exists but is not running' bocker-exec --join ps_1/status -- true
  # --die-with-parent: the parent dies, and the log and the status tell the rest
  rm -f log
  bash -c 'bocker-exec --die-with-parent --root "$1" --log log --status ps_1/status -- sh -c "echo started; sleep 77" & wait' _ "$R" > /dev/null &
  eventually 5 grep -q started log
  kill -KILL $!; wait $! || true
  eventually 2 gone
  eventually 2 grep -qx 'exited 137' ps_1/status
}

test_failed_acts_leave_nothing() {
  a_container
  before=$(census)
  local call
  # Each act in its turn fails; the payload never runs, the status is 125, one line says what.
  for call in unshare mount mount_setattr open_tree fsopen fsconfig fsmount move_mount mknodat pivot_root umount2 \
    setgroups setresgid setresuid sethostname close_range fchdir; do
    local n
    for n in 1 2 3; do
      status=0
      strace -f -qq -o trace -e trace="$call" -e "inject=$call:error=EPERM:when=$n" \
        bocker-exec --root "$R" --hostname h -- touch /ran > out 2> err || status=$?
      if grep -q INJECTED trace && ! [[ $call = close_range && $n = 1 ]]; then
        is "$status" 125 "$call $n failed: $(cat err)"
        is "$(wc -l < err)" 1 "lines after $call $n"
        [ ! -e "$R/ran" ] || fail "ran although $call $n failed"
      fi
      [ "$n" != 1 ] || grep -q INJECTED trace || fail "no $call to fail"
      rm -f "$R/ran"
    done
  done
  is "$(census)" "$before"
}

test_dry_run_does_the_same() {
  a_container
  ln -s ../run/resolve/stub "$R/etc/resolv.conf"
  config '{"Env":["Q=it'"'"'s \"x\"\nEOF\n"],"WorkingDir":"/work dir"}'
  # shellcheck disable=SC2016
  local probe='awk "{ print \$4, \$5, \$6, \$(NF-2), \$(NF-1), \$NF }" /proc/self/mountinfo; hostname; cat /etc/hosts /etc/resolv.conf /etc/hostname
    ls -l /dev | awk "{ print \$1, \$3, \$4, \$5, \$6, \$NF }" | grep -v "^total"; pwd; echo $$; env | sort; id; cat; ls /proc/self/fd | wc -l; echo err >&2; exit 6'
  local options=(--hostname h --address 10.0.0.9 --config ps_1/config --log log --status ps_1/status --env 'A=$(id) b')
  for user in 0 1000; do
    x "${options[@]}" --user $user --dry-run -- sh -c "$probe" > dry.sh
    is "$(census)" "$(census)"
    for way in tool shell; do
      rm -rf log ps_1/status "$R/work dir" "$R/run/resolve"
      status=0
      if [ $way = tool ]; then
        echo in | x "${options[@]}" --user $user -- sh -c "$probe" > out.$way 2> err.$way || status=$?
      else
        echo in | python3 -c 'import subprocess, sys; sys.exit(subprocess.call(["sh", "-e", "dry.sh"]))' > out.$way 2> err.$way || status=$?
      fi
      { echo "status $status"; cat ps_1/status err.$way; sort log; stat -c '%a %F' log ps_1/status "$R/work dir" "$R/run/resolve/stub"; } > state.$way
    done
    [ "$user" = 0 ] || sed -i 's/groups=.*//' out.*
    is "$(cat out.shell)" "$(cat out.tool)" "inside, user $user"
    is "$(cat state.shell)" "$(cat state.tool)" "outside, user $user"
    is "$(head -1 state.tool)" "status 6"
  done
  # --explain says it and does it.
  is "$(x --explain -- echo ended 2> said)" ended
  like "$(cat said)" '^pivot_root \. \.$'
}

# In a chroot the kernel keeps the real root in the container's mount namespace: refused, not half done.
test_a_chroot_is_refused() {
  a_tree "$HOST_DIR/tree"
  mkdir host
  mount --rbind / host
  mount --rbind /proc host/proc
  status=0
  chroot host bocker-exec --root "$HOST_DIR/tree" -- true 2>err || status=$?
  is "$status" 125
  like "$(cat err)" '^bocker-exec: pivot_root /: .*chroot'
  is "$(wc -l <err)" 1
  umount -R host
  bocker-exec --root "$HOST_DIR/tree" -- true
}

test_nothing_is_left() {
  a_container
  before=$(census)
  for _ in 1 2 3 4 5; do
    x --log log --status ps_1/status --hostname h -- true
    status_of x -- nosuch > /dev/null
  done
  is "$(census)" "$before"
}
