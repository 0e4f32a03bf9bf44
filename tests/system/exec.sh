# shellcheck shell=bash disable=SC2016,SC2154 # what is in single quotes is for the container's shell
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
# What was written to a log, both streams.
logged() { python3 -c 'import sys
for line in open(sys.argv[1], "rb"):
    words = line.split(b" ", 3)
    if len(words) < 4 or words[1] not in (b"stdout", b"stderr"): sys.stdout.buffer.write(line); continue
    sys.stdout.buffer.write(words[3] if words[2] == b"F" else words[3][:-1])' "$1"; }
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
  # One after the other: of two streams that are ready at once nobody knows which was first.
  { eventually 10 grep -q one log; echo; eventually 10 grep -q two log; echo; } |
    x --log log -- sh -c 'echo one; read -r _; echo two >&2; read -r _; echo three; exit 9' > out 2> err || status=$?
  is "$status" 9
  is "$(cat out)" $'one\nthree' && is "$(cat err)" two
  is "$(logged log)" $'before\none\ntwo\nthree'
  rm log && x --log log -- true && is "$(stat -c %a log)" 600
  # Much, binary, and a slow reader: every byte arrives, in both places.
  x -- dd if=/dev/urandom of=/data bs=1M count=8 2>/dev/null
  # (A thread that gets no processor for a second is a slow disk to it: that costs the log, and is said.)
  local slow
  for _ in 1 2 3; do
    rm log
    x --log log -- cat /data 2> slow | (sleep 0.5; sha256sum) > sum
    slow=$(<slow)
    [ -n "$slow" ] || break
  done
  is "$slow" ""
  is "$(cut -c1-64 sum)" "$(sha256sum < "$R/data" | cut -c1-64)" "through a slow pipe"
  is "$(logged log | sha256sum)" "$(sha256sum < "$R/data")" "in the log"
  # A reader that goes away ends the payload.
  local start=$SECONDS
  is "$(x --log log -- yes 2>/dev/null | head -1)" y
  [ $((SECONDS - start)) -lt 20 ] || fail "yes went on"
  # Signals arrive while a reader is slow.
  b --log log -- sh -c 'yes' > >(sleep 60) &
  sleep 0.5; start=$SECONDS; kill -TERM $!; status=0; wait $! || status=$?
  is "$status" 143
  [ $((SECONDS - start)) -lt 20 ] || fail "a slow reader delayed the signal"
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
  # Who handles it, or ignores it, goes on; the first as long as the reader takes to go.
  local most=1500
  for how in 'echo got >\&2; exit 5' ''; do
    { status=0; timeout 20 bocker-exec --root "$R" --log log -- sh -c "trap '$how' PIPE; i=0; while [ \$i -lt $most ]; do echo y; i=\$((i+1)); sleep 0.01; done; exit 4" 2>/dev/null || status=$?; echo "$status" >status; } | head -1 >out
    if [ -n "$how" ]; then is "$(cat status)" 5 handled; else is "$(cat status)" 4 ignored; fi
    most=99
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
  is "$(logged log)" hi
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
  # A background process of this shell would have INT and QUIT ignored: python starts it with the defaults.
  is "$(python3 - "$R" <<'P'
import subprocess, sys, time, signal
for name in ("INT", "TERM", "HUP", "QUIT", "USR1", "ALRM", "RTMIN"):
    open("ps_1/status", "w").close()
    p = subprocess.Popen(["bocker-exec", "--root", sys.argv[1], "--status", "ps_1/status", "--", "sleep", "20"],
        preexec_fn=lambda: [signal.signal(s, signal.SIG_DFL) for s in (signal.SIGINT, signal.SIGQUIT)])
    while not open("ps_1/status").read().startswith("running"): time.sleep(0.02)
    p.send_signal(getattr(signal, "SIG" + name))
    print(name, p.wait(15))
P
)" $'INT 130\nTERM 143\nHUP 129\nQUIT 131\nUSR1 138\nALRM 142\nRTMIN 162' "default actions"
  # A handler gets it.
  b --status ps_1/status -- sh -c 'trap "echo got; exit 5" TERM; echo ready; while :; do sleep 0.1; done' > out &
  eventually 5 running; eventually 10 grep -q ready out
  kill -TERM $!; status=0; wait $! || status=$?
  is "$status" 5 && is "$(cat out)" $'ready\ngot'
  # One that ignores it lives on, and KILL of the payload is 137.
  b --status ps_1/status -- sh -c 'trap "" TERM; echo deaf; while :; do sleep 0.1; done' > deaf &
  eventually 5 running; eventually 10 grep -q deaf deaf
  kill -TERM $!; sleep 0.3; running || fail "an ignored signal killed it"
  kill -KILL "$(cut -d' ' -f2 ps_1/status)"; status=0; wait $! || status=$?
  is "$status" 137
  is "$(cat ps_1/status)" "exited 137"
  # At once: before the payload is there.
  is "$(python3 - "$R" <<'P'
