# The generated set (tests/generated.py): what bocker-store makes of each image is what umoci and GNU tar make of it, or
# differs exactly as docs/ARCHITECTURE.md, "Where others differ", says. Checks 20, 21 and 22.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh
# shellcheck source=tests/system/export.sh
source "$repo/tests/system/export.sh"

# One btrfs for all: what a file system cannot hold (a far time, a hole) is then no difference between tools.
pool() {
  truncate -s 1G disk
  mkfs.btrfs -q disk >/dev/null
  mkdir pool
  mount -o loop disk pool
  export BOCKER_ROOT=$PWD/pool/store
  mkdir -m 700 "$BOCKER_ROOT"
}
listing() { python3 "$repo/tests/listing.py" --now --holes "$1"; }
differ() { python3 "$repo/tests/differ.py" "$1" "$2"; }

# ours SET: what we make of it, as ours.list
ours() {
  local img
  img=$(bocker-store unpack --source x <"$1/image.tar" 2>err) || fail "$1: $(cat err)"
  is "$(cat err)" "" "stderr for $1"
  listing "$BOCKER_ROOT/$img/rootfs" >ours.list
  [ "$(wc -l <ours.list)" -gt 5 ] || fail "too little in $1"
  bocker-store rm "$img"
}

# umoci SET: what umoci makes of it, as theirs.list, without where the data lies: it fills holes
by_umoci() {
  rm -rf pool/judge
  umoci raw unpack --image "$1/layout:x" pool/judge >out 2>&1 || fail "umoci refuses $1: $(tail -1 out)"
  listing pool/judge | cut -f1-8 >theirs.list
  cut -f1-8 ours.list >short.list && mv short.list ours.list
}

by_tar() {
  rm -rf pool/judge && mkdir pool/judge
  local layer
  for layer in "$1"/[1-9].tar; do
    tar --warning=no-timestamp --warning=no-contiguous-cast -xpf "$layer" --numeric-owner --same-owner --xattrs --xattrs-include='*' -C pool/judge 2>err ||
      fail "tar refuses $layer: $(cat err)"
  done
  listing pool/judge >theirs.list
}

