# shellcheck shell=bash disable=SC2016,SC2154 # repo: tests/lib.sh; what is in single quotes is for the container's shell
# bocker-exec --tty and --attach: keys, sizes, modes, and that the payload never has a terminal of ours (check 12).

a_container() {
  mkdir -p ps_1
  a_tree "$HOST_DIR/ps_1/rootfs"
  R=$HOST_DIR/ps_1/rootfs
  ln -s busybox "$R/bin/tty" && ln -s busybox "$R/bin/stty"
}

# on KEYS WORDS...: bocker-exec WORDS on a terminal, see tests/terminal.py; what it shows, without a prompt's question.
# `sh -c "echo be\gun; exec COMMAND",?begun`: the typed line has no such word, so it runs, in the foreground, and keys are signals.
on() { "$repo/tests/terminal.py" "$1" bocker-exec "${@:2}" >out || fail "$(cat out)"; sed -i 's/\x1b\[6n//g' out; }
running() { [ "$(cut -d' ' -f1 ps_1/status 2>/dev/null)" = running ]; }

test_a_shell_on_a_terminal() {
  a_container
  on '33x77,raw,?# ,=tty; stty size,?/dev/pts/0,?33 77,24x80,=stty size,?24 80,=echo $TERM; ls /dev/pts; sh -c "echo be\gun; exec sleep 100",?begun,^C,=echo after,?after,=exit 7' \
    --root "$R" --tty --log log -- sh
  like "$(cat out)" '^status 7$'
  like "$(cat out)" '^xterm$'
  unlike "$(cat out)" 'modes changed'
  like "$(cat log)" 'echo after' "the log has what is seen"
  # Its own user's, as login(1) has it; the console is the same terminal.
  on 'raw,?$ ,=stat -c "%n %a %u %g %t:%T" /dev/console $(tty),?/dev/pts/0 ,=exit' --root "$R" --tty --user 1000 -- sh
  like "$(cat out)" '^/dev/console 620 1000 5 88:0$' && like "$(cat out)" '^/dev/pts/0 620 1000 5 88:0$'
  # Under a reaper keys are the command's, too, and it may have jobs.
  # What is in the foreground again is told so by CONT, and says it.
  printf '%s\n' 'trap "echo foreground" CONT' 'echo waits' 'while :; do sleep 0.05; done' > "$R/job"
  on '33x77,raw,?# ,=stty size; ps; sh -c "echo be\gun; exec sleep 100",?33 77,?init,?begun,^C,=sh /job &,?waits,=fg,?foreground,^Z,?Stopped,=kill -9 %1,=exit 7,0.1,=exit 7' --root "$R" --tty --init -- sh
  like "$(cat out)" '^status 7$' && unlike "$(cat out)" 'modes changed|job control'
  # The end of the session is the end of what runs in it, and its status is the command's.
  on 'raw,?# ,=sleep 77 & exit 3' --root "$R" --tty -- sh
  like "$(cat out)" '^status 3$'
  is "$(pgrep -x sleep)" ""
}