import subprocess, sys, signal
for _ in range(10):
    p = subprocess.Popen(["bocker-exec", "--root", sys.argv[1], "--", "sleep", "20"])
    # as soon as it takes signals
    while True:
        blocked = [l for l in open(f"/proc/{p.pid}/status") if l.startswith("SigBlk")][0]
        if int(blocked.split()[1], 16) & (1 << 14): break
    p.send_signal(signal.SIGTERM)
    print(p.wait(15))
P
)" $'143\n143\n143\n143\n143\n143\n143\n143\n143\n143' "early signals"
  # The payload starts with nothing blocked or ignored, whatever the caller had.
  (trap '' INT HUP USR1 PIPE; x -- grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status) > out
  is "$(sort -u -k2 out | awk '{ print $2 }' | sort -u)" 0000000000000000
  # But what the caller ignores does not pass: nohup.
  (trap '' HUP; exec bocker-exec --root "$R" --status ps_1/status -- sh -c 'until [ -e /stop ]; do sleep 0.1; done') &
  eventually 5 running; kill -HUP $!; sleep 0.3; touch "$R/stop"; status=0; wait $! || status=$?
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
  x --hostname h --address 10.0.0.9 -- cat /proc/self/mountinfo > all
  # What lies on parts of /proc and /sys: posture.sh.
  awk '$5 !~ "^/(proc|sys)/"' all > inside
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
  like "$(awk '$5 == "/" { print $6 }' inside)" '^rw,nodev(,relatime)?,idmapped$'
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
  mkdir store && mount --bind store store && mount -o remount,bind,nosuid,noexec,nodev store
  a_tree "$HOST_DIR/store/rootfs" && mkdir store/rootfs/{lib,lib64}
  ldd /usr/bin/id | grep -oE '/[^ ]+' | while read -r name; do cp -L --parents "$name" store/rootfs/; done
  cp /usr/bin/id store/rootfs/bin/suid && chmod 4755 store/rootfs/bin/suid
  is "$(bocker-exec --root store/rootfs --user 1000 -- suid)" 'uid=1000(user) gid=1000 euid=0(root) groups=1000' "setuid"
  umount store
}

