# shellcheck shell=bash disable=SC2016,SC2154 # what is in single quotes is for the container's shell; repo: tests/lib.sh
# The walls of bocker-exec: what of the host's kernel a container can reach. Checks 2, 3, 4, 6, 8, 9, 15, 16, 17.

# a_container: ps_1/rootfs with a busybox root and the probe
a_container() {
  mkdir -p ps_1
  a_tree "$HOST_DIR/ps_1/rootfs"
  R=$HOST_DIR/ps_1/rootfs
  gcc -O1 -static -o "$R/bin/probe" "$repo/tests/probe.c" -lpthread
}

x() { bocker-exec --root "$R" "$@"; }
# The same without a user namespace: what a wall is worth alone
h() { x --userns=host "$@"; }
b() { exec bocker-exec --root "$R" "$@"; }
j() { bocker-exec --join ps_1/status "$@"; }
running() { [ "$(cut -d' ' -f1 ps_1/status 2>/dev/null)" = running ]; }
short='/^Cap(Inh|Prm|Eff|Bnd|Amb)/ { sub(/^0*/, "", $2); printf "%s ", $2 == "" ? 0 : $2 }'
own() { "$@" -- awk "$short" /proc/self/status; }

# Check 1.
test_a_climb_ends_at_the_root() {
  a_container
  echo secret > sentinel
  is "$(x --cap-add ALL -- probe climb "$PWD/sentinel")" ENOENT
  is "$(x -- probe climb /bin/probe)" success "what the climber sees"
  # The control: out of a chroot it leads.
  is "$(chroot "$R" probe climb "$PWD/sentinel")" success "out of a chroot"
  is "$(x -- sh -c 'cd /proc/1/root/../../.. && pwd -P; for r in /proc/[0-9]*/root; do stat -Lc %d:%i $r/; done' | sort -u | xargs)" "/ $(stat -c %d:%i "$R")"
  # Of the host's mounts only the root is there.
  is "$(x -- awk '$4 != "/" && $(NF-2) !~ /^(proc|tmpfs)$/ { print $4, $5 }' /proc/self/mountinfo)" "$(awk -v at="$(stat -c %m "$R")" '$5 == at { print $4 }' /proc/self/mountinfo | tail -1 | sed 's,^/$,,')${R#"$(stat -c %m "$R" | sed 's,^/$,,')"} /"
}

# Check 2.
test_capabilities() {
  a_container
  # inheritable, permitted, effective, bounding, ambient
  is "$(own x)" '0 800405fb 800405fb 800405fb 0 ' "by default"
  is "$(own x --user 1000:1000)" '0 0 0 800405fb 0 ' "another user"
  is "$(own x --cap-add CAP_net_raw --cap-add MKNOD --cap-drop kill)" '0 880425db 880425db 880425db 0 ' "added, dropped"
  is "$(own x --cap-drop ALL)" '0 0 0 0 0 ' "none"
  is "$(own x --cap-drop all --cap-add SETUID)" '0 80 80 80 0 ' "one"
  is "$(own x --cap-drop ALL --user 1000:1000)" '0 0 0 0 0 ' "nobody with nothing"
  local all
  all=$(awk "$short" /proc/self/status | cut -d' ' -f2)
  is "$(own h --privileged)" "0 $all $all $all 0 " "privileged: what the caller has"
  is "$(own h --cap-add ALL)" "0 $all $all $all 0 " "ALL"
  is "$(own x --cap-add ALL --cap-drop CHOWN)" "0 1fffffffffe 1fffffffffe 1fffffffffe 0 " "ALL of the user namespace's"
  is "$(own h)$(own h --user 1000)" '0 800405fb 800405fb 800405fb 0 0 0 0 800405fb 0 ' "without a user namespace"
  # What the caller has beyond that, ambient and inheritable, goes no further (CVE-2022-24769).
  is "$(setpriv --inh-caps=+sys_admin,+net_raw --ambient-caps=+net_raw bocker-exec --root "$R" --user 1000 -- awk "$short" /proc/self/status)" \
    '0 0 0 800405fb 0 ' "a caller with more"
  # They do something: a setuid program, ports, another user's files; and not what was taken.
  cp "$R/bin/probe" "$R/bin/suid" && chmod 4755 "$R/bin/suid"
  is "$(x --user 1000 -- suid user)" 0 "a setuid program"
  is "$(x --user 1000 --no-new-privileges -- suid user)" 1000 "--no-new-privileges"
  is "$(x -- sh -c 'touch f && busybox chown 5:6 f && stat -c %u:%g f')" 5:6 "chown"
  fails 1 'Operation not permitted' x --cap-drop chown -- busybox chown 5:6 f
  # Errors
  fails 125 "^bocker-exec: invalid value 'NET_FOO' for '--cap-add <CAP>': there is no such capability, see capabilities\(7\) " x --cap-add NET_FOO -- true
  fails 125 '^bocker-exec: add capability SYS_TIME: bocker-exec itself does not have it' \
    setpriv --bounding-set=-sys_time bocker-exec --userns=host --root "$R" --cap-add SYS_TIME -- touch /ran
  [ ! -e "$R/ran" ] || fail "it ran"
}

