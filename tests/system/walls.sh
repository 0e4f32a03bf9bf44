# What an image, a layer or another user of the host may not do: checks 18 to 23 and 31, as a whole. What is shown of them
# one by one elsewhere: store.sh (attacks, umoci as judge), images.sh, export.sh, save.sh, unit tests of layer.rs, tarball.rs.
# shellcheck shell=bash disable=SC2154,SC2011,SC2164 # repo: tests/lib.sh

store() { bocker-store init --size "${1:-512M}"; }
listing() { python3 "$repo/tests/listing.py" "$1"; }
walls() { PYTHONDONTWRITEBYTECODE=1 python3 "$repo/tests/walls.py" "$@"; }
names() { ls -A "$BOCKER_ROOT" "$BOCKER_ROOT/layers" | xargs; }
nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all "$@"; }

# closed PATH...: nobody can look at it, list it, read it or execute it; the reason is always the same.
closed() {
  local path verb
  for path; do
    [ -e "$path" ] || [ -L "$path" ] || fail "there is no $path to be closed"
    for verb in stat ls cat readlink env; do
      ! nobody "$verb" "$path" >closed.out 2>closed.err || fail "$verb $path: $(cat closed.out)"
      [ "$verb" = readlink ] || like "$(cat closed.err)" 'Permission denied' "$verb $path"
    done
  done
}

# The registry says no more: the first layer has its name, of the second all is there that comes.
named() { find "$BOCKER_ROOT/layers" -mindepth 1 -maxdepth 1 -name 'sha256:*' | wc -l; }
settled() {
  [ "$(named)" = $((before + 1)) ] && [ "$(ls -d "$BOCKER_ROOT"/layers/.new_* | wc -l)" = 1 ] &&
    [ "$(stat -c %s "$BOCKER_ROOT".cache/*.partial)" = 100000 ]
} 2>/dev/null

