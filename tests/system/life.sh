# Containers from their beginning to their end, by the verbs of bocker.
# shellcheck shell=bash disable=SC2154,SC2016 # repo: tests/lib.sh; words for another shell

# A host that is set up, and an image of busybox in $img.
image() {
  bocker setup 2>/dev/null
  a_tree tree
  img=$(bocker init "$PWD/tree" | sed -n 's/^Created: //p')
}
status() { bocker ps -a --filter "name=^$1\$" --format '{{.Status}}'; }
ended() { case $(status "$1") in Exited*) ;; *) return 1 ;; esac; }
gone() { [ "$(bocker ps -q)" = "" ] && [ ! -e "/run/netns/netns_$1" ] && [ -z "$(find /sys/fs/cgroup -name "$1")" ]; }
taken_down() { [ ! -e "/run/netns/netns_$1" ] && [ -z "$(find /sys/fs/cgroup -name "$1")" ]; }
all_back() { [ "$(census)" = "$before" ]; }
# all_back_soon: what goes by itself needs a moment
all_back_soon() { (eventually 5 all_back) 2>/dev/null || is "$(census)" "$before"; }
# as_before: all is back at once; but a process that has nothing more to do may still be there.
as_before() { is "$(census | grep -v ^process)" "$(grep -v ^process <<<"$before")"; all_back_soon; }
# Somebody waits for the end of a container, and has found it running: a descriptor of its process says so.
somebody_waits() {
  local pid
  for pid in $(pgrep -f 'bocker-exec --wait'); do ! grep -qs '^Pid:' "/proc/$pid/fdinfo/"* || return 0; done
  return 1
}

test_a_container_in_the_background() {
  image
  before=$(census)
  ps=$(bocker run -d --name web -e A=1 "$img" sh -c 'trap "echo told; exit 3" TERM; echo out $A; echo err >&2; while :; do sleep 0.05; done')
  like "$ps" '^ps_[0-9]{5}$'
  is "$(bocker ps --filter status=running --format '{{.ID}} {{.Names}}')" "$ps web"
  like "$(status web)" '^Up '
  # It is the child of nobody of ours, and holds nothing of ours: not our pipe, above, and not the directory.
  is "$(bocker exec web hostname) $(bocker exec "${ps%?}" hostname)" "$ps $ps" "by its name, and by the beginning of its id"
  # Both, and by the second it knows what to do when it is told.
  eventually 5 eval '[ "$(bocker logs web 2>&1 | sort | xargs)" = "err out 1" ]'
  is "$(bocker logs web 2>/dev/null)" "out 1"
  is "$(bocker logs web 2>&1 >/dev/null)" "err"
  fails 125 "name 'web'|'web'.*$ps|web" bocker run -d --name web "$img" true
  fails 1 'is running' bocker rm web
  # Its own status, and bocker wait's is 0.
  bocker wait web >waited & waiter=$!
  is "$(bocker stop web)" web
  wait "$waiter"
  is "$(cat waited) $(bocker wait web)" "3 3"
  # Its supervisor may be held up for longer than they wait for it to let go.
  eventually 5 ended web
  is "$(bocker logs web 2>/dev/null | tail -1)" told
  like "$(status web)" '^Exited \(3\)'
  eventually 5 taken_down "$ps"
  is "$(bocker stop web)" web "one that has ended"
  fails 1 'is not running' bocker kill web
  fails 125 'is not running' bocker exec web true
  # With what it was told, once more, and at once.
  is "$(bocker start web)" web
  is "$(bocker exec web hostname)" "$ps"
  like "$(bocker exec web cat /proc/1/environ | tr '\0' '\n')" '^A=1$'
  is "$(bocker start web)" web "one that runs"
  is "$(bocker restart web)" web
  is "$(bocker exec web ls /sys/class/net | xargs)" "eth0 lo"
  is "$(bocker kill web)" web
  is "$(bocker wait web)" 137
  eventually 5 ended web
  is "$(bocker rm web)" "Removed: web"
  as_before
}