# Check 2.
test_limits_and_the_rest() {
  a_container
  is "$(x -- sh -c 'grep -E "^(NoNewPrivs|Seccomp):" /proc/self/status | tr -d "\t" | tr "\n" " "')" 'NoNewPrivs:0 Seccomp:2 '
  is "$(x --no-new-privileges --user 7 -- sh -c 'grep -E "^(NoNewPrivs|Seccomp):" /proc/self/status | tr -d "\t" | tr "\n" " "')" 'NoNewPrivs:1 Seccomp:2 '
  is "$(x --seccomp unconfined -- grep ^Seccomp: /proc/self/status | tr -d '\t')" 'Seccomp:0'
  local limits='ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc'
  # Whether the host lets us raise a hard limit or not
  is "$( (ulimit -Sn 500; x -- sh -c "$limits") | tr '\n' ' ' | sed 's/ 524288 / MOST /; s/ '"$(ulimit -Hn)"' / MOST /')" '1024 MOST 0 0 '
  is "$( (ulimit -n 100; setpriv --bounding-set=-sys_resource bocker-exec --root "$R" -- sh -c "$limits") | tr '\n' ' ')" '100 100 0 0 ' "what cannot be raised"
  is "$(x --ulimit nofile=64:128 --ulimit core=-1 --ulimit fsize=512 -- sh -c "$limits; ulimit -f" | tr '\n' ' ')" '64 128 unlimited unlimited 1 '
  fails 125 '^bocker-exec: limit nofile: Operation not permitted' \
    sh -c 'ulimit -n 100; exec setpriv --bounding-set=-sys_resource bocker-exec --root "$0" --ulimit nofile=200 -- touch /ran' "$R"
  fails 125 "for '--ulimit <NAME=SOFT\[:HARD\]>': no limit 'files'" x --ulimit files=3 -- true
  is "$(x -- cat /proc/self/oom_score_adj) $(x --oom-score-adj 321 -- cat /proc/self/oom_score_adj)" '0 321'
  [ ! -e "$R/ran" ] || fail "it ran"
  # --read-only: /, and nothing but /
  fails 1 'Read-only file system' x --read-only -- touch /new
  is "$(x --read-only --workdir /made/here -- sh -c 'pwd; echo x > /dev/shm/x && cat /dev/shm/x; echo y > /etc/resolv.conf && cat /etc/resolv.conf; echo z > /dev/null')" $'/made/here\nx\ny'
  x -- touch /new
}

