# bocker as a whole: the original's commands, and its defects as regression tests (see each name).
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh

# An image of busybox, in $img.
image() {
  a_tree tree
  img=$(bocker init "$PWD/tree" 2>/dev/null | sed -n 's/^Created: //p')
  like "$img" '^img_[0-9]{5}$' "the image's id"
}

containers() { bocker ps | awk 'NR > 1 { print $1 }'; }

# start WORDS...: runs a container of $img in the background; its id in $ps, its bocker in $runner
start() {
  # A background job of a script ignores SIGINT, and so would all that it starts.
  env --default-signal=INT,QUIT bocker run "$img" "$@" </dev/null >"$HOST_DIR/out" 2>"$HOST_DIR/err" &
  runner=$!
  eventually 20 running
  ps=$(containers | tail -n 1)
}
# By the text first: who asks by the lock has it himself for a moment, in which nothing can start.
running() { for ps in "$BOCKER_ROOT"/ps_*; do ps=${ps##*/}; grep -qs "^running" "$BOCKER_ROOT/$ps/status" && bocker-store path --running "$ps" >/dev/null 2>&1 && return; done; return 1; }
# What ran has ended, and who watched it has let go: `exited` stands there a moment before, and gc and rm leave it alone until then.
stopped() { local id; for id in $(containers); do ! bocker-store path --running "$id" >/dev/null 2>&1 || return 1; done; }

test_unprepared_host_is_prepared_in_one_line() {
  a_tree tree
  bocker init "$PWD/tree" >out 2>err
  is "$(wc -l <err)" 1 "lines said: $(cat err)"
  like "$(cat err)" '^bocker-store: made the store '
  like "$(cat out)" '^Created: img_[0-9]{5}$'
  is "$(stat -fc %T "$BOCKER_ROOT")" btrfs
  is "$(stat -c %a "$BOCKER_ROOT")" 700
  bocker run "$(sed 's/Created: //' out)" true 2>err
  is "$(wc -l <err)" 1 "lines said: $(cat err)"
  like "$(cat err)" '^bocker-net: .*bridge0'
  bocker run "$(sed 's/Created: //' out)" true 2>err
  is "$(cat err)" "" "what is said the second time"
  like "$(ip -br addr show bridge0)" '10\.0\.0\.1/24'
  is "$(cat /proc/sys/net/ipv4/ip_forward)" 1
  like "$(nft list table ip bocker)" 'masquerade'
}

test_undo_twice_at_once() {
  bocker setup 2>/dev/null
  local jobs=()
  for n in 1 2 3 4; do bocker setup --undo 2>>err & jobs+=($!); done
  for job in "${jobs[@]}"; do wait "$job" || fail "one of four undos: $(cat err)"; done
  is "$(cat err)" ""
  [ ! -e "$BOCKER_ROOT" ] || fail "the store is still there"
}

# Whichever comes first: the container has its network, or the store is gone and says so.
test_undo_beside_a_starting_run() {
  image
  for n in $(seq 15); do
    bocker run "$img" sh -c 'sleep .05; test -e /sys/class/net/eth0 && echo whole' >out 2>err & run=$!
    sleep "0.0$((n % 4))$((n % 10))"
    undone=0; bocker setup --undo >/dev/null 2>undo.err || undone=$?
    status=0; wait $run || status=$?
    if [ "$status" = 0 ]; then is "$(cat out)" whole "round $n: $(cat undo.err)"; else like "$(cat err)" 'No image|no store' "round $n"; fi
    [ "$undone" = 0 ] || like "$(cat undo.err)" "^bocker-(store: Container 'ps_[0-9]+' is (starting|running)|net: undo setup: bridge0 is in use)" "round $n"
    bocker setup 2>/dev/null
    [ -n "$(bocker images | sed 1d)" ] || image
    for ps in $(containers); do bocker rm "$ps" >/dev/null; done
  done
}

test_setup_is_idempotent_and_undone() {
  before=$(census)
  bocker setup 2>/dev/null
  first=$(census)
  bocker setup 2>/dev/null
  is "$(census)" "$first" "after the second set-up"
  image
  bocker run "$img" true
  bocker setup --undo
  is "$(census)" "$before" "after the undo"
  [ ! -e /run/bocker ] || fail "the host's ids are still there"
  is "$(cat /proc/sys/net/ipv4/ip_forward)" 0
  [ ! -e "$BOCKER_ROOT.btrfs" ] || fail "the pool's file is still there"
  bocker setup --undo
}

# Another bridge's network, mounts whose names are no text, and another /run over one with names.
test_setup_sees_through_odd_mounts() {
  mkdir -p "$(printf 'odd\xff')" && mount -t tmpfs odd "$(printf 'odd\xff')"
  before=$(census)
  bocker setup 2>/dev/null
  bocker setup --undo
  is "$(census)" "$before" "with a mount point that is not UTF-8"
  bocker-net setup 2>/dev/null
  mount -t tmpfs run /run
  before=$(census)
  bocker setup 2>/dev/null
  image
  bocker run "$img" true
  like "$(census)" '^mount /run/netns' "hidden below, and made again above"
  bocker rm "$(containers)" "$img" >/dev/null
  bocker-store init --undo
  umount -l /run/netns
  after=$(census)
  is "$(grep -av '^nft\|^link bridge0' <<<"$after")" "$(grep -av '^nft\|^link bridge0' <<<"$before")"
}

test_setup_refuses_what_is_not_ours() {
  ip link add bridge0 type bridge
  before=$(census)
  fails 1 '^bocker-net: .*bridge0' bocker setup
  is "$(census)" "$before" "nothing was made before the refusal"
  [ ! -e "$BOCKER_ROOT" ] || fail "a store was made before the refusal"
  ip link del bridge0
  ip link add other type bridge && ip addr add 10.0.0.1/24 dev other
  fails 1 '^bocker-net: .*(10\.0\.0\.|other)' bocker-net setup
  ip link del other
  # The store's part may fail, too, and takes nothing with it: the network is not made then.
  mkdir "$BOCKER_ROOT" && touch "$BOCKER_ROOT/mine"
  before=$(census)
  fails 1 '^bocker-store: .*there are files in it' bocker setup
  is "$(census)" "$before" "after the store was refused"
  fails 1 '^bocker-store: create .*/no/such/store: No such file or directory \(mkdir -p ' env BOCKER_ROOT="$HOST_DIR/no/such/store" bocker setup
  is "$(census)" "$before" "a parent that is missing"
  # mkfs cannot finish: no half of a store is left.
  mkdir small && mount -t tmpfs -o size=64k tmpfs small
  fails 1 '^bocker-store: ' env BOCKER_ROOT="$HOST_DIR/small/store" bocker setup
  is "$(ls -A small)" "" "what a failed mkfs left"
  umount small
  is "$(census)" "$before" "after a failed mkfs"
  bocker-net setup
}

test_original_outputs() {
  image
  is "$(bocker images)" "$(printf 'IMAGE_ID\t\tSOURCE\n%s\t\t%s' "$img" "$PWD/tree")"
  is "$(bocker ps)" "$(printf 'CONTAINER_ID\t\tCOMMAND')"
  is "$(bocker run "$img" echo one two)" "one two"
  ps=$(containers)
  like "$ps" '^ps_[0-9]{5}$'
  is "$(bocker ps)" "$(printf 'CONTAINER_ID\t\tCOMMAND\n%s\t\techo one two' "$ps")"
  is "$(bocker logs "$ps")" "one two"
  is "$(bocker commit "$ps" "$img")" "$(printf 'Removed: %s\nCreated: %s' "$img" "$img")"
  is "$(bocker rm "$ps")" "Removed: $ps"
  is "$(bocker rmi "$img")" "Removed: $img"
  is "$(bocker images --json)" ""
  like "$(bocker help)" 'Pull an image'
  fails 2 'unrecognized subcommand|nosuch' bocker nosuch
}

test_run_passes_streams_and_statuses() {
  image
  is "$(echo hi | bocker run "$img" cat)" hi
  bocker setup 2>/dev/null
  bocker run "$img" sh -c 'echo out; echo err >&2; exit 7' >out 2>err && fail "status lost" || is $? 7
  is "$(cat out)" out
  is "$(cat err)" err
  bocker run "$img" "echo \$((6 * 7)) | cat" >out
  is "$(cat out)" 42 "one word with shell characters"
  bocker run "$img" echo 'a  b' '$HOME' "it's" >out
  is "$(cat out)" "a  b \$HOME it's" "several words are not re-read by a shell"
  status=0; bocker run "$img" sh -c 'kill -9 $$' || status=$?
  like "$status" '^(0|137)$'
  status=0; bocker run "$img" sh -c 'sh -c "kill -15 \$\$"; exit $?' || status=$?
  is "$status" 143
  # shellcheck disable=SC2216 # head reads
  { timeout 20 bocker run "$img" yes 2>err || true; } | head -n 1 >out
  is "$(cat out)" y
  unlike "$(cat err)" bocker "stderr when the reader went away"
}

test_run_leaves_nothing_but_the_container() {
  bocker setup 2>/dev/null
  image
  before=$(census)
  bocker run "$img" true
  bocker rm "$(containers)" >/dev/null
  is "$(census)" "$before"
  # A command that cannot start leaves no container either.
  fails 127 '^bocker-exec: .*nosuch' bocker run "$img" nosuch
  fails 126 '^bocker-exec: .*/etc/passwd' bocker run "$img" /etc/passwd
  fails 126 '^bocker-exec: .*/etc' bocker run "$img" /etc
  is "$(census)" "$before"
  # A payload's own 127 is its own.
  bocker run "$img" sh -c 'nosuch' 2>/dev/null && fail "0" || is $? 127
  is "$(containers | wc -l)" 1
}

test_signals_reach_the_payload_and_everything_goes() {
  bocker setup 2>/dev/null
  image
  before=$(census)
  for signal in TERM INT HUP; do
    start sleep 100
    kill "-$signal" "$runner"
    status=0; wait "$runner" || status=$?
    is "$status" $((128 + $(kill -l "$signal"))) "status after SIG$signal ($(cat err))"
    bocker rm "$ps" >/dev/null
    is "$(census)" "$before" "census after SIG$signal"
  done
  # It runs before it has its handler.
  start sh -c 'trap "echo caught; exit 3" TERM; echo ready; while :; do sleep 0.1; done'
  eventually 20 grep -q ready out
  kill -TERM "$runner"
  status=0; wait "$runner" || status=$?
  is "$status" 3
  is "$(cat out)" $'ready\ncaught'
}

# What neither ends by key nor by kill(1)'s default, and what has no name: none ends bocker without cleaning up.
test_every_signal_reaches_the_payload() {
  bocker setup 2>/dev/null
  image
  before=$(census)
  for signal in USR1 USR2 ALRM VTALRM PROF IO PWR XCPU RTMIN RTMAX; do
    start sleep 100
    kill "-$signal" "$runner"
    status=0; wait "$runner" || status=$?
    is "$status" $((128 + $(kill -l "$signal"))) "status after SIG$signal ($(cat err))"
    is "$(ls /run/netns)$(find /sys/fs/cgroup -name 'ps_*')" "" "names before rm, after SIG$signal"
    bocker rm "$ps" >/dev/null
    is "$(census)" "$before" "census after SIG$signal"
  done
  start sh -c 'trap "echo one" USR1; trap "echo two; exit 4" USR2; echo ready; while :; do sleep 0.1; done'
  eventually 20 grep -q ready out
  kill -USR1 "$runner"; eventually 10 grep -q one out
  kill -WINCH "$runner"; kill -URG "$runner"
  kill -USR2 "$runner"
  status=0; wait "$runner" || status=$?
  is "$status" 4
  is "$(cat out)" $'ready\none\ntwo'
  bocker rm "$ps" >/dev/null
  # While it is set up, too: then nothing of it is left, not even the container.
  for n in $(seq 30); do
    for signal in USR1 TERM; do
      env --default-signal=INT,QUIT bocker run "$img" sleep 0.2 >/dev/null 2>err &
      sleep "0.0$((n % 10))$((n / 10))"
      kill "-$signal" $! 2>/dev/null || true
      status=0; wait $! || status=$?
      like "$status" "^(0|$((128 + $(kill -l "$signal"))))$" "status in round $n: $(cat err)"
      for ps in $(containers); do bocker rm "$ps" >/dev/null; done
      is "$(census)" "$before" "after SIG$signal in round $n"
    done
  done
}

# The caller's alarm(2) runs on through execve(2).
test_an_alarm_of_the_caller_ends_the_run() {
  bocker setup 2>/dev/null
  image
  before=$(census)
  # Where a second was too short for the start, nothing is left, and the alarm comes later once more.
  for seconds in 1 10; do
    status=0
    python3 -c 'import os, signal, sys; signal.alarm(int(sys.argv[2])); os.execvp("bocker", ["bocker", "run", sys.argv[1], "sleep", "60"])' "$img" "$seconds" || status=$?
    is "$status" 142
    [ -z "$(containers)" ] || break
    is "$(census)" "$before"
  done
  bocker rm "$(containers)" >/dev/null
  is "$(census)" "$before"
}

test_sigchld_ignored_by_the_caller() {
  bocker setup --undo; bocker setup 2>/dev/null
  image
  is "$(timeout 20 env --ignore-signal=CHLD bocker run "$img" echo out)" out
  is "$(timeout 20 env --ignore-signal=CHLD bocker images --json | wc -l)" 1
  bocker setup --undo
  # mkfs and nft are children of the tools.
  timeout 60 env --ignore-signal=CHLD bocker setup 2>err
  unlike "$(cat err)" 'No child|no NAT'
}

# Ctrl-Z: the payload stops and bocker with it, where a shell waits for them; and bocker's end is the end even then.
test_stopped_and_continued() {
  image
  # shellcheck disable=SC2317,SC2329
  state() { [ "$(awk '/^State/ { print $2 }' "/proc/$1/status")" = "$2" ]; }
  # shellcheck disable=SC2317,SC2329
  awake() { ! state "$1" T; }
  payload() { cut -d' ' -f2 "$BOCKER_ROOT/$ps/status"; }
  set -m
  start sh -c 'while :; do sleep 0.05; done'
  pid=$(payload)
  for whom in "$runner" "-$runner"; do
    kill -TSTP -- "$whom"
    eventually 5 state "$pid" T
    eventually 5 state "$runner" T
    kill -CONT -- "$whom"
    eventually 5 awake "$pid"
    eventually 5 awake "$runner"
  done
  kill -TSTP -- "-$runner"
  eventually 5 state "$pid" T
  kill -9 "$runner"
  eventually 5 stopped
  wait "$runner" 2>/dev/null || true
  bocker rm "$ps" >/dev/null
  # Told to end while it is stopped.
  start sh -c 'trap "exit 6" TERM; echo ready; while :; do sleep 0.05; done'
  pid=$(payload)
  eventually 20 grep -q ready out
  kill -TSTP -- "-$runner"
  eventually 5 state "$pid" T
  kill -TERM "$runner"; kill -CONT "$runner"
  # With job control wait(1) ends when the job stops, too.
  status=147; until [ "$status" != 147 ]; do status=0; wait "$runner" || status=$?; done
  is "$status" 6
  bocker rm "$ps" >/dev/null
  set +m
  # Without such a shell nobody would continue it: nothing stops, as the kernel has it for a group without one.
  setsid --fork --wait bocker run "$img" sh -c 'while :; do sleep 0.05; done' </dev/null >/dev/null 2>&1 &
  eventually 20 running
  ps=$(containers | tail -n 1) pid=$(payload)
  runner=$(pgrep -x bocker)
  kill -TSTP -- "-$runner"
  sleep 0.3
  awake "$pid" || fail "it stopped, and nobody would continue it"
  kill -9 "$runner"
  eventually 5 stopped
  bocker rm "$ps" >/dev/null
}

test_the_payload_dies_with_bocker() {
  image
  # Killed a moment after the start, again and again: no payload outlives it, and gc takes what is left.
  bocker run "$img" true 2>/dev/null; bocker rm "$(containers)" >/dev/null
  before=$(census)
  for n in $(seq 40); do
    bocker run "$img" sleep 77 >/dev/null 2>&1 &
    sleep "0.0$((n % 4))$((n % 10))"
    kill -9 $!; wait $! 2>/dev/null || true
  done
  # shellcheck disable=SC2317,SC2329
  none() { ! pgrep -x sleep >/dev/null && ! pgrep bocker >/dev/null; }
  eventually 20 none
  for ps in $(containers); do bocker rm "$ps" >/dev/null; done
  bocker gc >/dev/null
  is "$(census)" "$before" "after forty kills"
  start sleep 100
  kill -9 "$runner"
  eventually 5 stopped
  bocker gc >removed
  is "$(sort removed)" "$(printf '/%s\nnetns_%s' "$ps" "$ps")" "what gc removed of a container that has ended"
  bocker rm "$ps" >/dev/null
  is "$(ip -o link | grep -c veth || true)" 0 "links after rm"
  is "$(find /sys/fs/cgroup -name 'ps_*' | wc -l)" 0 "cgroups after rm"
  is "$(ls /run/netns)" "" "namespaces after rm"
}

# What a caller ignores is ignored by all that it starts: the end of bocker must not be told by such a signal.
test_the_payload_dies_with_bocker_whatever_the_caller_ignores() {
  image
  # shellcheck disable=SC2317,SC2329
  ended() { ! pgrep -f "^sleep $1\$" >/dev/null; }
  # shellcheck disable=SC2317,SC2329
  runs() { ! ended "$1"; }
  start sleep 100
  bash -c "trap '' HUP INT QUIT TERM; exec bocker exec $ps sleep 78" &
  eventually 10 runs 78
  kill -9 $!; wait $! 2>/dev/null || true
  eventually 5 ended 78
  kill "$runner"; wait "$runner" || true
  bash -c "trap '' HUP INT QUIT TERM; exec bocker run $img sleep 77" </dev/null &
  eventually 10 runs 77
  kill -9 $!; wait $! 2>/dev/null || true
  eventually 5 ended 77
  eventually 5 stopped
  bocker gc >/dev/null
  # A TERM that the caller ignores is not passed on. It goes on until it is told by a file, however long we take.
  bash -c "trap '' TERM; exec bocker run $img sh -c 'until [ -e /stop ]; do sleep 0.1; done'" </dev/null &
  eventually 10 running
  pkill -TERM -x bocker-exec
  sleep 0.5
  touch "$BOCKER_ROOT/$ps/rootfs/stop"
  status=0; wait $! || status=$?
  is "$status" 0 "a TERM that is ignored"
}

# prctl(2): who changes its user gets no SIGKILL at its parent's death any more. What takes a container down kills it.
test_a_payload_that_changed_its_user_ends_with_its_container() {
  image
  bocker setup 2>/dev/null
  before=$(census)
  # shellcheck disable=SC2317,SC2329
  gone() { ! pgrep -x sleep >/dev/null; }
  # shellcheck disable=SC2317,SC2329
  changed() { [ $(($(ps -o uid= -p "$(cut -d' ' -f2 "$BOCKER_ROOT/$ps/status")") % 65536)) = 1000 ]; }
  changes() { start sh -c 'exec /bin/busybox start-stop-daemon -S -x /bin/sleep -c 1000:1000 -- 772'; eventually 5 changed; }
  # bocker itself, as soon as bocker-exec has gone
  changes
  pkill -KILL -x bocker-exec
  status=0; wait "$runner" || status=$?
  is "$status" 137
  # Out of its cgroup it is still to be reaped.
  eventually 10 gone
  is "$(cat err)" ""
  bocker rm "$ps" >/dev/null
  is "$(census)" "$before" "bocker-exec killed by force"
  # rm and gc, where bocker has gone, too
  for way in rm gc; do
    changes
    # Held, so that it does nothing about it.
    kill -STOP "$runner"; pkill -KILL -x bocker-exec; kill -9 "$runner"
    wait "$runner" 2>/dev/null || true
    eventually 5 stopped
    [ "$way" = rm ] || is "$(bocker gc | sort)" "$(printf '/%s\nnetns_%s' "$ps" "$ps")" "what gc removed"
    bocker rm "$ps" >/dev/null
    eventually 10 gone
    is "$(census)" "$before" "after $way"
  done
}

test_exec_joins() {
  image
  start sleep 100
  is "$(bocker exec "$ps" hostname)" "$ps"
  is "$(bocker exec "$ps" cat /proc/1/comm)" sleep
  is "$(bocker exec "$ps" cat /proc/self/cgroup | sort)" "$(bocker exec "$ps" cat /proc/1/cgroup | sort)"
  for ns in mnt uts ipc pid net; do
    is "$(bocker exec "$ps" sh -c "stat -Lc %i /proc/self/ns/$ns")" "$(bocker exec "$ps" sh -c "stat -Lc %i /proc/1/ns/$ns")" "$ns"
  done
  like "$(bocker exec "$ps" ip addr show eth0)" "inet 10\\.0\\.0\\.$((10#${ps#ps_42}))/24"
  is "$(bocker exec "$ps" echo 'a  b' 'c;d')" "a  b c;d"
  bocker exec "$ps" sh -c 'exit 9' && fail 0 || is $? 9
  is "$(echo in | bocker exec "$ps" cat)" in
  fails 127 nosuch bocker exec "$ps" nosuch
  # The original listed only processes with a terminal, so this failed from cron.
  is "$(setsid bocker exec "$ps" echo detached </dev/null)" detached
  kill "$runner"; wait "$runner" || true
  fails 125 "^bocker-[a-z]+: Container '$ps' exists but is not running" bocker exec "$ps" true
}

test_bad_names_touch_nothing() {
  bocker setup 2>/dev/null
  image
  bocker run "$img" true
  ps=$(containers)
  before=$(census)
  long=$(printf 'x%.0s' $(seq 10000))
  for name in nosuch .. . path level gen / '' ../img_42002 img_42001 "$long" "$(printf 'a\nb')" "*"; do
    fails 1 "^bocker-store: No container named '.*' exists" bocker rm "$name"
    fails 125 "^bocker-store: No image named '.*' exists" bocker run --pull never "$name" true
    fails 125 "^bocker-store: No container named '.*' exists" bocker exec "$name" true
    fails 1 "^bocker-store: No container named '.*' exists" bocker logs "$name"
    fails 1 "^bocker-store: No container named '.*' exists" bocker commit "$name" "$img"
    # What can be a name is one from then on.
    case $name in
      nosuch | path | level | gen) ;;
      *) fails 1 "^bocker-store: No image named '.*' exists" bocker commit "$ps" "$name" ;;
    esac
  done
  fails 2 '^bocker: ' bocker rm -x
  fails 125 '^bocker: ' bocker run -x
  fails 125 '^bocker: ' bocker exec "$ps"
  fails 125 "No image named '$ps' exists" bocker run "$ps" true
  fails 125 "No container named '$img' exists" bocker exec "$img" true
  fails 1 "No container named '$img' exists" bocker logs "$img"
  fails 1 "No container named '$img' exists" bocker commit "$img" "$img"
  fails 1 "No image named '$ps' exists" bocker commit "$ps" "$ps"
  fails 1 "No directory named '/nosuch' exists" bocker init /nosuch
  fails 1 "No directory named '/etc/passwd' exists" bocker init /etc/passwd
  fails 125 'BOCKER_MEM_LIMIT' env BOCKER_MEM_LIMIT=lots bocker run "$img" true
  fails 125 'memory=0' bocker --MEM_LIMIT=0 run "$img" true
  fails 125 'BOCKER_SUBNET' bocker --SUBNET=10.0.0.0 run "$img" true
  is "$(census)" "$before"
  bocker run "$img" true
}

