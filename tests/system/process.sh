# shellcheck shell=bash disable=SC2016,SC2034,SC2154,SC2317,SC2329 # what is in single quotes is for the container's shell; called by name
# bocker-exec: detached, told from outside, with a reaper, and its log in the CRI's format. Checks 32, 41 and 42.

a_container() {
  mkdir -p ps_1
  a_tree "$HOST_DIR/ps_1/rootfs"
  R=$HOST_DIR/ps_1/rootfs
}

x() { bocker-exec --root "$R" "$@"; }
# The supervisor of the one before may be held up: who begins waits for two seconds.
d() { [ ! -e ps_1/status ] || ended; bocker-exec --root "$R" --status ps_1/status --detach "$@"; }
b() { exec bocker-exec --root "$R" --status ps_1/status "$@"; }
status_of() { local status=0; "$@" >/dev/null 2>&1 </dev/null || status=$?; echo "$status"; }
says() { [ "$(cat ps_1/status 2>/dev/null)" = "$1" ]; }
payload() { cut -d' ' -f2 ps_1/status; }
supervisor() { awk '/^PPid/ { print $2 }' "/proc/$(payload)/status"; }
free() { flock -n ps_1/status true; }
# nobody_watches: no process of ours is left, be it on its way out
nobody_watches() { ! pgrep -x bocker-exec >/dev/null; }
gone() { [ ! -e "/proc/$1" ] || [ "$(awk '/^State/ { print $2 }' "/proc/$1/status" 2>/dev/null)" = Z ]; }
running() { [ "$(cut -d' ' -f1 ps_1/status 2>/dev/null)" = running ]; }
stop() { bocker-exec --stop ps_1/status "$@"; }
lines() { cut -d' ' -f2- "${1:-log}"; }
# ended: waits until nobody holds it
ended() { eventually 5 free; }
# As the script runs where the host's mount(8) is 2.39; one that is not yet gets what it lacks.
script() { mkdir -p path && cp "$repo/tests/mount-idmap" path/mount && PATH=$PWD/path:$PATH sh -e "$@"; }

test_detached() {
  a_container
  mkdir here && mount -t tmpfs here here
  # The caller's own descriptors, one of which somebody waits for the end of.
  { cd here && bocker-exec --root "$R" --status ../ps_1/status --log ../log --detach --then sh --then -c --then 'echo "$0 $1" > "$1/after"; pwd | cat > "$1/where"' \
    --then one --then "$HOST_DIR" -- sh -c 'echo out; echo err >&2; cat; ls -l /proc/self/fd; sleep 60' 7> >(cat) </etc/passwd; } | cat > out
  is "$(cat out)" "" "nothing of it comes to the caller"
  running || fail "the caller returned too early: $(cat ps_1/status)"
  # It does not keep the caller's directory busy; but the cat above may for a moment.
  eventually 5 umount here
  local pid watcher
  pid=$(payload) watcher=$(supervisor)
  eventually 5 grep -qx sleep "/proc/$pid/comm"
  is "$(ps -o sid= -p "$watcher" | tr -d ' ')" "$watcher" "a session of its own"
  is "$(readlink "/proc/$watcher/fd/"{0,1,2} | sort -u)" /dev/null
  unlike "$(readlink "/proc/$watcher/fd/"* | tr '\n' ' ')" 'passwd' "the caller's descriptors"
  is "$(pgrep -xc bocker-exec)" 1 "one process stays"
  both() { [ "$(lines | grep -xE '[a-z]+ F (out|err)' | sort)" = $'stderr F err\nstdout F out' ]; }
  eventually 5 both
  # The container's own /dev/null: a mode changed through the descriptor would be the host's.
  is "$(stat -Lc %d "/proc/$pid/fd/0")" "$(stat -Lc %d "/proc/$pid/root/dev/null")"
  [ "$(stat -Lc %d "/proc/$pid/fd/0")" != "$(stat -c %d /dev/null)" ] || fail "the host's /dev/null"
  stop --signal KILL
  eventually 5 test -s where
  is "$(cat after where)" "one $HOST_DIR"$'\n/'
  is "$(cat ps_1/status)" 'exited 137'
  # What the shell does of it.
  rm -f after where log ps_1/status
  d --log log --dry-run --then touch --then "$HOST_DIR/after" -- sh -c 'echo hi; exit 3' > dry
  [ ! -e ps_1/status ] || fail "a dry run did something"
  script dry
  eventually 10 test -e after
  is "$(cat ps_1/status) $(lines)" 'exited 3 stdout F hi'
}