test_generated_images_are_what_umoci_unpacks() {
  pool
  python3 "$repo/tests/generated.py" set
  count=0
  for set in set/*; do
    # How umoci refuses what it cannot do is demanded, too; GNU tar is the judge there.
    refused=
    expected=
    case ${set#set/} in
      contiguous) refused="unknown typeflag '.x37'" ;;
      sparse-old) refused="unknown typeflag '.x53'" ;;
      longest-path) refused='file name too long' ;;
      attributes)
        expected="./acl/own mode: 0640 | 0755
./acl/own attributes: system.posix_acl_access=0200000001000600ffffffff02000500e803000004000500ffffffff10000400ffffffff20000000ffffffff | \
system.posix_acl_access=0200000001000700ffffffff02000500e803000004000500ffffffff10000500ffffffff20000500ffffffff
./empty attributes: user.empty= | -"
        ;;
      implied) expected="./setgid time: 1000000000000000000 | now" ;;
      names | python-ustar) expected=". time: 1000000000000000000 | now" ;;
      numbers)
        expected=". time: 1000000000000000000 | now
./pax-time/253402300799.999999999 time: 253402300799999999999 | -4852116231933722625
./pax-time/dir253402300799.999999999 time: 253402300799999999999 | -4852116231933722625
./pax-time/link253402300799.999999999 time: 253402300799999999999 | -4852116231933722625
./time/253402300799 time: 253402300799000000000 | -4852116232933722624"
        ;;
      python-gnu | python-pax)
        expected=". time: 1000000000000000000 | now
./far time: 17179869184000000000 | -1266874889709551616"
        ;;
      replaced-beside-whiteout)
        expected="./at/full-dir-empty-dir-hidden-last time: 1000002000250000000 | now
./at/full-dir-full-dir-hidden-last time: 1000002000250000000 | now"
        ;;
    esac
    ours "$set"
    if [ -n "$refused" ]; then
      ! umoci raw unpack --image "$set/layout:x" pool/refused >out 2>&1 || fail "umoci takes $set by now"
      like "$(tail -1 out)" "$refused"
      rm -rf pool/refused
    else
      by_umoci "$set"
      is "$(differ ours.list theirs.list)" "$expected" "$set, ours and umoci's"
    fi
    count=$((count + 1))
  done
  [ "$count" -ge 20 ] || fail "only $count sets"
  umount pool
}

# GNU tar, layer by layer, where no layer hides anything and none replaces a directory that has something in it.
test_generated_layers_are_what_gnu_tar_extracts() {
  pool
  python3 "$repo/tests/generated.py" set
  for set in contiguous sparse sparse-old longest-path names numbers attributes links-without-whiteouts replaced-over-layers \
    replaced-in-one-layer python-ustar python-gnu python-pax; do
    case $set in
      attributes)
        acl=0200000001000700ffffffff02000500e803000004000500ffffffff10000500ffffffff20000500ffffffff
        expected=". time: 1000000000000000000 | now
./acl time: 1000000000 | now
./acl/later attributes: - | system.posix_acl_access=0200000001000600ffffffff02000500e803000004000500ffffffff10000400ffffffff20000400ffffffff
./acl/later-sub attributes: - | system.posix_acl_access=$acl,system.posix_acl_default=$acl
./dir-changed attributes: user.one=6e6577 | user.one=6e6577,user.two=32
./dir-dropped attributes: - | user.one=31,user.two=32"
        ;;
      names)
        expected=". time: 1000000000000000000 | now
./p time: 2000000000 | now"
        ;;
      links-without-whiteouts)
        expected=". time: 1000000000000000000 | now
./at time: 1000000000000000000 | now"
        ;;
      replaced-over-layers)
        expected="./at time: 1000000000000000000 | now
./at/empty-dir-empty-dir attributes: user.2=64 | user.1=64,user.2=64
./at/empty-dir-full-dir attributes: user.2=64 | user.1=64,user.2=64
./at/full-dir-empty-dir attributes: user.2=64 | user.1=64,user.2=64
./at/full-dir-full-dir attributes: user.2=64 | user.1=64,user.2=64"
        ;;
      replaced-in-one-layer)
        expected="./at/absolute-absolute owner: 200:201 | 100:101
./at/absolute-absolute time: 1000002000250000000 | 1000001000150000000
./at/empty-dir-empty-dir attributes: user.2=64 | user.1=64,user.2=64
./at/empty-dir-full-dir attributes: user.2=64 | user.1=64,user.2=64"
        ;;
      *) expected= ;;
    esac
    ours "set/$set"
    by_tar "set/$set"
    is "$(differ ours.list theirs.list)" "$expected" "$set, ours and GNU tar's"
  done
  umount pool
}

# What GNU tar itself writes in each of its formats.
test_gnu_tar_in_every_format() {
  pool
  mkdir -p v7/dir/.hidden && echo content >v7/dir/file && ln v7/dir/file v7/hard && ln -s dir/file v7/link && ln -s nowhere v7/dangling
  printf x >"v7/$(printf 'n%.0s' $(seq 98))" && printf x >"v7/$(printf 'not\377utf8')" && echo x >v7/set && chmod 6711 v7/set
  chown 2097151:1000 v7/dir/file && chmod 1777 v7/dir && touch -d @1 v7/dir/file && touch -d @1000000000 v7/dir v7
  cp -a v7 ustar
  mkfifo ustar/pipe && mknod ustar/null c 1 3 && mknod ustar/disk b 7 1
  # 155 bytes before the name, as many as the prefix holds.
  deep=ustar/$(printf 'p%.0s' $(seq 76))/$(printf 'p%.0s' $(seq 76))
  mkdir -p "$deep" && touch "$deep/$(printf 'q%.0s' $(seq 100))"
  touch -d @1000000000 ustar
  everything posix
  # GNU tar knows no hard links of pipes, and writes % in an attribute's name as %25.
  rm posix/pipe-too && setfattr -x user.per%cent posix/dir && touch -d @11991628800 posix/hole && touch -d @1000000000.5 posix/dir posix
  while read -r name tree options; do
    rm -rf layer && mkdir layer
    # shellcheck disable=SC2086 # words
    tar -C "$tree" $options --sort=name --numeric-owner -cf layer/1.tar . 2>err || fail "tar $options: $(cat err)"
    python3 - "$repo/tests" <<'PY'
import sys
sys.path.insert(0, sys.argv[1])
import generated
generated.write("layer/set", [open("layer/1.tar", "rb").read()])
PY
    ours layer/set
    by_tar layer/set
    is "$(differ ours.list theirs.list)" "" "$name, ours and GNU tar's"
    case $name in
      # The format has types that umoci does not know, and times with fractions that the others have not.
      gnu | oldgnu) like "$(umoci raw unpack --image layer/set/layout:x pool/refused 2>&1 | tail -1)" "unknown typeflag '.x53'" ; rm -rf pool/refused ;;
      *)
        by_umoci layer/set
        expected=
        # Beyond what umoci's nanoseconds can count, and what Go drops: an empty value.
        [ "$tree" != posix ] || expected="./dir/another attributes: user.empty= | -
./file attributes: user.empty= | -
./hole time: 11991628800000000000 | -6455115273709551616"
        is "$(differ ours.list theirs.list)" "$expected" "$name, ours and umoci's"
        ;;
    esac
  done <<'END'
v7 v7 --format=v7
ustar ustar --format=ustar
oldgnu posix --format=oldgnu --sparse
gnu posix --format=gnu --sparse
posix posix --format=posix --xattrs --xattrs-include=*
posix-0.0 posix --format=posix --sparse --sparse-version=0.0 --xattrs --xattrs-include=*
posix-0.1 posix --format=posix --sparse --sparse-version=0.1 --xattrs --xattrs-include=*
posix-1.0 posix --format=posix --sparse --sparse-version=1.0 --xattrs --xattrs-include=*
END
  umount pool
}

# The generated set once round: the same tree, and then the same bytes. That it was read meanwhile (the pool is mounted
# relatime) makes no difference to what is saved.
test_generated_images_come_back_as_they_went() {
  pool
  python3 "$repo/tests/generated.py" set
  count=0
  for set in set/*; do
    img=$(bocker-store unpack --source "${set#set/}:1" <"$set/image.tar")
    listing "$BOCKER_ROOT/$img/rootfs" >ours.list
    bocker-store export "$img" >exported.tar
    again=$(bocker-store import - <exported.tar)
    listing "$BOCKER_ROOT/$again/rootfs" | diff - ours.list || fail "$set through export and import"
    bocker-store export "$again" | cmp - exported.tar
    bocker-store save "$img" >saved.tar
    bocker-store rm --force "$img"
    is "$(bocker-pull archive saved.tar | bocker-store load 2>err)" "Loaded image: ${set#set/}:1" "$set: $(cat err)"
    img=$(basename "$(bocker-store path "${set#set/}:1")")
    listing "$BOCKER_ROOT/$img/rootfs" | diff - ours.list || fail "$set through save and load"
    bocker-store save "$img" | cmp - saved.tar || fail "$set, saved again"
    # And through skopeo, which packs the layers and writes manifests of its own.
    skopeo copy -q --insecure-policy oci-archive:saved.tar docker-archive:docker.tar:round:1
    skopeo copy -q --insecure-policy docker-archive:docker.tar:round:1 oci:round:round:1
    is "$(bocker-pull archive round | bocker-store load 2>err)" "Loaded image: round:1" "$set: $(cat err)"
    listing "$(bocker-store path round:1)/rootfs" | diff - ours.list || fail "$set through skopeo"
    for name in "$again" "${set#set/}:1" round:1; do bocker-store rm "$name"; done
    rm -rf round docker.tar
    count=$((count + 1))
  done
  [ "$count" -ge 20 ] || fail "only $count sets"
  is "$(bocker-store fsck)" ""
  umount pool
}