# Each step in its turn fails: it never runs without the terminal that was asked for, as the session's own (check 17).
test_no_terminal_no_payload() {
  a_container
  local call n failed=0
  for call in fchown:1 open_tree:4 dup2:1 dup2:3 ioctl:1 ioctl:2 ioctl:3 ioctl:4 ioctl:5; do
    n=${call#*:} call=${call%:*} status=0
    rm -f "$R/ran"
    strace -f -qq -o trace -e "trace=$call" -e "inject=$call:error=EPERM:when=$n" \
      bocker-exec --root "$R" --tty -- sh -c 'exec 3</dev/tty && touch /ran' </dev/null >/dev/null 2>err || status=$?
    grep -q INJECTED trace || [ "$call" = ioctl ] || fail "no $call $n to fail"
    if [ -e "$R/ran" ]; then is "$status" 0 "$call $n"; continue; fi
    is "$status" 125 "$call $n failed: $(cat err)"
    is "$(wc -l <err)" 1 "lines after $call $n"
    failed=$((failed + 1))
  done
  [ "$failed" -ge 6 ] || fail "only $failed failures"
}

test_modes_are_put_back() {
  a_container
  local keys
  for keys in ^C term '^\'; do
    on "raw,?waits,$keys" --root "$R" --tty -- sh -c 'trap "exit 4" INT QUIT; echo waits; sleep 0.3; sleep 100'
    like "$(cat out)" '^status (4|143)$' "after $keys" && unlike "$(cat out)" 'modes changed' "after $keys"
  done
  # Control: who is killed cannot.
  on 'raw,kill' --root "$R" --tty -- sh
  like "$(cat out)" 'modes changed'
  # But of what is killed above it, it takes care.
  "$repo/tests/terminal.py" 'raw,kill1,cooked' bash -c 'bocker-exec --die-with-parent --root "$1" --tty -- sh; true' _ "$R" >out || fail "$(cat out)"
  like "$(cat out)" 'status 137' && unlike "$(cat out)" 'modes changed'
  # What never ran never changed them.
  on 0 --root "$R" --tty -- nosuch
  like "$(cat out)" '^bocker-exec: exec nosuch' && like "$(cat out)" '^status 127$'
}

test_an_editor() {
  a_container
  on '24x80,raw,?# ,=vi /tmp/file,?~,=ione,=two,^[,?- /tmp/file [Modified],=:wq,?# ,=exit' --root "$R" --tty -- sh
  like "$(cat out)" '^status 0$'
  is "$(cat "$R/tmp/file")" $'one\ntwo'
}

# with_perl: what can call ioctl(2) is in the tree, with its libraries
with_perl() {
  mkdir -p "$R"/usr/bin "$R"/lib "$R"/lib64
  cp -L /usr/bin/perl "$R/usr/bin/perl"
  ldd /usr/bin/perl | grep -oE '/[^ ]+' | while read -r name; do cp -L --parents "$name" "$R/"; done
  cat > "$R/type" <<'P'
#!/usr/bin/perl
# Types X and Enter on every terminal that can be had: TIOCSTI, and pastes on a console: TIOCLINUX.
for my $name (0, 1, 2, "/dev/tty", "/dev/console") {
  my $fh;
  if ($name =~ /^\d$/) { open($fh, "<&=", $name) || open($fh, ">&=", $name) || next } else { open($fh, "+<", $name) || next }
  my $done = 0;
  for my $key ("X", "\n") { my $c = $key; $done += 1 if ioctl($fh, 0x5412, $c); }
  my $paste = "\x03";
  ioctl($fh, 0x541C, $paste);
  print "$name: $done keys\n";
}
P
  chmod 755 "$R/type"
}

# Check 12. The kernel lets a process type on a terminal that it has a descriptor of if that is its controlling one, or with
# CAP_SYS_ADMIN; so without one of ours there is nothing to be allowed.
test_no_terminal_of_ours_reaches_the_payload() {
  a_container
  with_perl
  # Control: without us it can be done, and is seen.
  "$repo/tests/terminal.py" 0 perl "$R/type" >out || fail "$(cat out)"
  like "$(cat out)" '^0: 2 keys$' && like "$(cat out)" '^left [1-9]'
  (exec bocker-exec --root "$R" --status ps_1/status -- sleep 60) </dev/null & local supervisor=$!
  eventually 5 running
  local how
  # The host's own root is who could: it has CAP_SYS_ADMIN.
  for how in "--root $R" "--root $R --userns=host" "--root $R --userns=host --log log" "--join ps_1/status" "--root $R --userns=host --tty" "--root $R --tty" "--root $R --tty --log log" "--join ps_1/status --tty"; do
    # shellcheck disable=SC2086 # words
    on 0 $how -- sh -c 'ls -l /proc/self/fd; echo "has" $(ls /proc/self/fd); stat -L -c "on %d" /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2; exec /type'
    unlike "$(cat out)" '^left' "$how: injected"
    unlike "$(cat out)" 'modes changed' "$how"
    like "$(cat out)" '^status 0$' "$how"
    case $how in
      # On its own it may.
      *--tty*) like "$(cat out)" '^0: 2 keys$' "$how"; like "$(cat out)" ' 0 -> /dev/pts/0' "$how" ;;
      *) like "$(cat out)" '^0: 0 keys$' "$how"; unlike "$(cat out)" '[12] -> /dev/' "$how" ;;
    esac
    like "$(cat out)" '^has 0 1 2 3$' "$how: its descriptors, and ls's own"
    # The devpts that a terminal of ours is of has this number.
    unlike "$(cat out)" "^on $(stat -c %d /dev/pts)\$" "$how"
  done
  kill "$supervisor"; wait "$supervisor" || true
  # Not even what typed lines go through; and what is not a terminal is passed on as it is.
  on '=one,?one,=two,?two,^D' --root "$R" -- cat
  is "$(grep -c one out)$(grep -c two out)" 22 "its echo, and cat's"
  x() { bocker-exec --root "$R" "$@"; }
  echo hi > file
  is "$(x -- stat -Lc %d:%i /proc/self/fd/0 < file)" "$(stat -c %d:%i file)"
}