test_rm_leaves_nothing() {
  image
  before=$(census)
  # In the foreground, in the background, started again, and where nothing ever ran.
  bocker run --rm -v /data -v kept:/kept "$img" true
  is "$(bocker volume ls -q | xargs)" kept "the volume that somebody has named stays"
  bocker volume rm kept >/dev/null
  as_before
  # Who waits for the end has it, also if the container is gone before it looks.
  for held in '' "held up"; do
    ps=$(bocker run -d --rm -v /data "$img" sh -c 'until [ -e /end ]; do sleep 0.05; done; exit 3')
    bocker wait "$ps" >waited & waiter=$!
    eventually 5 somebody_waits
    pid=$(pgrep -f 'bocker-exec --wait')
    [ -z "$held" ] || kill -STOP "$pid"
    touch "$BOCKER_ROOT/$ps/rootfs/end"
    [ -z "$held" ] || { eventually 5 gone "$ps" && eventually 5 test ! -e "$BOCKER_ROOT/$ps" && kill -CONT "$pid"; }
    wait "$waiter" || fail "wait: $? $held"
    is "$(cat waited)" 3 "$held"
    eventually 5 gone "$ps"
    all_back_soon
  done
  bocker run --rm "$img" nosuch 2>/dev/null && fail 0 || is $? 127
  bocker run -d --rm "$img" nosuch 2>/dev/null && fail 0 || is $? 127
  as_before
  ps=$(bocker create --rm "$img" sh -c 'echo hi; exit 4')
  bocker start -a "$ps" >out && fail 0 || is $? 4
  is "$(cat out)" hi
  eventually 5 gone "$ps"
  all_back_soon
  # Control: without it the container stays.
  bocker run "$img" true
  is "$(bocker ps -q | wc -l)" 1
}

test_create_and_start() {
  image
  before=$(census)
  ps=$(bocker create --name one --cidfile cid -i -w /tmp -u user --hostname box "$img" sh -c 'pwd; id -un; hostname; cat; exit 5')
  is "$ps" "$(cat cid)"
  is "$(wc -c <cid)" "${#ps}" "as docker writes it"
  is "$(bocker ps --format '{{.State}}')" created
  fails 125 'File exists' bocker create --cidfile cid "$img"
  is "$(bocker ps -q)" "$ps" "what it had made is gone"
  fails 1 'has not run' bocker wait one
  echo in | bocker start -ai one >out && fail 0 || is $? 5
  is "$(xargs <out)" "/tmp user box in"
  # Without -i there is no stdin.
  echo in | bocker start -a one >out && fail 0 || is $? 5
  is "$(xargs <out)" "/tmp user box"
  bocker rename one two
  fails 1 "one" bocker start one
  is "$(bocker start two)" two
  # Nobody attaches to it: it waits for its input.
  like "$(status two)" '^Up '
  is "$(bocker rm -f two)" "Removed: two"
  as_before
}

test_stdin_is_the_callers() {
  image
  is "$(echo in | bocker run --rm "$img" cat)" in
  is "$(echo in | bocker run --rm -i "$img" cat)" in
  printf 'a\nb\nc\n' >list
  while read -r line; do bocker run --rm -i=false "$img" cat; echo "$line"; done <list >out
  is "$(xargs <out)" "a b c" "a loop's list stays the loop's"
  ps=$(echo in | bocker run -d "$img" sh -c 'cat; exec sleep 60')
  is "$(echo in | bocker exec -i=false "$ps" cat)" ""
  is "$(echo in | bocker exec "$ps" cat)" in
  is "$(bocker logs "$ps")" "" "what runs in the background has none of ours"
  bocker rm -f "$ps" >/dev/null
}