# Check 18.
test_nobody_comes_in_whatever_the_umask() {
  chmod 711 "$HOST_DIR"
  echo open > everybody && chmod 644 everybody
  is "$(nobody cat "$HOST_DIR/everybody")" open "who is to be kept out reaches the host's files"
  a_tree tree && cp /bin/busybox tree/bin/su && chmod 4755 tree/bin/su
  printf 'file deep/er/f x\n' > layer
  python3 "$repo/tests/mklayer.py" layout layer.tar layer
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 5001 requests >ready 2>&1 &
  eventually 10 grep -qs ready ready
  local mask img ps other job before
  for mask in 000 077; do
    umask "$mask"
    bocker setup 2>/dev/null
    img=$(bocker init tree 2>/dev/null | sed 's/Created: //')
    bocker run "$img" true
    ps=$(bocker ps | awk 'NR == 2 { print $1 }')
    other=$(bocker-store unpack --source x < layer.tar)
    bocker volume create vol >/dev/null
    # While a pull is in the middle of a layer: what is built, what is kept, what waits.
    before=$(named)
    setsid bocker pull "127.0.0.1:5001/half$mask" >out 2>err &
    job=$!
    eventually 20 settled
    closed "$BOCKER_ROOT"/* "$BOCKER_ROOT"/layers/* "$BOCKER_ROOT"/layers/.new_* "$BOCKER_ROOT/$img"/* "$BOCKER_ROOT/$ps"/* \
      "$BOCKER_ROOT/$img/rootfs/bin/su" "$BOCKER_ROOT/$ps/rootfs/bin/su" "$BOCKER_ROOT/vol_vol/data" \
      "$BOCKER_ROOT".cache/* "/run/bocker/$ps"
    for path in "$BOCKER_ROOT" "$BOCKER_ROOT.cache" /run/bocker; do
      is "$(stat -c '%a %u:%g' "$path")" "700 0:0" "$path, umask $mask"
      ! nobody ls "$path" >/dev/null 2>&1 || fail "nobody lists $path"
    done
    is "$(stat -c '%a %u:%g' "$BOCKER_ROOT.btrfs")" "600 0:0" "the pool, umask $mask"
    ! nobody cat "$BOCKER_ROOT.btrfs" >/dev/null 2>&1 || fail "nobody reads the pool"
    [ -d "/proc/$job" ] || fail "the pull has ended: $(cat err)"
    kill -TERM -- "-$job"; wait "$job" || true
    eventually 5 eval '! pgrep ^bocker >/dev/null'
    # What is in an image is the image's, not the umask's: root, directories that no entry names, files of ours.
    is "$(cd "$BOCKER_ROOT/$other/rootfs" && stat -c %a . deep deep/er deep/er/f | xargs)" "755 755 755 644" "umask $mask"
    is "$(stat -c %a "$BOCKER_ROOT/$img/rootfs/bin/su")" 4755 "a setuid program that is one, umask $mask"
    umask 022
    bocker setup --undo
  done
}

# is_inside FILE.tar: applied, or refused in one line; then the sentinel is what it was. `FILE.check` knows which.
outside() { listing sentinel; find sentinel -printf '%p %i %n %C@ %m %U:%G\n' | sort; getfattr -Rhdm- sentinel; }
same() { is "$(stat -c %d:%i "$1")" "$(stat -c %d:%i "$2")" "$1 and $2 as one file"; }
applied() {
  local name=${1%.tar} check status=0
  check=$(cat "$name.check")
  bocker-store unpack --source x < "$1" >out 2>err || status=$?
  is "$(outside)" "$before" "the tree outside after $name"
  if [ "$check" = refused ]; then
    is "$status $(wc -c < out) $(wc -l < err)" "1 0 1" "$name is to be refused: $(cat err)"
  else
    is "$status $(grep -v "warning: attributes left out: user.x$" err)" "0 " "$name"
    (cd "$BOCKER_ROOT/$(cat out)/rootfs" && eval "$check") || fail "$name: not so: $check
$(cd "$BOCKER_ROOT/$(cat out)/rootfs" && find . | sort)"
    bocker-store rm "$(cat out)"
  fi
  is "$(names)" "$BOCKER_ROOT: layers $BOCKER_ROOT/layers:" "left by $name"
}
a_sentinel() {
  mkdir -p sentinel/d sentinel-evil && echo outside > sentinel/file && echo outside > sentinel-evil/file
  chmod 640 sentinel/file && chown 5:6 sentinel/d && mkfifo sentinel/pipe && ln -s file sentinel/link
  setfattr -n user.kept -v 1 sentinel/file
  before=$(outside)
}

# Check 19: containerd's TestBreakouts and what umoci and go-archive test; the positive ones are among them.
test_breakouts() {
  store && a_sentinel
  walls breakouts cases "$HOST_DIR/sentinel"
  for file in cases/*.tar; do applied "$file"; done
  is "$(ls sentinel-evil)" file
  [ "$(grep -Lx refused cases/*.check | wc -l)" -gt 30 ] || fail "too few that must work"
  [ "$(ls cases/*.check | wc -l)" -gt 45 ] || fail "too few cases"
}

# Check 20.
test_whiteouts_in_every_spelling() {
  store && a_sentinel
  walls whiteouts cases
  for file in cases/*.tar; do applied "$file"; done
  [ "$(ls cases/*.check | wc -l)" -gt 70 ] || fail "too few cases"
}

# Check 22: GNU tar's tree is ours, or there is none of ours. Python's tarfile is asked, too: where we take an archive that it
# takes, it has the same names, kinds and sizes.
test_parsers_agree_or_we_refuse() {
  store
  walls parsers cases
  for check in cases/*.check; do
    name=${check%.check} status=0
    /usr/bin/time -f %M -o memory bocker-store import - < "$name" >out 2>err || status=$?
    [ "$(tail -1 memory)" -lt 65536 ] || fail "$name took $(tail -1 memory) KiB"
    if [ "$status" != 0 ]; then
      is "$(cat "$check") $status $(wc -c < out) $(wc -l < err)" " 1 0 1" "$name: $(cat err)"
      unlike "$(cat err)" panicked
      continue
    fi
    rm -rf theirs && mkdir theirs
    theirs=0
    tar --warning=no-timestamp -xpf "$name" --numeric-owner --xattrs --xattrs-include='*' --acls -C theirs 2>tar.err || theirs=$?
    # Directories that no entry names are of the time when they were made.
    tree() { listing "$1" | tail -n +2 | awk -F '\t' -v OFS='\t' '$2 == "dir" { $5 = "" } 1'; }
    [ "$(cat "$check")" != both ] || is "$theirs" 0 "GNU tar and $name, which is for everybody: $(cat tar.err)"
    is "$(tree "$BOCKER_ROOT/$(cat out)/rootfs")" "$(tree theirs)" "$name: we (+) and GNU tar (-)"
    python3 - "$name" "$BOCKER_ROOT/$(cat out)/rootfs" <<'PY' || fail "$name: Python sees something else"
import os, stat, sys, tarfile
try:
    whole = tarfile.open(sys.argv[1], errors="surrogateescape").getmembers()
except tarfile.TarError:
    sys.exit(0)
seen = {}
for one in whole:
    kind = ("dir" if one.isdir() else "link" if one.issym() else "pipe" if one.isfifo() else "file")
    size = seen[one.linkname][1] if one.islnk() else one.size
    seen[one.name.rstrip("/")] = (kind, size if kind == "file" else 0)
ours = {}
for at, dirs, files in os.walk(sys.argv[2]):
    for name in dirs + files:
        path = os.path.join(at, name)
        info = os.lstat(path)
        kind = {stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFIFO: "pipe"}.get(stat.S_IFMT(info.st_mode), "file")
        ours[os.path.relpath(path, sys.argv[2])] = (kind, info.st_size if kind == "file" else 0)
parents = {os.path.dirname(name) for name in seen}
gone = {name: what for name, what in ours.items() if name not in seen and name not in parents}
if any(ours.get(name) != what for name, what in seen.items()) or gone:
    print(seen, ours)
    # Takes ustar's prefix from headers that are not ustar's.
    sys.exit(not sys.argv[1].endswith(("/v7-prefix", "/gnu-prefix")))
PY
    bocker-store rm "$(cat out)"
  done
  is "$(bocker-store images | wc -l)" 1
  is "$(grep -lx both cases/*.check | wc -l) $(grep -Lx both cases/*.check | wc -l)" "20 55" "cases for everybody, and others"
}

# Check 23, and the memory of check 22: whatever grows is stopped in time, in memory and before the reserve. (What takes long in
# debug binaries, a million entries and whiteouts in vain, layer.rs shows with lower limits.)
test_bombs() {
  store 192M
  walls bombs cases
  for check in cases/*.check; do
    name=${check%.check} status=0 started=$SECONDS
    /usr/bin/time -f %M -o memory timeout 100 bocker-store unpack --source x < "$name.tar" >out 2>err || status=$?
    # Debug binaries of a loaded machine: a released one takes a tenth.
    [ $((SECONDS - started)) -lt 60 ] || fail "$name took $((SECONDS - started)) s"
    # The reserve is untouched, though nothing that was deleted has been freed yet.
    fallocate -l 8M "$BOCKER_ROOT/.new_x" || fail "no room after $name"
    rm "$BOCKER_ROOT/.new_x"
    # Names and paths may take 128 MiB; nothing else grows.
    most=65536; case $name in */paths) most=300000 ;; esac
    [ "$(tail -1 memory)" -lt "$most" ] || fail "$name took $(tail -1 memory) KiB"
    if [ -s "$check" ]; then
      is "$status $(wc -c < out) $(wc -l < err)" "1 0 1" "$name: $(cat err)"
      like "$(cat err)" "$(cat "$check")" "$name"
    else
      is "$status" 0 "$name: $(cat err)"
      img=$(cat out)
      # What is left out is told in few words.
      is "$(wc -l < err)" 1
      [ "$(wc -c < err)" -lt 3000 ] || fail "a long warning"
      bocker-store rm "$img"
    fi
    is "$(names)" "$BOCKER_ROOT: layers $BOCKER_ROOT/layers:" "left by $name"
    is "$(bocker-store gc)" "" "gc after $name"
  done
  mkdir tree && echo x > tree/f
  bocker-store rm "$(bocker-store import tree)"
}