# What fails before the command runs is the caller's to say, and nothing stays; check 42's 125, 126, 127.
test_a_detached_failure_is_the_callers() {
  a_container
  local before
  before=$(census)
  echo 'no program' > "$R/bin/text" && chmod 755 "$R/bin/text"
  fails 127 '^bocker-exec: exec nosuch: No such file or directory \(PATH is /' d --then touch --then "$HOST_DIR/after" -- nosuch
  fails 126 '^bocker-exec: exec text: Exec format error$' d -- text
  fails 126 '^bocker-exec: exec /etc: Permission denied$' d -- /etc
  fails 125 "^bocker-exec: open $HOST_DIR/none: " bocker-exec --root "$HOST_DIR/none" --detach -- true
  fails 125 '^bocker-exec: user .nobody.: ' d --user nobody -- true
  fails 125 'enter /etc/passwd: Not a directory' d --workdir /etc/passwd -- true
  fails 125 'cannot be used with' d --die-with-parent -- true
  is "$(cat ps_1/status)" "" "nothing ever ran"
  eventually 5 nobody_watches
  sleep 0.1
  [ ! -e after ] || fail "--then without an end"
  is "$(census)" "$before"
  # The caller is killed meanwhile: the supervisor gives up, too.
  strace -f -qq -o trace -e trace=pivot_root -e inject=pivot_root:delay_enter=6000000 \
    bocker-exec --root "$R" --status ps_1/status --detach -- touch /ran &
  local caller
  eventually 5 grep -qs pivot_root trace
  caller=$(pgrep -xo bocker-exec)
  kill -KILL "$caller"
  wait $! 2>/dev/null || true
  eventually 5 nobody_watches
  [ ! -e "$R/ran" ] || fail "ran for nobody"
  # And where it is not killed it runs.
  is "$(status_of d -- touch /ran)" 0
  eventually 5 test -e "$R/ran"
}

# Whoever is killed on the way to execve(2) has not run the command, in whatever way it was started.
test_killed_before_the_command() {
  a_container
  local how call said
  killed() { strace -f -qq -o trace -e trace="$1" -e "inject=$1:signal=SIGKILL${2:+:when=$2}" "${@:3}"; }
  said='^bocker-exec: its process (was killed by signal 9|ended with status 137) before the command was executed$'
  for how in "" --init --detach "--detach --init" --tty; do
    for call in pivot_root: setresuid:1 setresuid:2 setpgid:; do
      [[ $call != setpgid: || $how = *--init* ]] || continue
      # shellcheck disable=SC2086 # words
      fails 125 "$said" killed "${call%:*}" "${call#*:}" bocker-exec --root "$R" --status ps_1/status --status-fd 5 $how -- touch /ran 5>told
      is "$(cat ps_1/status)" "" "'$how', killed at $call"
      like "$(cat told)" '^failed 125 its process ' "'$how', killed at $call"
      ended
    done
  done
  [ ! -e "$R/ran" ] || fail "it ran"
  # The control: a moment later it has.
  is "$(status_of killed clock_nanosleep,nanosleep "" bocker-exec --root "$R" --status ps_1/status -- sleep 5)" 137
  is "$(cat ps_1/status)" 'exited 137'
  d -- sleep 60
  fails 125 "$said" killed setresuid "" bocker-exec --join ps_1/status -- touch /ran
  is "$(status_of bocker-exec --join ps_1/status -- sh -c 'kill -9 $$')" 137
  stop
}

# A change of identity undoes what binds it to the supervisor. One that is killed meanwhile leaves no command without one.
test_the_supervisor_is_killed_at_a_change_of_user() {
  a_container
  local inside=$((2143158272 + 1000))
  # slowly SECONDS: time enough to be killed meanwhile
  slowly() {
    strace -f -qq -o trace -e trace=setresuid -e "inject=setresuid:delay_exit=${1}s:when=2" bocker-exec --root "$R" --user 1000 -- touch /tmp/ran & tracer=$!
    eventually 10 pgrep -U "$inside"
  }
  slowly 6 >/dev/null
  kill -KILL "$(pgrep -xo bocker-exec)"
  wait "$tracer" 2>/dev/null || true
  eventually 5 nobody_watches
  [ ! -e "$R/tmp/ran" ] || fail "it ran, and nobody watched it"
  # The control: nobody is killed.
  slowly 1 >/dev/null
  wait "$tracer"
  [ -e "$R/tmp/ran" ] || fail "it did not run"
}

