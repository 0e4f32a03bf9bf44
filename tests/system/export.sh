# export and import -: a root file system as a tar archive.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh

store() { bocker-store init --size 512M; }
listing() { python3 "$repo/tests/listing.py" "$1"; }

# A tree that holds one of everything that a tar archive can.
everything() {
  mkdir -p "$1/dir/.hidden" "$1/.dot" "$1/a" "$1/a-b"
  echo content > "$1/file"
  ln "$1/file" "$1/dir/another"
  ln -s ../file "$1/dir/link"
  ln -s "/nowhere/$(printf 'x%.0s' $(seq 150))" "$1/dangling"
  mkfifo "$1/pipe" && ln "$1/pipe" "$1/pipe-too"
  mknod "$1/null" c 1 3
  mknod "$1/block" b 4095 1048575
  printf x > "$1/$(printf 'not\377utf8')"
  printf x > "$1/$(printf 'long\377%.0s' $(seq 40))"
  printf x > "$1/umlaut ä"
  ln -s "$(printf '\377target')" "$1/odd-target"
  printf x > "$1/new
line"
  printf x > "$1/$(printf 'n%.0s' $(seq 255))"
  printf x > "$1/$(printf 'e%.0s' $(seq 100))" && printf x > "$1/$(printf 'f%.0s' $(seq 101))"
  mkdir -p "$1/$(printf 'deep%.0s/' $(seq 100))" && touch "$1/$(printf 'deep%.0s/' $(seq 100))end"
  cp /bin/busybox "$1/setuid" && chmod 4755 "$1/setuid"
  cp /bin/busybox "$1/capable" && setcap cap_net_raw+ep "$1/capable"
  truncate -s 64M "$1/sparse" && printf end >> "$1/sparse"
  printf middle | dd of="$1/sparse" bs=1 seek=1000000 conv=notrunc status=none
  truncate -s 5M "$1/hole" && : > "$1/empty"
  head -c 512 /dev/zero > "$1/block-of-zeros" && head -c 1500 /dev/urandom > "$1/odd-size"
  chmod 2775 "$1/dir" && chmod 1777 "$1/.dot" && chmod 000 "$1/dir/.hidden"
  chown 1000:2147483646 "$1/file" && chown -h 5:6 "$1/dangling" "$1/pipe" && chown 2097151:2097152 "$1/empty"
  setfattr -n user.empty -v '' "$1/file" && setfattr -n user.bytes -v 0x000a3d00ff "$1/dir"
  setfattr -n user.per%cent -v 31 "$1/dir"
  touch -hd '2001-02-03 04:05:06.789012345' "$1/dangling" "$1/pipe" "$1/file" "$1/dir/.hidden"
  touch -d '1969-12-31 23:59:58.5' "$1/dir" && touch -d '2038-01-19 03:14:08.000000001' "$1/.dot" "$1"
  touch -d '1901-12-14 00:00:00' "$1/empty" && touch -d '2350-01-01' "$1/hole"
}