# Check 31: programs that an image or the caller's PATH offers are executed in the container, or not at all.
test_no_program_of_an_image_runs_on_the_host() {
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 5001 requests >ready &
  eventually 10 grep -qs ready ready
  mkdir marks evil
  a_tree tree
  printf '#!/bin/busybox sh\n/bin/busybox touch %s/marks/"${0##*/}" 2>/dev/null\necho hostile\n' "$HOST_DIR" > evil/sh
  chmod 755 evil/sh
  local programs="gzip gunzip unpigz zstd unzstd xz tar cp rm mount umount mkfs.btrfs btrfs losetup ip nft nsenter unshare chroot ps jq curl
    ld.so ld-linux-x86-64.so.2 libnss_files.so.2 libc.so.6 bocker-store bocker-exec bocker-cg bocker-net bocker-pull bocker docker-credential-evil env cat id"
  for program in $programs; do [ -e "evil/$program" ] || cp evil/sh "evil/$program"; done
  mkdir -p tree/usr/local/bin tree/lib64 tree/lib/x86_64-linux-gnu
  rm -f tree/bin/{sh,cat,env,id,ps,mount,umount,cp,rm,ip} && cp evil/* tree/bin && cp evil/* tree/usr/local/bin
  cp evil/ld-linux-x86-64.so.2 tree/lib64 && cp evil/libnss* evil/libc* tree/lib/x86_64-linux-gnu
  printf 'passwd: evil files\nhosts: evil\n' > tree/etc/nsswitch.conf
  # The mark is one: run from here, it is made.
  (PATH=$PWD/evil:$PATH; is "$(gzip)$(bocker-store)" hostilehostile)
  is "$(ls marks | xargs)" "bocker-store gzip"
  rm marks/*
  # The caller's PATH, working directory, shell and loader's variables are theirs, too.
  mkdir home home/.docker && echo '{"credsStore":"evil"}' > home/.docker/config.json
  bocker=$(command -v bocker)
  hostile() { (cd evil; env PATH="$HOST_DIR/evil" HOME="$HOST_DIR/home" SHELL="$HOST_DIR/evil/sh" TAR_OPTIONS=--use-compress-program=./gzip "$bocker" "$@"); }
  hostile setup 2>/dev/null
  img=$(hostile init "$HOST_DIR/tree" 2>/dev/null); img=${img#Created: }
  pulled=$(hostile pull 127.0.0.1:5001/good 2>/dev/null); pulled=${pulled#Created: }
  # In the container they are what they are.
  is "$(hostile run "$img" gzip)" hostile
  is "$(hostile run "$img" "echo x | tar")" hostile "the image's shell"
  is "$(hostile run -- "$img" cat)" hostile
  hostile run "$img" /bin/busybox sleep 60 & job=$!
  running() { bocker-store ps --json | jq -r 'select(.running).id' | grep .; }
  eventually 10 running >/dev/null
  ps=$(running)
  is "$(hostile exec "$ps" ps)" hostile
  hostile logs "$ps" >/dev/null
  hostile diff "$ps" >/dev/null
  kill -KILL "$(bocker-store cat "$ps" status | sed 's/running //')"; wait "$job" || true
  hostile tag "$img" evil:1
  hostile commit "$ps" evil:2 >/dev/null
  hostile export "$ps" > root.tar
  gzip -k root.tar && zstd -q root.tar
  for file in root.tar root.tar.gz root.tar.zst; do hostile import - < "$file" >/dev/null; done
  hostile save -o "$HOST_DIR/all.tar" evil:1 evil:2
  hostile load -i "$HOST_DIR/all.tar" >/dev/null
  hostile images >/dev/null; hostile ps >/dev/null; hostile inspect "$img" >/dev/null; hostile history evil:2 >/dev/null
  hostile volume create vol >/dev/null; hostile system df >/dev/null; hostile prune >/dev/null 2>&1
  hostile rm "$ps" >/dev/null; hostile rmi evil:1 evil:2 >/dev/null; hostile rm "$pulled" >/dev/null
  hostile gc >/dev/null
  hostile prune --force --all --volumes --containers >/dev/null 2>&1 || true
  is "$(ls marks)" "" "programs of an image that ran on the host"
  # A login helper is taken from three directories of the system's.
  ! hostile pull 127.0.0.1:5001/login 2>err || fail "a login out of nowhere"
  like "$(cat err)" 'docker-credential-evil is not in /usr/local/bin, /usr/bin, /bin'
  hostile setup --undo
  is "$(ls marks)" "" "programs that ran on the host"
}