test_names_and_servers() {
  a_container
  local base=$'127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback'
  is "$(x --hostname h --address - -- cat /etc/hosts)" "$base" "one without an address"
  is "$(x --hostname h --address 10.0.0.9 --add-host db:10.0.0.5 --add-host=six=::2 --add-host 'b:[fe80::1]' -- cat /etc/hosts)" \
    "$base"$'\n10.0.0.9\th\n10.0.0.5\tdb\n::2\tsix\nfe80::1\tb'
  is "$(x --nameserver 1.1.1.1 --dns-search a.example --dns-search b --dns-option ndots:2 --dns-option rotate -- cat /etc/resolv.conf)" \
    $'nameserver 1.1.1.1\nsearch a.example b\noptions ndots:2 rotate'
  is "$(x --dns-search . -- cat /etc/resolv.conf)" 'nameserver 8.8.8.8'
  # From a file of words as typed.
  printf '%s\n' --add-host=db:10.0.0.5 --dns-search=a >words
  is "$(x --words words -- sh -c 'tail -1 /etc/hosts; tail -1 /etc/resolv.conf')" $'10.0.0.5\tdb\nsearch a'
  # What would be another line or word there.
  for words in $'--add-host|a:10.0.0.1\n6.6.6.6 bank' $'--add-host|a\nb:10.0.0.1' '--add-host|a b:10.0.0.1' '--add-host|a:10.0.0.1 bank' '--add-host|a' \
    '--add-host|a:gateway' $'--dns-search|a\nnameserver 6.6.6.6' '--dns-search|a b' $'--dns-option|a\nb' $'--nameserver|1.1.1.1\nx' '--address|10.0.0.1 a'; do
    fails 125 '^bocker-exec: invalid value' x "${words%%|*}" "${words#*|}" -- true
  done
  # The gateway of the network that it is on.
  fails 125 '^bocker-exec: --add-host: host-gateway: there is no gateway on its network' x --add-host gate:host-gateway -- true
  ip netns add blue && ip -n blue link add d0 type veth peer name d1 && ip -n blue link set d1 up && ip -n blue addr add 10.9.0.2/24 dev d0 && ip -n blue link set d0 up
  ip -n blue route add default via 10.9.0.1
  is "$(ip netns exec blue bocker-exec --root "$R" --add-host gate:host-gateway -- tail -1 /etc/hosts)" $'10.9.0.1\tgate'
  ip netns del blue
}

# A file of who knows the names, where there is one: it shows at once what is written there, and cannot be written to.
test_a_file_of_hosts() {
  a_container
  is "$(x --hosts hosts --hostname h --address 10.0.0.9 -- tail -1 /etc/hosts)" $'10.0.0.9\th' "none there"
  mkdir run && mount -t tmpfs run run && echo '10.1.0.2 db' >run/hosts && chmod 644 run/hosts
  for users in private host; do
    x --hosts run/hosts --add-host a:1.1.1.1 --userns=$users -- sh -c 'cat /etc/hosts; cat; cat /etc/hosts; echo x >>/etc/hosts' <<<'' >out 2>err && fail written
    is "$(xargs <out)" "10.1.0.2 db 10.1.0.2 db"
    like "$(cat err)" 'Read-only file system|Permission denied'
  done
  mkfifo in && exec 5<>in
  x --hosts run/hosts -- sh -c 'read -r line; cat /etc/hosts' <in >out & pid=$!
  echo '10.1.0.3 db' >run/hosts
  echo >&5
  wait $pid
  exec 5>&-
  is "$(cat out)" '10.1.0.3 db' "what is written later"
  is "$(cat run/hosts)" '10.1.0.3 db'
  # What the user mounts there is the user's.
  echo '10.1.0.4 mine' >mine
  is "$(x --hosts run/hosts --volume "$PWD/mine:/etc/hosts" -- cat /etc/hosts)" '10.1.0.4 mine'
  # The printed script does the same.
  mkdir path && cp "$repo/tests/mount-idmap" path/mount
  x --hosts run/hosts --userns=host --dry-run -- cat /etc/hosts >dry.sh
  is "$(PATH=$PWD/path:$PATH sh -e dry.sh)" '10.1.0.3 db'
  # A link of the image's leads to no file of the host's.
  rm -f "$R/etc/hosts" && ln -s "../../../../../$HOST_DIR/sentinel" "$R/etc/hosts"
  is "$(x --hosts run/hosts -- cat /etc/hosts)" '10.1.0.3 db'
  untouched
  umount run
}