test_not_root() {
  bocker setup 2>/dev/null
  image
  mkdir bin && find "$BOCKER_BIN" -maxdepth 1 -name 'bocker*' -perm -100 -type f -exec cp {} bin/ \;
  chmod 755 "$HOST_DIR"
  for words in images ps "run $img true" "init /etc" "rm $img" setup; do
    status=0
    # shellcheck disable=SC2086 # words on purpose
    err=$(setpriv --reuid 65534 --regid 65534 --clear-groups "$HOST_DIR/bin/bocker" $words 2>&1) || status=$?
    [ "$status" != 0 ] || fail "bocker $words worked without root"
    is "$(wc -l <<<"$err")" 1 "lines of bocker $words: $err"
    like "$err" 'root|Permission denied|not permitted'
  done
}

test_busy_things_are_refused() {
  image
  start sleep 100
  fails 1 "$ps.* running" bocker rm "$ps"
  fails 1 "$img.* running|running.*$img|in use" bocker commit "$ps" "$img"
  fails 1 "Container '$ps' is running" bocker setup --undo
  is "$(bocker exec "$ps" echo alive)" alive
  kill "$runner"; wait "$runner" || true
  bocker commit "$ps" "$img" >/dev/null
}

# Link, namespace, cgroup and address follow from the id alone: so an id belongs to one store of a host.
test_two_stores_share_no_id() {
  image
  bocker setup 2>/dev/null
  before=$(census)
  other() { BOCKER_ROOT=$HOST_DIR/other bocker "$@"; }
  theirs=$(other init "$PWD/tree" 2>/dev/null | sed 's/Created: //')
  start sleep 100
  mine=$ps
  # A range of one: the other store cannot have it.
  fails 1 '^bocker-store: all 1 container ids' env BOCKER_ROOT="$HOST_DIR/other" bocker-store snapshot --ids "${mine#ps_}-${mine#ps_}" "$theirs"
  # Their container of the same id, as a restart or a moved disk brings it: it runs no more, and takes nothing of mine.
  rm "/run/bocker/$mine"
  is "$(BOCKER_ROOT=$HOST_DIR/other bocker-store snapshot --ids "${mine#ps_}-${mine#ps_}" "$theirs")" "$mine"
  ln -sfn "$BOCKER_ROOT" "/run/bocker/$mine"
  fails 1 "^bocker-store: $mine is a container of $BOCKER_ROOT, too" env BOCKER_ROOT="$HOST_DIR/other" bocker rm "$mine"
  is "$(other gc)" "" "gc of the other store"
  is "$(bocker exec "$mine" hostname)" "$mine"
  BOCKER_ROOT=$HOST_DIR/other bocker-store rm "$mine"
  is "$(bocker exec "$mine" ip -o -4 addr show eth0 | wc -l)" 1 "my container's network"
  is "$(readlink "/run/bocker/$mine")" "$BOCKER_ROOT"
  # Both at once: forty runs, no conflict.
  local jobs=()
  for i in $(seq 20); do
    bocker run "$img" true 2>"err.$i" & jobs+=($!)
    other run "$theirs" true 2>"err.other.$i" & jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || fail "a run of forty: $(cat err.*)"; done
  is "$(cat err.*)" ""
  is "$( (containers; other ps | awk 'NR > 1 { print $1 }') | sort | uniq -d)" "" "ids in both stores"
  kill "$runner"; wait "$runner" || true
  # shellcheck disable=SC2046 # ids
  bocker rm $(containers) >/dev/null
  # shellcheck disable=SC2046 # ids
  other rm $(other ps | awk 'NR > 1 { print $1 }') >/dev/null
  is "$(ls -A /run/bocker)" "" "claims"
  BOCKER_ROOT=$HOST_DIR/other bocker-store init --undo
  is "$(census)" "$before"
}

# An id that no store has is an orphan only where nothing runs in it.
test_gc_takes_nothing_that_something_runs_in() {
  image
  start sleep 100
  other() { BOCKER_ROOT=$HOST_DIR/other "$@"; }
  theirs=$(other bocker init "$PWD/tree" 2>/dev/null | sed 's/Created: //')
  before=$(census)
  # What says whose it is has been removed.
  rm "/run/bocker/$ps"
  is "$(other bocker gc)$(bocker gc)" "" "gc of two stores"
  is "$(census)" "$before" "a running container without its link"
  is "$(bocker exec "$ps" ip -o -4 addr show eth0 | wc -l)" 1
  # Somebody else's cgroup and namespace, which only look like a container's.
  local top=/sys/fs/cgroup/memory net=ps_42200
  [ "$ps" != "$net" ] || net=ps_42201
  bocker-cg create ps_42300 >/dev/null
  bocker-net up "$net" >/dev/null
  [ -d "$top" ] || top=/sys/fs/cgroup
  mkdir "$top/ps_42300/inner"
  sh -c 'echo $$ > "$0/cgroup.procs"; exec sleep 50' "$top/ps_42300/inner" & local one=$!
  bocker-net exec "$net" -- sleep 50 & local two=$!
  # shellcheck disable=SC2317,SC2329 # by eventually
  both_run() { [ "$( (bocker-cg list --busy; bocker-net list --busy | cut -f 1,4) | sort)" = "$(printf '%s\tbusy\n' "$ps" ps_42300 "$ps" "$net" | sort)" ]; }
  eventually 5 both_run
  is "$(bocker-net list --busy --json | jq .busy | xargs)" "true true"
  is "$(bocker-cg list --json)" "$(printf '{"id":"%s"}\n' "$ps" ps_42300)" "without the question"
  is "$(bocker gc)" "" "gc of what others run in"
  kill "$one" "$two"; wait "$one" "$two" || true
  is "$(bocker-cg list --busy | cut -s -f 2 | xargs)" busy "what nothing runs in any more"
  is "$(bocker gc)" "netns_$net
/ps_42300"
  is "$(census)" "$before"
  kill -9 "$runner"; wait "$runner" || true
  eventually 5 stopped
  bocker rm "$ps" >/dev/null
}

test_orphans() {
  image
  other() { BOCKER_ROOT=$HOST_DIR/other "$@"; }
  theirs=$(other bocker init "$PWD/tree" 2>/dev/null | sed 's/Created: //')
  ps=$(bocker-store snapshot "$img")
  orphans() { printf "$1\tbusy\n" "$ps" | bocker-store orphans; printf "$1\t10.0.0.9\n" "$ps" | bocker-store orphans; }
  is "$(orphans %s)" "" "about to start"
  echo 'exited 0' > "$BOCKER_ROOT/$ps/status"
  is "$(orphans %s)" "$ps
$ps" "ended, with a process left and without"
  is "$(other orphans %s)" "" "another store's"
  # Both stores have it, as after a moved disk, and theirs has ended: the names on this host are ours all the same.
  rm "/run/bocker/$ps"
  is "$(other bocker-store snapshot --ids "${ps#ps_}-${ps#ps_}" "$theirs")" "$ps"
  ln -sfnT "$BOCKER_ROOT" "/run/bocker/$ps"
  echo 'exited 0' > "$HOST_DIR/other/$ps/status"
  is "$(other orphans %s)" "" "in two stores"
  rm "/run/bocker/$ps"
  is "$(other orphans %s)" "$ps" "in two stores, and nobody knows whose: only where nothing runs"
  other bocker-store rm "$ps"
  bocker-store rm "$ps"
  is "$(orphans %s)" "$ps" "nobody's"
  is "$(printf 'img_42002\n%s\n' "$img" | bocker-store orphans)" "" "images"
  is "$(printf '%s\nfailed\n' "$ps" | bocker-store orphans | cat)" failed
  other bocker-store init --undo
}

# A stage that fails is the pipe's failure, and says so once.
test_gc_fails_where_a_stage_fails() {
  image
  pipe() { bocker-net list --busy | bocker-store "$@" orphans | bocker-net down -; }
  bocker-net up --setup ps_42200 >/dev/null 2>&1
  fails 1 '^bocker-store: there is no store at /nowhere' pipe --root /nowhere
  is "$(bocker-net list | cut -f 1)" ps_42200
  is "$(pipe --root "$BOCKER_ROOT")" netns_ps_42200
  umount -l /run/netns && rmdir /run/netns && touch /run/netns
  fails 1 '^bocker-net: list containers: read /run/netns: Not a directory$' bocker gc
  fails 1 '^bocker-net: list containers: ' pipe --root "$BOCKER_ROOT"
  rm /run/netns
  is "$(bocker gc)" ""
  mount -t tmpfs none /sys/fs/cgroup
  fails 1 '^bocker-cg: no cgroups below' bocker gc
  umount /sys/fs/cgroup
  # Who is not asked for words between tools, or writes to a file, says none.
  touch /run/netns
  is "$(bocker-net list --busy 2>/dev/null || true)" failed
  is "$(bocker-net list 2>/dev/null || true)" ""
  ! bocker-net list --busy >out 2>/dev/null || fail "list of nothing"
  is "$(cat out)" ""
  rm /run/netns
}

# Made by hand under an id that a run then draws: the run fails, and takes down nothing that it did not make.
test_a_run_undoes_only_what_it_made() {
  image
  bocker setup 2>/dev/null
  export BOCKER_SUBNET=10.0.0.0/29
  bocker-net setup --undo; bocker-net setup 2>/dev/null
  for n in 2 3 4 5 6; do bocker-net up "ps_4200$n" >/dev/null; done
  before=$(census)
  fails 125 '^bocker-net: create /run/netns/.*File exists' bocker run "$img" true
  is "$(census)" "$before" "networks made by hand"
  for n in 2 3 4 5 6; do bocker-net down "ps_4200$n"; bocker-cg create "ps_4200$n" >/dev/null; done
  before=$(census)
  fails 125 '^bocker-cg: create .*File exists' bocker run "$img" true
  is "$(census)" "$before" "cgroups made by hand"
  bocker gc | sort >removed
  is "$(cat removed)" "$(printf '/ps_4200%s\n' 2 3 4 5 6)" "what gc finds without a container"
  bocker run "$img" true
}

test_rm_that_is_interrupted_leaves_nothing_unnamed() {
  image
  bocker run "$img" true 2>/dev/null
  bocker rm "$(containers)" >/dev/null
  before=$(census)
  local interrupted=0
  for n in $(seq 20); do
    # Killed by force, so that rm has all of it to remove.
    start sleep 100
    kill -9 "$runner"; wait "$runner" 2>/dev/null || true
    eventually 5 stopped
    # A background job ignores INT, and what it starts would, too.
    env --default-signal=INT bocker rm "$ps" >/dev/null 2>&1 &
    sleep "0.00$((n % 10))"
    kill -INT $! 2>/dev/null || true
    status=0; wait $! 2>/dev/null || status=$?
    case $status in 0) ;; 130) interrupted=$((interrupted + 1)) ;; *) fail "status $status in round $n" ;; esac
    # Either it is gone with all that was its, or it is listed and can be removed.
    if [ -n "$(containers)" ]; then bocker rm "$ps" >/dev/null; fi
    is "$(census)" "$before" "after INT in round $n"
  done
  [ "$interrupted" -gt 0 ] || fail "it was never interrupted"
}

