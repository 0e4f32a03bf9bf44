# bocker save and load, bocker-pull archive: images as archives, to and from others' tools, and archives that lie.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh
# shellcheck source=tests/system/export.sh
source "$repo/tests/system/export.sh"

copy() { skopeo copy -q --insecure-policy "$@"; }
# id NAME: the image's
id() { basename "$(bocker-store path -- "$1")"; }
contents() { listing "$BOCKER_ROOT/$1/rootfs"; }
# What the configuration says, but for the layers.
told() { bocker inspect --json "$1" | jq -S '.config | del(.rootfs, .history)'; }
# elsewhere COMMAND...: with another store, which is not there yet the first time
elsewhere() { BOCKER_ROOT=$HOST_DIR/other "$@"; }

# umoci's layout of one of everything, with layers that change it in every way, as NAME
an_image() {
  everything tree
  # Where umoci itself loses what it was.
  touch tree/hole
  truncate -s 0 tree/sparse && truncate -s 1M tree/sparse && printf end >>tree/sparse
  umoci init --layout layout >/dev/null
  umoci new --image "layout:$1"
  umoci insert --image "layout:$1" tree /
  umoci insert --image "layout:$1" tree /again
  umoci unpack --image "layout:$1" bundle
  (
    cd bundle/rootfs || exit
    rm -r again/dir again/pipe && mkdir again/pipe && echo >again/pipe/in
    rm -r a && ln -s b a
    chown 7:8 file && chmod 2755 again/a && setfattr -n user.more -v x again/.dot
    echo more >>setuid && rm again/file && mkdir -p "new/$(printf 'n%.0s' $(seq 200))"
    touch -d '2001-02-03 04:05:06.789' again/a-b
  )
  umoci repack --image "layout:$1" bundle
  umoci config --image "layout:$1" --config.cmd /bin/sh --config.env A=b --architecture amd64
  rm -rf bundle
}

test_what_is_saved_is_loaded() {
  an_image 12
  bocker-pull archive layout | bocker-store load --setup >out 2>/dev/null
  like "$(cat out)" '^Loaded image ID: img_[0-9]+$' "12 alone is no name"
  img=$(sed 's/.*: //' out)
  bocker tag "$img" debian:12
  bocker tag "$img" localhost:5000/a/b:c
  # One that was changed here, and one without layers.
  ps=$(bocker-store snapshot debian:12)
  rm -r "$BOCKER_ROOT/$ps/rootfs/again/a-b"
  echo more | tee "$BOCKER_ROOT/$ps/rootfs/new/more" >"$BOCKER_ROOT/$ps/rootfs/file"
  chmod 700 "$BOCKER_ROOT/$ps/rootfs/dir"
  bocker commit "$ps" changed:1 >/dev/null
  two=$(id changed:1)
  three=$(bocker init tree 2>/dev/null | sed 's/Created: //')
  bocker tag "$three" plain:3
  # Not the whole machine: others count on it that theirs is not written yet.
  sync -f "$BOCKER_ROOT"
  bocker save debian:12 "$img" changed:1 plain:3 >all.tar
  bocker save -o again.tar debian:12 localhost:5000/a/b:c changed:1 plain:3
  cmp all.tar again.tar
  is "$(stat -c %a again.tar)" 600
  is "$(tar -tf all.tar | grep -c blobs/)" $((3 * 2 + 3 + 1 + 1)) "layers that two images have are there once"
  is "$(tar -tf all.tar | tail -1)" index.json
  is "$(bocker --dry-run save debian:12 | sh | tar -tf - | wc -l)" 8
  # Into another store, by a file that can be read anywhere and by a pipe.
  for how in 'bocker load -i all.tar' 'cat all.tar | bocker load' 'bocker --dry-run load -i all.tar | sh'; do
    elsewhere bocker setup --undo
    elsewhere sh -c "$how" >out 2>err
    is "$(cat out)" "Loaded image: debian:12
Loaded image: localhost:5000/a/b:c
Loaded image: changed:1
Loaded image: plain:3" "$how"
    like "$(cat err)" '^bocker-store: made the store .*$'
    for image in "$img=debian:12" "$img=localhost:5000/a/b:c" "$two=changed:1" "$three=plain:3"; do
      other=$(elsewhere id "${image#*=}")
      is "$(elsewhere contents "$other")" "$(contents "${image%=*}")" "content of $image"
      is "$(elsewhere told "$other")" "$(told "${image%=*}")" "configuration of $image"
    done
    is "$(elsewhere bocker-store fsck)" ""
    # What was saved of what was loaded is the same.
    elsewhere bocker save debian:12 localhost:5000/a/b:c changed:1 plain:3 | cmp - all.tar
  done
  # Loaded again it is there already; of one image the stream is what unpack reads.
  is "$(elsewhere bocker load -i all.tar 2>/dev/null | wc -l)" 4
  is "$(elsewhere bocker images | wc -l)" 5
  is "$(elsewhere bocker load -i all.tar 2>&1 >/dev/null | grep -c already)" 3
  new=$(bocker save changed:1 | elsewhere bocker-store unpack --source other:1)
  is "$(elsewhere contents "$new")" "$(contents "$two")"
  # A name that another image had moves.
  bocker tag "$three" changed:1
  bocker load -i all.tar >/dev/null 2>&1
  is "$(contents "$(id changed:1)")" "$(contents "$two")"
  elsewhere bocker setup --undo
}