# Who watches a joined command stays outside, with the host's /proc, and out of the OOM killer's reach.
test_who_watches_a_join_stays_outside() {
  a_container
  d --oom-score-adj 300 -- sleep 60
  local joined status=0
  (exec bocker-exec --join ps_1/status -- sh -c 'kill -STOP $$; exec sleep 50') & joined=$!
  stopped() { [ "$(awk '/^State/ { print $2 }' "/proc/$(pgrep -P "$joined")/status" 2>/dev/null)" = T ]; }
  eventually 5 stopped
  is "$(readlink "/proc/$joined/ns/"{mnt,net,uts})" "$(readlink /proc/self/ns/{mnt,net,uts})"
  # Where the host's root may do so.
  if (echo -1000 >/proc/self/oom_score_adj) 2>/dev/null; then eventually 5 grep -qx -- -1000 "/proc/$joined/oom_score_adj"; fi
  # What it looks at in /proc is the command: stopped, it cannot end before it goes on.
  kill -TERM "$joined"
  eventually 5 gone "$joined"
  wait "$joined" || status=$?
  is "$status" 143
  # The command is what its words say, never what the caller is.
  local score=(cat /proc/self/oom_score_adj)
  is "$(bocker-exec --join ps_1/status -- "${score[@]}")" 0
  is "$(sh -c 'echo 500 >/proc/self/oom_score_adj; exec "$@"' sh bocker-exec --join ps_1/status -- "${score[@]}")" 0
  is "$(bocker-exec --join ps_1/status --oom-score-adj 300 -- "${score[@]}")" 300
  bocker-exec --join ps_1/status --oom-score-adj 300 --dry-run -- "${score[@]}" >dry
  is "$(sh -e dry)" 300
  stop
}

# Check 42: every status, foreground and detached, by all the ways to learn it.
test_every_status() {
  a_container
  local n
  for n in $(seq 0 255); do
    is "$(status_of x -- sh -c "exit $n")" "$n"
  done
  for n in 0 1 2 125 126 127 128 137 255; do
    is "$(status_of x --init -- sh -c "exit $n")" "$n" "--init"
    bocker-exec --root "$R" --status ps_1/status --detach --status-fd 5 -- sh -c "exit $n" 5>said
    is "$(bocker-exec --wait ps_1/status)" "$n" "--wait"
    ended
    like "$(tr '\n' ' ' <said)" "^running [0-9]+ exited $n \$"
    is "$(bocker-exec --wait ps_1/status)" "$n" "once more"
  done
  for n in 1 2 6 9 15 37; do
    is "$(status_of x --init -- sh -c "kill -$n \$\$; sleep 5")" $((128 + n)) "by signal $n"
  done
  is "$(status_of bocker-exec --root "$R" --status-fd 5 -- nosuch 5>said)" 127
  like "$(cat said)" '^failed 127 exec nosuch: No such file'
  is "$(status_of bocker-exec --root "$R" --status-fd 5 -- sh -c 'exit 125' 5>said)" 125
  like "$(tail -1 said)" '^exited 125$' "whose 125 it is"
  is "$(status_of bocker-exec --root "$HOST_DIR/none" --status-fd 5 -- true 5>said)" 125
  like "$(cat said)" '^failed 125 open '
  fails 125 '^bocker-exec: write --status-fd 77: Bad file' x --status-fd 77 -- true
  # A command that does not read its input, or closes its output, is no failure; nor is a reader that goes away.
  is "$(yes | head -c 1000000 | status_of x -- true)" 0
  status=0; yes | head -c 10000000 | x --log log -- sh -c 'exec <&-; exit 4' || status=$?
  is "$status" 4
  { status=0; x --init --log log -- yes || status=$?; echo "$status" > status; } | head -1 > /dev/null
  is "$(cat status)" 141
}