test_rm_takes_nothing_that_starts_apart() {
  image
  bocker run "$img" true 2>/dev/null
  bocker rm "$(containers)" >/dev/null
  for n in $(seq 25); do
    bocker run "$img" sh -c 'sleep .05; test -e /sys/class/net/eth0 && echo whole' >out 2>err &
    for _ in $(seq 200); do
      ps=$(containers)
      [ -z "$ps" ] || { bocker rm "$ps" >/dev/null 2>>refused || true; break; }
    done
    wait $! || fail "the container that rm was after: $(cat err)"
    is "$(cat out)" whole "round $n"
    [ -z "$(containers)" ] || bocker rm "$(containers)" >/dev/null
  done
  like "$(cat refused)" "^bocker-store: Container 'ps_[0-9]+' is (starting: process [0-9]+ has it \\(.*\\)|running \\(.*\\))\$"
}

# To a terminal's whole group, or by a supervisor that ends a job so.
test_a_signal_to_all_of_it_leaves_nothing() {
  image
  bocker run "$img" true 2>/dev/null
  bocker rm "$(containers)" >/dev/null
  before=$(census)
  for n in $(seq 40); do
    signals=(USR1 ALRM USR2 RTMIN TERM) signal=${signals[n % 5]}
    setsid bocker run "$img" true >/dev/null 2>&1 &
    sleep "0.0$((n % 5))$((n % 9))"
    kill "-$signal" -- "-$!" 2>/dev/null || true
    wait $! 2>/dev/null || true
    eventually 10 alone
    [ -z "$(containers)" ] || bocker rm "$(containers)" >/dev/null
    is "$(census)" "$before" "after $signal in round $n"
  done
}
alone() { [ -z "$(pgrep -x 'bocker(-.*)?' --ns $$ --nslist mnt)" ]; }