# A shell's job in the background has no input, whether it comes to the foreground meanwhile or a question to the terminal fails: in no
# case is it the terminal.
test_no_terminal_of_ours_whatever_is_answered() {
  a_container
  cat > background <<E
set -m
for n in 1 2 3 4 1+; do
  strace -qq -P "\$(tty)" -o calls.\$n -e trace=ioctl -e inject=ioctl:error=EIO:when=\$n bocker-exec --root $R -- sh -c 'if test -t 0; then echo terminal; else echo none; fi' 2>err.\$n >out.\$n &
  wait \$! || true
done
E
  timeout 60 script -qec 'bash background' /dev/null >shown </dev/null || fail "$(cat shown)"
  is "$(cat out.* | sort -u)" none
  is "$(grep -l INJECTED calls.* | xargs)" 'calls.1 calls.1+ calls.2 calls.3' "the answers that failed: all that are asked for"
  # Where nothing is answered it is refused in the end.
  is "$(cat err.*)" "bocker-exec: pass on stdin: it is a terminal that is not the container's"
  is "$(wc -c <out.1+)" 0
}

test_a_terminal_in_a_running_container() {
  a_container
  (exec bocker-exec --root "$R" --status ps_1/status -- sleep 60) & local supervisor=$!
  eventually 5 running
  on '33x77,raw,?# ,=tty; stty size,?/dev/pts/0,?33 77,=echo $TERM,=sh -c "echo be\gun; exec sleep 50",?begun,^C,=sleep 55 &,=exit 3' --join ps_1/status --tty -- sh
  like "$(cat out)" '^status 3$' && like "$(cat out)" '^xterm$' && unlike "$(cat out)" 'modes changed'
  # What it left in the background holds its terminal, and not us. The next one gets another.
  (exec bocker-exec --join ps_1/status --tty -- sh -c 'tty; trap "" HUP; sleep 56 & exit 4') </dev/null >out & status=0; wait $! || status=$?
  is "$status" 4 && is "$(tr -d '\r' <out)" /dev/pts/1
  is "$(bocker-exec --join ps_1/status --tty -- tty </dev/null | tr -d '\r')" /dev/pts/2
  # A container whose /dev/pts is something else gets no terminal, and nothing of the host's is touched.
  nsenter -t "$(cut -d' ' -f2 ps_1/status)" -m busybox mount -t tmpfs tmpfs "$R/dev/pts" 2>/dev/null ||
    nsenter -t "$(cut -d' ' -f2 ps_1/status)" -m -r /bin/busybox mount -t tmpfs tmpfs /dev/pts
  fails 125 '^bocker-exec: open /dev/pts: Not a typewriter$' bocker-exec --join ps_1/status --tty -- true
  kill "$supervisor"; wait "$supervisor" || true
}

