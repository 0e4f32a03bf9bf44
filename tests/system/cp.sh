# Files out of containers and into them (bocker-store cp-out, cp-in, cp-stat).
# shellcheck shell=bash disable=SC2154,SC2016 # repo: tests/lib.sh; words for another shell

# A container with a few files; its id in $ps, its root in $root.
container() {
  bocker-store init --size 512M
  mkdir -p tree/{bin,etc,run,usr/lib,dir/inner}
  ln -s /run tree/var-run; ln -s ../../../../../../etc tree/up; ln -s usr/lib tree/lib
  echo inside > tree/etc/passwd; echo one > tree/dir/one; echo two > tree/dir/inner/two; ln -s one tree/dir/link; ln tree/dir/one tree/dir/hard
  chown 1000:2000 tree/dir/inner/two; chmod 4755 tree/dir/inner/two; setfattr -n user.x -v y tree/dir/one; mkfifo tree/dir/pipe
  img=$(bocker-store import tree) ps=$(bocker-store snapshot "$img" -- x) root=$BOCKER_ROOT/$ps/rootfs
}

out() { bocker-store cp-out "$@"; }
# into PATH WORD...: an archive of these words of tar into the container
into() { local path=$1; shift; tar -c "$@" | bocker-store cp-in "$ps" "$path"; }
kind() { bocker-store cp-stat "$@" | cut -f 1; }
names() { tar -tf - | sort | xargs; }

test_cp_out_is_a_tar_by_dockers_names() {
  container
  is "$(out "$ps" /dir | names)" "dir/ dir/hard dir/inner/ dir/inner/two dir/link dir/one dir/pipe"
  is "$(out "$ps" dir/ | names)" "dir/ dir/hard dir/inner/ dir/inner/two dir/link dir/one dir/pipe"
  is "$(out "$ps" /dir/. | names)" "hard inner/ inner/two link one pipe"
  is "$(out "$ps" /dir/one | tar -xOf -)" one
  is "$(out "$ps" ../../dir/inner/../one | names)" one
  is "$(out --name other "$ps" /dir/inner | names)" "other/ other/two"
  is "$(out --name other "$ps" /dir/inner/. | names)" "other/ other/two"
  is "$(out "$ps" / | names | cut -d ' ' -f 1-3)" "bin/ dir/ dir/hard"
  is "$(out "$ps" /dir/inner/.. | names | cut -d ' ' -f 1)" "dir/"
  # A link is a link; what it leads to where that is asked for, and where a slash follows.
  is "$(out "$ps" /dir/link | tar -tvf - | sed 's/.* link/link/')" "link -> one"
  is "$(out -L "$ps" /dir/link | tar -xOf -)" one
  is "$(out "$ps" /lib/ | names)" "lib/"
  is "$(out "$ps" /var-run/. | names)" ""
  # All of it arrives.
  mkdir got && out "$ps" /dir | tar --xattrs -xpf - -C got
  is "$(python3 "$repo/tests/listing.py" got/dir)" "$(python3 "$repo/tests/listing.py" "$root/dir")"
  for path in /nosuch /dir/one/ /dir/one/. /dir/one/x /nosuch/x '' /dir/pipe/; do
    fails 1 "^bocker-store: copy $ps:.*: (No such file or directory|Not a directory)$" out "$ps" "$path"
  done
  ln -s loop "$root/loop"
  fails 1 'Too many' out "$ps" /loop/x
  fails 2 "takes one name" out --name a/b "$ps" /dir
  fails 1 "^bocker-store: No container named '$img' exists$" out "$img" /dir
}

test_cp_stat_tells_what_is_there() {
  container
  is "$(bocker-store cp-stat "$ps" /dir/inner/two)" "file	4755	4"
  is "$(kind "$ps" /) $(kind "$ps" dir/) $(kind "$ps" /dir/pipe) $(kind "$ps" /dir/link) $(kind -L "$ps" /dir/link)" "directory directory fifo symlink file"
  is "$(kind "$ps" /dir/new) $(kind "$ps" /dir/new/) $(kind -L "$ps" /up)" "none none directory"
  fails 1 "copy $ps:/no/such: No such file" bocker-store cp-stat "$ps" /no/such
}