test_flags_reach_the_container() {
  image
  printf '# comment\n\nB=two words\nCALLERS\n' >file
  CALLERS=yes bocker run --rm -e A=1 -e CALLERS -e B=3 --env-file file "$img" env >out
  is "$(grep -E '^(A|B|CALLERS)=' out | sort | xargs)" "A=1 B=3 CALLERS=yes"
  is "$(bocker run --rm --entrypoint echo "$img" 'a b; c')" 'a b; c'
  is "$(bocker run --rm -m 64m --memory-reservation 32m --pids-limit 77 -c 300 "$img" sleep 0 && bocker run -d --name lim -m 64m --pids-limit 77 -c 300 "$img" sleep 60 >/dev/null && id=$(bocker-store id lim) && bocker-cg get "$id" memory && bocker-cg get "$id" pids && bocker-cg get "$id" cpu.shares)" \
    "$(printf '%s\n' 67108864 77 300)"
  id=$(bocker-store id lim)
  bocker update -m 96m lim >/dev/null
  is "$(bocker-cg get "$id" memory)" 100663296
  bocker restart -t 0 lim >/dev/null
  is "$(bocker-cg get "$id" memory) $(bocker-cg get "$id" pids)" "100663296 77" "also after a restart"
  like "$(bocker stats --no-stream lim)" "^$id	.*	100663296	"
  bocker rm -f lim >/dev/null
  # -d in a cluster, a switch that is taken back, and what is not there.
  ps=$(bocker run -dt --rm=false "$img" busybox tty)
  is "$(bocker wait "$ps") $(bocker logs "$ps" | tr -d '\r')" "0 /dev/pts/0"
  fails 125 '^bocker: --publish with --network container:web: the network is' bocker run --network container:web -p 80:80 "$img"
  fails 125 'systemd does not run' bocker run -d --restart=always "$img"
  fails 125 'not a container' bocker run --name '/x' "$img" true
  is "$(bocker ps -q)" "$ps" "of what was refused nothing is left"
}

test_walls_are_the_callers_to_move() {
  image
  run() { bocker run --rm "$@"; }
  caps() { sed -n 's/^CapEff:\t0*//p'; }
  is "$(run "$img" cat /proc/self/status | caps)" 800405fb
  is "$(run --cap-drop ALL --cap-add NET_ADMIN "$img" cat /proc/self/status | caps)" 1000
  # Its root is nobody of the host's, and with --userns=host it is.
  unlike "$(run "$img" cat /proc/self/uid_map | awk '{ print $2 }')" '^0$'
  is "$(run --userns=host "$img" cat /proc/self/uid_map | awk '{ print $2 }')" 0
  # All that this host's root has itself, and its devices.
  is "$(run --privileged "$img" cat /proc/self/status | caps)" "$(caps </proc/self/status)"
  is "$(run --privileged "$img" sh -c 'test -e /dev/loop-control && : </dev/loop-control && echo open' 2>&1)" open
  run "$img" test -e /dev/loop-control && fail "a device that nobody asked for"
  is "$(run --device /dev/loop-control:/dev/mine --userns=host "$img" sh -c ': </dev/mine && echo open')" open
  like "$(run --device /dev/loop-control:/dev/mine:m --userns=host "$img" sh -c ': </dev/mine' 2>&1 || true)" 'not permitted'
  is "$(run --security-opt no-new-privileges "$img" sed -n 's/^NoNewPrivs:\t//p' /proc/self/status)" 1
  is "$(run --security-opt seccomp=unconfined "$img" sed -n 's/^Seccomp:\t//p' /proc/self/status)" 0
  is "$(run "$img" sed -n 's/^Seccomp:\t//p' /proc/self/status)" 2
  run --read-only "$img" touch /x 2>err && fail "written"
  like "$(cat err)" 'Read-only'
  is "$(run --ulimit nofile=77:99 "$img" sh -c 'ulimit -n; ulimit -Hn' | xargs)" "77 99"
  is "$(run --init "$img" sh -c 'echo $$')" 2
  is "$(run --oom-score-adj 300 "$img" cat /proc/self/oom_score_adj)" 300
  bocker run -d --name late --oom-score-adj 300 "$img" sleep 60 >/dev/null
  is "$(bocker exec late cat /proc/self/oom_score_adj)" 300 "as who runs there"
  bocker rm -f late >/dev/null
}