test_input_that_is_no_terminal() {
  a_container
  x() { timeout 10 bocker-exec --root "$R" "$@"; }
  # Its end is the end of the input, for each that reads.
  is "$(printf 'one\ntwo' | x --tty -- sh -c 'cat; echo; cat; stty -echo; echo ended' | tr -d '\r' | tail -1)" ended
  is "$(printf 'echo $((6 * 7))\n' | x --tty -- sh | grep -c '^42')" 1 "a shell, in another mode"
  head -c 300000 /dev/zero | tr '\0' 'x' | fold -w 99 > lines
  is "$(x --tty -- sh -c 'stty -echo; echo ready; sed s/x/y/ | /bin/busybox md5sum' < lines | tail -1 | cut -c1-32)" "$(sed s/x/y/ lines | md5sum | cut -c1-32)" "much"
  # /dev/null is no input rather than its end.
  status=0; timeout 1 bocker-exec --root "$R" --tty -- cat </dev/null || status=$?
  is "$status" 124
  is "$(x --tty --interactive -- sh -c 'cat; echo ended' </dev/null | tr -d '\r')" ended "unless it was meant"
  # Nobody who reads: it ends.
  is "$(x --tty -- yes </dev/null 2>/dev/null | head -1 | tr -d '\r')" y
  # Somebody who does not read: it waits, and we do nothing meanwhile.
  (exec bocker-exec --root "$R" --tty -- yes </dev/null) > >(exec sleep 60) & local supervisor=$!
  # Once it is full: hundredths of a second of nothing.
  local before
  idle() { before=$(awk '{ print $14 + $15 }' "/proc/$supervisor/stat"); sleep 0.5; [ $(($(awk '{ print $14 + $15 }' "/proc/$supervisor/stat") - before)) -le 1 ]; }
  sleep 0.4
  eventually 10 idle
  kill "$supervisor"; status=0; wait "$supervisor" || status=$?
  is "$status" 143
}

test_job_control_of_our_shell() {
  a_container
  # Stopped from outside: the shell finds its modes, and afterwards they are the payload's again.
  on 'raw,?# ,tstp,stopped,cooked,fg,raw,=echo again,?again,?again,=exit 5' --root "$R" --tty -- sh
  like "$(cat out)" '^status 5$' && unlike "$(cat out)" 'modes changed'
  # In the background it takes no key and changes no mode; in the foreground it does.
  cat > script <<E
bocker-exec --root $R --tty -- sh -c 'echo begun; read -r line; echo "it has \$line"' & sleep 0.5
read -r line; echo "the shell has \$line"
fg; echo "status \$?"; stty -a | grep -o -- '-*icanon'
E
  (sleep 0.8; echo typed; sleep 0.8; printf 'more\r'; sleep 0.4) | timeout 20 script -qec 'bash -m script' /dev/null >out || fail "$(cat out)"
  tr -d '\r' <out >lines
  like "$(cat lines)" '^begun$' && like "$(cat lines)" '^the shell has typed$' && like "$(cat lines)" '^it has more$'
  like "$(cat lines)" '^status 0$' && like "$(cat lines)" '^icanon$'
}