test_printed_plan_under_signals() {
  image
  bocker run "$img" true 2>/dev/null
  bocker rm "$(containers)" >/dev/null
  before=$(census)
  for shell in dash bash; do
    # To all of it: the payload decides.
    bocker --dry-run run "$img" sh -c 'trap "exit 3" TERM; touch /ready; sleep 100 & wait' >script
    env --default-signal=INT,QUIT setsid "$shell" script </dev/null >/dev/null 2>&1 & runner=$!
    eventually 20 running
    eventually 20 test -e "$BOCKER_ROOT/$ps/rootfs/ready"
    kill -TERM -- "-$runner"
    status=0; wait "$runner" || status=$?
    is "$status" 3 "TERM to all, $shell"
    bocker rm "$(containers)" >/dev/null
    is "$(census)" "$before" "after TERM to all, $shell"
    # To the shell alone: it cleans up when the payload has ended.
    for signal in USR1 TERM INT; do
      bocker --dry-run run "$img" sh -c 'until [ -e /stop ]; do sleep 0.1; done; exit 4' >script
      env --default-signal=INT,QUIT "$shell" script </dev/null >/dev/null 2>&1 & runner=$!
      eventually 20 running
      kill "-$signal" "$runner"
      sleep 0.3
      touch "$BOCKER_ROOT/$ps/rootfs/stop"
      status=0; wait "$runner" || status=$?
      is "$status" 4 "$signal to $shell"
      bocker rm "$(containers)" >/dev/null
      is "$(census)" "$before" "after $signal to $shell"
    done
  done
}