test_volumes_and_what_is_in_them() {
  image
  echo image > "$BOCKER_ROOT/$img/rootfs/var/seed"
  mkdir host && echo host >host/file
  bocker run --name a -v data:/var -v "$PWD/host:/host:ro" -v ./host:/again --tmpfs /mem "$img" sh -c 'cat /var/seed /host/file; echo more >/var/more; echo w >/again/w; ! echo x >/host/x; grep -c " /mem tmpfs" /proc/mounts' >out 2>err
  is "$(xargs <out)" "image host 1"
  is "$(cat host/w)" w
  is "$(bocker run --rm --volumes-from a:ro "$img" sh -c 'cat /var/more; echo x >/var/more' 2>err; true)" more
  is "$(bocker run --rm --mount type=volume,source=data,target=/d,readonly "$img" cat /d/more)" more
  bocker rm -v a >/dev/null
  is "$(bocker volume ls -q)" data
}

test_pause_top_and_exec_in_the_background() {
  image
  ps=$(bocker run -d --name busy "$img" sh -c 'while :; do echo >>/tmp/ticks; sleep 0.05; done')
  eventually 5 test -s "$BOCKER_ROOT/$ps/rootfs/tmp/ticks"
  is "$(bocker pause busy)" busy
  like "$(status busy)" '\(Paused\)$'
  ticks=$(wc -c <"$BOCKER_ROOT/$ps/rootfs/tmp/ticks")
  sleep 0.3
  is "$(wc -c <"$BOCKER_ROOT/$ps/rootfs/tmp/ticks")" "$ticks"
  is "$(bocker unpause busy)" busy
  eventually 5 eval '[ "$(wc -c <"$BOCKER_ROOT/$ps/rootfs/tmp/ticks")" -gt "$ticks" ]'
  bocker exec -d -e A=b -w /tmp busy sh -c 'echo $A in $PWD >done; sleep 31'
  eventually 5 test -s "$BOCKER_ROOT/$ps/rootfs/tmp/done"
  is "$(cat "$BOCKER_ROOT/$ps/rootfs/tmp/done")" "b in /tmp"
  like "$(bocker top busy)" 'sleep 31'
  # Paused it takes no signal; by force it goes all the same.
  bocker pause busy >/dev/null
  is "$(bocker rm -f busy)" "Removed: busy"
  is "$(pgrep -cx sleep || true)" 0
}