test_cp_in_by_dockers_rules() {
  container
  mkdir -p new/sub && echo file > new/file && echo deep > new/sub/deep && chown 7:8 new/file && chmod 751 new && touch -d 2001-02-03 new/file
  ln new/file new/other
  # Into a directory; through a link; what is there already stays.
  into /dir new
  is "$(stat -c '%u:%g %a %Y' "$root/dir/new/file") $(cat "$root/dir/new/other")" "7:8 644 $(date -d 2001-02-03 +%s) file"
  is "$(stat -c '%a %h' "$root/dir/new" "$root/dir/new/other" | xargs)" "751 1 644 2"
  into /var-run/ new/file && is "$(cat "$root/run/new/file")" file
  into /var-run -C new . && is "$(cat "$root/run/sub/deep")" deep
  is "$(stat -c %a "$root/run")" 755 "what it goes into stays as it is"
  # A name that is not there, or is a file, is the copy's.
  into /dir/renamed new && is "$(cat "$root/dir/renamed/other")" file
  into /dir/of-dot -C new . && is "$(cat "$root/dir/of-dot/sub/deep") $(stat -c %a "$root/dir/of-dot")" "deep 751"
  into /dir/one -C new file && is "$(cat "$root/dir/one" "$root/dir/hard" | xargs)" "file one" "the name is replaced, not what it named"
  into /dir/link -C new file && is "$(readlink "$root/dir/link")" one
  into /dir/made/ new && [ -d "$root/dir/made/sub" ]
  bad() { local pattern=$1; shift; if into "$@" 2>err; then fail "copied: $*"; fi; like "$(cat err)" "$pattern"; is "$(wc -l < err)" 1; }
  bad "copy $ps:/no/where: No such file or directory" /no/where new
  bad "cannot take the place" /dir/one new
  bad "there is no such directory" /dir/nosuch/ -C new file
  bad "Not a directory" /dir/one/ -C new file
  bad "more than one thing" /dir/several -C new file other
  # A directory never takes the place of something else, or the other way round (as docker).
  mkdir -p odd/inner/two odd/one
  bad "Not a directory" /dir odd/one -C odd inner
  bad "Is a directory" /dir -C new --transform s,file,inner, file
  is "$(cat "$root/dir/inner/two")" two
  # Names that would hide something in a layer are names.
  mkdir wh && touch wh/.wh.inner wh/.wh..wh..opq && into /dir -C wh .
  [ -e "$root/dir/.wh.inner" ] && [ -e "$root/dir/inner/two" ] || fail "a whiteout"
  # Whose they are.
  tar -c new | bocker-store cp-in --owner 5:6 "$ps" /run
  is "$(stat -c '%u:%g' "$root/run/new" "$root/run/new/file" "$root/run/new/sub/deep" | sort -u)" 5:6
  gzip -c < <(tar -c new/file) | bocker-store cp-in "$ps" /dir/inner && [ -e "$root/dir/inner/new/file" ]
  fails 1 "stdin: it is empty" bocker-store cp-in "$ps" /dir
  for words in x 1 1: -1:0 1:4294967295; do fails 2 "two numbers" bocker-store cp-in "--owner=$words" "$ps" /; done
  # Half an archive is told.
  if tar -c new | head -c 700 | bocker-store cp-in "$ps" /dir 2>err; then fail "half"; fi
  like "$(cat err)" 'early|cut off'
}

# Check 29: links of the container lead nowhere out of it, in either direction.
test_cp_follows_no_link_out() {
  container
  mkdir -p "$HOST_DIR/host" && echo secret > "$HOST_DIR/host/file"
  local before
  before=$(find "$HOST_DIR/host" -printf '%p %T@ %C@ %m\n')
  ln -s "$HOST_DIR/host" "$root/absolute"; ln -s "../../../../../../../../$HOST_DIR/host" "$root/relative"; ln -s /proc/self/root/etc "$root/magic"
  ln -s "$HOST_DIR/host/file" "$root/tofile"
  for path in /absolute/file /relative/file /absolute/. /magic/passwd; do
    fails 1 "No such file or directory|Not a directory" out "$ps" "$path"
  done
  fails 1 "No such file" out -L "$ps" /tofile
  echo new > file
  for path in /absolute/ /relative/file /magic/ /tofile; do into "$path" file 2>/dev/null || true; done
  # Entries through links of the container, and of the archive itself.
  mkdir -p evil && ln -s "$HOST_DIR/host" evil/link
  { tar -c -C evil link; } > evil.tar
  python3 - <<PY
import tarfile, io
with tarfile.open("evil.tar", "a") as tar:
    for name in ("link/file", "absolute/file", "relative/file", "link/deeper/x"):
        info = tarfile.TarInfo(name); info.size = 3
        tar.addfile(info, io.BytesIO(b"bad"))
PY
  bocker-store cp-in "$ps" / < evil.tar
  is "$(find "$HOST_DIR/host" -printf '%p %T@ %C@ %m\n')" "$before"
  is "$(cat "$HOST_DIR/host/file")" secret
  # It went to where a process in the container would have written.
  is "$(cat "$root$HOST_DIR/host/file")" bad
  if printf x | tar -c --transform 's,^,../,' -P file | bocker-store cp-in "$ps" /dir 2>err; then fail "dots"; fi
  like "$(cat err)" "a path with '\.\.'"
  # Positive control.
  is "$(out "$ps" /up/passwd | tar -xOf -)" inside
}