# Nobody reads them on a command line.
test_an_environment_by_a_descriptor() {
  a_container
  is "$(x --env A=typed --env-fd 3 -- sh -c 'echo "$A|$B"; ls /proc/self/fd | wc -l' 3< <(printf '%s\0' A=told $'B=two\nlines'))" $'told|two\nlines\n4'
  is "$(x --userns=host --env-fd 3 -- sh -c 'echo "$A"' 3< <(printf '%s\0' A=told))" told "executed anew, it reads once"
  is "$(printf 'A=told\0' >told; x --env-fd 3 -- sh -c 'echo "$A"; cat' 3<told <<<in)" $'told\nin'
  is "$(x --env-fd 3 -- env 3</dev/null | grep -c =)" 3
  fails 125 '^bocker-exec: read --env-fd 9: Bad file number$' x --env-fd 9 -- true
  printf A=1 >cut.txt && fails 125 '^bocker-exec: read --env-fd 7: cut off: no NUL' x --env-fd 7 -- true 7<cut.txt
  printf 'A\0' >cut.txt && fails 125 "^bocker-exec: read --env: 'A' is not KEY=VALUE$" x --env-fd 7 -- true 7<cut.txt
  # A join, in the background, too.
  b --log log --status ps_1/status -- sleep 60 & pid=$!
  eventually 5 running
  is "$(bocker-exec --join ps_1/status --env-fd 3 -- sh -c 'echo "$A"' 3< <(printf '%s\0' A=told))" told
  bocker-exec --join ps_1/status --detach --env-fd 3 -- sh -c 'echo "$A" >/tmp/seen' 3< <(printf '%s\0' A=late)
  eventually 5 eval 'grep -q late "$R/tmp/seen"'
  kill $pid
  wait $pid || true
}