test_cp() {
  image
  bocker create --name box "$img" >/dev/null
  mkdir -p from/sub && echo one >from/one && echo two >from/sub/two && chown -R 1000:1000 from
  bocker cp from box:/srv
  is "$(cd "$BOCKER_ROOT/$(bocker-store id box)/rootfs/srv" && find . -printf '%p %u\n' | sort | xargs)" ". root ./one root ./sub root ./sub/two root"
  bocker cp from/. box:/tmp && bocker cp -a from/one box:/tmp/renamed
  is "$(bocker cp box:/tmp/sub/two - | tar -xO)" two
  mkdir to && bocker cp box:/srv to && bocker cp box:/srv/. to && bocker cp box:/srv/one to/new
  is "$(cd to && find . -type f | sort | xargs)" "./new ./one ./srv/one ./srv/sub/two ./sub/two"
  bocker cp -a box:/tmp/renamed to && is "$(stat -c %u to/renamed to/new | xargs)" "1000 0"
  is "$(bocker cp box:/srv/one - | bocker cp - box:/root && bocker cp box:/root/one - | tar -xO)" one
  fails 1 'a directory cannot be copied over a file' bocker cp box:/srv to/new
  fails 1 'no such directory' bocker cp box:/srv/one to/nosuch/x
  fails 2 'neither is' bocker cp from to
  for what in box:/nosuch box:/srv/one/x nosuch:/srv; do
    status=0
    bocker cp "$what" to 2>err || status=$?
    is "$status $(wc -l <err)" "1 1" "$what: $(cat err)"
  done
  # From one to another, which docker refuses: by the same rules.
  bocker create --name other "$img" >/dev/null
  bocker cp box:/tmp other:/srv
  is "$(cd "$BOCKER_ROOT/$(bocker-store id other)/rootfs/srv" && find . -type f -printf '%p %u\n' | sort | xargs)" "./one root ./renamed root ./sub/two root"
  bocker cp -a box:/tmp/renamed other:/srv/kept && bocker cp box:/tmp/. other:/root && bocker cp box:/srv/one box:/srv/again
  is "$(bocker cp -a other:/srv/kept to && stat -c %u to/kept)" 1000
  is "$(bocker cp other:/root/sub/two - | tar -xO) $(bocker cp box:/srv/again - | tar -xO)" "two one"
  bocker cp box:/nosuch other:/srv 2>err && fail 0
  like "$(cat err)" '/nosuch: No such file'
  is "$(wc -l <err)" 1 "lines: $(cat err)"
  # What is in a directory, into one that is there and one that is not.
  for where in /root/kept /made; do
    bocker cp box:/srv other:/root/kept 2>/dev/null || fail "$where"
    bocker cp box:/srv/. other:$where
    is "$(bocker cp other:$where/sub/two - | tar -xO) $(bocker cp other:$where/one - | tar -xO)" "two one" "$where"
  done
  bocker cp box:/srv other:/srv/kept 2>err && fail 0
  like "$(cat err)" "a directory cannot take the place of what is none\$"
  is "$(bocker cp other:/srv/kept - | tar -xO)" one
  bocker --dry-run cp box:/srv/one other:/printed | sh
  is "$(bocker cp other:/printed - | tar -xO)" one
  is "$(cat to/new)" one
}

# Whoever is killed by force leaves what gc takes; and a start does not wait for it.
test_a_supervisor_that_is_killed() {
  image
  before=$(census)
  ps=$(bocker run -d --name web "$img" sleep 1000)
  payload=$(sed -n 's/^running //p' "$BOCKER_ROOT/$ps/status")
  supervisor=$(awk '$1 == "PPid:" { print $2 }' "/proc/$payload/status")
  kill -KILL "$supervisor"
  eventually 5 eval '[ ! -e "/proc/$payload" ]'
  # The payload may be gone before the last of the supervisor's threads, and with that the lock.
  eventually 5 ended web
  is "$(bocker wait web)" unknown
  [ -e "/run/netns/netns_$ps" ] || fail "nothing was left: this test shows nothing"
  is "$(bocker start web)" web
  is "$(bocker exec web hostname)" "$ps"
  payload=$(sed -n 's/^running //p' "$BOCKER_ROOT/$ps/status")
  kill -KILL "$(awk '$1 == "PPid:" { print $2 }' "/proc/$payload/status")"
  eventually 5 eval '[ ! -e "/proc/$payload" ]'
  eventually 5 ended web
  bocker gc >/dev/null
  taken_down "$ps" || fail "gc left something"
  is "$(bocker rm web)" "Removed: web"
  as_before
}

# What is printed does the same.
test_printed_life() {
  image
  before=$(census)
  said() { bocker --dry-run "$@" >script && sh script; }
  ps=$(said run -d --name web "$img" sh -c 'exec sleep 1000')
  is "$(said exec web hostname)" "$ps"
  is "$(said stop -t 0 web)" web
  like "$(said wait web)" '^1(37|43)$'
  eventually 5 ended web
  is "$(said start web)" web
  is "$(said restart -t 0 web)" web
  is "$(said pause web)$(said unpause web)" webweb
  is "$(said exec "$ps" hostname)" "$ps"
  is "$(said rm -f web)" "Removed: web"
  as_before
  said run --rm "$img" sh -c 'exit 6' && fail 0 || is $? 6
  as_before
}