# Check 30: whoever swaps directories and links meanwhile gets nothing of the host.
test_cp_while_names_are_swapped() {
  container
  mkdir -p "$HOST_DIR/host" "$root/swap/real" "$root/swap/real/sub" && echo secret > "$HOST_DIR/host/file" && echo fine > "$root/swap/real/file"
  cp "$root/swap/real/file" "$root/swap/plain"
  ln -s "$HOST_DIR/host" "$root/swap/link"; ln -s "$HOST_DIR/host/file" "$root/swap/flink"
  local before good=0
  before=$(find "$HOST_DIR/host" -printf '%p %T@ %C@ %m %U\n')
  cat > swap.py <<'PY'
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(sys.argv[1])
while True:
    for a, b in ((b"real", b"link"), (b"plain", b"flink")):
        libc.syscall(316, -100, a, -100, b, 2)
    for name in (b"real", b"link"):
        try: os.rename(name + b"/pipe", name + b"/gone"); os.symlink(os.fsencode(sys.argv[2]) + b"/file", name + b"/pipe")
        except OSError: pass
PY
  python3 swap.py "$root/swap" "$HOST_DIR/host" & local swapper=$!
  mkdir in && echo new > in/file && mkfifo -m 666 in/pipe && mkdir in/sub && echo x > in/sub/x && chown -R 1234:1234 in
  tar -c -C in . > in.tar
  for _ in $(seq 15); do
    bocker-store cp-in "$ps" /swap/real < in.tar 2>/dev/null && good=$((good + 1))
    bocker-store cp-in "$ps" /swap/plain < <(tar -c -C in file) 2>/dev/null || true
    out "$ps" /swap/real > got.tar 2>/dev/null && good=$((good + 1))
    out "$ps" /swap/ > more.tar 2>/dev/null || true
    out -L "$ps" /swap/plain >> more.tar 2>/dev/null || true
    ! grep -q secret got.tar more.tar || fail "a file of the host"
  done
  kill "$swapper"; wait "$swapper" 2>/dev/null || true
  is "$(find "$HOST_DIR/host" -printf '%p %T@ %C@ %m %U\n')" "$before"
  [ "$good" -gt 0 ] || fail "nothing was copied"
}

# What was made, and is something else a moment later, is not described by its name: that would follow a link to the host.
test_cp_in_while_what_it_made_is_replaced() {
  container
  echo secret > host && chmod 600 host
  mkdir in && mkfifo -m 666 in/pipe && chown 1234:1234 in/pipe && tar -c -C in pipe > in.tar
  mkdir "$root/target"
  bash -c 'until [ -p "$0/pipe" ]; do :; done; mv "$0/pipe" "$0/gone"; ln -s "$1" "$0/pipe"' "$root/target" "$PWD/host" & local swapper=$!
  # Time enough for the other, also where the machine holds it up.
  if strace -qq -o /dev/null -e inject=mknodat,mknod:delay_exit=5000000 bocker-store cp-in "$ps" /target < in.tar 2>err; then fail "nothing noticed"; fi
  wait "$swapper"
  like "$(cat err)" "^bocker-store: unpack 'target/pipe': it was replaced while it was made$"
  is "$(stat -c '%a %U %h' host) $(cat host)" "600 root 1 secret"
  # Positive control: without anybody's interference.
  rm "$root/target/pipe" && strace -qq -o /dev/null -e inject=mknodat,mknod:delay_exit=500000 bocker-store cp-in "$ps" /target < in.tar
  is "$(stat -c '%F %a %u' "$root/target/pipe")" "fifo 666 1234"
}

