# Check 36: commands killed at the k-th call that changes something, in each of their tools: one `bocker gc` takes what is left, and
# the same works at once.
#   TEST_STEPS=all   every k of every call; else TEST_STEPS of them a command (default 16), others each time
# No code of ours takes part: each tool in turn is a wrapper that has strace kill it (the call takes no effect then).
# shellcheck shell=bash disable=SC2154,SC2016 # repo: tests/lib.sh; words for another shell

# What changes something outside of the process, or makes another.
calls=mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,symlink,symlinkat,link,linkat,openat,open,write,pwrite64,writev,ftruncate,fallocate,copy_file_range,fchmod,fchmodat,fchown,fchownat,utimensat,fsetxattr,setxattr,fremovexattr,ioctl,mount,umount2,move_mount,open_tree,fsmount,mount_setattr,pivot_root,setns,unshare,clone,clone3,fork,vfork,execve,sendto,sendmsg,bind,listen,flock,fsync,fdatasync,syncfs,sync_file_range,kill,pidfd_send_signal,bpf,setsid,prctl,exit_group

# wrapped TOOL VERB STRACE-OPTION...: the directory bin/ has all tools, this one under strace where its first word is the verb, or any
wrapped() {
  local tool=$1 verb=$2 other
  shift 2
  rm -rf bin && mkdir bin
  for other in bocker bocker-pull bocker-store bocker-net bocker-cg bocker-exec; do
    ln "$BOCKER_BIN/$other" "bin/$other" 2>/dev/null || cp "$BOCKER_BIN/$other" "bin/$other"
  done
  mkdir bin/real && mv "bin/$tool" "bin/real/$tool"
  # bocker finds the others beside itself.
  [ "$tool" != bocker ] || for other in bin/bocker-*; do ln "$other" "bin/real/"; done
  # -D: the tool stays the child of who started it.
  printf '#!/bin/sh\ncase $1 in %s) exec strace -D -f -qq %s "%s" "$@" ;; esac\nexec "%s" "$@"\n' \
    "${verb/any/*}" "$*" "$PWD/bin/real/$tool" "$PWD/bin/real/$tool" > "bin/$tool"
  chmod 755 "bin/$tool"
}

# steps TOOL VERB: a line `TOOL VERB CALL N` for each call that it does, by a run of it
steps() {
  rm -f trace.*
  prepare
  wrapped "$1" "$2" -ff -o "$PWD/trace" -e "trace=$calls" -e signal=none
  (command_of "$PWD/bin/bocker") </dev/null >out 2>err || fail "traced, the command fails: $(head -3 err)"
  settle
  tidy
  # Each process counts for itself, as it does with the injection.
  awk -v tool="$1" -v verb="$2" '{ sub(/\(.*/, ""); n = ++count[FILENAME, $0]; if (n > most[$0]) most[$0] = n }
    END { for (call in most) for (n = 1; n <= most[call]; n++) print tool, verb, call, n }' trace.*
}

# Nothing of the command is at work any more, but for a container that runs in the background, and the relay of its ports
# with who traces that.
settle() {
  local i tracer
  for ((i = 0; i < 200; i++)); do
    tracer='strace|'
    ! pgrep -f '^bocker-net relay ' >/dev/null || tracer=
    # Read to the end: one that found something and went would have the others fail at their pipe.
    [ -n "$(ps -e -o args= | grep -v -- " --detach " | grep -E "^(${tracer}[^ ]*bin/(real/)?bocker|/bin/sh [^ ]*bin/bocker)")" ] || return 0
    sleep 0.05
  done
  fail "still there: $(ps -e -o pid=,stat=,args= | grep bin/)"
}