test_a_missing_image() {
  image
  fails 125 'No image' bocker run --pull never nosuch:1 true
  # It is asked for where it is not: at a registry. Nobody is there.
  bocker run 127.0.0.1:9/nosuch:1 true 2>err && fail 0 || is $? 125
  like "$(cat err)" '^bocker-pull: .*127\.0\.0\.1:9'
  # One that is there is not; and another mistake is no reason to.
  bocker tag "$img" mine:1
  is "$(bocker run --rm mine:1 echo there)" there
  bocker create --name taken mine:1 >/dev/null
  bocker run --name taken mine:1 true 2>err && fail 0 || is $? 125
  unlike "$(cat err)" pull
}

test_an_image_is_pulled_where_it_is_missing() {
  image
  # shellcheck source=scripts/lib.sh
  (. "$repo/scripts/lib.sh"; mkdir registry; registry docker-registry "$PWD/registry" 5000)
  bocker tag "$img" small:1 && bocker save -o small.tar small:1
  skopeo copy -q --insecure-policy --dest-tls-verify=false oci-archive:small.tar docker://localhost:5000/small:1
  is "$(bocker run --rm localhost:5000/small:1 echo pulled 2>/dev/null)" pulled
  is "$(bocker images | grep -c localhost:5000/small:1)" 1
  bocker rmi localhost:5000/small:1 >/dev/null
  # The printed script does the same.
  bocker --dry-run run --rm localhost:5000/small:1 echo pulled >script
  is "$(sh script 2>/dev/null)" pulled
  kill "$(pgrep -f 'docker-registry serve')"
  eventually 5 eval '! pgrep -f "docker-registry serve" >/dev/null'
  is "$(bocker run --rm localhost:5000/small:1 echo there)" there "nobody is asked where it is there"
  bocker run --rm --pull always localhost:5000/small:1 true 2>/dev/null && fail 0 || is $? 125
  is "$(bocker ps -q)" ""
}

# systemd does not run here: a stand-in for systemctl says what it was asked, and does with units what is needed of it.
a_systemd() {
  mkdir -p /run/systemd/system
  mount -t tmpfs units /etc/systemd/system
  cat >systemctl <<'S'
#!/bin/sh
echo "$*" >> "$BOCKER_ASKED"
for unit; do :; done
exec >/dev/null 2>&1
of() { sed -n "s/^$1=//p" "/etc/systemd/system/$unit"; }
case $* in
  start* | enable*--now*) $(of ExecStart) & ;;
  stop* | disable*--now*) $(of ExecStop) ;;
  restart*) $(of ExecStop); $(of ExecStart) & ;;