# On a network that is not its own: users of its own all the same, and nothing to say there.
test_the_network_of_others() {
  a_container
  x --hostname h -- sh -c 'cat /proc/self/uid_map; ls /sys/class/net; ip link set lo down 2>&1; ip link add d0 type veth 2>&1; cat /proc/self/status | grep CapEff' >host
  like "$(cat host)" '^ +0 +[1-9][0-9]+ +65536$' "a range of its own"
  is "$(grep -c '^lo$' host)" 1 "/sys is of that network"
  is "$(grep -c 'Operation not permitted' host)" 2
  like "$(ip -o link show lo)" 'UP' "the host's lo"
  # Control: where the namespace is its users' own, a capability counts.
  export BOCKER_SUBNET=10.0.0.0/24
  bocker-net up --setup ps_42045 >/dev/null 2>&1
  bocker-net exec ps_42045 -- bocker-exec --root "$R" --cap-add NET_ADMIN -- ip link set lo down
  unlike "$(ip netns exec netns_ps_42045 ip -o link show lo)" '[<,]UP' "its own lo"
  fails 2 'Operation not permitted' x --cap-add NET_ADMIN -- ip link set lo down
  # A second one on the same network has the same users.
  is "$(bocker-net exec ps_42045 -- bocker-exec --root "$R" -- cat /proc/self/uid_map)" \
    "$(bocker-net exec ps_42045 -- bocker-exec --root "$R" -- cat /proc/self/uid_map)"
  bocker-net down ps_42045
  # A namespace that the host's root has made is nobody's of the container's.
  ip netns add blue
  fails 2 'Operation not permitted' ip netns exec blue bocker-exec --root "$R" --cap-add NET_ADMIN -- ip link set lo up
  ip netns del blue
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
  fails 125 "read the image's /etc/passwd: not a regular file" timeout 20 bocker-exec --root "$R" --user user -- id
  rm "$R/etc/passwd" && truncate -s 1G "$R/etc/passwd"
  fails 125 "read the image's /etc/passwd: larger than 1 MiB" x --user user -- id
  rm "$R/etc/passwd" && mknod "$R/etc/passwd" c 1 5
  fails 125 "read the image's /etc/passwd: not a regular file" x --user user -- id
  rm "$R/etc/passwd" && mkfifo fifo && ln -s "../../../../..$HOST_DIR/fifo" "$R/etc/passwd"
  fails 125 "no such user" timeout 20 bocker-exec --root "$R" --user user -- id
  # Killed with the supervisor although the identity changed.
  b --user 1000 --status ps_1/status -- sleep 20 &
  eventually 5 running
  kill -KILL $!; wait $! || true
  # shellcheck disable=SC2317,SC2329
  gone() { ! pgrep -x sleep > /dev/null; }
  eventually 10 gone
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
# execve(2) closes what is to be closed, and gives the name afterwards.
while open(f"/proc/{pid}/comm").read() != "sleep\n": time.sleep(0.05)
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
  # The last part of execve(2) comes after what says that it runs.
  eventually 5 grep -qx sleep "/proc/$pid/comm"
  fails 125 '^bocker-exec: container is already running$' x --status ps_1/status -- true
  is "$(cat ps_1/status)" "running $pid" "untouched by who did not get it"
  flock -n ps_1/status true && fail "not locked"
  kill -TERM "$supervisor"; wait "$supervisor" || true
  is "$(cat ps_1/status)" 'exited 143'
  flock -n ps_1/status true || fail "still locked"
  # Who only asks whether it is held shares the lock: the container starts, however long that one is held up. Who has it alone has the container.
  (exec flock -s ps_1/status sh -c 'touch asked; sleep 1') & local asking=$!
  eventually 5 test -e asked
  is "$(status_of x --status ps_1/status -- sh -c 'exit 8')" 8
  wait "$asking"
  # What says that it has ended is waited for longer.
  echo running > ps_1/status
  exec 9<>ps_1/status; flock -x 9
  fails 125 '^bocker-exec: container is already running$' x --status ps_1/status -- true
  exec 9>&-
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
  (exec bocker-exec --join ps_1/status -- sh -c 'echo there; exec sleep 30' > there) &
  local joined=$!
  eventually 10 grep -q there there; kill -TERM "$joined"; local status=0; wait "$joined" || status=$?
  is "$status" 143
  # What is printed does the same.
  j --dry-run --env 'A=a b' -- sh -c 'hostname; echo "$A"; readlink /proc/self/ns/mnt' > dry
  like "$(cat dry)" 'nsenter'
  is "$(sh -e dry)" "$(j --env 'A=a b' -- sh -c 'hostname; echo "$A"; readlink /proc/self/ns/mnt')"
  # It ends with the container.
  (exec bocker-exec --join ps_1/status -- sh -c 'echo there; exec sleep 30' > again) &
  joined=$!
  eventually 10 grep -q there again; kill -TERM "$supervisor"; wait "$supervisor" || true
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
  eventually 10 gone
  fails 125 'exists but is not running' bocker-exec --join ps_1/status -- true
  # --die-with-parent: the parent dies, and the log and the status tell the rest
  rm -f log
  bash -c 'bocker-exec --die-with-parent --root "$1" --log log --status ps_1/status -- sh -c "echo started; sleep 77" & wait' _ "$R" > /dev/null &
  eventually 5 grep -q started log
  kill -KILL $!; wait $! || true
  eventually 10 gone
  eventually 10 grep -qx 'exited 137' ps_1/status
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
      if [[ $(<trace) != *INJECTED* ]]; then
        # Where there is no second one, there is no third.
        [ "$n" != 1 ] || fail "no $call to fail"
        rm "$R/ran"
        break
      fi
      # The first thing in each of our two lives (reexec.rs), and not needed.
      if [[ $call = close_range && $n -le 2 ]]; then rm -f "$R/ran"; continue; fi
      is "$status" 125 "$call $n failed: $(<err)"
      case $(<err) in '' | *$'\n'*) fail "no one line after $call $n: $(<err)" ;; esac
      [ ! -e "$R/ran" ] || fail "ran although $call $n failed"
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
    ls -l /dev | awk "{ print \$1, \$3, \$4, \$5, \$6, \$NF }" | grep -v "^total"; pwd; echo $$; env | sort; id | sed "s/ groups=.*//"; cat; ls /proc/self/fd | wc -l; echo err >&2; exit 6'
  local options=(--hostname h --address 10.0.0.9 --add-host db:10.0.0.5 --dns-search a --config ps_1/config --log log --status ps_1/status --env 'A=$(id) b')
  # Until the host's mount(8) is 2.39.
  mkdir path && cp "$repo/tests/mount-idmap" path/mount
  for user in 0 1000 0:host 1000:host; do
    case $user in 0:host) options+=(--userns=host) ;; esac
    user=${user%:host}
    before=$(census)
    x "${options[@]}" --user $user --dry-run -- sh -c "$probe" > dry.sh
    is "$(census)" "$before" "a dry run does nothing"
    for way in tool shell; do
      rm -rf log ps_1/status "$R/work dir" "$R/run/resolve"
      status=0
      if [ $way = tool ]; then
        echo in | x "${options[@]}" --user $user -- sh -c "$probe" > out.$way 2> err.$way || status=$?
      else
        echo in | python3 -c 'import subprocess, sys; sys.exit(subprocess.call(["sh", "-e", "dry.sh"], env={"PATH": sys.argv[1]}))' "$PWD/path:$PATH" > out.$way 2> err.$way || status=$?
      fi
      { echo "status $status"; cat ps_1/status err.$way; cut -d' ' -f2- log | sort; stat -c '%a %F' log ps_1/status "$R/work dir" "$R/run/resolve/stub"; } > state.$way
    done
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
  like "$(cat err)" '^bocker-exec: make a user namespace: .*chroot'
  is "$(wc -l <err)" 1
  chroot host bocker-exec --userns=host --root "$HOST_DIR/tree" -- true 2>err || status=$?
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