# killed NAME TOOL:VERB...: every step of these, or some, of what `command_of BOCKER` does
killed() {
  local point tool verb call n want=${TEST_STEPS:-16} total=0 died=0
  for point in "${@:2}"; do
    tool=${point%%:*} verb=${point#*:}
    steps "$tool" "$verb"
  done > all
  # What is opened to be read and nothing else changes nothing; but the first ones are as good as any.
  # Of a wait for the kernel, which on a busy machine takes thousands of looks (each a write to an eventfd), a sample is no use.
  awk -v most="$([ "$want" = all ] && echo 1000000 || echo 100)" '$4 <= ($3 ~ /^(openat|open|prctl)$/ ? 6 : most)' all | sort -u > points
  total=$(wc -l < points)
  [ "$total" -gt 5 ] || fail "too few steps: $(cat points)"
  if [ "$want" = all ]; then cp points chosen; else shuf -n "$want" points > chosen; fi
  before=$(state)
  while read -r tool verb call n <&3; do
    prepare
    wrapped "$tool" "$verb" -o /dev/null -e "trace=$call" -e signal=none -e "inject=$call:signal=KILL:when=$n"
    point="$1 killed at $tool $verb $call $n"
    # Whatever it says; it may even be done.
    timeout 20 bash -c "$(declare -f command_of); command_of \"\$0\"" "$PWD/bin/bocker" </dev/null >out 2>err || died=$((died + 1))
    settle
    bocker gc >gone 2>gcerr || fail "$point: gc: $(cat gcerr)"
    is "$(bocker-store fsck 2>&1)" "" "$point: fsck"
    tidy
    is "$(state)" "$before" "$point"
  done 3< chosen
  # The same, whole, at once.
  prepare
  command_of bocker </dev/null >/dev/null || fail "$1: does not work afterwards"
  tidy
  is "$(state)" "$before" "$1 once more"
  # The control: it is killed, more often than not.
  [ $((died * 3)) -gt "$(wc -l < chosen)" ] || fail "$(cat chosen) $1: only $died of $(wc -l < chosen) were killed"
}

# Nothing runs by now; a supervisor may be about to end.
watched() { ps -e -o args= | grep -e ' --detac[h] '; }
state() {
  local i
  for ((i = 0; i < 200; i++)); do [ -n "$(watched)" ] || break; sleep 0.05; done
  census | grep -vE '^mount .*/bin$'; find /run/bocker /run/bocker-net -mindepth 1 2>/dev/null | sort; ls /etc/bocker/networks 2>/dev/null || true
}

# The store and an image; what is not there yet is made.
host() {
  bocker setup 2>/dev/null
  a_tree tree
  img=$(bocker init "$PWD/tree" | sed -n 's/^Created: //p')
  bocker run --rm "$img" true
  export img
}
prepare() { :; }
tidy() { :; }
# A commit that was killed before the name was made leaves a whole image without one, which is listed, and anybody's to remove.
others() { bocker images | awk '/^img_/ { print $1 }' | sort -u | grep -vx "$img" | while read -r other; do bocker rm -f "$other" >/dev/null; done || true; }

test_run_killed_at_each_step() {
  host
  command_of() { "$1" run --rm --name it -v data:/data "$img" sh -c 'echo x > /data/x'; }
  tidy() { bocker rm -f it >/dev/null 2>&1 || true; bocker volume rm data >/dev/null 2>&1 || true; }
  killed run bocker:any bocker-store:snapshot bocker-net:up bocker-cg:create bocker-cg:exec bocker-store:rm bocker-net:down bocker-cg:delete
}

test_a_detached_run_killed_at_each_step() {
  host
  command_of() { "$1" run -d --rm --name it "$img" sleep 60 && "$1" rm -f it; }
  tidy() { bocker rm -f it >/dev/null 2>&1 || true; }
  killed "run -d, rm -f" bocker:run bocker:rm bocker-cg:exec bocker-store:path bocker-net:down bocker-cg:thaw
}

test_exec_killed_at_each_step() {
  host
  prepare() { bocker rm -f it >/dev/null 2>&1 || true; bocker run -d --name it "$img" sleep 60 >/dev/null; }
  command_of() { "$1" exec it sh -c 'echo x > /x'; }
  tidy() { bocker rm -f it >/dev/null 2>&1 || true; }
  killed exec bocker:any bocker-cg:exec
}

test_commit_and_rm_killed_at_each_step() {
  host
  prepare() { tidy; bocker run --name it "$img" sh -c 'echo x > /x'; }
  command_of() { "$1" commit it made:1 && "$1" rm made:1 && "$1" rm it; }
  tidy() { bocker rm it >/dev/null 2>&1 || true; others; }
  killed "commit, rm" bocker:any bocker-store:commit bocker-store:rm
}

test_pull_killed_at_each_step() {
  host
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 5001 requests >ready 2>/dev/null &
  eventually 10 grep -qs ready ready
  command_of() { "$1" pull 127.0.0.1:5001/good; }
  tidy() { others; bocker gc >/dev/null; }
  killed pull bocker:any bocker-pull:manifest bocker-pull:fetch bocker-store:unpack
}

# The relay that `up` starts is killed like what starts it; the port is free when all is taken down.
test_a_published_run_killed_at_each_step() {
  host
  command_of() { "$1" run -d --rm --name it -p 8080:80 "$img" sleep 60 && "$1" rm -f it; }
  tidy() { bocker rm -f it >/dev/null 2>&1 || true; is "$(ss -Hltn 'sport = :8080')" "" "${point:-at first}: the port"; }
  killed "run -p, rm -f" bocker:run bocker:rm bocker-net:up bocker-net:down bocker-exec:any
}

test_a_network_killed_at_each_step() {
  host
  command_of() { "$1" network create back && "$1" run --rm --name it --network back "$img" true && "$1" network rm back; }
  tidy() { bocker rm -f it >/dev/null 2>&1 || true; bocker network rm back >/dev/null 2>&1 || true; }
  killed "network create, run --network, network rm" bocker:any bocker-net:network bocker-net:up bocker-net:down
}