esac
S
  chmod 755 systemctl && mount --bind systemctl /usr/bin/systemctl
  export BOCKER_ASKED=$HOST_DIR/asked
}
test_a_restart_policy_is_a_unit() {
  image
  a_systemd
  before=$(census)
  ps=$(bocker run -d --restart on-failure:3 --name web "$img" sh -c 'trap "exit 4" TERM; : >/ready; while :; do sleep 0.05; done')
  unit=/etc/systemd/system/bocker-$ps.service
  is "$(cat asked)" "enable --quiet bocker-$ps.service
start --no-block bocker-$ps.service"
  is "$(grep -E '^(Restart|StartLimit|Wants|After|ExecStart=)' "$unit" | sed 's,=/.*/,=,')" "StartLimitIntervalSec=infinity
StartLimitBurst=4
Wants=bocker-gc.service
After=network.target bocker-gc.service
ExecStart=bocker start -a $ps
Restart=on-failure
RestartSec=1
RestartPreventExitStatus=125"
  # What systemd itself says of it, where it is installed.
  if command -v systemd-analyze >/dev/null; then
    systemd-analyze verify --man=no "$unit" 2>said || true
    is "$(grep -F "bocker-$ps" said || true)" ""
  fi
  eventually 5 running_web
  is "$(bocker exec web hostname)" "$ps"
  eventually 5 test -e "$BOCKER_ROOT/$ps/rootfs/ready"
  is "$(bocker stop web)" web
  is "$(tail -2 asked)" "stop bocker-$ps.service
reset-failed bocker-$ps.service"
  is "$(bocker wait web)" 4
  is "$(bocker start web)" web
  like "$(tail -1 asked)" "^start bocker-$ps.service\$"
  eventually 5 running_web
  is "$(bocker rm -f web)" "Removed: web"
  [ ! -e "$unit" ] || fail "the unit is still there"
  eventually 5 taken_down "$ps"
  all_back_soon
  # One that was told to stop is not started with the machine, until it is started by hand.
  ps=$(bocker run -d --restart unless-stopped --name web "$img" sleep 1000)
  is "$(grep -E '^(Restart|StartLimit|X-)' "/etc/systemd/system/bocker-$ps.service" | xargs)" "X-Restart=unless-stopped StartLimitIntervalSec=0 Restart=always RestartSec=1 RestartPreventExitStatus=125"
  eventually 5 running_web
  is "$(bocker stop -t 0 web)" web
  is "$(tail -2 asked)" "disable --quiet --now bocker-$ps.service
reset-failed bocker-$ps.service"
  is "$(bocker --dry-run start web | sh)" web
  is "$(tail -1 asked)" "enable --quiet --now bocker-$ps.service"
  eventually 5 running_web
  is "$(bocker restart -t 0 web)" web
  is "$(tail -2 asked)" "restart bocker-$ps.service
enable --quiet bocker-$ps.service"
  eventually 5 running_web
  is "$(bocker rm -f web)" "Removed: web"
  eventually 5 taken_down "$ps"
  all_back_soon
  # The other flags' mistakes leave no unit.
  bocker run -d --restart always --name '/' "$img" true 2>/dev/null && fail 0
  is "$(ls /etc/systemd/system)" ""
  umount /usr/bin/systemctl /etc/systemd/system
}

# What a start of the machine leaves: of processes, mounts, links, rules, cgroups and /run nothing, of the disk all.
machine_starts() {
  local pid
  for pid in $(ps -e -o pid=,args= | awk '/bocker|sleep 1000/ && !/awk|tests\// { print $1 }'); do kill -KILL "$pid" 2>/dev/null || true; done
  # Who watched them, too: until it is gone it has files of the store open.
  eventually 5 eval '! pgrep "^sleep$|bocker" >/dev/null'
  find /run/netns -mindepth 1 -exec umount -l {} +
  umount -l /run/netns
  umount "$BOCKER_ROOT"
  rm -rf /run/netns /run/bocker /run/bocker-net
  nft flush ruleset
  ip -o link show type veth | sed -E 's/^[0-9]+: ([^:@]+).*/\1/' | xargs -r -n 1 ip link del 2>/dev/null || true # one may go by itself
  ip link del bridge0
  echo 0 >/proc/sys/net/ipv4/ip_forward
  # Empty a moment after their last process.
  eventually 10 no_cgroups
}
no_cgroups() {
  find /sys/fs/cgroup -depth -name 'ps_*' -type d -exec rmdir {} + 2>/dev/null || true
  [ -z "$(find /sys/fs/cgroup -name 'ps_*')" ]
}

