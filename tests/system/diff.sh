# diff: what a container has changed.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh

store() { bocker-store init --size 512M; }
# The image is no longer what the snapshot was taken of: from now on both trees are walked.
walked() { touch "$BOCKER_ROOT/$img/$RANDOM"; }

test_diff_says_what_docker_says() {
  store
  mkdir -p tree/etc tree/usr/bin tree/usr/share/doc tree/var/old/deep tree/tmp
  for file in etc/passwd etc/hosts usr/bin/a usr/bin/b usr/share/doc/x var/old/deep/f var/g; do echo "$file" > "tree/$file"; done
  ln -s usr/bin tree/bin && ln tree/usr/bin/a tree/usr/share/linked && mkfifo tree/pipe && chmod 1777 tree/tmp
  img=$(bocker-store import tree) ps=$(bocker-store snapshot "$img" -- x) untouched=$(bocker-store snapshot "$img" -- x)
  is "$(bocker-store diff "$ps")" ""
  cd "$BOCKER_ROOT/$ps/rootfs" || exit
  echo more >> etc/passwd
  chmod 700 usr/share/doc
  rm etc/hosts && rm -r var/old
  mkdir -p new/dir && echo x > new/dir/file && ln -s /nowhere new/link
  mv var/g var/renamed
  echo z > "$(printf 'odd\033name')"
  # Through one name of two: both show.
  echo changed > usr/bin/a
  rm pipe && mkdir pipe && echo x > pipe/in
  # What is as it was, is no change.
  touch -r usr/bin/b stamp && chmod 600 usr/bin/b && chmod 644 usr/bin/b && touch -r stamp usr/bin/b && rm stamp
  touch tmp/x && rm tmp/x
  cd "$HOST_DIR" || exit
  expected="C /etc
D /etc/hosts
C /etc/passwd
A /new
A /new/dir
A /new/dir/file
A /new/link
A /odd\\u{1b}name
C /pipe
A /pipe/in
C /usr
C /usr/bin
C /usr/bin/a
C /usr/share
C /usr/share/doc
C /usr/share/linked
C /var
D /var/g
D /var/old
A /var/renamed"
  is "$(bocker-store diff "$ps")" "$expected"
  is "$(bocker-store diff --json "$ps" | jq -c 'select(.path | contains("odd"))')" '{"change":"A","path":"/odd\u001bname"}'
  is "$(bocker-store diff "$untouched")" ""
  walked
  is "$(bocker-store diff "$ps")" "$expected" "by walking both trees"
  is "$(bocker-store diff "$untouched")" "" "by walking both trees"
  # Committed: the image is what the container is.
  bocker-store commit "$ps" "$img"
  is "$(bocker-store diff "$ps")" ""
  like "$(bocker-store diff "$untouched")" '^A /etc/hosts$'
  bocker-store rm "$img"
  fails 1 "^bocker-store: compare $ps: its image $img is gone$" bocker-store diff "$ps"
  fails 1 "^bocker-store: No container named 'nosuch' exists$" bocker-store diff nosuch
}

# Only what has changed is looked at: with a tree of 2000 directories, a handful of them.
test_diff_takes_as_long_as_there_are_changes() {
  store
  mkdir -p tree && (cd tree && seq -f 'd%g' 2000 | xargs mkdir && for n in $(seq 2000); do echo "$n" > "d$n/f"; done)
  img=$(bocker-store import tree) ps=$(bocker-store snapshot "$img" -- x)
  echo x >> "$BOCKER_ROOT/$ps/rootfs/d777/f"
  strace -f -qq -e trace=getdents64,openat -o calls bocker-store diff "$ps" > out
  is "$(cat out)" "C /d777
C /d777/f"
  [ "$(wc -l < calls)" -lt 100 ] || fail "$(wc -l < calls) calls"
  walked
  strace -f -qq -e trace=getdents64,openat -o calls bocker-store diff "$ps" > out
  is "$(cat out)" "C /d777
C /d777/f"
  [ "$(wc -l < calls)" -gt 4000 ] || fail "not walked: $(wc -l < calls) calls"
}