test_keys_of_a_terminal() {
  # shellcheck disable=SC2317,SC2329
  no_sleep() { [ -z "$(pgrep -fx 'sleep 1234' --ns $$ --nslist mnt)" ]; }
  image
  bocker run "$img" true 2>/dev/null
  # Once, though the terminal tells every process of the group.
  line='n=; trap "echo got; n=x" INT; echo ready; until [ "$n" ]; do sleep .1; done; sleep .5; exit 7'
  "$repo/tests/terminal.py" '?ready,^C' bocker run "$img" "$line" >out || fail "$(cat out)"
  is "$(grep -c got out)" 1 "$(cat out)"
  like "$(cat out)" 'status 7$'
  # In the background it takes nothing that is typed for the shell.
  cat >script <<END
bocker run $img cat & sleep 1; read -r line; echo "the shell has \$line"; wait
END
  (sleep 2; echo typed; sleep 1) | timeout 20 script -qec 'bash -m script' /dev/null >out || fail "$(cat out)"
  like "$(tr -d '\r' <out)" 'the shell has typed'
  # With its children: bocker may stand before they do, but the last tick is long past when five seconds more are over.
  "$repo/tests/terminal.py" '?tick,^Z,stopped,5,kill' bocker run "$img" '(while :; do read -r now _ </proc/uptime; echo "tick $now"; sleep .2; done) & wait' >out || fail "$(cat out)"
  read -r now _ </proc/uptime
  last=$(sed -n 's/^tick \([0-9]*\.[0-9][0-9]\)$/\1/p' out | tail -n 1)
  [ $((${now/./} - ${last/./})) -ge 150 ] || fail "children of a stopped one went on: at $now $(tail -n 2 out)"
  for ps in $(containers); do bocker rm "$ps" >/dev/null; done
  # The shell hears that the job has stopped, also if it waits for a wrapper such as sudo.
  for how in '' --under-wrapper; do
    # shellcheck disable=SC2086 # no word, or one
    "$repo/tests/terminal.py" $how 1,^Z,stopped,0.3,fg,0.5,^C bocker run "$img" 'while :; do sleep .1; done' >out || fail "$how: $(cat out)"
    like "$(cat out)" 'status 130$' "$how"
    # shellcheck disable=SC2086
    "$repo/tests/terminal.py" $how 1,^Z,stopped,kill bocker run "$img" 'sleep 1234' >out || fail "$how: $(cat out)"
    like "$(cat out)" 'status 137$' "$how"
    eventually 5 alone
    # Who watched it was killed, and it dies of that.
    eventually 10 no_sleep
    for ps in $(containers); do bocker rm "$ps" >/dev/null; done
  done
}