test_a_terminal_in_shell() {
  a_container
  # Until the host's mount(8) is 2.39.
  mkdir path && cp "$repo/tests/mount-idmap" path/mount
  local how user
  # The terminal has its size a moment after its job has begun.
  local sized='until [ "$(stty size)" = "33 77" ]; do sleep 0.05; done; exec sh -e dry.sh'
  for how in '0 private' '1000 private' '0 host' '1000 host'; do
    user=${how% *}
    bocker-exec --root "$R" "--userns=${how#* }" --tty --user "$user" --workdir /made --hostname h --dry-run -- \
      sh -c 'tty; stty size; ls -l /dev/console; id -u; read -r x; echo "got $x"; exit 6' > dry.sh
    PATH=$PWD/path:$PATH "$repo/tests/terminal.py" '33x77,?33 77,=word' sh -c "$sized" >out || fail "$(cat out)"
    like "$(cat out)" "^crw--w---- +1 $( [ "$user" = 0 ] && echo root || echo user) "
    like "$(cat out)" '^/dev/pts/0$' && like "$(cat out)" '^33 77$' && like "$(cat out)" '^got word$' && like "$(cat out)" '^status 6$'
    like "$(cat out)" "^$user\$"
  done
  (exec bocker-exec --root "$R" --status ps_1/status -- sleep 60) & local supervisor=$!
  eventually 5 running
  bocker-exec --join ps_1/status --tty --dry-run -- sh -c 'stty size; read -r x; echo "got $x"; exit 6' > dry.sh
  "$repo/tests/terminal.py" '33x77,?33 77,=word' sh -c "$sized" >out || fail "$(cat out)"
  like "$(cat out)" '^33 77$' && like "$(cat out)" '^got word$' && like "$(cat out)" '^status 6$'
  kill "$supervisor"; wait "$supervisor" || true
}

# attached KEYS WORDS...: a client on a terminal; what it shows is in out, or in $shown
attached() { local to=${shown:-out}; "$repo/tests/terminal.py" "$1" bocker-exec --attach ps_1/status "${@:2}" >"$to" 2>&1 || fail "$(cat "$to")"; sed -i 's/\x1b\[6n//g' "$to"; }
# clients N: so many are connected (the supervisor lets them in by turns), and take signals
clients() {
  local pid count=0
  for pid in $(pgrep -x bocker-exec); do
    ! grep -qsa -- --attach "/proc/$pid/cmdline" || ! grep -qsE '^SigBlk:.*[1-9a-f]' "/proc/$pid/status" || count=$((count + 1))
  done
  [ "$count" = "$1" ]
}
# free: its supervisor has let go, and done all that it had to do; who begins waits for no more than two seconds
free() { flock -n ps_1/status true; }