# Check 3.
test_the_system_calls() {
  a_container
  x -- probe refused > got
  is "$(grep -vE ' (EPERM|ENOSYS)$' got)" "" "refused calls"
  is "$(grep -c . got)" 68
  is "$(grep ' ENOSYS$' got | cut -d' ' -f1 | xargs)" '_sysctl uselib ustat sysfs clone3 470 9999' "as if they were not there"
  # The kernel itself answers otherwise: so it was the filter.
  h --privileged -- probe refused > open
  [ "$(grep -vcE ' (EPERM|ENOSYS)$' open)" -ge 45 ] || fail "without a filter: $(cat open)"
  # A filter of one's own cannot be left by what one may; a capability opens its doors only.
  is "$(x --cap-add SYS_TIME -- probe refused | grep -vE ' (EPERM|ENOSYS)$' | cut -d' ' -f1 | xargs)" 'clock_settime settimeofday'
  is "$(x --cap-add SYS_ADMIN -- probe refused | grep -E '^(keyctl|io_uring_setup|kexec_load|pivot_root|userfaultfd) EPERM$' | wc -l)" 5
  like "$(x --cap-add SYS_ADMIN -- probe refused)" '^mount EFAULT$'
  # Other ways in
  is "$(x -- probe abi | xargs)" 'i386 ENOSYS x32 ENOSYS'
  is "$(x --seccomp unconfined -- probe abi | head -1)" 'i386 success' "the control"
  x -- probe sockets > sockets
  is "$(grep success sockets | cut -d' ' -f1 | xargs)" 'unix inet inet6 route generic'
  is "$(grep -v success sockets | cut -d' ' -f2 | sort -u)" EAFNOSUPPORT
  like "$(x --seccomp unconfined -- probe sockets | grep -E '^(vsock|xfrm|audit)' | xargs)" 'success|ENODEV' "the control"
  is "$(h --cap-add NET_RAW -- probe sockets | grep ^packet)" 'packet success'
  # What programs need
  is "$(x -- probe work)" ok
  is "$(x --user 1000 --cap-add ALL -- id -u)" 1000
  is "$(x --no-new-privileges -- probe work)" ok
}

# Check 3.
test_a_profile_of_ones_own() {
  a_container
  cat > profile <<'J'
{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
 "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30},
   {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]},
   {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}}]}
J
  fails 1 'Read-only file system' x --seccomp profile -- mkdir /new
  fails 1 'Read-only file system' x --seccomp profile --user 1000 -- mkdir /tmp/new
  x -- mkdir /new
  is "$(x --seccomp profile -- sh -c 'sleep 9 & kill -USR1 $! 2>/dev/null || echo no; kill -TERM $! && echo yes' | xargs)" 'no yes'
  # A list of what is allowed, short of what a shell needs; of ours only what has to come after it
  echo '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["capset", "execve", "read", "write", "writev", "close", "openat", "open", "brk", "mmap", "munmap",
    "mprotect", "exit", "exit_group", "getuid", "getgid", "setuid", "setgid", "prctl", "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "readlink", "readlinkat",
    "newfstatat", "getrandom", "prlimit64", "sendfile"], "action": "SCMP_ACT_ALLOW"}]}' > few
  is "$(x --seccomp few -- echo hi)" hi
  is "$(x --seccomp few --user 1000:1000 --no-new-privileges -- echo hi)" hi
  # Nothing runs under half of one.
  echo '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["execve", "write", "exit_group"], "action": "SCMP_ACT_ALLOW"}]}' > none
  fails 125 '^bocker-exec: drop capabilities: Operation not permitted$' x --seccomp none -- touch /ran
  fails 125 '^bocker-exec: read nosuch: No such file or directory' x --seccomp nosuch -- touch /ran
  echo '{"defaultAction": "SCMP_ACT_NOTIFY"}' > notify
  fails 125 '^bocker-exec: read notify: action SCMP_ACT_NOTIFY is not supported$' x --seccomp notify -- touch /ran
  [ ! -e "$R/ran" ] || fail "it ran"
}

