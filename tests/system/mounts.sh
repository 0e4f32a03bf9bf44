# shellcheck shell=bash disable=SC2016,SC2154,SC2054 # single quotes: the container's shell; repo: tests/lib.sh; commas in a word
# What the caller mounts: owners, read-only, propagation, memory, and where images would like it to be mounted (checks 29 and 30).

# a_container: a busybox root, a tree of the host with a mount in it, and a sentinel that nothing may touch
a_container() {
  R=$HOST_DIR/root S=$HOST_DIR/tree
  a_tree "$R"
  mkdir -p "$S/sub" outside below
  # No tmpfs: those can be mapped since Linux 6.3 only.
  mount --bind below "$S/sub"
  echo mine > "$S/file" && chown 1000:1000 "$S/file"
  echo untouched > outside/sentinel
  sentinel=$(state) before=$(census)
}
state() { find "$HOST_DIR/outside" -printf '%p %m %U %s %T@ %C@\n' | sort; cat "$HOST_DIR/outside/sentinel"; }
untouched() {
  is "$(state)" "$sentinel" "the sentinel"
  is "$(census)" "$before" "what the host has"
}
x() { bocker-exec --root "$R" "$@"; }
# inside PATH: the attributes of what is mounted there
inside() { awk -v at="$1" '$5 == at { last = $6 } END { print last }' info; }

test_owners_are_the_disks() {
  a_container
  touch "$S/roots" && chmod 600 "$S/roots"
  cc -static -o "$S/who" -xc - <<'END'
#include <stdio.h>
#include <unistd.h>
int main(void) { return !(printf("%d\n", geteuid()) > 0); }
END
  chmod 4755 "$S/who"
  for users in private host; do
    is "$(x --userns=$users --volume "$S:/data" -- sh -c '
      stat -c "%u:%g %n" /data/file /data/roots; echo made > /data/made; mkdir /data/new/; echo sub > /data/sub/made
      awk "{ print (\$2 != 0) }" /proc/self/uid_map')" "1000:1000 /data/file
0:0 /data/roots
$([ $users = host ] && echo 0 || echo 1)" "inside, --userns=$users"
    is "$(stat -c '%u:%g %a' "$S/made" "$S/new" "$S/sub/made" | xargs)" "0:0 644 0:0 755 0:0 644" "on the disk, --userns=$users"
    x --userns=$users --user 1000 --volume "$S/file:/one" -- sh -c 'echo more >> /one'
    is "$(tail -1 "$S/file")" more
    # Somebody else's is somebody else's, and a setuid file is its owner's: of the container.
    fails 1 'Permission denied' x --userns=$users --user 1001 --volume "$S:/data" -- cat /data/roots
    is "$(x --userns=$users --user 1001 --volume "$S:/data" -- /data/who)" 0 "a setuid file, --userns=$users"
    rm -r "$S/made" "$S/new" "$S/sub/made" && echo mine > "$S/file"
  done
  # As the source has it.
  mount -o remount,bind,nosuid,noexec "$S/sub" && cp "$S/who" "$S/sub/who"
  fails 126 'Permission denied' x --volume "$S:/data" -- /data/sub/who
  # As it is: the host's root is nobody that the container knows.
  is "$(x --volume "$S:/data:noidmap" -- stat -c %u /data/roots)" 65534
  fails 1 'Permission denied' x --volume "$S:/data:noidmap" -- cat /data/roots
  # What cannot be mapped says so, and where it is.
  mkdir "$S/proc" && mount -t proc proc "$S/proc"
  fails 125 "map the owners of $S: $S/proc, a proc, cannot be mapped \(noidmap .*--userns=host" x --volume "$S:/data" -- true
  fails 125 "map the owners of $S/proc/sys: $S/proc, a proc, cannot be mapped" x --volume "$S/proc/sys:/data" -- true
  x --volume "$S:/data:noidmap" -- test -e /data/proc/1
  x --userns=host --volume "$S:/data" -- test -e /data/proc/1
  x --mount "type=bind,src=$S,dst=/data,bind-recursive=disabled" -- test ! -e /data/proc/1
}