test_export_through_gnu_tar_and_back() {
  store
  everything tree
  img=$(bocker-store import --source mine:1 tree)
  bocker-store export mine:1 > a.tar
  # GNU tar makes the same tree of it.
  mkdir out && tar --warning=no-timestamp -xpf a.tar --numeric-owner --xattrs --xattrs-include='*' -C out 2>err || fail "tar: $(cat err)"
  is "$(cat err)" ""
  is "$(listing out)" "$(listing tree)" "through GNU tar"
  [ "$(du -k out/sparse | cut -f1)" -lt 200 ] || fail "the hole was filled"
  # Ourselves.
  two=$(bocker-store import - < a.tar)
  is "$(listing "$BOCKER_ROOT/$two/rootfs")" "$(listing tree)" "through import"
  [ "$(du -k "$BOCKER_ROOT/$two/rootfs/sparse" | cut -f1)" -lt 200 ] || fail "the hole was filled"
  is "$(bocker-store images | grep "$two")" "$two		-"
  # The same tree gives the same bytes, whichever way it came.
  bocker-store export "$img" | cmp - a.tar
  bocker-store export "$two" | cmp - a.tar
  # And what GNU tar writes comes in: it knows no hard links of pipes, and writes % in an attribute's name as %25.
  rm tree/pipe-too && setfattr -x user.per%cent tree/dir
  touch -d '1969-12-31 23:59:58.5' tree/dir && touch -d '2038-01-19 03:14:08.000000001' tree
  tar -C tree --format=pax --sparse --xattrs --xattrs-include='*' --numeric-owner -cf b.tar .
  gzip -k b.tar && zstd -q b.tar
  for file in b.tar b.tar.gz b.tar.zst; do
    three=$(bocker-store import --source three:1 - < "$file")
    is "$(listing "$BOCKER_ROOT/$three/rootfs")" "$(listing tree)" "from GNU tar, $file"
    bocker-store export three:1 > c.tar
    is "$(tar -tf c.tar --quoting-style=escape | sort)" "$(tar -tf a.tar --quoting-style=escape | grep -v pipe-too | sort)" "entries of $file"
  done
  # Python's reader, an implementation of its own, sees the same.
  python3 - a.tar <<'PY'
import sys, tarfile
whole = tarfile.open(sys.argv[1], encoding="utf-8", errors="surrogateescape")
names = {member.name: member for member in whole}
assert names["file"].uid == 1000 and names["file"].gid == 2147483646 and names["file"].mtime == 981173106.789012345, names["file"]
assert names["dir/another"].type == tarfile.REGTYPE and names["file"].type == tarfile.LNKTYPE, "the first name has the data"
assert names["sparse"].size == (64 << 20) + 3 and names["hole"].size == 5 << 20
assert names["setuid"].mode == 0o4755 and "not\udcffutf8" in names
assert all(member.uname == member.gname == "" for member in names.values())
PY
  # Sorted, directories before what is in them.
  tar -tf a.tar --quoting-style=escape | grep -v deep > names
  is "$(grep -n '^dir/$\|^dir/another$\|^a/$\|^a-b/$\|^./$' names | cut -d: -f2 | xargs)" "./ a/ a-b/ dir/ dir/another"
  grep -q 'link to dir/another' <(tar -tvf a.tar) || fail "no hard link"
}

test_export_of_sockets_attributes_and_acls() {
  store
  mkdir tree && echo x > tree/file
  python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("tree/socket")'
  setfattr -n 'user.a=b' -v 1 tree/file
  setfattr -n trusted.host -v 1 tree/file
  setfattr -n system.posix_acl_default -v 0x0200000001000700ffffffff04000500ffffffff20000500ffffffff tree
  img=$(bocker-store import tree)
  bocker-store export "$img" > a.tar 2>err
  is "$(sort err)" "bocker-store: warning: 'file': an attribute with '=' in its name, which tar has no word for, is left out
bocker-store: warning: 'socket': a socket is left out"
  is "$(tar -tf a.tar)" "./
file"
  two=$(bocker-store import - < a.tar)
  is "$(listing "$BOCKER_ROOT/$two/rootfs" | head -1)" "$(listing tree | head -1)" "the root, with its ACL"
  is "$(getfattr -dm- "$BOCKER_ROOT/$two/rootfs/file")" ""
}

test_export_clamps_times() {
  store
  mkdir tree && echo x > tree/old && echo x > tree/new
  touch -d '2001-01-01 00:00:00.5 UTC' tree/old && touch -d '2030-01-01 00:00:00.25 UTC' tree/new tree
  img=$(bocker-store import tree)
  times() { python3 -c 'import sys, tarfile; print(*(f"{m.name}={m.mtime}" for m in tarfile.open(fileobj=sys.stdin.buffer, mode="r|")))'; }
  is "$(bocker-store export "$img" | times)" ".=1893456000.25 new=1893456000.25 old=978307200.5"
  is "$(bocker-store export --source-date-epoch 1000000000 "$img" | times)" ".=1000000000 new=1000000000 old=978307200.5"
  is "$(SOURCE_DATE_EPOCH=0 bocker export "$img" | times)" ".=0 new=0 old=0"
  is "$(SOURCE_DATE_EPOCH=0 bocker-store export --source-date-epoch 1893456000 "$img" | times)" ".=1893456000 new=1893456000 old=978307200.5"
  fails 2 'SOURCE_DATE_EPOCH: it is not a number' env SOURCE_DATE_EPOCH=yesterday bocker-store export "$img"
}