# Check 4.
test_masks_hold() {
  a_container
  local path core covered='' set=''
  core=$(cat /proc/sys/kernel/core_pattern)
  for path in /proc/{acpi,asound,interrupts,kcore,keys,latency_stats,sched_debug,scsi,timer_list,timer_stats} \
    /sys/{dev/block,firmware,fs/selinux,devices/virtual/powercap} /sys/devices/system/cpu/cpu[0-9]*/thermal_throttle; do
    [ ! -e "$path" ] || covered+=" $path"
  done
  for path in /proc/{bus,fs,irq,sys,sysrq-trigger}; do [ ! -e "$path" ] || set+=" $path"; done
  like "$covered" keys
  x -- sh -c 'for f in '"$covered"'; do if [ -d $f ]; then ls -A $f; touch $f/x && echo touched; else cat $f; fi; done' > got 2> err || true
  is "$(cat got)" "" "what masked paths show"
  [ "$(h --privileged -- sh -c 'for f in '"$covered"'; do cat $f 2>/dev/null || ls -A $f; done' | grep -c .)" -gt 3 ] || fail "the control: nothing there to be hidden"
  # With every capability, but for the walls: still so; the kernel looks at the mount first.
  local how try='for f in '"$set"'; do if [ -d $f ]; then t=$(find $f -type f | head -1); else t=$f; fi; [ -z "$t" ] || { echo x > $t; } 2>&1; done'
  unlike "$(h -- sh -c "$try" | grep -v 'Read-only file system')" . "read-only paths"
  fails 1 "can't create /proc/sys/kernel/core_pattern: (Read-only file system|Permission denied)" x -- sh -c 'echo x > /proc/sys/kernel/core_pattern'
  fails 1 "can't create /proc/sys/kernel/core_pattern: Read-only file system" h -- sh -c 'echo x > /proc/sys/kernel/core_pattern'
  is "$(cat /proc/sys/kernel/core_pattern)" "$core" "the host's core_pattern"
  # They cannot be taken off, nor walked around.
  local way
  for way in 'umount /proc/keys' 'umount -l /proc' 'mount -o remount,rw /proc/sys' 'mount -o remount,bind,rw /proc/sys' 'mount -t proc proc /tmp' \
    'mount -t sysfs sysfs /tmp' 'mount --bind /proc /tmp' 'mount -t tmpfs tmpfs /proc'; do
    # Nor by who may mount, in a namespace of its own; there it may cover things.
    for how in 'h' 'x --cap-add ALL --seccomp unconfined'; do
      [[ $how$way != x*tmpfs* ]] || continue
      $how -- sh -c "$way" > out 2> err && fail "inside, it worked: $way"
      like "$(cat err)" 'ermitted|denied|root|Invalid argument' "$way"
    done
  done
  h --privileged -- sh -c 'mount -t proc proc /tmp && cat /tmp/keys >/dev/null && umount /tmp' || fail "the control"
  # CVE-2025-31133: what the image has as /dev/null is not what lies on the masks.
  rm -rf "${R:?}/dev" && mkdir "$R/dev" && ln -s /proc/sys/kernel/core_pattern "$R/dev/null"
  is "$(x -- sh -c 'cat /proc/keys; ls -l /proc/keys' | awk '{ print $1, $5, $6 }')" 'crw-rw-rw- 1, 3'
  is "$(cat /proc/sys/kernel/core_pattern)" "$core" "the host's core_pattern"
}

# Check 6.
test_no_directory_as_a_stream() {
  a_container
  is "$(x -- sh -c 'ls /proc/self/fd | xargs')" '0 1 2 3'
  for fd in 0 1 2; do
    status=0
    bash -c 'exec bocker-exec --root "$1" -- touch /ran '"$fd"'<"$2"' _ "$R" "$HOST_DIR" > out 2> err || status=$?
    is "$status" 125 "descriptor $fd"
    [ "$fd" = 2 ] || like "$(cat err)" "^bocker-exec: pass on std(in|out): it is a directory"
  done
  [ ! -e "$R/ran" ] || fail "it ran"
}

# attacked COMMAND…: becomes /entry inside, which asks the kernel to execute COMMAND's own file; then what it can do to it
attacked() {
  local before i
  before=$(sha256sum < "$1")
  rm -f "$R/result"
  timeout 20 "$@" /entry >/dev/null 2>&1 || true
  for ((i = 0; i < 200; i++)); do grep -qs tried "$R/result" && break; sleep 0.1; done
  like "$(cat "$R/result")" tried "the attack itself"
  if [ "$(sha256sum < "$1")" = "$before" ]; then echo unchanged; else echo written; fi
}