# What is made for the container is what its root could make itself: not in a directory of the host's users.
test_a_working_directory_where_it_is_nobody() {
  a_container
  mkdir data data/open && chmod 777 data/open
  fails 125 '^bocker-exec: enter /data/made: Permission denied$' x --volume "$PWD/data:/data:noidmap" --workdir /data/made -- true
  is "$(x --volume "$PWD/data:/data:noidmap" -- sh -c 'mkdir /data/made 2>&1')" "mkdir: can't create directory '/data/made': Permission denied" "as its root"
  is "$(ls data)" open
  is "$(x --volume "$PWD/data:/data:noidmap" --workdir /data/open/a/b -- pwd)" /data/open/a/b
  # The control: its own.
  is "$(x --volume "$PWD/data:/data" --workdir /data/made/here -- pwd)" /data/made/here
  is "$(stat -c %u data/made/here)" 0
}

test_read_only_is() {
  a_container
  for options in "--volume $S:/data:ro" "--volume $S:/data:rro,z" "--mount type=bind,source=$S,target=/data,readonly"; do
    # shellcheck disable=SC2086 # two words
    x $options -- cat /data/file > out && is "$(cat out)" mine
    for at in /data/file /data/sub/new; do
      # shellcheck disable=SC2086 # two words
      fails 1 'Read-only file system' x $options -- sh -c "echo x > $at"
    done
    # Whatever capability: the mount is the host's. So is the one below. The control: it can mount.
    for undo in 'mount -o remount,bind,rw /data' 'umount /data/sub'; do
      # shellcheck disable=SC2086 # two words
      is "$(x $options --cap-add ALL --seccomp unconfined -- sh -c "mount -t tmpfs none /tmp && echo mounts; $undo 2>&1 | grep -q . && echo refused")" "mounts
refused" "$undo"
    done
  done
  x --volume "$S:/data:rw" -- sh -c 'echo x > /data/file; echo y > /data/sub/new' && is "$(cat "$S/file" "$S/sub/new" | xargs)" "x y"
  x --mount "type=bind,source=$S,target=/data,ro,bind-recursive=writable" -- sh -c 'echo z > /data/sub/new'
  is "$(cat "$S/sub/new")" z
  fails 1 'Read-only file system' x --mount "type=bind,source=$S,target=/data,ro,bind-recursive=writable" -- sh -c 'echo x > /data/file'
  is "$(x --mount "type=bind,source=$S,target=/data,bind-recursive=disabled" -- ls /data/sub)" "" "what is mounted below"
  # A device node in it opens nothing; one that was asked for by name does.
  mknod -m 666 "$S/zero" c 1 5
  fails 1 'Permission denied' x --volume "$S:/data" -- head -c1 /data/zero
  is "$(x --privileged --volume "$S:/data" -- head -c1 /data/zero | od -An -tx1)" " 00"
  is "$(x --volume /dev/zero:/opt/zero --volume "$S/zero:/dev/random" -- sh -c 'head -c1 /opt/zero; head -c1 /dev/random' | od -An -tx1)" " 00 00"
  # A file over a file, and the container's own three.
  echo 10.1.1.1 elsewhere > ours
  is "$(x --volume "$PWD/ours:/etc/hosts:ro" -- cat /etc/hosts)" "10.1.1.1 elsewhere"
  fails 1 'Read-only file system' x --volume "$PWD/ours:/etc/hosts:ro" -- sh -c 'echo x > /etc/hosts'
  mkdir etc && echo root:x:0:0::/:/bin/sh > etc/passwd
  like "$(x --volume "$PWD/etc:/etc" -- cat /etc/hosts)" localhost "hosts in a volume that is /etc"
  # One in another, whichever was named first.
  is "$(x --volume "$PWD/ours:/data/sub/deep/ours" --volume "$S:/opt/../../data" -- cat /data/sub/deep/ours)" "10.1.1.1 elsewhere"
}