test_export_stays_inside_and_says_what_changed() {
  store
  mkdir -p outside tree/dir && echo secret > outside/file && echo x > tree/dir/f
  img=$(bocker-store import tree) ps=$(bocker-store snapshot "$img" -- x)
  root=$BOCKER_ROOT/$ps/rootfs
  ln -s "$HOST_DIR/outside" "$root/link" && ln -s "$HOST_DIR/outside/file" "$root/dir/file"
  is "$(bocker-store export "$ps" | tar -tf - | xargs)" "./ dir/ dir/f dir/file link"
  # A container that swaps a directory and a link to the host all the time.
  (
    cd "$root" && mkdir swap && echo inside > swap/file && ln -s "$HOST_DIR/outside" other
    python3 - <<'PY'
import ctypes, os
libc = ctypes.CDLL(None)
while not os.path.exists("../../../stop"):
    libc.renameat2(-100, b"swap", -100, b"other", 2)
PY
  ) &
  for _ in $(seq 60); do
    bocker-store export "$ps" > a.tar 2>err || like "$(cat err)" "^bocker-store: warning: '.*': it changed while it was read$"
    ! grep -q secret a.tar || fail "the host's file is in the archive"
    tar -tf a.tar > names || fail "not an archive"
  done
  touch stop; wait
  # A file that shrinks: padded, said, status 1.
  head -c 200000000 /dev/zero | tr '\0' x > "$root/big"
  mkfifo slow
  bocker-store export "$ps" > slow 2>err & job=$!
  exec 9< slow
  head -c 1000000 <&9 > a.tar
  truncate -s 1000 "$root/big"
  cat <&9 >> a.tar
  exec 9<&-
  status=0; wait "$job" || status=$?
  is "$status" 1
  is "$(cat err)" "bocker-store: warning: 'big': it changed while it was read"
  is "$(tar -tvf a.tar | awk '/big/ { print $3 }')" 200000000
  # A reader that goes away is no failure to speak of.
  (set +o pipefail; bocker-store export "$ps" 2>err | head -c 100 >/dev/null)
  is "$(cat err)" ""
  fails 1 'No space left on device' sh -c "bocker-store export $ps > /dev/full"
  fails 1 "^bocker-store: stdout is a terminal" sh -c "script -qec 'bocker-store export $ps' /dev/null | tr -d '\r' >&2; exit 1"
  fails 1 "No container named 'nosuch' exists" bocker-store export nosuch
  # Subvolumes that the container made are part of it.
  btrfs subvolume create "$root/inner" >/dev/null && echo y > "$root/inner/file"
  is "$(bocker-store export "$ps" 2>/dev/null | tar -xOf - inner/file)" y
}

test_import_of_bad_archives_leaves_nothing() {
  store
  mkdir tree && head -c 3000 /dev/urandom > tree/file
  tar -C tree -cf good.tar .
  size=$(stat -c %s good.tar)
  before=$(census)
  # Cut anywhere it is refused, also at the end of an entry.
  # Its end mark begins at 4096; half of one at the very end is none.
  for cut in $(seq 0 512 4608) 5119 1; do
    status=0
    head -c "$cut" good.tar | bocker-store import - >out 2>err || status=$?
    is "$status $(wc -l < err) $(wc -c < out)" "1 1 0" "cut at $cut of $size: $(cat err)"
    is "$(census)" "$before"
  done
  refused() { # PATTERN FILE
    status=0
    bocker-store import - < "$2" >out 2>err || status=$?
    is "$status $(wc -l < err) $(wc -c < out)" "1 1 0" "$2: $(cat err)"
    like "$(cat err)" "$1" "$2"
    is "$(census)" "$before" "after $2"
  }
  refused 'it is empty' /dev/null
  (cat good.tar; echo more) > more.tar && refused 'data after the end' more.tar
  xz -k good.tar && refused 'compressed by xz \(xz -dc FILE \|\)$' good.tar.xz
  bzip2 -k good.tar && refused 'compressed by bzip2 \(bzip2 -dc FILE \|\)$' good.tar.bz2
  gzip -kc good.tar | head -c 1000 > cut.gz && refused '' cut.gz
  zstd -qc good.tar | head -c 1000 > cut.zst && refused '' cut.zst
  head -c 100000 /dev/urandom > noise && refused '' noise
  echo '<html>' > page && refused '' page
  tar -cf dots.tar -P ../"$(basename "$HOST_DIR")"/tree/file && refused "\\.\\." dots.tar
  # Positive control; what only looks like bzip2 is a name.
  (cd tree && echo notes >BZh9-notes && tar -cf ../named.tar BZh9-notes file)
  bocker-store rm "$(bocker-store import - < named.tar)"
  img=$(bocker-store import - < good.tar)
  cmp tree/file "$BOCKER_ROOT/$img/rootfs/file"
  bocker-store rm "$img"
  # Interrupted.
  mkfifo slow
  bash -c 'trap - INT; exec bocker-store import - < slow 2>err >out' & pid=$!
  exec 9> slow
  head -c 2000 good.tar >&9
  # From then on it is told by a descriptor.
  eventually 20 grep -q '^SigBlk:.*4007$' "/proc/$pid/status"
  kill -INT "$pid"
  status=0; wait "$pid" || status=$?
  exec 9>&-
  is "$status" 130
  like "$(cat err)" 'interrupted by SIGINT'
  is "$(census)" "$before"
}