test_saved_images_are_others_images() {
  an_image 12
  bocker-pull archive layout | bocker-store load --setup >out 2>/dev/null
  img=$(sed 's/.*: //' out)
  bocker tag "$img" debian:12
  bocker save debian:12 >saved.tar
  mkdir saved && tar -xf saved.tar -C saved
  for from in oci-archive:saved.tar docker-archive:saved.tar; do
    skopeo inspect "$from" >inspected
    is "$(jq -r '.Os, .Architecture, (.Layers | length), .Env[0]' inspected | xargs)" "linux amd64 3 A=b" "$from"
  done
  # What umoci makes of it is what it makes of the original.
  umoci raw unpack --image saved:debian:12 judge
  umoci raw unpack --image layout:12 original
  listing original >original.list
  listing judge | diff - original.list
  contents "$img" | diff - original.list
  # And back from what skopeo makes of it, in both forms, and from a layout's directory.
  copy oci-archive:saved.tar docker-archive:docker.tar:two:2
  copy docker-archive:saved.tar oci-archive:oci.tar:three:3
  copy oci:layout:12 docker-archive:original.tar:four:4
  copy oci:layout:12 oci:five:five:5
  for one in docker.tar=two:2 oci.tar=three:3 original.tar=four:4 five=five:5; do
    is "$(bocker load -i "${one%=*}" 2>/dev/null)" "Loaded image: ${one#*=}"
    contents "$(id "${one#*=}")" | diff - original.list
    [ -d "${one%=*}" ] || is "$(bocker load <"${one%=*}" 2>/dev/null)" "Loaded image: ${one#*=}"
  done
  is "$(bocker images | wc -l)" 6
  # A registry's image, through fetch: its manifest stays what it was.
  manifest=$(sed -n 's/^.*"digest":"\(sha256:[0-9a-f]*\)".*/\1/p' five/index.json)
  is "$(bocker-store cat five:5 manifest)" "$manifest"
}

# docker save's own forms, with layers by gzip, twice, as links, and everything in reverse.
test_load_reads_every_form_of_docker_save() {
  bocker setup 2>/dev/null
  python3 "$repo/tests/archives.py" good .
  for file in *.tar; do
    for how in "bocker load -i $file" "bocker load <$file" "cat $file | bocker load"; do
      is "$(sh -c "$how" 2>err)" "Loaded image: ${file%.tar}:1
Loaded image: localhost:5000/${file%.tar}:1" "$how: $(cat err)"
      is "$(cat "$BOCKER_ROOT/$(id "${file%.tar}:1")/rootfs/"{one,two})" "one
two" "$file"
    done
  done
}

# Packed as docker load takes it, from a file and from a pipe that brings a byte at a time.
test_load_reads_packed_archives() {
  bocker setup 2>/dev/null
  python3 "$repo/tests/archives.py" good .
  mkdir waiting
  export TMPDIR=$PWD/waiting
  for name in old new; do
    gzip -c $name.tar >$name.tgz
    # Members that follow each other, an empty one among them; frames; a frame that is skipped.
    { head -c 3000 $name.tar | gzip; gzip </dev/null; tail -c +3001 $name.tar | gzip; } >$name.members
    zstd -q $name.tar -o $name.zst
    { printf '\x50\x2a\x4d\x18\x02\0\0\0xy'; head -c 3000 $name.tar | zstd; tail -c +3001 $name.tar | zstd; } >$name.frames
    zstd -q --long=27 $name.tar -o $name.window
    for file in $name.{tgz,members,zst,frames,window}; do
      for how in "bocker load -i $file" "bocker load <$file" "cat $file | bocker load" "dd status=none bs=1 if=$file | bocker load"; do
        bocker rm "$name:1" "localhost:5000/$name:1" >/dev/null 2>&1 || true
        is "$(sh -c "$how" 2>err)" "Loaded image: $name:1
Loaded image: localhost:5000/$name:1" "$how: $(cat err)"
        is "$(cat "$BOCKER_ROOT/$(id "$name:1")/rootfs/"{one,two})" "one
two" "$file"
      done
    done
  done
  is "$(ls -A waiting)" ""
}

# A store as it is after a load, in `before`; archives in good/, and $TMPDIR for what waits.
a_store_for_archives() {
  bocker setup 2>/dev/null
  mkdir waiting good
  export TMPDIR=$PWD/waiting
  python3 "$repo/tests/archives.py" good good
  bocker-store init
  bocker load -i good/new.tar >/dev/null
  bocker rm new:1 localhost:5000/new:1 >/dev/null
  before=$(census)
}
# refused FILE [REASON]: stdin and -i. Each is one line and status 1, and nothing is left: not in the store, not where files
# wait, whichever way it comes.
refused() {
  for how in 'bocker load -i "$1"' 'cat "$1" | bocker load'; do
    status=0
    timeout 60 bash -c "$how" - "$1" >out 2>err </dev/null || status=$?
    is "$status $(wc -l <err) $(wc -c <out)" "1 1 0" "$how $1: $(cat err)"
    like "$(cat err)" "^bocker-(pull|store): .*${2:-}" "$how $1"
    is "$(ls -A waiting)" "" "after $1"
  done
  # What the store looked at was whole before: only a packed layer can still be wrong there.
  bocker gc >/dev/null
  is "$(census)" "$before" "after $1"
}

test_archives_that_lie_leave_nothing() {
  a_store_for_archives
  python3 "$repo/tests/archives.py" bad bad
  [ "$(ls bad | wc -l)" -gt 20 ] || fail "only $(ls bad)"
  for file in bad/*; do refused "$file" "$(tr _ ' ' <<<"${file#*=}")"; done
  for file in new old; do
    size=$(stat -c %s "good/$file.tar")
    # At every block's edge and beside it; the last 10 kB are padding.
    for ((at = 0; at < size - 9216; at += 509)); do
      head -c "$at" "good/$file.tar" >cut.tar
      refused cut.tar
    done
  done
  # Told to end while it waits for the rest, and while an image is made.
  for how in 'cat good/new.tar | (head -c 4000; sleep 60) | bocker load' '(bocker-pull archive good/new.tar | head -c 4000; sleep 60) | bocker-store load'; do
    setsid bash -c "$how" >out 2>err &
    group=$!
    # A group of its own, with the last of the tools in it; time for what has come to be read.
    eventually 20 pgrep -g "$group" -x bocker-store >/dev/null
    sleep 0.5
    is "$(cat out)" ""
    kill -TERM -- "-$group"
    wait "$group" || true
    # It ends by itself, not when the kernel has got round to the rest of the group.
    eventually 20 sh -c "! ps -o pid= -g $group | grep -q ."
    bocker gc >/dev/null
    is "$(census) $(ls -A waiting)" "$before " "after SIGTERM to $how"
  done
  # Too much to wait for, and no place to wait in.
  fails 1 'more than 5000 bytes' sh -c "cat good/new.tar | bocker-pull archive --keep-max 5000 >out"
  fails 1 '(No such file|none)' sh -c "cat good/new.tar | TMPDIR=$PWD/none bocker load"
  mount -t tmpfs -o size=4k small waiting
  fails 1 'write a temporary file: No space left on device \(TMPDIR' sh -c "cat good/new.tar | bocker load"
  umount waiting
  fails 1 'read none.tar: No such file' bocker load -i none.tar
  fails 1 'neither an archive of docker save, nor an OCI layout' bocker load -i waiting
  is "$(census)" "$before"
}

test_packed_archives_that_lie_leave_nothing() {
  a_store_for_archives
  # Cut off anywhere, also in the sum at its end; with something after it; with more in it than may be kept, as files
  # or as what is around them; with a window that is too large; by what is left to other programs.
  gzip -c good/new.tar >packed.gz
  zstd -q good/new.tar -o packed.zst
  for file in packed.gz packed.zst; do
    size=$(stat -c %s $file)
    for at in 1 2 3 4 9 10 11 17 18 100 500 $((size / 2)) $((size - 9)) $((size - 8)) $((size - 4)) $((size - 1)); do
      head -c "$at" $file >cut.tar
      refused cut.tar
    done
    for more in x '\0' '\x1f' '\x28\xb5\x2f\xfd'; do
      # shellcheck disable=SC2059 # the bytes are its format
      { cat $file; printf "$more"; } >longer.tar
      refused longer.tar
    done
    # One bit of what is packed.
    python3 -c 'import sys; b = bytearray(open(sys.argv[1], "rb").read()); b[len(b) // 2] ^= 1; open("bit.tar", "wb").write(b)' $file
    refused bit.tar
  done
  { head -c 100000000 /dev/zero | gzip -1; } >zeros.gz
  refused zeros.gz 'no end mark|neither'
  # Its end mark, and zeros after it.
  for pack in gzip 'zstd -q'; do
    { cat good/new.tar; head -c 300000000 /dev/zero; } | $pack -1 >after.tar
    fails 1 'it unpacks to more than --keep-max allows' sh -c "bocker-pull archive --keep-max 200M after.tar >out"
    bocker load -i after.tar >/dev/null
    bocker rm new:1 localhost:5000/new:1 >/dev/null
    bocker gc >/dev/null
    $pack -c good/new.tar >small.tar
    fails 1 'more than 5000 bytes' sh -c "bocker-pull archive --keep-max 5000 small.tar >out"
    fails 1 'more than 5000 bytes' sh -c "cat small.tar | bocker-pull archive --keep-max 5000 >out"
  done
  { cat good/new.tar; head -c 300000000 /dev/zero; } | zstd -q --long=28 -1 >wide.tar
  refused wide.tar 'memory'
  xz -c good/new.tar >xz.tar
  refused xz.tar 'it is compressed by xz \(xz -dc FILE \|\)$'
  bzip2 -c good/new.tar >bz2.tar
  refused bz2.tar 'it is compressed by bzip2 \(bzip2 -dc FILE \|\)$'
  xz -dc xz.tar | bocker load >/dev/null
  bocker rm new:1 localhost:5000/new:1 >/dev/null
  bocker gc >/dev/null
  mount -t tmpfs -o size=4k small waiting
  fails 1 'write a temporary file: No space left on device \(TMPDIR' bocker load -i packed.gz
  umount waiting
  is "$(census)" "$before"
}

test_save_writes_whole_archives_or_says_so() {
  everything tree
  img=$(bocker init tree 2>/dev/null | sed 's/Created: //')
  # An image without a name has its id only.
  bocker save "$img" | bocker load >out
  like "$(cat out)" '^Loaded image ID: img_[0-9]+$'
  bocker rm "$(sed 's/.*: //' out)" >/dev/null
  before=$(census)
  fails 1 "^bocker-store: No image named 'none:1' exists" sh -c "bocker save $img none:1 >out"
  fails 1 "^bocker-store: No image named 'none:1' exists" bocker save -o none.tar none:1
  [ ! -e none.tar ] || fail "a file for nothing"
  fails 1 '^bocker-store: write stdout: No space left' sh -c "bocker save $img >/dev/full"
  mkdir small && mount -t tmpfs -o size=100k small small
  fails 1 'No space left' bocker save -o small/x.tar "$img"
  is "$(ls -A small)" ""
  umount small
  is "$(bocker save "$img" 2>err | head -c 100 | wc -c) $(cat err)" "100 "
  fails 1 '^bocker-store: stdout is a terminal' sh -c "script -qec 'bocker save $img' /dev/null </dev/null | tr -d '\r' >&2; exit 1"
  fails 1 '^bocker-pull: archive: stdin is a terminal' sh -c "script -qec 'bocker load' /dev/null </dev/null | tr -d '\r' >&2; exit 1"
  # A name that a layer cannot hold: who reads the stream is told that it ends, and has nothing.
  mkdir "$BOCKER_ROOT/$img/rootfs/dir/.wh.x"
  fails 1 "^bocker-store: save 'dir/.wh.x': in a layer such a name hides another" sh -c "bocker save $img | bocker load"
  bocker gc >/dev/null
  rmdir "$BOCKER_ROOT/$img/rootfs/dir/.wh.x"
  is "$(census)" "$before"
}

# Whatever happens, a file has its name when it is whole, and what had the name before is there until then.
test_a_file_is_saved_whole_or_not_at_all() {
  mkdir tree && head -c 3000000 /dev/urandom >tree/file
  img=$(bocker init tree 2>/dev/null | sed 's/Created: //')
  bocker save "$img" >whole.tar
  # Killed at its Nth system call of a kind.
  local killed=0
  for call in openat2 write fsync linkat renameat; do
    for n in 1 2 7; do
      for name in new old; do
        rm -rf out && mkdir out
        echo precious >out/old
        strace -f -qq -o /dev/null -e "inject=$call:signal=SIGKILL:when=$n" bocker-store save -o "out/$name" "$img" >/dev/null 2>&1 || killed=$((killed + 1))
        cmp -s whole.tar "out/$name" || is "$(cat "out/$name" 2>/dev/null)" "$([ $name = new ] || echo precious)" "$name after a kill at $call $n"
        # A name that it had for a moment is beside the old one, and only then.
        [ "$name $call" = "old renameat" ] || is "$(find out -mindepth 1 -name '.*')" "" "left after a kill at $call $n"
      done
    done
  done
  [ "$killed" -gt 8 ] || fail "only $killed kills came"
  # Told to end, too.
  rm -rf out && mkdir out
  timeout -s TERM 0.02 bocker-store save -o out/x "$img" || true
  [ ! -e out/x ] || cmp out/x whole.tar
  is "$(find out -mindepth 1 ! -name x)" ""
  # A link's target is replaced, not the link; what it was before does not count.
  echo old >out/target && chmod 644 out/target && ln -sf target out/link
  bocker save -o out/link "$img"
  cmp out/target whole.tar
  is "$(readlink out/link) $(stat -c %a out/target)" "target 600"
  # No room, in one line, and the old one stays.
  mkdir small && mount -t tmpfs -o size=100k small small
  echo old >small/x.tar
  fails 1 '^bocker-store: write small/x.tar: No space left on device \(another FILE' bocker save -o small/x.tar "$img"
  is "$(ls -A small) $(cat small/x.tar)" "x.tar old"
  umount small
  ln -s nowhere out/dangling
  fails 1 '^bocker-store: write out/dangling: it is a link that leads nowhere$' bocker save -o out/dangling "$img"
  fails 1 '^bocker-store: write out: Is a directory$' bocker save -o out "$img"
  fails 1 '^bocker-store: write none/x: No such file' bocker save -o none/x "$img"
  # What is no file of its own is written through, and stays when that fails.
  mkfifo pipe && ln -s /proc/self/fd/1 stdout
  bocker save -o pipe "$img" & local job=$!
  cmp pipe whole.tar
  wait "$job"
  bocker-store save -o stdout "$img" | cmp - whole.tar
  bocker-store save -o stdout "$img" >file.tar
  cmp file.tar whole.tar
  fails 1 '^bocker-store: write /dev/full: No space left' bocker save -o /dev/full "$img"
  fails 1 '^bocker-store: write stdout: No space left' sh -c "bocker-store save -o stdout $img >/dev/full"
  # So is a file that another is mounted on: nothing can take its name from it.
  seq 100000 >there && touch at && mount --bind there at
  bocker save -o at "$img"
  umount at
  cmp there whole.tar && [ ! -s at ] || fail "save to a mount point"
  mkdir "$BOCKER_ROOT/$img/rootfs/.wh.x"
  fails 1 "in a layer such a name hides another" sh -c "bocker-store save -o stdout $img >file.tar"
  [ -p pipe ] && [ -L stdout ] && [ -e file.tar ] || fail "what was written through is gone"
  # Who reads the pipe is told.
  bocker-store save -o pipe "$img" 2>/dev/null & job=$!
  fails 1 '' sh -c 'bocker load <pipe; echo $? >status; echo >&2; exit 1'
  is "$(cat status)" 1
  wait "$job" && fail "save of what cannot be saved"
  rmdir "$BOCKER_ROOT/$img/rootfs/.wh.x"
}