# Check 2's row "user namespace": nobody on the host, root inside, and the disk as ever.
test_the_users() {
  a_container
  echo mine > "$R/root/mine" && chmod 600 "$R/root/mine"
  echo theirs > "$R/tmp/theirs" && chown 1000:1000 "$R/tmp/theirs"
  chown 70000:70000 "$R/var"
  x -- sh -c 'cat /proc/self/uid_map /proc/self/gid_map; cat /root/mine; stat -c %u:%g /tmp/theirs /dev /dev/null /dev/shm /etc/hosts /var
    echo new > /root/new; touch /tmp/b; chown 1000 /tmp/b; mkdir /made; chown 5:6 /made; cat /dev/stdin' <<<in > out
  is "$(tr -s ' ' < out)" " 0 2143158272 65536
 0 2143158272 65536
mine
1000:1000
0:0
0:0
0:0
0:0
65534:65534
in"
  is "$(stat -c %u:%g "$R/root/new" "$R/tmp/b" "$R/made" "$R/tmp/theirs" "$R/etc/passwd")" "0:0
1000:0
5:6
1000:1000
0:0"
  # On the host its root is nobody, and what it may do ends at its own.
  mkfifo hold
  bocker-exec --root "$R" --status ps_1/status -- sh -c 'sleep 100 & cat' < hold > /dev/null & job=$!
  exec 7> hold
  eventually 5 running
  pid=$(cut -d' ' -f2 ps_1/status)
  like "$(grep ^Uid: "/proc/$pid/status")" $'^Uid:\t2143158272\t2143158272\t2143158272\t2143158272$'
  # Two at once have different ranges, and who joins is who is there.
  is "$(x -- cat /proc/self/uid_map | tr -s ' ')" " 0 2143223808 65536"
  is "$(bocker-exec --join ps_1/status -- sh -c 'id -u; cat /proc/self/uid_map; ls -ld /root | cut -c1-10; sleep 0 && kill -0 1 && echo can' | tr -s ' ')" "0
 0 2143158272 65536
drwxr-xr-x
can"
  is "$(bocker-exec --join ps_1/status --user user -- sh -c 'id -u; kill -0 1 2>/dev/null || echo cannot')" "1000
cannot"
  exec 7>&-
  wait "$job"
  # The last one takes the locks' file along.
  [ ! -e /run/bocker-exec ] || fail "/run/bocker-exec is left"
  # A range by name; the host's users; whom the container does not have.
  is "$(x --uids 300000 -- awk '{ print $2 }' /proc/self/gid_map)" 300000
  is "$(x --userns=host -- awk '{ print $2, $3 }' /proc/self/uid_map)" "0 4294967295"
  is "$(x --userns=host --user 70000 -- id -u)" 70000
  fails 125 "^bocker-exec: user '70000': 70000 is none of the container's 65536 ids \(--userns=host has them all\)$" x --user 70000 -- true
  # A setuid program and a file's capability count for the container's users.
  mkdir "$R/s" && cp "$R/bin/busybox" "$R/s/su" && chmod 4755 "$R/s/su"
  sed -i 's/^root:x/root:/' "$R/etc/passwd"
  is "$(x --user 1000 -- /s/su -c 'id -u')" 0
  # No range for us.
  echo 'bocker:5:5' > subuid
  mount --bind subuid /etc/subuid
  fails 125 '^bocker-exec: read /etc/subuid: bocker:5:5: from 1 on, at least 4259840 ids$' x -- true
  echo 'bocker:500000:6553600' > subuid
  fails 125 '^bocker-exec: /etc: subuid and subgid need the same line for bocker$' x -- true
  mount --bind subuid /etc/subgid
  is "$(x -- awk '{ print $2 }' /proc/self/gid_map)" $((500000 + 36 * 65536))
  umount /etc/subgid /etc/subuid
}