test_a_start_of_the_machine() {
  image
  local unit=$repo/scripts/bocker-gc.service before left
  bocker create --name kept "$img" true >/dev/null
  before=$(census)
  bocker run -d --name web -p 8080:80 -v data:/data "$img" sh -c 'echo begun >>/data/log; exec sleep 1000' >/dev/null
  bocker run -d --rm --name passing "$img" sleep 1000 >/dev/null
  eventually 5 eval '[ "$(pgrep -xc sleep)" = 2 ]'
  machine_starts
  # The store is not mounted: gc says so, and neither mounts nor makes anything.
  left=$(census)
  fails 1 "^bocker-store: no btrfs is mounted at $BOCKER_ROOT \(bocker setup\)$" bocker gc
  is "$(census)" "$left"
  fails 125 "no btrfs is mounted at" bocker start -a web
  # What the unit does, in its order.
  sed -n 's,^ExecStart=/usr/local/bin/,,p' "$unit" >script
  is "$(cat script)" $'bocker setup\nbocker gc'
  sh -e script 2>/dev/null >gone
  like "$(cat gone)" '^ps_[0-9]+$'
  is "$(bocker ps -a --format '{{.Names}}' | sort | xargs)" 'kept web' "what was --rm's is gone"
  like "$(status web)" '^Exited \(unknown\)'
  bocker-store fsck
  is "$(sh -e script 2>&1)" "" "again there is nothing to do"
  bocker doctor >out || fail "$(grep -v ^ok out)"
  # It starts with all it had.
  bocker start web >/dev/null
  eventually 5 running_web
  is "$(bocker port web)" '80/tcp -> 0.0.0.0:8080'
  eventually 5 eval '[ "$(bocker exec web cat /data/log | xargs)" = "begun begun" ]'
  bocker rm -f web >/dev/null
  bocker volume rm data >/dev/null
  as_before
  # What systemd itself says of the unit, where it is installed; the control is one that it refuses.
  if command -v systemd-analyze >/dev/null; then
    sed "s,/usr/local/bin/,$BOCKER_BIN/," "$unit" >bocker-gc.service
    systemd-analyze verify --man=no ./bocker-gc.service 2>said || true
    is "$(grep -F bocker-gc said || true)" ""
    sed -i 's/oneshot/none/' bocker-gc.service
    systemd-analyze verify --man=no ./bocker-gc.service 2>said || true
    like "$(cat said)" bocker-gc
  fi
}
running_web() { case $(status web) in Up*) ;; *) return 1 ;; esac; }

# on KEYS WORDS...: bocker WORDS on a terminal, see tests/terminal.py; what it shows, without a prompt's question
on() { "$repo/tests/terminal.py" "$1" bocker "${@:2}" >out || fail "$(cat out)"; sed -i 's/\x1b\[6n//g' out; }
# WINCH is signal 28.
cares_for_sizes() { (($((0x$(sed -n 's/^SigCgt:\t//p' "/proc/$1/status") >> 27 & 1)))); }
test_a_terminal() {
  image
  on '33x77,raw,?# ,=tty; stty size,?/dev/pts/0,?33 77,=exit 7' run --rm -it "$img" busybox sh
  like "$(cat out)" '^status 7$' && unlike "$(cat out)" 'modes changed'
  ps=$(bocker run -dit --name shell "$img" sh)
  # It paints its prompt anew for who comes, once it cares for sizes.
  eventually 5 cares_for_sizes "$(sed -n 's/^running //p' "$BOCKER_ROOT/$ps/status")"
  on 'raw,?# ,=name=kept,=echo a$name,?akept,^P,^Q' attach shell
  like "$(cat out)" '^status 0$' && unlike "$(cat out)" 'modes changed'
  on 'raw,?,=echo b$name,?bkept,=exit 9' attach shell
  like "$(cat out)" '^status 9$'
  is "$(bocker wait shell)" 9
  bocker start shell >/dev/null
  on 'raw,?# ,=tty,?/dev/pts/,=exit 5' exec -it shell sh
  like "$(cat out)" '^status 5$'
  bocker rm -f shell >/dev/null
}