test_later_mounts_stay_out_unless_asked() {
  a_container
  mount --bind "$S" "$S" && mount --make-rshared "$S"
  mkdir "$S/late"
  mkfifo gate
  for how in '' :rslave :rshared :slave; do
    # What the one before said.
    rm -f out
    x --volume "$S:/data$how" -- sh -c 'echo ready; read -r _; ls /data/late; grep " /data " /proc/self/mountinfo' <gate >out & pid=$!
    exec 7>gate
    eventually 20 grep -q ready out
    mount -t tmpfs late "$S/late" && touch "$S/late/file"
    echo go >&7
    wait $pid
    exec 7>&-
    umount "$S/late"
    case $how in
      '') is "$(sed -n 2p out | grep -c ' /data ')" 1 "later mounts, private"; unlike "$(cat out)" ' (shared|master):' ;;
      :rshared) is "$(sed -n 2p out)" file "later mounts, shared"; like "$(cat out)" ' shared:' ;;
      *) is "$(sed -n 2p out)" file "later mounts, slave"; like "$(cat out)" ' master:' && unlike "$(cat out)" ' shared:' ;;
    esac
  done
  mount --make-rprivate "$S"
  for how in rslave rshared; do
    fails 125 "^bocker-exec: mount $S: $how: $S is not shared \(mount --make-shared $S first\)$" x --volume "$S:/data:$how" -- true
  done
}

test_memory() {
  a_container
  echo image > "$R/tmp/image"
  x --tmpfs /tmp --tmpfs /run:size=1m,mode=750,exec,uid=7,gid=8 --mount type=tmpfs,target=/made/here,tmpfs-size=2MiB,tmpfs-mode=0700,ro \
    --tmpfs /dev/shm:size=3m -- sh -c 'cat /proc/self/mountinfo; stat -c "%a %u %g" /tmp /run /made/here; ls /tmp; cp /bin/busybox /run/true 2>/dev/null
      cp /bin/true /tmp/true; for at in /tmp/true; do $at && echo "$at runs"; done; true' > info 2>/dev/null
  is "$(grep -v ' - ' info)" "1777 0 0
750 7 8
700 0 0"
  is "$(inside /tmp)" rw,nosuid,nodev,noexec,relatime
  is "$(inside /run)" rw,nosuid,nodev,relatime
  is "$(inside /made/here)" ro,nosuid,nodev,noexec,relatime
  is "$(awk '$5 ~ "^/(tmp|run|made/here|dev/shm)$" { print $5, match($NF, /size=[0-9]+k/) ? substr($NF, RSTART, RLENGTH) : "any" }' info | sort)" "/dev/shm size=3072k
/dev/shm size=65536k
/made/here size=2048k
/run size=1024k
/tmp any"
  # The size holds, noexec does, and with exec it does not.
  like "$(x --tmpfs /t:size=1m -- sh -c 'dd if=/dev/zero of=/t/f bs=1k count=2000 2>&1' || true)" 'No space left'
  x --tmpfs /t:size=4m -- dd if=/dev/zero of=/t/f bs=1k count=2000 2>/dev/null
  fails 126 'Permission denied' x --tmpfs /t -- sh -c 'cp /bin/busybox /t/true; exec /t/true' 
  x --tmpfs /t:exec -- sh -c 'cp /bin/busybox /t/true; exec /t/true'
  is "$(cat "$R/tmp/image")" image
  fails 125 'uid=65536 is not the container' x --tmpfs /t:uid=65536 -- true
  is "$(x --userns=host --tmpfs /t:uid=65536 -- stat -c %u /t)" 65536
}