# Check 8 (CVE-2019-5736).
test_our_own_file_cannot_be_written() {
  a_container
  mkdir -p "$R/lib64"
  gcc -O1 -nostdlib -static -no-pie -fno-stack-protector -o "$R/lib64/ld-linux-x86-64.so.2" "$repo/tests/interpreter.c"
  printf '#!/proc/self/exe\n' > "$R/entry" && chmod 755 "$R/entry"
  cat > "$R/attack" <<'T'
# As long as somebody executes it, it is busy.
i=0
read -r most </most
while [ $i -lt $most ]; do
  if (echo pwned >> /proc/self/fd/9) 2>>/why; then echo wrote >> /result; break; fi
  sleep 0.1
  i=$((i + 1))
done
echo tried >> /result
T
  local pid users
  for users in host private; do
    b --userns=$users --status ps_1/status -- sleep 60 &
    eventually 5 running
    pid=$(cut -d' ' -f2 ps_1/status)
    # The control: nsenter's copy is overwritten.
    cp "$(command -v nsenter)" enter
    # However long it takes to end.
    echo 99 > "$R/most"
    [ $users = private ] || is "$(attacked ./enter --target "$pid" --mount --pid --)" written "the control"
    echo 15 > "$R/most"
    # Joining is another file than the one that holds the container, as after an update.
    cp "$(command -v bocker-exec)" joiner
    is "$(attacked ./joiner --join ps_1/status --)" unchanged "a join"
    like "$(cat "$R/why")" 'Read-only file system|Permission denied' "why not"
    is "$(attacked ./joiner --join ps_1/status --privileged --)" unchanged "a privileged join"
    # By the words of its making: with users of its own it is this file itself that runs, and they are nobody to it.
    printf -- '--userns=%s\n' $users > words
    is "$(attacked ./joiner --join ps_1/status --words words --privileged --)" unchanged "a join by its words"
    like "$(cat "$R/why")" 'Read-only file system|Permission denied' "why not"
    printf -- '--userns=private\n' > words
    [ $users = private ] || is "$(attacked ./joiner --join ps_1/status --words words --)" unchanged "a join by another's words"
    kill -TERM %%; wait %% || true
    rm ps_1/status
  done
  # As the first process
  local before
  before=$(sha256sum < joiner)
  rm -f "$R/result"
  ./joiner --userns=host --root "$R" -- /entry >/dev/null 2>&1 || true
  is "$(sha256sum < joiner)" "$before" "as the first process"
}

# Check 9.
test_a_join_has_the_same_walls() {
  a_container
  local view='awk "/^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)/" /proc/self/status; cat /proc/self/limits; ls /proc/self/fd; probe refused; probe abi; probe find'
  local options
  for options in '' '--user 1000 --no-new-privileges --cap-add NET_RAW --ulimit nofile=33' '--privileged' '--cap-drop ALL --seccomp unconfined' '--userns=host'; do
    # shellcheck disable=SC2086
    b --status ps_1/status $options -- sh -c "sleep 0.2; { $view; } > /dev/shm/first; touch /dev/shm/told; sleep 60" &
    eventually 5 running
    eventually 15 j -- test -e /dev/shm/told
    # shellcheck disable=SC2086
    is "$(probe_key j ${options/--userns=host/} -- sh -c "$view")" "$(j -- cat /dev/shm/first)" "joined with '$options'"
    is "$(j -- grep -c . /dev/shm/first | wc -l)" 1
    kill -KILL %%; wait %% || true
    rm -f ps_1/status
  done
}
# With a key in the caller's session keyring
probe_key() { "$R/bin/probe" key "$BOCKER_BIN/bocker-exec" --join ps_1/status "${@:2}"; }