test_words_are_never_options_of_the_next_tool() {
  image
  bocker setup 2>/dev/null
  before=$(census)
  fails 125 "^bocker-store: No image named '--help' exists" bocker run --pull never -- --help
  fails 125 "^bocker-store: No image named '-x' exists" bocker run --pull never -- -x true
  fails 1 "^bocker-pull: .*-x" bocker pull -- -x
  fails 1 "^bocker-pull: .*--help" bocker pull -- --help
  fails 127 '^bocker-exec: .*--help' bocker run "$img" --help
  fails 127 '^bocker-exec: .*--dry-run' bocker run "$img" --dry-run
  fails 127 '^bocker-exec: .*--help' bocker run "$img" -- --help
  after=$(census)
  is "$(grep -vx 'store layers' <<<"$after")" "$before"
  is "$(bocker run "$img" -- echo --json --help -- -x)" "--json --help -- -x"
  is "$(bocker ps | tail -n 1 | cut -f 3)" "echo --json --help -- -x"
  bocker rm "$(containers)" >/dev/null
  start sleep 100
  fails 127 '^bocker-exec: .*--help' bocker exec "$ps" --help
  is "$(bocker exec "$ps" echo --help)" --help
  kill "$runner"; wait "$runner" || true
  fails 125 '^bocker: write stdout: No space left on device$' sh -c 'bocker --dry-run run x >/dev/full'
}