test_what_makes_no_sense_is_refused() {
  a_container
  fails 125 "^bocker-exec: mount $HOST_DIR/none: No such file or directory \(it is not made here: mkdir -p it first\)$" x --volume "$HOST_DIR/none:/data" -- true
  [ ! -e none ] || fail "a source was made"
  fails 125 'two mounts on one place' x --volume "$S:/data" --tmpfs /opt/../data -- true
  fails 125 'the image has a directory there, not a file' x --volume "$S/file:/etc" -- true
  fails 125 'the image has a link or a file there, not a directory' x --volume "$S:/etc/passwd" -- true
  for at in / /. /proc /proc/sys /dev /../proc /etc/.. /etc/../dev; do fails 125 '.' x --volume "$S:$at" -- touch "$R/ran" && [ ! -e "$R/ran" ]; done
  for words in "data:/data" "$S:data" "$S" "$S:/a:/b:ro" "$S:/a:exec"; do fails 125 'invalid value.*see bocker-exec --help' x --volume "$words" -- true; done
  x --volume "$S:/opt/../data" -- test -e /data/file
  untouched
}

# Checks 29 and 30: an image's links lead to the image.
test_links_of_the_image_stay_inside() {
  a_container
  local up=../../../../../../../../../..
  mkdir -p "$R/real"
  ln -s "$HOST_DIR/outside" "$R/absolute"
  ln -s "$up$HOST_DIR/outside" "$R/relative"
  ln -s "$HOST_DIR/outside/sentinel" "$R/file"
  ln -s "$up$HOST_DIR/outside/new" "$R/dangling"
  ln -s /proc/self/root "$R/magic"
  ln -s /proc/1/fd "$R/process"
  ln -s / "$R/top"
  ln -s /dev "$R/devices"
  ln -s real "$R/good"
  ln -s "$up$HOST_DIR/outside" "$S/away"
  # The control: a link is followed, inside.
  for at in /good /absolute /relative /dangling /absolute/deeper "/relative/$up/x" /top/y; do
    is "$(x --volume "$S:$at" -- cat "$at/file")" mine "at $at"
    is "$(x --tmpfs "$at" -- ls "$at")" "" "memory at $at"
    untouched
  done
  [ -d "$R/$HOST_DIR/outside/new" ] || fail "a link was not followed inside"
  x --volume "$S:/good" -- cat /proc/self/mountinfo > info && is "$(inside /real)" "rw,nodev,relatime,idmapped"
  is "$(x --volume "$S/file:/file" -- cat "$HOST_DIR/outside/sentinel")" mine
  is "$(x --volume "$S:/data" --tmpfs /data/away -- ls -A /data/away)" ""
  untouched
  # The links that have no business in there: 125, and nothing ran.
  for at in /magic /magic/x /process /process/0 /top /top/proc/sys /devices /dev/fd /dev/fd/0; do
    fails 125 '^bocker-exec: mount on [^:]*: ' x --volume "$S:$at" -- touch /ran
    fails 125 '^bocker-exec: mount on [^:]*: ' x --tmpfs "$at" -- touch /ran
    [ ! -e "$R/ran" ] || fail "it ran with $at"
  done
  untouched
}

# Check 30: the place is a directory, and a link to the host, and a directory…
test_a_place_that_is_swapped() {
  a_container
  mkdir -p "$R/spot/a"
  # An absolute one: at this stage the kernel's own way up already ends at the root.
  ln -s "$HOST_DIR/outside" "$R/spot/b"
  python3 -c '
import ctypes, os, sys
libc = ctypes.CDLL(None)
spot, count = sys.argv[1], 0
while not os.path.exists("stop"):
    for _ in range(50):
        count += libc.renameat2(-100, (spot + "/a").encode(), -100, (spot + "/b").encode(), 2) == 0
    if count > 1000: open("many", "w").close()
print(count)' "$R/spot" > swaps & pid=$!
  local ok=0 status
  eventually 20 test -e many
  for n in $(seq 30); do
    status=0
    case $n in
      *[05]) x --tmpfs /spot/a/new -- true 2>err || status=$? ;;
      *[27]) x --volume "$S/file:/spot/a/one" -- true 2>err || status=$? ;;
      *) x --volume "$S:/spot/a/new" -- sh -c 'grep -qE " (/spot/[ab]|[^ ]*/outside)/new " /proc/self/mountinfo' 2>err || status=$? ;;
    esac
    case $status in 0) ok=$((ok + 1)) ;; 125) ;; *) fail "status $status: $(cat err)" ;; esac
  done
  touch stop && wait $pid
  [ "$ok" -gt 0 ] && [ "$(cat swaps)" -gt 1000 ] || fail "no race: $ok starts, $(cat swaps) swaps"
  untouched
}