test_attach_to_a_terminal() {
  a_container
  bocker-exec --root "$R" --detach --tty --interactive --status ps_1/status --log log -- sh </dev/null >out 2>&1
  is "$(cat out)" ""
  is "$(stat -c '%a %F' ps_1/attach)" '600 socket'
  unlike "$(cat /proc/net/unix)" ' @' "an abstract socket"
  # Sizes, Ctrl-C as a byte; the keys end the client only.
  attached '33x77,raw,=tty; stty size,?/dev/pts/0,?33 77,24x80,=stty size,?24 80,=sh -c "echo be\gun; exec sleep 100",?begun,^C,=A=kept,?kept,^P,^Q'
  like "$(cat out)" '^detached from ps_1$' && like "$(cat out)" '^status 0$' && unlike "$(cat out)" 'modes changed'
  running || fail "it did not live on"
  # It is as it was left. Other keys; ctrl-p alone is the container's, when the next key says that it was no order.
  attached 'raw,=echo $A,?kept,=sh -c "echo be\gun; exec cat -A /dev/tty",?begun,^P,=x,?^Px$,^C,^X' --detach-keys ctrl-x
  like "$(cat out)" '^detached from ps_1$' && unlike "$(cat out)" 'modes changed'
  # Two at once see the same; --no-stdin types nothing, and leaves the terminal as it is.
  (shown=one attached 'raw,?both,^P,^Q') & local one=$!
  ("$repo/tests/terminal.py" '=ignored,?both,^C' bocker-exec --attach ps_1/status --no-stdin >two 2>&1) & local two=$!
  eventually 10 clients 2
  attached 'raw,=echo bo''th,?both,?both,^P,^Q'
  wait "$one" && wait "$two"
  unlike "$(cat one)" 'ignored: not found' && like "$(cat two)" '^status 130$' && unlike "$(cat two)" 'modes changed'
  # A client that is killed, or told to end, takes nothing with it.
  attached 'raw,term'
  like "$(cat out)" '^status 143$' && unlike "$(cat out)" 'modes changed'
  attached 'raw,kill'
  running || fail "it did not live on"
  # The end, with the payload's status, for all.
  (shown=one attached 'raw,30') & one=$!
  eventually 10 clients 1
  attached 'raw,=exit 7'
  like "$(cat out)" '^status 7$' && unlike "$(cat out)" 'modes changed'
  wait "$one" && like "$(cat one)" '^status 7$'
  is "$(cat ps_1/status)" 'exited 7'
  eventually 5 free
  [ ! -e ps_1/attach ] || fail "the socket is left"
  like "$(tr -d '\r' <log)" 'kept'
  fails 125 "^bocker-exec: Container 'ps_1' exists but is not running$" bocker-exec --attach ps_1/status
  # In the foreground there is nobody to attach to; what an old one left is no obstacle.
  python3 -c 'import socket; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).bind("ps_1/attach")'
  (exec bocker-exec --root "$R" --status ps_1/status -- sleep 60) & local supervisor=$!
  eventually 5 running
  fails 125 '^bocker-exec: attach ps_1: it is in the foreground of another process$' bocker-exec --attach ps_1/status
  kill "$supervisor"; wait "$supervisor" || true
  bocker-exec --root "$R" --detach --tty --status ps_1/status -- sh -c 'read -r x; exit 8' </dev/null
  attached 'raw,=x'
  like "$(cat out)" '^status 8$'
  # Whoever is attached when the supervisor is killed is told, and has its terminal back.
  eventually 5 free
  bocker-exec --root "$R" --detach --tty --status ps_1/status -- sh -c 'read -r x; : >/typed; exec sleep 60' </dev/null
  (eventually 10 test -e "$R/typed"; kill -KILL "$(awk '/^PPid/ { print $2 }' "/proc/$(cut -d' ' -f2 ps_1/status)/status")") &
  attached 'raw,=x'
  like "$(cat out)" '^bocker-exec: attach ps_1: its supervisor was killed, and the container with it$'
  like "$(cat out)" '^status 125$' && unlike "$(cat out)" 'modes changed'
}

test_attach_without_a_terminal() {
  a_container
  bocker-exec --root "$R" --detach --interactive --status ps_1/status --log log -- \
    sh -c 'while read -r line; do echo "out $line"; echo "err $line" >&2; [ "$line" != end ] || exit 9; done' </dev/null
  # stdout and stderr apart; the end of the client's input is the client's only.
  (exec bocker-exec --attach ps_1/status --no-stdin >one 2>one.err) & local one=$!
  eventually 5 clients 1
  echo first | bocker-exec --attach ps_1/status --no-sig-proxy >out 2>err & local two=$!
  eventually 5 grep -qsx 'out first' out
  eventually 5 grep -qsx 'err first' err
  sleep 0.5
  kill "$two" || fail "it ended with its input"
  wait "$two" || true
  is "$(cat out)" 'out first' && is "$(cat err)" 'err first'
  running || fail "it has ended"
  status=0; (echo second; echo end) | bocker-exec --attach ps_1/status >out 2>err || status=$?
  is "$status" 9
  is "$(cat out)" $'out second\nout end' && is "$(cat err)" $'err second\nerr end'
  status=0; wait "$one" || status=$?
  is "$status" 9 && is "$(cat one)" $'out first\nout second\nout end' && is "$(cat one.err)" $'err first\nerr second\nerr end'
  # Signals go through, but where it was said that they do not, and HUP.
  eventually 5 free
  bocker-exec --root "$R" --detach --status ps_1/status -- sh -c 'trap "echo got; exit 5" TERM; : >/ready; while :; do sleep 0.1; done' </dev/null
  (exec bocker-exec --attach ps_1/status </dev/null >out) & one=$!
  (exec bocker-exec --attach ps_1/status --no-sig-proxy </dev/null >two) & two=$!
  (exec bocker-exec --attach ps_1/status </dev/null >two) & local three=$!
  eventually 5 test -e "$R/ready"
  eventually 5 clients 3
  kill -TERM "$two"; status=0; wait "$two" || status=$?
  is "$status" 143
  kill -HUP "$three"; status=0; wait "$three" || status=$?
  is "$status" 129
  running || fail "it has ended"
  kill -TERM "$one"; status=0; wait "$one" || status=$?
  is "$status" 5 && is "$(cat out)" got
  # Without --interactive there is no input, and none is taken.
  eventually 5 free
  bocker-exec --root "$R" --detach --status ps_1/status -- sh -c 'until [ -e /go ]; do sleep 0.05; done; cat; exit 6' </dev/null
  (eventually 10 clients 1; touch "$R/go") &
  status=0; echo typed | bocker-exec --attach ps_1/status >out || status=$?
  is "$status" 6 && is "$(cat out)" ''
}