# Every user can read every command line: what may be secret is on none of ours but the one that was typed.
test_no_secret_on_a_command_line() {
  bocker setup 2>/dev/null
  a_tree tree
  img=$(bocker init "$PWD/tree" | sed -n 's/^Created: //p')
  printf 'FILE=xyzzy-file\n' >env.txt
  traced() { strace -f -qq -s 4096 -e trace=execve -o calls "$@"; }
  # On the command line that was typed, and on no other.
  seen() {
    grep -q bocker-store calls || fail "nothing was traced"
    is "$(grep -v 'execve("[^"]*/bocker", ' calls | grep xyzzy || true)" '' "$1"
  }
  is "$(traced bocker run -e A=xyzzy-run --env-file env.txt -l note=xyzzy-label --name web "$img" sh -c 'echo $A $FILE' 2>err)" 'xyzzy-run xyzzy-file'
  seen "run"
  is "$(bocker inspect --json web | jq -r .labels.note)" xyzzy-label
  ps=$(traced bocker create -e A=xyzzy-create -l note=xyzzy "$img" sh -c 'echo $A; sleep 60')
  seen "create"
  bocker start "$ps" >/dev/null
  is "$(traced bocker exec -e B=xyzzy-exec "$ps" sh -c 'echo $A $B; cat' <<<in)" $'xyzzy-create xyzzy-exec\nin'
  seen "exec"
  traced bocker exec -d -e B=xyzzy-later "$ps" sh -c 'echo $B >/seen'
  eventually 5 eval 'bocker exec "$ps" cat /seen 2>/dev/null | grep -q xyzzy-later'
  seen "exec -d"
  # Control: what is a word of the command is to be seen, and so would a secret be.
  traced bocker exec "$ps" echo xyzzy >/dev/null
  grep -q 'execve("[^"]*/bocker-exec", .*xyzzy' calls || fail "nothing would have been seen"
  # The printed plan: the shell has it as text, and gives it to no program.
  bocker --dry-run exec -e $'B=xyzzy two\nlines \\' "$ps" sh -c 'echo "$B"; cat' >plan
  is "$(traced sh plan <<<in)" $'xyzzy two\nlines \\\nin'
  seen "the plan of exec"
  bocker --dry-run run --rm -e C=xyzzy "$img" sh -c 'echo $C' >plan
  is "$(traced sh plan)" xyzzy
  seen "the plan of run"
  bocker rm -f "$ps" web >/dev/null
}

# Also where words come through a pipe, of which the tool is a part: no gc takes it before it runs.
test_a_printed_run_holds_its_container() {
  image
  for words in '' '-e A=x'; do
    # shellcheck disable=SC2086 # words on purpose
    bocker --dry-run run --rm $words "$img" echo held | sed 's/^dir=/bocker gc >>gone; &/' >script
    for shell in sh bash; do
      is "$($shell script </dev/null 2>err)" held "$shell '$words': $(cat err)"
      is "$($shell -c '(. ./script)' </dev/null 2>err)" held "below a $shell '$words': $(cat err)"
    done
  done
  is "$(cat gone)" "" "what gc took"
  is "$(containers)" ""
}

test_empty_settings_are_defaults() {
  image
  is "$(BOCKER_SUBNET='' BOCKER_CPU_SHARE='' BOCKER_MEM_LIMIT='' bocker run "$img" echo fine 2>/dev/null)" fine
}

test_image_without_a_shell() {
  mkdir -p tree/bin && cp /bin/busybox tree/bin/echo
  img=$(bocker init "$PWD/tree" 2>/dev/null | sed 's/Created: //')
  is "$(bocker run "$img" /bin/echo several words 2>/dev/null)" "several words"
  fails 127 '^bocker-exec: .*/bin/sh.*(shell|words)' bocker run "$img" "echo a line"
  fails 125 'no command|ENTRYPOINT' bocker run "$img"
}

# --- the original's defects --------------------------------------------------------------------

test_defect_addresses_collide() {
  bocker setup 2>/dev/null
  addresses=$(for n in 42010 42100 42011 42101 42110 42002 42020 42200; do bocker-net up "ps_$n"; done)
  is "$(sort -u <<<"$addresses" | wc -l)" 8
  unlike "$addresses" '^10\.0\.0\.1$'
  for n in 42010 42100 42011 42101 42110 42002 42020 42200; do bocker-net down "ps_$n"; done
}

test_defect_init_loses_dotfiles_owners_modes() {
  mkdir -p tree/.hidden/deep 'tree/with space'
  echo x > tree/.profile
  install -m 4755 -o 65534 -g 12 /bin/true tree/setuid
  ln tree/setuid tree/hardlink
  ln -s /etc/passwd tree/link
  mkfifo tree/fifo
  touch -d '2001-02-03 04:05:06.123456789' tree/.profile
  setfattr -n user.note -v kept tree/.profile
  truncate -s 10M tree/sparse
  img=$(bocker init tree 2>/dev/null | sed 's/Created: //')
  is "$(python3 "$repo/tests/listing.py" "$BOCKER_ROOT/$img/rootfs")" "$(python3 "$repo/tests/listing.py" tree)"
  [ "$(du -k "$BOCKER_ROOT/$img/rootfs/sparse" | cut -f 1)" -lt 1000 ] || fail "the sparse file was filled"
}

test_defect_commit_deletes_first() {
  image
  bocker run "$img" sh -c 'echo kept > /kept'
  ps=$(containers)
  fails 1 "No container named 'ps_42254' exists" bocker commit ps_42254 "$img"
  [ "$ps" = ps_42254 ] || bocker run "$img" true
  bocker commit "$ps" "$img" >/dev/null
  is "$(bocker run "$img" cat /kept)" kept
}

test_defect_files_written_through_image_links() {
  a_tree tree
  echo precious > "$HOST_DIR/precious"
  up=../../../../../../../../..
  ln -s "$up$HOST_DIR/precious" tree/etc/resolv.conf
  ln -s "$HOST_DIR/precious" tree/etc/hosts
  rm -f tree/etc/hostname && ln -s "$HOST_DIR/precious" tree/etc/hostname
  ln -s "$HOST_DIR/precious" tree/img.source
  img=$(bocker init "$PWD/tree" 2>/dev/null | sed 's/Created: //')
  bocker run "$img" true >/dev/null 2>&1 || true
  bocker images >/dev/null
  is "$(cat "$HOST_DIR/precious")" precious
}

test_defect_log_and_command_inside_the_root() {
  image
  bocker run "$img" sh -c 'echo said; ls -A /' >out
  ps=$(containers)
  unlike "$(cat out)" 'cmd|log|status|img\.source'
  is "$(bocker logs "$ps" | head -n 1)" said
  is "$(stat -c %a "$BOCKER_ROOT/$ps/log")" 600
}

test_defect_status_is_always_zero() {
  image
  bocker run "$img" false && fail "status 0" || is $? 1
}

test_defect_arguments_are_evaluated_again() {
  image
  is "$(bocker run "$img" echo 'a; echo injected' '&&' 'b')" 'a; echo injected && b'
}

test_defect_image_command_is_not_read() {
  image
  cat > "$BOCKER_ROOT/$img/config" <<'EOF'
{"architecture":"amd64","os":"linux","config":{"Env":["GREETING=hello"],"Entrypoint":["/bin/sh","-c","echo $GREETING $PWD $0 $(id -u)"],"Cmd":["world"],"WorkingDir":"/work/here","User":"user"},"rootfs":{"type":"layers","diff_ids":[]}}
EOF
  is "$(bocker run "$img")" "hello /work/here world 1000"
}

# --- all at once -------------------------------------------------------------------------------

test_twenty_at_once() {
  image
  bocker run "$img" true 2>/dev/null; bocker rm "$(containers)" >/dev/null
  before=$(census)
  for i in $(seq 20); do
    bocker run "$img" sh -c 'sleep 1; ip -o -4 addr show eth0; ip -o link show eth0; hostname' >"out.$i" 2>"err.$i" &
  done
  for job in $(jobs -p); do wait "$job" || fail "a run of twenty: $(cat err.*)"; done
  is "$(cat err.*)" "" "stderr"
  is "$(containers | sort -u | wc -l)" 20 "ids"
  is "$(grep -ho 'inet 10[.0-9]*' out.* | sort -u | wc -l)" 20 "addresses"
  is "$(grep -ho 'ether [0-9a-f:]*' out.* | sort -u | wc -l)" 20 "MACs"
  # shellcheck disable=SC2046 # ids
  bocker rm $(containers) >/dev/null
  is "$(census)" "$before"
}

test_a_whole_subnet() {
  image
  bocker setup 2>/dev/null
  empty=$(census)
  bocker-store snapshot "$img" -- true >/dev/null
  while bocker-store snapshot "$img" -- true >/dev/null 2>err; do :; done
  is "$(containers | sort -u | wc -l)" 253 "containers"
  like "$(cat err)" '^bocker-store: .*(253|42254).*(rm|BOCKER_SUBNET)'
  full=$(census)
  fails 125 '^bocker-store: .*(253|42254)' bocker run "$img" true
  is "$(census)" "$full" "after the 254th was refused"
  for ps in $(containers); do bocker-net up "$ps"; done | sort -u | wc -l > addresses
  is "$(cat addresses)" 253 "addresses"
  is "$(ip -o link show master bridge0 | wc -l)" 253 "links"
  is "$(ip -all netns exec cat /sys/class/net/eth0/address | grep -oE '02:42:[0-9a-f:]+' | sort -u | wc -l)" 253 "MACs"
  is "$(containers | bocker-net down - | wc -l)" 253 "taken down"
  # shellcheck disable=SC2046 # ids
  bocker rm $(containers) >/dev/null
  is "$(census)" "$empty" "after all are removed"
}

# --- the plan ----------------------------------------------------------------------------------

# The same command carried out and printed-then-run gives the same: stdout, status, the container's files, its view.
test_dry_run_is_the_same() {
  bocker setup 2>/dev/null
  image
  view='cat /proc/1/cgroup /etc/hosts /etc/resolv.conf /etc/hostname; ip -o addr; ip route; mount; env; ls /proc/self/fd 2>/dev/null | wc -l; id; pwd'
  state() { # of the container $1, its id and address blanked out
    for file in cmd image log status config source words limits; do echo "$file: $(cat "$BOCKER_ROOT/$1/$file")"; done |
      sed -E "s/$1/ID/g; s/10\.0\.0\.$((10#${1#ps_42}))\b/ADDRESS/g; s/(..:){5}../MAC/g; s/^[0-9]+: /N: /; s/\bif[0-9]+\b/IF/g; s/subvolid=[0-9]+/subvolid=N/; s/fe80::[0-9a-f:]+/LL/; s/([ug]id)=[0-9]{9,}/\1=N/g; s/^(log: )?20[0-9-]+T[0-9:.]+Z/\1TIME/"
  }
  blank() { sed -E 's/\b(img|ps)_[0-9]{5}/\1_ID/g'; }

  bocker run "$img" "$view; exit 5" >a && fail 0 || is $? 5
  first=$(containers)
  state "$first" >a.state
  bocker rm "$first" >/dev/null
  bocker --dry-run run "$img" "$view; exit 5" >script
  before=$(census)
  sh script >b && fail 0 || is $? 5
  second=$(containers)
  is "$(state "$second")" "$(cat a.state)" "the container's files"
is "$(census | grep -vE '^(store|process)')" "$(grep -vE '^(store|process)' <<<"$before")" "census"

  # From outside, while it runs: links, names, cgroup files.
  outside() {
    cat "/sys/fs/cgroup/cpu/$1/cpu.shares" "/sys/fs/cgroup/memory/$1/memory.limit_in_bytes"
    bocker-net list
    ip -d -o link show "veth0_$1"
    ls /run/netns
    wc -l <"/sys/fs/cgroup/cpuacct/$1/tasks"
  }
  outside_of() { # COMMAND...: of the container that it runs
    "$@" </dev/null &
    eventually 20 running
    ps=$(bocker-net list | cut -f 1)
    # The carrier comes to the port a moment later.
    eventually 10 is_up "veth0_$ps"
    outside "$ps" | sed -E "s/$ps/ID/g; s/10\.0\.0\.[0-9]+/ADDRESS/g; s/(..:){5}../MAC/g; s/^[0-9]+: /N: /; s/link-netns [^ ]+/NETNS/; s/if[0-9]+/IF/; s/0x[0-9a-f]+/X/g; s/_timer +[0-9.]+/_timer/g; s/8000\.[0-9a-f:.]+/PORT/g"
    # It runs until it has been looked at, however long that took.
    kill -KILL "$(cut -d' ' -f2 "$BOCKER_ROOT/$ps/status")"
    wait "$!" || is $? 137
    bocker rm "$ps" >/dev/null
  }
  # shellcheck disable=SC2317,SC2329
  is_up() { ip -o link show "$1" | grep -q ' state UP '; }
  outside_of bocker run "$img" sleep 1000 >a
  bocker --dry-run run "$img" sleep 1000 >script
  outside_of sh script >b
  is "$(cat b)" "$(cat a)" "what the host has of it"
  like "$(cat a)" '^512000000$'
  like "$(cat a)" 'master bridge0'

  for words in images ps "logs $second" gc help; do
    # shellcheck disable=SC2086 # words on purpose
    is "$(bocker --dry-run $words | sh)" "$(bocker $words)" "bocker $words" 
  done
  is "$(bocker --dry-run commit "$second" "$img" | sh)" "$(bocker commit "$second" "$img")"
  is "$(bocker --dry-run init "$PWD/tree" | sh | blank)" "$(bocker init "$PWD/tree" | blank)"
  new=$(bocker images | awk 'NR > 1 { print $1 }' | grep -vx "$img")
  set -- $new
  is "$(python3 "$repo/tests/listing.py" "$BOCKER_ROOT/$1/rootfs")" "$(python3 "$repo/tests/listing.py" "$BOCKER_ROOT/$2/rootfs")"
  is "$(bocker --dry-run rm "$1" | sh)" "Removed: $1"
  is "$(bocker rm "$2")" "Removed: $2"
  is "$(bocker --dry-run rm "$second" | sh)" "Removed: $second"
  start sleep 100
  is "$(bocker --dry-run exec "$ps" sh -c 'hostname; exit 4' | sh || echo $?)" "$ps
4"
  kill "$runner"; wait "$runner" || true
  bocker rm "$ps" >/dev/null
  # In a subshell, too.
  is "$(sh -c "( $(bocker --dry-run run "$img" echo below) )" </dev/null)" below
  bocker rm "$(containers | grep -vx "$second")" >/dev/null
  # A step that fails stops the script with the same status, and takes down what was set up.
  bocker --dry-run run "$img" nosuch >script
  fails 127 nosuch sh script
  bocker --dry-run run img_42002 true >script
  [ "$img" = img_42002 ] || fails 125 "No image named 'img_42002' exists" sh script
  bocker rm "$img" >/dev/null
  is "$(bocker --dry-run setup --undo | sh 2>&1)" ""
  bocker --dry-run setup | sh 2>/dev/null
  after=$(census)
  bocker setup --undo
  bocker setup 2>/dev/null
  is "$(census)" "$after" "bocker setup"
}

test_trace_says_each_step() {
  image
  bocker run "$img" true 2>/dev/null
  bocker --trace run "$img" true 2>err
  for step in 'bocker-store snapshot' 'bocker-cg create ps_' 'bocker-net up' 'bocker-cg exec ps_.* -- bocker-net exec ps_.* -- bocker-exec' 'bocker-net down ps_'; do
    like "$(cat err)" "^\\+ $step"
  done
}