# A volume is where the container sees it; what else is mounted there is not seen from here.
test_cp_knows_volumes() {
  container
  bocker-store volume create db >/dev/null; bocker-store volume create fixed >/dev/null
  mkdir -p "$root"/{data/db,fixed,host,tmp,proc} && echo hidden > "$root/data/db/hidden" && ln -s /data/db "$root/link"
  echo kept > "$BOCKER_ROOT/vol_db/data/kept"
  printf -- '--volume=%s/vol_db/data:/link\n--volume=%s/vol_fixed/data:/fixed:ro\n--volume=/etc:/host\n--tmpfs=/tmp\n--\nx\n' "$BOCKER_ROOT" "$BOCKER_ROOT" > "$BOCKER_ROOT/$ps/words"
  printf 'db\t/link\nfixed\t/fixed:ro\tnameless\n' > "$BOCKER_ROOT/$ps/volumes"
  is "$(out "$ps" /data/db/. | names)" kept
  is "$(out "$ps" /link/kept | tar -xOf -)" kept
  is "$(out "$ps" /data | names)" "data/ data/db/ data/db/kept"
  mkdir -p new/db/sub && echo x > new/db/x
  into /data -C new db && into /link/sub -C new db/x
  is "$(cd "$BOCKER_ROOT/vol_db/data" && find . -type f | sort | xargs)" "./kept ./sub/db/x ./x"
  is "$(ls "$root/data/db")" hidden
  # Out of the volume again, by dots and by links.
  echo back > back && into /data/db/../ back && is "$(cat "$root/data/back")" back
  is "$(kind "$ps" /fixed) $(kind "$ps" /data/db/kept)" "directory file"
  if into /fixed back 2>err; then fail "into what is read-only"; fi
  like "$(cat err)" "/fixed is the volume fixed, read only \(bocker exec $ps tar\)$"
  # What lies elsewhere is named, with the way out.
  fails 1 "copy $ps:/host/passwd: /host is /etc of the host there \(bocker exec $ps tar\)$" out "$ps" /host/passwd
  fails 1 "/tmp is a tmpfs there" out "$ps" /tmp
  fails 1 "/host is /etc of the host there" bocker-store cp-stat "$ps" /host/new
  if into / -C new --transform s,db,host, db 2>err; then fail "over a mount"; fi
  like "$(cat err)" '/host is /etc of the host there'
  # The rest is copied, and what is left out is said.
  is "$(out "$ps" / 2>err | names | tr ' ' '\n' | grep -E '^(host|tmp|fixed|data/db/kept)' | xargs)" "data/db/kept fixed/"
  is "$(grep -c 'left out' err)" 2
  is "$(kind "$ps" /proc)" directory
  runs "$ps"
  fails 1 "/proc is mounted in a running container \(bocker exec $ps tar\)$" out "$ps" /proc
  is "$(out "$ps" /data/db/kept | tar -xOf -)" kept
  stops
}

# Check 31: nothing of the container, or of the caller's PATH, is run.
test_cp_runs_nothing() {
  container
  mkdir poison
  for name in tar gzip zstd xz sh cp; do printf '#!/bin/sh\ntouch %s/marker\n' "$HOST_DIR" > "poison/$name"; chmod +x "poison/$name"; cp "poison/$name" "$root/bin/"; done
  tar -czf in.tgz tree/dir/one
  local tool
  tool=$(command -v bocker-store)
  PATH=$PWD/poison strace -f -o calls -e trace=execve "$tool" cp-out "$ps" /dir > got.tar 2>/dev/null || PATH=$PWD/poison:$PATH "$tool" cp-out "$ps" /dir > got.tar
  PATH=$PWD/poison:$PATH strace -f -o calls -e trace=execve "$tool" cp-in "$ps" /dir < in.tgz 2>/dev/null || PATH=$PWD/poison "$tool" cp-in "$ps" /dir < in.tgz
  [ ! -e marker ] || fail "something was run"
  is "$(cat "$root/dir/tree/dir/one")" one
}

test_what_is_printed_about_cp_does_the_same() {
  container
  mkdir -p new/sub && echo file > new/file && echo deep > new/sub/deep && chown -R 7:8 new
  other=$(bocker-store snapshot "$img" -- x)
  try() {
    local path=$1; shift
    bocker-store cp-in --dry-run "$ps" "$path" > script </dev/null
    tar -c "$@" | sh -e script
    tar -c "$@" | bocker-store cp-in "$other" "$path"
  }
  before=$(cd "$root" && find . | wc -l)
  bocker-store cp-in --dry-run "$ps" /dir </dev/null >/dev/null
  is "$(cd "$root" && find . | wc -l)" "$before"
  try /dir new
  try '/dir/re&na,med' new
  try /dir/of-dot -C new .
  try /dir/as-file -C new file
  try /run -C new .
  is "$(cd "$root" && find . -printf '%p %m %U:%G %s\n' | sort)" "$(cd "$BOCKER_ROOT/$other/rootfs" && find . -printf '%p %m %U:%G %s\n' | sort)"
  tar -c new | bocker-store cp-in --explain "$ps" /run 2>err
  like "$(cat err)" '^tar --numeric-owner .* -C .*/rootfs/run/$'
}