# Check 15: without a device cgroup; that is bocker-cg's.
test_devices() {
  a_container
  is "$(x --cap-add MKNOD -- probe mknod c 1 3 /tmp/d)" EPERM "in a user namespace MKNOD is nothing"
  is "$(h -- sh -c 'for d in "b 7 0" "c 10 200" "c 10 229" "c 1 1"; do probe mknod $d /tmp/d; done' | sort -u)" EPERM
  is "$(x -- sh -c 'for d in "b 7 0" "c 10 200" "c 10 229" "c 1 1"; do probe mknod $d /tmp/d; done' | sort -u)" EPERM
  is "$(h --cap-add MKNOD -- sh -c 'probe mknod c 1 3 /tmp/d; cat /tmp/d 2>&1; rm /tmp/d')" $'success\ncat: can'"'"'t open '"'/tmp/d'"': Permission denied' "a node in the image opens nothing"
  is "$(x --device /dev/zero:/dev/deep/er/z --device /dev/full:rw -- sh -c 'head -c 2 /dev/deep/er/z | od -An -tx1; stat -c "%t:%T %a" /dev/full')" $' 00 00\n1:7 666'
  fails 125 '^bocker-exec: find device /dev/nosuch: No such file or directory' x --device /dev/nosuch -- touch /ran
  fails 125 '^bocker-exec: find device /etc/passwd: no device' x --device /etc/passwd:/dev/p -- touch /ran
  fails 125 "for '--device <HOST\[:INSIDE\[:rwm\]\]>': /etc/x is not below /dev" x --device /dev/null:/etc/x -- touch /ran
  [ ! -e "$R/ran" ] || fail "it ran"
  [ "$(x --privileged -- find /dev -type b -o -type c | wc -l)" -ge 10 ] || fail "no devices for --privileged"
}

# Check 16.
test_the_callers_keys_stay_out() {
  a_container
  local probe=$R/bin/probe
  is "$("$probe" key "$probe" find)" success "the control: a child finds the key"
  is "$("$probe" key "$BOCKER_BIN/bocker-exec" --root "$R" --seccomp unconfined -- probe find)" ENOKEY "without even a filter"
  is "$("$probe" key "$BOCKER_BIN/bocker-exec" --root "$R" -- probe find)" EPERM
}

# Check 17.
test_failed_walls_stop_it() {
  a_container
  local call n view='awk "/^(Cap|NoNewPrivs|Seccomp:)/" /proc/self/status; awk "{ print \$5, \$6 }" /proc/self/mountinfo; grep "open files" /proc/self/limits; touch /ran'
  local options=(--userns=host --root "$R" --no-new-privileges --oom-score-adj 5 --device /dev/null:/dev/x)
  bocker-exec "${options[@]}" -- sh -c "$view" > whole
  for call in capset capget prctl seccomp keyctl prlimit64 openat2 open_tree mount_setattr move_mount mknodat fchownat execveat statfs; do
    for n in 1 2 3 4 5 6; do
      rm -f "$R/ran"
      status=0
      strace -f -qq -o trace -e trace="$call" -e "inject=$call:error=EPERM:when=$n" \
        bocker-exec "${options[@]}" -- sh -c "$view" > out 2> err || status=$?
      grep -q INJECTED trace || { [ "$n" != 1 ] || [ "$call" = statfs ] || fail "no $call to fail"; break; }
      if [ "$status" = 0 ]; then
        # What is not needed may fail; nothing may be missing then.
        is "$(cat out)" "$(cat whole)" "after $call $n failed"
      else
        is "$status" 125 "$call $n failed: $(cat err)"
        is "$(wc -l < err)" 1 "lines after $call $n: $(cat err)"
        [ ! -e "$R/ran" ] || fail "ran although $call $n failed"
      fi
    done
  done
}