# Whatever line they were once taken by: the ids are what is held.
test_ranges_are_held_by_their_ids() {
  a_container
  local spare=2143158272 shift
  mkfifo hold
  bocker-exec --root "$R" --status ps_1/status -- cat < hold > /dev/null & job=$!
  exec 7> hold
  eventually 5 running
  is "$(awk '{ print $2 }' "/proc/$(cut -d' ' -f2 ps_1/status)/uid_map")" "$spare"
  : > subuid
  mount --bind subuid /etc/subuid
  mount --bind subuid /etc/subgid
  # The second range begins where the held one does; the first and the second touch it.
  for shift in 65536:-65536 32768:98304; do
    echo "bocker:$((0x70000000 - ${shift%:*})):$((0x0ffe * 65536))" > subuid
    is "$(x -- awk '{ print $2 }' /proc/self/uid_map)" $((spare + ${shift#*:}))
  done
  umount /etc/subgid /etc/subuid
  exec 7>&-
  wait "$job"
  [ ! -e /run/bocker-exec ] || fail "/run/bocker-exec is left"
}

# Who made the network namespace owns it: what the container may do to it, and no more.
test_the_network_is_the_containers() {
  a_container
  bocker-net up --setup ps_42045 > /dev/null 2>&1
  in_net() { bocker-net exec ps_42045 -- bocker-exec --root "$R" "$@"; }
  is "$(in_net -- awk '{ print $2 }' /proc/self/uid_map)" $((0x70000000 + 45 * 65536))
  is "$(in_net -- sh -c 'ls /sys/class/net')" "eth0
lo"
  # Ports below 1024 for anybody, and ping.
  cc -static -o "$R/bin/anybody" -xc - <<'END'
#include <arpa/inet.h>
#include <sys/socket.h>
int main(void) {
  struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(80), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  if (bind(socket(AF_INET, SOCK_STREAM, 0), (void *)&at, sizeof at)) return 1;
  char echo[8] = { 8 }, answer[8] = { 1 };
  int ping = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
  if (sendto(ping, echo, 8, 0, (void *)&at, sizeof at) != 8 || recv(ping, answer, 8, 0) != 8) return 2;
  return answer[0];
}
END
  in_net --user 1000 -- anybody
  # One that another user has made gives us none of his users: he is their root.
  setpriv --reuid 1000 --regid 1000 --clear-groups unshare --user --map-root-user --net sleep 60 & local another=$!
  made() { [ "$(readlink "/proc/$another/ns/net")" != "$(readlink /proc/self/ns/net)" ] && grep -q 1000 "/proc/$another/uid_map"; }
  eventually 5 made
  is "$(nsenter -t "$another" --net bocker-exec --root "$R" -- awk '{ print $2 }' /proc/self/uid_map)" 2143158272
  kill "$another"
  wait "$another" || true
  # A host's network namespace is not.
  bocker-net up --userns=host ps_42046 > /dev/null
  is "$(bocker-net exec ps_42046 -- bocker-exec --root "$R" -- awk '{ print $2 }' /proc/self/uid_map)" 2143158272
  bocker-net down ps_42045
  bocker-net down ps_42046
  bocker-net setup --undo
}