# The same code as for layers; here it is shown that it is.
test_import_keeps_hostile_archives_inside() {
  store
  mkdir -p sentinel/d && echo outside > sentinel/file
  before=$(listing sentinel)
  python3 - "$repo/tests" "$HOST_DIR/sentinel" <<'PY'
import os, sys
sys.path.insert(0, sys.argv[1])
import mklayer
s = sys.argv[2]
up = "../" * 12 + s
os.mkdir("attacks")
L = mklayer.Layer
for name, layer in {
    "dotdot": L().file("../../x", "x"),
    "link": L().symlink("l", s).file("l/escape", "x"),
    "relative": L().symlink("l", up).file("l/escape", "x"),
    "leaf": L().symlink("f", s + "/file").file("f", "inside"),
    "hard": L().hard("h", s + "/file").file("h", "x"),
    "chmod": L().symlink("l", s).dir("l/", mode=0o777, uid=7),
    "hide": L().symlink("l", s).file("l/.wh.file", ""),
}.items():
    mklayer.write(f"attacks/{name}.tar", layer.tar())
PY
  for file in attacks/*.tar; do
    status=0
    bocker-store import - < "$file" >out 2>err || status=$?
    is "$(listing sentinel)" "$before" "the tree outside after $file"
    case $file in
      */dotdot* | */hard*) is "$status $(wc -c < out) $(wc -l < err)" "1 0 1" "$file: $(cat err)" ;;
      *) is "$status $(cat err)" "0 " "$file" ;;
    esac
  done
  is "$(bocker-store images | tail -n +2 | wc -l)" 5
}

test_import_reads_no_keyboard() {
  fails 1 '^bocker-store: stdin is a terminal' sh -c "script -qec 'bocker-store import --setup -' /dev/null </dev/null | tr -d '\r' >&2; exit 1"
  [ ! -e "$BOCKER_ROOT.btrfs" ] || fail "a store was made for nothing"
}

test_bocker_export_and_import() {
  a_tree tree
  img=$(bocker init tree 2>/dev/null | sed 's/Created: //')
  bocker run "$img" "echo made > /made" 2>/dev/null
  ps=$(bocker ps | awk 'NR > 1 { print $1 }')
  bocker export "$ps" > a.tar
  is "$(bocker --dry-run export "$ps" | sh | cksum)" "$(cksum < a.tar)"
  out=$(bocker import - mine:2 < a.tar)
  like "$out" '^Created: img_[0-9]+$'
  is "$(bocker run mine:2 cat /made)" made
  bocker --dry-run import - other > script
  is "$(sh script < a.tar | sed 's/_.*//')" "Created: img"
  bocker-store import --source third --dry-run - > script
  is "$(sh -e script < a.tar | sed 's/_.*//')" img
  is "$(listing "$(bocker-store path third)/rootfs")" "$(listing "$(bocker-store path mine:2)/rootfs")"
  is "$(listing "$(bocker-store path other)/rootfs")" "$(listing "$(bocker-store path mine:2)/rootfs")"
  # A pipe of two: what fails before is not taken for the whole.
  bocker-store export mine:2 | bocker-store import --source piped - >/dev/null
  is "$(bocker run piped cat /made)" made
  ! bocker-store export nosuch 2>err | bocker-store import - 2>>err || fail "an image of nothing"
}