# Where the one tree of version 2 is the host's, a container reads its limits from its part of it.
test_the_cgroup_tree() {
  a_container
  if [ "$HOST_CGROUPS" != v2 ]; then
    is "$(x -- ls /sys/fs/cgroup)" "" "on version 1"
    umount -l /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup
  fi
  # It may be that of the machine that the tests run on.
  local own
  own=$(mktemp -d "/sys/fs/cgroup/$(basename "$HOST_DIR").XXX")
  # shellcheck disable=SC2064
  trap "rmdir $own" EXIT
  # In the host's root, and in a part of it
  is "$(x -- stat -c %i /sys/fs/cgroup)" "$(stat -c %i /sys/fs/cgroup)"
  is "$(sh -c 'echo $$ > "$1/cgroup.procs"; exec bocker-exec --userns=host --root "$0" -- sh -c "stat -c %i /sys/fs/cgroup; cat /proc/self/cgroup | grep ^0; mkdir /sys/fs/cgroup/x 2>&1"' "$R" "$own")" \
    "$(stat -c %i "$own")"$'\n0::/\nmkdir: can\'t create directory \'/sys/fs/cgroup/x\': Read-only file system'
  is "$(x --cgroupns host -- ls /sys/fs/cgroup)" "" "the host's tree is nobody's"
  h --dry-run -- awk '$5 == "/sys/fs/cgroup" { print $4, $6, $(NF-2) }' /proc/self/mountinfo > script
  is "$(sh -e script)" "$(h -- awk '$5 == "/sys/fs/cgroup" { print $4, $6, $(NF-2) }' /proc/self/mountinfo)"
}

test_the_script_has_the_same_walls() {
  a_container
  local view='awk "/^(Uid|Gid|Cap|NoNewPrivs)/" /proc/self/status; awk "{ print \$4, \$5, \$6, \$(NF-2), \$NF }" /proc/self/mountinfo; ulimit -n; ulimit -Hn; ulimit -c
    cat /proc/self/oom_score_adj; ls -l /dev/z; ls -A /proc/acpi /sys/firmware'
  local options
  for options in '' '--user 1000' '--cap-drop ALL --cap-add CHOWN --no-new-privileges' '--user 1000 --cap-drop ALL --no-new-privileges' \
    '--read-only --device /dev/zero:/dev/z --ulimit nofile=77:99 --oom-score-adj 9 --workdir /w' '--privileged' '--cap-add ALL --cap-drop KILL'; do
    # shellcheck disable=SC2086
    h $options --dry-run -- sh -c "$view" > script
    # shellcheck disable=SC2086
    is "$(sh -e script 2>&1)" "$(h $options -- sh -c "$view" 2>&1)" "with '$options'"
    # In a user namespace it has all capabilities (and says so). Until the host's mount(8) is 2.39:
    mkdir -p path && cp "$repo/tests/mount-idmap" path/mount
    # shellcheck disable=SC2086
    x $options --dry-run -- sh -c "$view" > script
    # shellcheck disable=SC2086
    is "$(PATH=$PWD/path:$PATH sh -e script 2>&1 | grep -v ^Cap | sort)" "$(x $options -- sh -c "$view" 2>&1 | grep -v ^Cap | sort)" "with a user namespace and '$options'"
  done
  like "$(cat script)" '^# system calls: '
}

test_the_posture_as_a_table() {
  a_container
  b --status ps_1/status --ulimit nofile=55:66 -- sleep 60 &
  eventually 5 running
  "$repo/scripts/posture" "$(cut -d' ' -f2 ps_1/status)" | sed 's/  */ /g' > table
  for row in 'CapBnd 00000000800405fb' 'CapInh 0000000000000000' 'seccomp filter' 'no_new_privs 0' 'mnt namespace own' 'pid namespace own' 'user namespace own' 'limit nofile 55:66' \
    'mount /dev tmpfs nosuid,noexec' 'mount /sys sysfs ro,nosuid,nodev,noexec' 'devices in /dev full\(1:7\) null\(1:3\) random\(1:8\) tty\(5:0\) urandom\(1:9\) zero\(1:5\)'; do
    like "$(cat table)" "^$row *\$"
  done
  like "$(cat table)" '^masked .*/proc/keys'
  like "$(cat table)" '^read-only .*/proc/sys'
  kill -TERM %1; wait %1 || true
  fails 1 'posture: process 999999999: there is none' "$repo/scripts/posture" 999999999
}