# What bocker-store remembers of a volume is what this program takes.
test_a_volume_of_the_store() {
  bocker-store init --size 512M
  a_tree tree
  mkdir tree/data && echo image > tree/data/file && chown 7:7 tree/data/file
  bocker-store import --source base tree >/dev/null
  for users in private host; do
    ps=$(bocker-store snapshot --volume data:/data:nocopy --volume "keep:/data/keep" -- base -- true)
    bocker-exec --userns=$users --root "$BOCKER_ROOT/$ps/rootfs" --words "$BOCKER_ROOT/$ps/words" --user 1000
    # The root cannot be written to, a volume can.
    bocker-exec --userns=$users --root "$BOCKER_ROOT/$ps/rootfs" --words "$BOCKER_ROOT/$ps/words" --read-only -- sh -c "echo $users >> /data/file; echo $users >> /data/keep/file"
  done
  is "$(xargs < "$BOCKER_ROOT/vol_data/data/file") $(xargs < "$BOCKER_ROOT/vol_keep/data/file")" "private host private host"
  is "$(stat -c %u "$BOCKER_ROOT/vol_data/data/file" "$BOCKER_ROOT/vol_keep/data/file" | xargs)" "0 0"
}

test_dry_run_does_the_same() {
  a_container
  mkdir path && cp "$repo/tests/mount-idmap" path/mount
  mkdir "$HOST_DIR/it's a tree" && echo b > "$HOST_DIR/it's a tree/b"
  mount --bind "$HOST_DIR/it's a tree" "$HOST_DIR/it's a tree" && mount -o remount,bind,noexec,nosuid "$HOST_DIR/it's a tree"
  ln -s ../var/link "$R/etc/link"
  before=$(census)
  local probe='awk "{ print \$4, \$5, \$6, \$(NF-2), \$(NF-1), \$NF }" /proc/self/mountinfo | sort; ls -lnR /data /mem | sed "s/ ..:.. / /"; cat /etc/hosts; id -u'
  local options=(--volume "$S:/data" --volume "$S:/ro/only:ro" --volume "$HOST_DIR/it's a tree:/it's here:ro" --tmpfs /mem:size=1m,uid=5
    --mount "type=bind,src=$S,dst=/top,ro,bind-recursive=writable" --mount "type=bind,src=$S,dst=/alone,bind-recursive=disabled"
    --volume "$S/file:/etc/hosts:ro" --volume /dev/null:/etc/masked --volume "$S:/etc/link/deep" --tmpfs /dev/shm:size=2m --volume "$S/file:/new/file")
  for users in private host; do
    x "${options[@]}" --userns=$users --hostname h --dry-run -- sh -c "$probe" > dry.sh
    untouched
    for way in tool shell; do
      rm -rf "${R:?}"/{new,data,ro,mem,top,alone,var,"it's here",etc/masked}
      if [ $way = tool ]; then
        x "${options[@]}" --userns=$users --hostname h -- sh -c "$probe" > out.$way
      else
        PATH=$PWD/path:$PATH sh -e dry.sh > out.$way
      fi
    done
    is "$(cat out.shell)" "$(cat out.tool)" "inside, --userns=$users"
    like "$(cat out.tool)" ' /ro/only/sub ro,' && like "$(cat out.tool)" ' /top/sub rw,'
  done
  # A link in one of them would lead the shell out of the root: it stops.
  ln -s "$HOST_DIR/outside" "$S/away"
  before=$(census)
  x --volume "$S:/data" --tmpfs /data/away/new --dry-run -- true > dry.sh
  status=0; PATH=$PWD/path:$PATH sh -e dry.sh >/dev/null 2>&1 || status=$?
  is "$status" 1 "a link in a volume"
  untouched
}