# Anything may happen in a container: what btrfs says is what a walk of both trees finds.
test_diff_by_generation_and_by_walking_agree() {
  store
  mkdir -p tree && (cd tree && mkdir -p a/b/c a/d e/f/g && for n in $(seq 30); do echo "$n" > "a/f$n"; ln "a/f$n" "e/f/l$n"; echo "$n" > "e/f/g/$n"; done)
  ln tree/a/f1 tree/e/again && for n in $(seq 300); do ln tree/a/f2 "tree/a/d/$(printf 'name%.0s' $(seq 50))$n"; done
  img=$(bocker-store import tree)
  for seed in 1 2 3 4 5 6 7 8 9 10; do
    ps=$(bocker-store snapshot "$img" -- x)
    python3 - "$BOCKER_ROOT/$ps/rootfs" "$seed" <<'PY'
import os, random, shutil, sys
root, seed = sys.argv[1], int(sys.argv[2])
pick = random.Random(seed)
def some(kind):
    found = []
    for at, dirs, files in os.walk(root):
        found += [os.path.join(at, name) for name in (dirs if kind == "dir" else files)]
    return pick.choice(found) if found else root
for number in range(pick.randrange(1, 25)):
    act = pick.randrange(11)
    try:
        if act == 0: open(some("file"), "a").write("more")
        elif act == 1: os.unlink(some("file"))
        elif act == 2: os.rename(some("file"), os.path.join(some("dir"), f"moved{number}"))
        elif act == 3: os.rename(some("dir"), os.path.join(some("dir"), f"dir{number}"))
        elif act == 4: shutil.rmtree(some("dir"))
        elif act == 5: os.chmod(some("dir"), pick.choice([0o700, 0o755]))
        elif act == 6: os.link(some("file"), os.path.join(some("dir"), f"link{number}"))
        elif act == 7: os.symlink(pick.choice(["x", "/"]), os.path.join(some("dir"), f"sym{number}"))
        elif act == 8: os.makedirs(os.path.join(some("dir"), f"new{number}", "in"))
        elif act == 9: os.rename(some("file"), some("file"))
        elif act == 10: os.setxattr(some("file"), "user.x", b"1")
    except OSError:
        pass
PY
    bocker-store diff "$ps" > "fast.$seed"
    echo "$ps" >> all
  done
  walked
  for seed in 1 2 3 4 5 6 7 8 9 10; do
    bocker-store diff "$(sed -n "${seed}p" all)" > "slow.$seed"
    is "$(cat "fast.$seed")" "$(cat "slow.$seed")" "seed $seed"
  done
  [ "$(cat fast.* | wc -l)" -gt 100 ] || fail "too little happened"
}

test_diff_stays_inside() {
  store
  mkdir -p outside tree/dir && echo secret > outside/hidden && echo x > tree/dir/f
  img=$(bocker-store import tree) ps=$(bocker-store snapshot "$img" -- x)
  root=$BOCKER_ROOT/$ps/rootfs
  rm -r "$root/dir" && ln -s "$HOST_DIR/outside" "$root/dir" && ln -s "$HOST_DIR/outside" "$root/link"
  is "$(bocker-store diff "$ps")" "C /dir
D /dir/f
A /link"
  # A subvolume that the container made is all new.
  btrfs subvolume create "$root/inner" >/dev/null && mkdir "$root/inner/d" && echo y > "$root/inner/d/file"
  is "$(bocker-store diff "$ps" | grep inner)" "A /inner
A /inner/d
A /inner/d/file"
  # A directory that turns into a link to the host and back all the time.
  mkdir "$root/swap" && ln -s "$HOST_DIR/outside" "$root/other"
  (
    cd "$root" && python3 - <<'PY'
import ctypes, os
libc = ctypes.CDLL(None)
while not os.path.exists("../../../stop"):
    libc.renameat2(-100, b"swap", -100, b"other", 2)
PY
  ) &
  for _ in $(seq 40); do
    bocker-store diff "$ps" > out
    unlike "$(cat out)" hidden
  done
  touch stop; wait
}

test_bocker_diff() {
  a_tree tree
  img=$(bocker init tree 2>/dev/null | sed 's/Created: //')
  bocker run "$img" "echo x > /etc/new; rm /etc/group" 2>/dev/null
  ps=$(bocker ps | awk 'NR > 1 { print $1 }')
  # The places where bocker-exec mounts files of its own are made where the image has none.
  is "$(bocker diff "$ps" | grep -v 'hosts$\|hostname$\|resolv.conf$')" "C /etc
D /etc/group
A /etc/new"
  is "$(bocker --dry-run diff --json "$ps" | sh | jq -r 'select(.path | endswith("new")).change')" A
  fails 1 "No container named '$img' exists" bocker diff "$img"
}