test_stop_kill_wait() {
  a_container
  local signal before
  fails 1 '^bocker-exec: open ps_1/status: No such file' stop
  touch ps_1/status
  fails 1 "^bocker-exec: Container 'ps_1' has not run" bocker-exec --wait ps_1/status
  fails 1 "^bocker-exec: Container 'ps_1' exists but is not running" bocker-exec --kill ps_1/status
  fails 125 'no signal' bocker-exec --kill ps_1/status --signal NOPE
  # By any name, with a handler or without one (process 1!), with a reaper or without.
  for signal in TERM:143 SIGINT:130 hup:129 10:138 RTMIN+3:165 SEGV:137; do
    local name=${signal%:*} number=${signal#*:}
    d -- sleep 60
    bocker-exec --kill ps_1/status --signal "$name"
    is "$(bocker-exec --wait ps_1/status)" "$number" "$name"
    d --init -- sleep 60
    bocker-exec --kill ps_1/status --signal "$name"
    is "$(bocker-exec --wait ps_1/status)" "${number/137/139}" "$name with a reaper"
  done
  d --init --log log -- sh -c 'trap "echo got; exit 5" TERM; echo ready; while :; do sleep 0.01; done'
  eventually 5 grep -q ready log
  bocker-exec --kill ps_1/status --signal WINCH
  bocker-exec --kill ps_1/status --signal TERM
  is "$(bocker-exec --wait ps_1/status)" 5
  ended
  is "$(lines | tail -1)" 'stdout F got'
  # --stop: its own signal first, then KILL.
  d -- sh -c 'trap "" TERM; trap "exit 6" QUIT; touch /ready; while :; do sleep 0.01; done'
  eventually 5 test -e "$R/ready"
  before=$(date +%s%N)
  stop --timeout 1
  is "$(cat ps_1/status)" 'exited 137' "at once after the return"
  # Less than the ten seconds that it would be without the word.
  like "$((($(date +%s%N) - before) / 1000000))" '^[1-7][0-9][0-9][0-9]$' "milliseconds"
  rm "$R/ready"
  printf '%s\n' --stop-signal=QUIT --stop-timeout=77 -- sh -c 'trap "" TERM; trap "exit 6" QUIT; touch /ready; while :; do sleep 0.01; done' > ps_1/words
  d --words ps_1/words
  eventually 5 test -e "$R/ready"
  stop --words ps_1/words
  is "$(cat ps_1/status)" 'exited 6' "with its words"
  rm "$R/ready"
  d --words ps_1/words
  eventually 5 test -e "$R/ready"
  echo '{"config":{"StopSignal":"SIGQUIT"}}' > ps_1/config
  stop --config ps_1/config
  is "$(cat ps_1/status)" 'exited 6' "with the image's signal"
  stop
  is "$(cat ps_1/status)" 'exited 6' "stopped already"
  d -- sleep 60
  echo '{"config":{"StopSignal":"NOPE"}}' > ps_1/config
  stop --config ps_1/config --dry-run > dry
  running || fail "a dry run stopped it"
  like "$(head -2 dry)" "^kill -s TERM $(supervisor)\$" "the image's nonsense is TERM"
  timeout 30 sh -e dry || true # no new namespace in it
  ended
  is "$(cat ps_1/status)" 'exited 143' "by the shell"
  # A foreground one, too; and one without a supervisor's file does not run.
  b -- sleep 60 &
  eventually 5 running
  stop
  local status=0; wait $! || status=$?
  is "$status" 143
}

# The goal: at most 10 ms more than the payload itself takes, and than starting the program does; the best of eight, or
# of more where the machine has other things to do.
test_stop_adds_nothing() {
  a_container
  local best=1000000 least=1000000 took before held=0 n
  for n in $(seq 60); do
    d -- sleep 60
    before=$(date +%s%N)
    stop
    took=$((($(date +%s%N) - before) / 1000))
    free || held=$((held + 1))
    [ "$took" -ge "$best" ] || best=$took
    before=$(date +%s%N)
    bocker-exec --wait ps_1/status >/dev/null
    took=$((($(date +%s%N) - before) / 1000))
    [ "$took" -ge "$least" ] || least=$took
    [ "$n" -lt 8 ] || [ $((best - least)) -gt 10000 ] || break
  done
  # It waits for the lock, too; half a second, for which the machine may hold the supervisor up.
  [ "$held" -le 2 ] || fail "its lock is held after $held of $n"
  [ $((best - least)) -le 10000 ] || fail "stop took $best us, the start of the program $least"
}

# Check 41: the number in a status file is nobody's without the lock, and a foreign process is never signalled.
test_a_foreign_process_is_never_signalled() {
  a_container
  sleep 60 & local victim=$!
  echo "running $victim" > ps_1/status
  fails 1 'exists but is not running' bocker-exec --kill ps_1/status
  stop
  is "$(bocker-exec --wait ps_1/status)" unknown
  kill -0 "$victim" || fail "signalled"
  # With the lock it would be: the lock is the proof.
  flock ps_1/status bocker-exec --kill ps_1/status
  eventually 5 gone "$victim"
  wait "$victim" || true
}

# Check 41: the supervisor is killed. All dies with it, its end is told as unknown within a second, and --then is left to gc.
test_the_supervisor_is_killed() {
  a_container
  local how pid
  for how in "" --init; do
    d ${how:+$how} --log log --then touch --then "$HOST_DIR/after" -- sh -c 'sleep 60 & sleep 60'
    pid=$(payload)
    bocker-exec --wait ps_1/status > waited & local waiter=$!
    sleep 0.2
    kill -KILL "$(supervisor)"
    # Within a second, where the machine itself makes no pause.
    eventually 5 gone "$pid"
    none() { ! pgrep -x sleep >/dev/null; }
    eventually 5 none
    eventually 5 free
    wait "$waiter"
    is "$(cat waited)" unknown
    is "$(bocker-exec --wait ps_1/status)" unknown
    stop
    fails 1 'exists but is not running' bocker-exec --kill ps_1/status
    fails 125 'exists but is not running' bocker-exec --join ps_1/status -- true
    [ ! -e after ] || fail "--then after a crash"
    # And it can be started again.
    d -- sh -c 'exit 3'
    is "$(bocker-exec --wait ps_1/status)" 3
  done
}

# Check 41: memory of the container's own group. The payload dies of it, never who watches it, which has left the group.
test_a_lack_of_memory_leaves_the_supervisor() {
  a_container
  [ "$HOST_CGROUPS" != v2 ] || return 0
  mkdir /sys/fs/cgroup/memory/ps_1 /sys/fs/cgroup/freezer/ps_1
  echo 32M > /sys/fs/cgroup/memory/ps_1/memory.limit_in_bytes
  grouped() { sh -ec 'echo 0 > /sys/fs/cgroup/memory/ps_1/cgroup.procs; echo 0 > /sys/fs/cgroup/freezer/ps_1/cgroup.procs; exec "$@"' sh "$@"; }
  grouped bocker-exec --root "$R" --status "$HOST_DIR/ps_1/status" --detach --then touch --then "$HOST_DIR/after" -- \
    sh -c 'while [ ! -e /go ]; do sleep 0.01; done; exec tail /dev/zero'
  is "$(cat /sys/fs/cgroup/memory/ps_1/cgroup.procs /sys/fs/cgroup/freezer/ps_1/cgroup.procs | sort -u | grep -cx "$(supervisor)")" 0 "the supervisor is outside"
  like "$(cat /sys/fs/cgroup/memory/ps_1/cgroup.procs)" "^$(payload)\$" "its payload inside"
  # A frozen one can still be asked for.
  echo FROZEN > /sys/fs/cgroup/freezer/ps_1/freezer.state
  bocker-exec --kill ps_1/status --signal KILL
  echo THAWED > /sys/fs/cgroup/freezer/ps_1/freezer.state
  is "$(bocker-exec --wait ps_1/status)" 137
  eventually 5 test -e after
  rm after
  grouped bocker-exec --root "$R" --status "$HOST_DIR/ps_1/status" --detach --then touch --then "$HOST_DIR/after" -- \
    sh -c 'while [ ! -e /go ]; do sleep 0.01; done; exec tail /dev/zero'
  touch "$R/go"
  is "$(timeout 20 bocker-exec --wait ps_1/status)" 137 "the OOM killer's"
  eventually 5 test -e after
  ended
  # Under another name the group is the caller's, and stays ours.
  mkdir ps_2
  grouped bocker-exec --root "$R" --status "$HOST_DIR/ps_2/status" --detach -- sleep 60
  like "$(cat /sys/fs/cgroup/memory/ps_1/cgroup.procs)" "^$(awk '/^PPid/ { print $2 }' "/proc/$(cut -d' ' -f2 ps_2/status)/status")\$"
  bocker-exec --stop ps_2/status
  # Its supervisor is in there until the last.
  eventually 5 nobody_watches
  rmdir /sys/fs/cgroup/memory/ps_1 /sys/fs/cgroup/freezer/ps_1
}

test_init() {
  a_container
  is "$(x --init -- sh -c 'echo $$; tr "\0" " " < /proc/1/cmdline; cat /proc/1/comm' | tr '\n' ' ' | tr -s ' ')" '2 init init '
  is "$(x -- sh -c 'echo $$')" 1 "without it the command is process 1"
  # It reaps what others leave behind; without it they stay.
  local orphans='i=0; while [ $i -lt 100 ]; do (true & true); i=$((i+1)); done; zombies() { grep -l "^State:.Z" /proc/[0-9]*/status 2>/dev/null | wc -l; }'
  is "$(x --init -- sh -c "$orphans"'; i=0; while [ "$(zombies)" != 0 ] && [ $((i += 1)) -lt 50 ]; do sleep 0.1; done; zombies')" 0
  # Process 1 is one that reaps nobody, and ends when they have been counted.
  mkfifo "$R/counted"
  [ "$(x -- sh -c "sh -c '$orphans; sleep 0.2; zombies; : >/counted' & exec cat /counted")" -gt 0 ] || fail "nothing to reap"
  # What it is and may is what the command is and may.
  local user file userns
  for user in 0 1000; do
    x --init --user $user --no-new-privileges -- sh -c 'for p in 1 2; do grep -E "^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)" /proc/$p/status | md5sum; done; grep ^Seccomp: /proc/1/status' > walls
    is "$(head -2 walls | sort -u | wc -l) $(tail -1 walls)" $'1 Seccomp:\t2' "the walls"
  done
  # Nothing of ours is to be had through it, by the container's root neither.
  for user in 0 1000 "0 --userns=host"; do
    for file in environ maps mem exe; do
      like "$(x --init --user $user -- sh -c "ls /proc/1/$file/ 2>&1; cat /proc/1/$file" 2>&1)" 'Permission denied' "$file of process 1 for $user"
    done
    is "$(x --init --user $user -- sh -c "for f in /proc/1/exe /proc/1/cwd /proc/1/root /proc/1/fd/*; do readlink \$f; done" | wc -l)" 0 "links of process 1 for $user"
    # It closes what it has once the command is executed: until then the host's root may see the numbers.
    is "$(x --init --user $user -- sh -c 'i=0; while [ $((i += 1)) -lt 100 ] && ls /proc/1/fd 2>/dev/null | grep -q .; do sleep 0.1; done; ls /proc/1/fd 2>/dev/null' | wc -l)" 0 "descriptors of process 1 for $user"
    # The control: its own it has.
    is "$(x --init --user $user -- sh -c "for f in exe cwd root fd/0; do readlink /proc/\$\$/\$f; done | wc -l")" 4
  done
  # Its words, and the same in a shell.
  for userns in private host; do
    x --init --userns="$userns" --status ps_1/status --dry-run -- sh -c 'echo $#; cat; exit 6' > dry
    status=0; echo in | script dry > out || status=$?
    is "$status $(cat out) $(cat ps_1/status)" $'6 0\nin exited 6'
  done
  # Stop and go on; told to end while it is stopped it ends. Also where the reaper hears of both at once.
  local shell held=/sys/fs/cgroup/freezer/held stopper
  state() { [ "$(awk '/^State/ { print $2 }' "/proc/$shell/status")" = "$1" ]; }
  holds_nothing() { [ -z "$(ls "/proc/$(payload)/fd")" ]; }
  # TERM (15) and CHLD (17) wait for it.
  both() { grep -q '^ShdPnd:.*14000$' "/proc/$(payload)/status"; }
  for _ in once "held up"; do
    d --init -- sh -c 'while :; do sleep 0.01; done'
    shell=$(pgrep -P "$(payload)")
    # An output that the command closes is closed: the reaper has no copy of it.
    eventually 5 holds_nothing
    [ ! -e "$held" ] || { payload >"$held/cgroup.procs" && echo FROZEN >"$held/freezer.state"; }
    kill -STOP "$shell"
    eventually 5 state T
    stop & stopper=$!
    [ ! -e "$held" ] || { eventually 5 both && echo THAWED >"$held/freezer.state"; }
    wait "$stopper"
    is "$(cat ps_1/status)" 'exited 143'
    [ -e "$held" ] || mkdir "$held"
  done
  rmdir "$held"
  # A key goes to the whole group of the command: what a shell waits for gets it, too.
  python3 - "$R" <<'P'
import os, pty, subprocess, sys, time, signal
for init in (["--init"], []):
    master, slave = pty.openpty()
    p = subprocess.Popen(["setsid", "--ctty", "--wait", "bocker-exec", "--root", sys.argv[1], *init, "--", "sh", "-c",
        "trap 'echo got' INT; sh -c 'trap \"echo inner; exit\" INT; echo ready; while :; do sleep 0.05; done'; exit 9"],
        stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    text = b""
    while b"ready" not in text: text += os.read(master, 1000)
    os.write(master, b"\x03")
    status = p.wait(10)
    try:
        while True: text += os.read(master, 1000)
    except OSError: pass
    assert status == 9 and b"inner" in text and b"got" in text, (init, status, text)
P
}

# Check 32: 200 MB in a single line, no UTF-8; every byte, within its limit, and never slower for it.
test_log_format_and_size() {
  a_container
  local now written began
  began=$(date +%s)
  # A part is one that was read before the rest of its line came.
  x --log log --init -- sh -c 'echo one; echo two >&2; printf "p\377\000"; until [ -e /go ]; do sleep 0.01; done; printf "art\n\nend"' >/dev/null 2>&1 & local writer=$!
  eventually 5 grep -qsa ' P p' log
  touch "$R/go"
  wait "$writer"
  is "$(lines | sort | od -c)" "$(printf '%s\n' 'stderr F two' 'stdout F ' 'stdout F art' 'stdout F one' 'stdout P end' "$(printf 'stdout P p\377Z')" | sort | tr Z '\000' | od -c)"
  is "$(grep -cE '^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\.[0-9]{9}Z (stdout|stderr) [FP] ' -a log)" 6
  now=$(date +%s) written=$(date -d "$(cut -c1-30 log | head -1)" +%s)
  [ "$written" -ge $((began - 1)) ] && [ "$written" -le $((now + 1)) ] || fail "its time: $(head -1 log)"
  is "$(stat -c %a log)" 600
  # whole WORDS...: x; once more where the disk kept it waiting for a second, for then the log is incomplete, and that is said.
  whole() { for _ in 1 2 3; do rm -f log*; x "$@" 2>err | wc -c >count; grep -q 'too slow' err || break; done; is "$(cat err)" ""; }
  whole --log log -- sh -c "dd if=/dev/zero bs=1M count=200 2>/dev/null"
  is "$(cat count)" $((200 << 20)) "to the caller"
  is "$(find . -maxdepth 1 -name 'log*' | sort | tr '\n' ' ')" './log ./log.1 ./log.2 '
  [ "$(stat -c %s log log.1 log.2 | sort -n | tail -1)" -le 10485760 ] || fail "longer than its limit"
  [ "$(cat log* | wc -c)" -gt 20000000 ] || fail "what fits is there"
  is "$(cat log* | tr -d '\0' | cut -d' ' -f2-3 | sort -u)" 'stdout P'
  # Its own limits, and one that was longer before.
  whole --log log --log-size 2048 --log-files 2 -- sh -c 'i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done'
  is "$(find . -maxdepth 1 -name 'log*' | sort | tr '\n' ' ')" './log ./log.1 '
  [ "$(stat -c %s log log.1 | sort -n | tail -1)" -le 2048 ] || fail "longer than its limit"
  is "$(lines log.1 log 2>/dev/null | wc -l)" "$(cat log.1 | wc -l)"
  is "$(cat log.1 log | cut -d' ' -f4- | tail -1)" 'line 199'
  ln -sf /etc/passwd log.2
  x --log log --log-size 1024 --log-files 3 -- seq 300 >/dev/null
  is "$(cat log.2 log.1 log | cut -d' ' -f4- | tail -1)" 300
  [ ! -L log.2 ] || fail "a link as a log"
  # What is at its end without one, whatever comes next.
  printf 'cut off' > torn
  x --log torn -- echo hi >/dev/null
  is "$(tail -1 torn | cut -d' ' -f2-)" 'stdout F hi'
}

# A disk that does not answer keeps the payload for a second at most.
test_a_slow_log() {
  a_container
  truncate -s 64M image && mkfs.ext4 -q image && mkdir slow && mount -o loop image slow
  x --log slow/log -- echo before > /dev/null
  # Whatever goes wrong here: nothing that waits for this disk could be killed.
  trap 'fsfreeze --unfreeze slow || true' EXIT
  local status=0
  b --log slow/log -- sh -c 'while [ ! -e /go ]; do sleep 0.01; done; dd if=/dev/zero bs=1M count=64 2>/dev/null; exit 4' > out 2> err & local supervisor=$!
  eventually 5 running
  # The file is open by now: even that would wait.
  fsfreeze --freeze slow
  touch "$R/go"
  eventually 20 says 'exited 4'
  # The last of it may still be on its way to the caller.
  complete() { [ "$(stat -c %s out)" = $((64 << 20)) ]; }
  eventually 5 complete
  is "$(cat err)" 'bocker-exec: write slow/log: the disk is too slow (the log is incomplete; the command goes on)'
  fsfreeze --unfreeze slow
  trap - EXIT
  wait "$supervisor" || status=$?
  is "$status" 4
  # And one that answers again is written to again.
  x --log slow/log -- echo after > /dev/null
  is "$(tail -1 slow/log | cut -d' ' -f2-)" 'stdout F after'
  umount slow
}

test_words() {
  a_container
  printf '%s\n' --env=A=1 '--env=B=two words' '--env=C=back\\slash\nline' --workdir=/tmp --hostname=told -- sh -c 'echo "$A|$B|$C"; pwd; hostname' > ps_1/words
  is "$(x --words ps_1/words)" $'1|two words|back\\slash\nline\n/tmp\ntold'
  is "$(x --words ps_1/words --env A=2 --hostname typed -- sh -c 'echo $A; hostname' | tr '\n' ' ')" '2 typed '
  b --words ps_1/words --hostname typed -- sleep 60 & local supervisor=$!
  eventually 5 running
  is "$(bocker-exec --join ps_1/status --words ps_1/words -- sh -c 'echo $A; pwd; hostname' | tr '\n' ' ')" '1 /tmp typed '
  # Detached, too: as `exec -d`.
  bocker-exec --join ps_1/status --detach -- sh -c 'echo $$ > /joined; exec sleep 50'
  eventually 5 test -s "$R/joined"
  eventually 5 pgrep -fx 'sleep 50' >/dev/null
  is "$(readlink "/proc/$(pgrep -fx 'sleep 50')/fd/1")" /dev/null
  fails 127 'exec nosuch' bocker-exec --join ps_1/status --detach -- nosuch
  kill -TERM "$supervisor"; wait "$supervisor" || true
  none() { ! pgrep -x sleep >/dev/null; }
  eventually 5 none
  local bad
  for bad in 'A=1' '--env' '--env=a\x' '--nonsense=1'; do
    printf '%s\n' "$bad" x > ps_1/words
    status=0; x --words ps_1/words -- true 2> err || status=$?
    is "$status $(wc -l < err)" '125 1' "$bad"
  done
  fails 125 'read ps_1/none: No such file' x --words ps_1/none -- true
}

# One process of at most 1 MiB in a release build (docs/ARCHITECTURE.md), three times that in this one, which is four times the size; and none when it is over.
test_the_supervisor_is_small() {
  a_container
  local before
  before=$(census)
  d --log log -- sh -c 'echo hi; sleep 60'
  local watcher
  watcher=$(supervisor)
  # Of a debug build 4 MiB before that, most of it the program's own text.
  small() { [ "$(awk '/^VmRSS/ { print $2 }' "/proc/$watcher/status")" -le 3072 ]; }
  eventually 5 small
  # It still does what it is for.
  stop
  eventually 5 nobody_watches
  rm ps_1/status
  is "$(census)" "$before"
}

# --interactive keeps the input open, for who attaches; without it there is none.
test_the_input_of_a_detached_one() {
  a_container
  d -- cat
  is "$(bocker-exec --wait ps_1/status)" 0
  d --interactive -- cat
  sleep 0.2
  running || fail "its input is closed"
  is "$(readlink "/proc/$(payload)/fd/0" | cut -d: -f1)" pipe
  stop
  is "$(cat ps_1/status)" 'exited 143'
}

# The log's thread counts as a process: where there is room for two only, the log is written without it.
test_a_log_where_no_thread_can_be_had() {
  a_container
  [ "$HOST_CGROUPS" != v2 ] || return 0
  mkdir /sys/fs/cgroup/pids/few
  echo 2 > /sys/fs/cgroup/pids/few/pids.max
  local status=0
  sh -ec 'echo 0 > /sys/fs/cgroup/pids/few/cgroup.procs; exec "$@"' sh bocker-exec --root "$R" --log log -- sh -c 'echo hi; exit 3' > out || status=$?
  is "$status $(cat out) $(lines)" '3 hi stdout F hi'
  is "$(cat /sys/fs/cgroup/pids/few/pids.events 2>/dev/null | grep -c 'max 0' || true)" 0 "it met the limit"
  rmdir /sys/fs/cgroup/pids/few
}