test_a_slow_client_holds_nothing_up() {
  a_container
  # 20 MB: one that reads gets all of them, one that has stopped is let go after a second, and says so.
  # Whoever the machine holds up for so long is let go, too: then once more.
  local one two three start status
  for _ in 1 2 3; do
    rm -f one two three stopped; [ ! -e ps_1/status ] || eventually 5 free
    bocker-exec --root "$R" --detach --interactive --status ps_1/status -- \
      sh -c 'read -r x; echo begin; read -r x; head -c 20000000 /dev/zero; echo; echo last' </dev/null
    (exec bocker-exec --attach ps_1/status </dev/null >one) & one=$!
    (exec bocker-exec --attach ps_1/status </dev/null >two 2>two.err) & two=$!
    eventually 5 clients 2
    { echo; eventually 10 test -e stopped; echo; } | timeout 20 bocker-exec --attach ps_1/status >three & three=$!
    # Stopped when it has been let in.
    eventually 5 grep -qs begin two
    kill -STOP "$two"
    start=$SECONDS
    touch stopped
    wait "$three" || true
    wait "$one" || true
    [ $((SECONDS - start)) -lt 15 ] || fail "it took $((SECONDS - start)) s"
    is "$(cat ps_1/status)" 'exited 0'
    kill -CONT "$two"; status=0; wait "$two" || status=$?
    [ "$(wc -c <one) $(wc -c <three)" != "20000012 20000012" ] || break
  done
  is "$(wc -c <one) $(wc -c <three)" "20000012 20000012"
  is "$status" 125 && like "$(cat two.err)" '^bocker-exec: attach ps_1: '
}

# Whoever is killed cannot put anything back, but bocker waits for it.
test_bocker_puts_modes_back_for_who_was_killed() {
  a_tree tree
  mkdir bin && cp -l "$BOCKER_BIN"/bocker{,-*} bin/ 2>/dev/null || cp "$BOCKER_BIN"/bocker{,-*} bin/
  rm -f bin/*.d bin/bocker-exec
  printf '#!/bin/sh\nstty raw\nkill -"$KILL" $$; exit 3\n' > bin/fake
  for signal in KILL 0; do
    # With 0 it ends by itself, and what it has done to the terminal is its will.
    sed "s/\"\$KILL\"/$signal/" bin/fake > bin/bocker-exec && chmod 755 bin/bocker-exec
    img=$(bin/bocker init "$PWD/tree" 2>/dev/null | sed -n 's/^Created: //p')
    "$repo/tests/terminal.py" 0 bin/bocker run "$img" true >out || fail "$(cat out)"
    case $signal in
      KILL) like "$(cat out)" '^status 137$' && unlike "$(cat out)" 'modes changed' ;;
      0) like "$(cat out)" '^status 3$' && like "$(cat out)" 'modes changed' ;;
    esac
  done
}
