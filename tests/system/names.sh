# Names of images: tag, untag, and every verb that takes one.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh

store() { bocker-store init --size 512M; }
listing() { python3 "$repo/tests/listing.py" "$1"; }
# image [WORDS...]: an image of a small tree; its id
image() {
  mkdir -p tree/bin && echo hello > tree/bin/hello
  bocker-store import "$@" tree
}
link() { readlink "$BOCKER_ROOT/names/$1"; }
# What `images` shows, without the header.
shown() { bocker-store images | tail -n +2; }
sources() { shown | cut -f 3 | sort | xargs; }

test_names_are_links() {
  store
  img=$(image)
  is "$(bocker-store tag "$img" debian:12)" ""
  is "$(link docker.io/library/debian:12)" "../../../$img"
  is "$(ls "$BOCKER_ROOT/names/docker.io/library/debian:12/rootfs")" bin "a link that leads there"
  bocker-store tag debian:12 localhost:5000/a/b/c
  is "$(link localhost:5000/a/b/c:latest)" "../../../../$img"
  bocker-store tag localhost:5000/a/b/c index.docker.io/me/debian
  is "$(shown)" "$img		debian:12
$img		me/debian:latest
$img		localhost:5000/a/b/c:latest"
  is "$(bocker-store images | head -1)" "IMAGE_ID		SOURCE"
  is "$(bocker-store images --json)" \
    "{\"id\":\"$img\",\"names\":[\"debian:12\",\"me/debian:latest\",\"localhost:5000/a/b/c:latest\"],\"source\":\"tree\"}"
  # Twice is once.
  bocker-store tag "$img" debian:12
  is "$(shown | wc -l)" 3
  # Away again, and no directory with it.
  bocker-store untag docker.io/library/debian:12
  bocker-store untag me/debian
  bocker-store untag localhost:5000/a/b/c:latest
  is "$(shown)" "$img		tree"
  is "$(ls "$BOCKER_ROOT")" "$img"
}

test_every_verb_takes_a_name() {
  store
  img=$(image)
  bocker-store tag "$img" debian:12
  for name in debian:12 docker.io/debian:12 docker.io/library/debian:12 "$img"; do
    is "$(bocker-store path "$name")" "$BOCKER_ROOT/$img" "$name"
    is "$(bocker-store cat "$name" source)" tree "$name"
    ps=$(bocker-store snapshot "$name" -- x)
    is "$(cat "$BOCKER_ROOT/$ps/image")" "$img" "$name"
    bocker-store rm "$ps"
  done
  for name in debian debian:13 a/debian:12 "debian:12@sha256:$(printf 0%.0s $(seq 64))"; do
    fails 1 "^bocker-store: No container named '.*' exists$" bocker-store path "$name"
    fails 1 "^bocker-store: No image named '.*' exists$" bocker-store snapshot "$name"
    fails 1 "^bocker-store: No image named '.*' exists$" bocker-store untag "$name"
    fails 1 "^bocker-store: No image named '.*' exists$" bocker-store tag "$name" x
  done
  fails 1 "No image named '$img' exists" bocker-store untag "$img"
  fails 1 "No container named 'debian:12' exists" bocker-store path --running debian:12
  is "$(shown)" "$img		debian:12"
}

test_names_that_cannot_be() {
  store
  img=$(image) ps=$(bocker-store snapshot "$img")
  before=$(census)
  long=$(printf 'x%.0s' $(seq 10000))
  for name in .. . / '' /etc/passwd ../x a/../b a//b -x 'a b' $'a\nb' $'\377' Debian debian: :12 a:b:c .new_x names/.. img_42150 \
    "$img" "$ps" ps_1:x docker.io/library/img_7 "$(printf 'a%.0s' $(seq 64))" "a@sha256:$(printf 0%.0s $(seq 64))" "$long"; do
    [ "$name" = -x ] && continue
    fails 2 "^bocker-store: '.*' is not an image's name: .* \\(they look like debian:12 or " bocker-store tag "$img" "$name"
    fails 1 "^bocker-store: No image named '.*' exists$" bocker-store untag "$name"
    # As a source it is text, as ever.
    [ "$name" = $'\377' ] && continue
    two=$(bocker-store import --source "$name" tree)
    bocker-store rm "$two"
  done
  fails 2 "'-x' is not an image's name" bocker-store tag -- "$img" -x
  fails 1 "No image named '$ps' exists" bocker-store tag "$ps" x
  is "$(census)" "$before"
  # Positive control, and nothing that lies there by mistake is a name.
  bocker-store tag "$img" x
  names=$BOCKER_ROOT/names
  ln -s /etc "$names/docker.io/library/evil:1"
  ln -s "../../../$ps" "$names/docker.io/library/evil:2"
  ln -s "../../../../$(basename "$BOCKER_ROOT")/$img" "$names/docker.io/library/evil:3"
  echo "$img" > "$names/docker.io/library/evil:4"
  ln -s "../../../$img" "$names/docker.io/library/Evil:5"
  ln -s library "$names/docker.io/other"
  is "$(shown)" "$img		x:latest"
  for n in 1 2 3 4 5; do fails 1 'No image named' bocker-store snapshot "evil:$n"; done
  # Nor is a link on the way followed.
  ln -s "$HOST_DIR" "$names/localhost"
  ! bocker-store tag "$img" localhost/a 2>err || fail "written through a link"
  is "$(wc -l < err)" 1
  [ ! -e "$HOST_DIR/a:latest" ] || fail "a name outside"
  ln -s "../../$img" a:latest
  fails 1 "No image named 'localhost/a' exists" bocker-store untag localhost/a
  fails 1 "No image named 'localhost/a' exists" bocker-store snapshot localhost/a
  [ -L a:latest ] || fail "removed through a link"
  is "$(bocker-store gc)" ""
}

# Hundreds of words that are no name of anything here, some of them one character away from one: each tool refuses each in
# one line, the registry is asked for none that cannot be one, and nothing is made or removed (check 27).
test_hostile_names_do_nothing() {
  store
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 5001 requests >ready &
  eventually 10 grep -qs ready ready
  img=$(image) && bocker-store tag "$img" debian:12 && bocker-store tag "$img" localhost:5000/group/name:tag
  ps=$(bocker-store snapshot debian:12 -- x)
  bocker-store volume create data >/dev/null
  bocker setup 2>/dev/null
  bocker-net up "$ps" >/dev/null
  bocker-cg create "$ps" memory=64M
  before=$(census)
  read -r count good < <(python3 "$repo/tests/hostile-names.py" 127.0.0.1:5001 300 "$img" "$ps" debian:12 localhost:5000/group/name:tag data)
  [ "$count" -ge 300 ] || fail "only $count names"
  # The registry heard of those that can be, and of nothing else.
  is "$(grep -c '^GET /v2/near/' requests)" "$good"
  is "$(wc -l <requests)" "$good"
  [ "$good" -ge 10 ] || fail "only $good names could be"
  is "$(census)" "$before"
  # Those that are there go by their own names.
  bocker-net down "$ps" && bocker-cg delete "$ps"
  bocker rm "$ps" >/dev/null
  bocker rmi localhost:5000/group/name:tag >/dev/null
  bocker rmi debian:12 >/dev/null
  bocker volume rm data >/dev/null
  is "$(bocker images | wc -l) $(bocker ps | wc -l) $(bocker volume ls -q)" "1 1 "
}

test_a_name_moves() {
  store
  one=$(image --source debian:12)
  is "$(cat "$BOCKER_ROOT/$one/source")" debian:12
  two=$(image --source debian:12)
  is "$(shown | sort -k 2)" "$(printf '%s\t\tdebian:12\n%s\t\tdebian:12' "$one" "$two" | sort)"
  is "$(bocker-store images --json | jq -c "select(.id == \"$one\").names")" "[]" "the first one's names"
  is "$(bocker-store path debian:12)" "$BOCKER_ROOT/$two"
  printf 'file f x\n' > base
  python3 "$repo/tests/mklayer.py" layout a.tar base
  three=$(bocker-store unpack --source docker.io/library/debian:12 < a.tar)
  is "$(bocker-store path debian:12)" "$BOCKER_ROOT/$three"
  four=$(bocker-store unpack --source "debian@sha256:$(printf 0%.0s $(seq 64))" < a.tar)
  five=$(bocker-store unpack < a.tar)
  for img in "$four" "$five"; do is "$(bocker-store images --json | jq -c "select(.id == \"$img\").names")" "[]"; done
  bocker-store tag "$one" debian:12
  is "$(bocker-store path debian:12)" "$BOCKER_ROOT/$one"
  # Somebody looks all the time: the name is always there.
  (while [ ! -e stop ]; do bocker-store path debian:12 >> paths 2>> gone || exit 1; done) &
  for _ in $(seq 30); do bocker-store tag "$two" debian:12; bocker-store tag "$one" debian:12; done
  # Who looks may have slept all the time: each of the two until it was seen.
  eventually 10 grep -qs "/$one$" paths
  bocker-store tag "$two" debian:12
  eventually 10 grep -q "/$two$" paths
  touch stop; wait
  is "$(cat gone)" ""
  is "$(sort -u paths)" "$(printf '%s\n' "$BOCKER_ROOT/$one" "$BOCKER_ROOT/$two" | sort)"
}

test_rm_by_name_and_by_id() {
  store
  img=$(image)
  for name in a b:2 localhost/c; do bocker-store tag "$img" "$name"; done
  fails 1 "^bocker-store: Image '$img' has 3 names: a:latest, b:2, localhost/c:latest \\(.*--force.*\\)$" bocker-store rm "$img"
  bocker-store rm a
  is "$(sources)" "b:2 localhost/c:latest"
  bocker-store rm localhost/c
  is "$(sources)" "b:2"
  # The last one takes the image with it.
  bocker-store rm b:2
  is "$(ls -A "$BOCKER_ROOT")" ""
  # By its id: one name goes with it, several if forced.
  img=$(image) && bocker-store tag "$img" a
  bocker-store rm "$img"
  is "$(ls -A "$BOCKER_ROOT")" ""
  img=$(image) && bocker-store tag "$img" a && bocker-store tag "$img" localhost/b/c
  bocker-store rm --force "$img"
  is "$(ls -A "$BOCKER_ROOT")" ""
  # A container keeps what it has.
  img=$(image --source x) ps=$(bocker-store snapshot x)
  bocker-store rm x
  is "$(cat "$BOCKER_ROOT/$ps/rootfs/bin/hello")" hello
  fails 1 "No container named 'x' exists" bocker-store rm x
}

test_commit_to_a_name() {
  store
  img=$(image --source base)
  ps=$(bocker-store snapshot base)
  echo changed > "$BOCKER_ROOT/$ps/rootfs/bin/hello"
  # A new name: a new image.
  two=$(bocker-store commit "$ps" mine:1)
  like "$two" '^img_'
  [ "$two" != "$img" ] || fail "the original was replaced"
  is "$(cat "$BOCKER_ROOT/$img/rootfs/bin/hello" "$BOCKER_ROOT/$two/rootfs/bin/hello")" "$(printf 'hello\nchanged')"
  is "$(ls "$BOCKER_ROOT/$two")" "config
named
rootfs
source"
  is "$(shown | sort -k 2)" "$(printf '%s\t\tbase:latest\n%s\t\tmine:1' "$img" "$two" | sort -k 2)"
  # A known one: its image is replaced.
  echo again > "$BOCKER_ROOT/$ps/rootfs/bin/hello"
  is "$(bocker-store commit "$ps" mine:1)" "$two"
  is "$(cat "$BOCKER_ROOT/$two/rootfs/bin/hello")" again
  # What another name stands for stays.
  bocker-store tag mine:1 kept
  echo third > "$BOCKER_ROOT/$ps/rootfs/bin/hello"
  three=$(bocker-store commit "$ps" mine:1)
  is "$(cat "$(bocker-store path kept)/rootfs/bin/hello" "$(bocker-store path mine:1)/rootfs/bin/hello")" "$(printf 'again\nthird')"
  is "$(bocker-store path mine:1)" "$BOCKER_ROOT/$three"
  # While something of it runs, its image stays, and loses the name.
  runs=$(bocker-store snapshot mine:1 -- x)
  flock -x "$BOCKER_ROOT/$runs/status" sh -c 'touch running; until [ -e stop ]; do sleep 0.02; done' &
  eventually 5 test -e running
  fails 1 "^bocker-store: Container '$runs' is running \\(it was made from $three; stop it first\\)$" bocker-store commit "$ps" "$three"
  four=$(bocker-store commit "$ps" mine:1)
  [ "$four" != "$three" ] || fail "the image of a running container was replaced"
  is "$(bocker-store prune 2>&1)" "" "what a container was made from"
  touch stop; wait
  bocker-store rm "$runs"
  is "$(bocker-store prune --force | cut -f 1)" "$three"
  # By id as ever: in silence.
  is "$(bocker-store commit "$ps" "$img")" ""
  is "$(cat "$BOCKER_ROOT/$img/rootfs/bin/hello")" third
  btrfs subvolume create "$BOCKER_ROOT/$ps/rootfs/inner" >/dev/null
  fails 1 "holds 1 btrfs subvolumes" bocker-store commit "$ps" new
  missing=ps_42254; [ "$ps" != "$missing" ] || missing=ps_42253
  fails 1 "No container named '$missing' exists" bocker-store commit "$missing" new
  is "$(shown | wc -l)" 3
}

test_gc_removes_names_of_nothing() {
  store
  img=$(image) && bocker-store tag "$img" a/b:1 && bocker-store tag "$img" c
  btrfs subvolume delete "$BOCKER_ROOT/$img" >/dev/null
  fails 1 "No image named 'c' exists" bocker-store snapshot c
  is "$(shown)" ""
  # Half a change, as a kill leaves it.
  ln -s nowhere "$BOCKER_ROOT/names/.new_name"
  bocker-store gc --dry-run > script
  is "$(bocker-store gc)" "names/.new_name
names/docker.io/a/b:1
names/docker.io/library/c:latest"
  is "$(ls -A "$BOCKER_ROOT")" ""
  grep -q "rm -f .*/names/docker.io/a/b:1$" script || fail "not said: $(cat script)"
  is "$(bocker-store gc)" ""
  # Killed anywhere, a name is either old or new, and gc finds the rest.
  one=$(image) two=$(image)
  for call in symlinkat renameat mkdirat unlinkat flock openat; do
    for n in 1 2 3 4 5; do
      bocker-store tag "$one" x
      strace -f -qq -o /dev/null -e "inject=$call:signal=SIGKILL:when=$n" bocker-store tag "$two" x >/dev/null 2>&1 || true
      like "$(bocker-store path x)" "^$BOCKER_ROOT/($one|$two)$"
      strace -f -qq -o /dev/null -e "inject=$call:signal=SIGKILL:when=$n" bocker-store rm x >/dev/null 2>&1 || true
      [ -d "$BOCKER_ROOT/$one" ] || one=$(image)
      [ -d "$BOCKER_ROOT/$two" ] || two=$(image)
    done
  done
  bocker-store gc >/dev/null
  is "$(bocker-store gc)" ""
  is "$(find "$BOCKER_ROOT" -name '.new_*')" ""
}

test_many_name_at_once() {
  store
  img=$(image)
  local jobs=()
  for n in $(seq 12); do
    (for name in "a$((n % 3))" "b/c:$n"; do bocker-store tag "$img" "$name" && bocker-store untag "$name" || true; done) 2>> err &
    jobs+=($!)
    bocker-store tag "$img" "kept/$n" 2>> err & jobs+=($!)
  done
  for _ in $(seq 20); do bocker-store images 2>> err >/dev/null || true; done
  for job in "${jobs[@]}"; do wait "$job"; done
  # Two may take the same name away; nothing else goes wrong.
  is "$(grep -v "No image named 'a" err || true)" ""
  is "$(shown | wc -l)" 12
  bocker-store rm --force "$img"
  is "$(ls -A "$BOCKER_ROOT")" ""
}

test_names_on_a_full_disk() {
  bocker-store init --size 200M
  img=$(image) && bocker-store tag "$img" a && bocker-store tag "$img" b
  ps=$(bocker-store snapshot "$img")
  head -c 300000000 /dev/zero > "$BOCKER_ROOT/$ps/rootfs/fill" 2>/dev/null || true
  sync -f "$BOCKER_ROOT" || true
  bocker-store rm a
  bocker-store rm b
  bocker-store rm "$ps"
  is "$(ls -A "$BOCKER_ROOT")" ""
}

test_an_image_that_cannot_be_named_is_not_made() {
  store
  mkdir tree
  printf 'file f x\n' > base
  python3 "$repo/tests/mklayer.py" layout a.tar base
  echo in the way > "$BOCKER_ROOT/names"
  tar -C tree -cf tree.tar .
  fails 1 "/names: Not a directory$" bocker-store import --source x tree
  for verb in unpack "import -"; do
    file=a.tar; [ "$verb" = unpack ] || file=tree.tar
    # shellcheck disable=SC2086 # words
    ! bocker-store $verb --source x < "$file" >out 2>err || fail "$verb"
    is "$(wc -l < err) $(wc -c < out)" "1 0" "$(cat err)"
  done
  is "$(find "$BOCKER_ROOT" -mindepth 1 ! -name names ! -name layers)" ""
}

test_what_is_printed_about_names_does_the_same() {
  store
  everything() { find "$BOCKER_ROOT/names" "$BOCKER_ROOT"/img_*/named -printf '%P %y %m %l\n' 2>/dev/null | sort; }
  img=$(image)
  bocker-store tag "$img" 'localhost:5000/a/b:1' && bocker-store tag "$img" c
  by_tool=$(everything)
  bocker-store untag c && bocker-store untag localhost:5000/a/b:1
  rm "$BOCKER_ROOT/$img/named"
  bocker-store tag --dry-run "$img" localhost:5000/a/b:1 > script
  bocker-store tag --dry-run "$img" c >> script
  is "$(everything)" "" "what a dry run did"
  sh -e script
  is "$(everything)" "$by_tool"
  sh -e script
  is "$(everything)" "$by_tool" "once more"
  bocker-store untag --dry-run c > script && sh -e script
  is "$(sources)" "localhost:5000/a/b:1"
  bocker-store tag "$img" d
  bocker-store rm --dry-run d > script && sh -e script
  is "$(sources)" "localhost:5000/a/b:1"
  bocker-store rm --dry-run localhost:5000/a/b:1 > script && sh -e script
  is "$(find "$BOCKER_ROOT" -mindepth 1 ! -name names)" ""
  # A source that is a name, and a commit to one.
  bocker-store import --source x:1 --dry-run tree > script
  img=$(sh -e script)
  is "$(sources) $(bocker-store path x:1)" "x:1 $BOCKER_ROOT/$img"
  ps=$(bocker-store snapshot x:1) && echo new > "$BOCKER_ROOT/$ps/rootfs/new"
  bocker-store commit --dry-run "$ps" y > script
  is "$(bocker-store path y 2>/dev/null || true)" ""
  two=$(sh -e script)
  three=$(bocker-store commit "$ps" z)
  is "$(bocker-store path y)" "$BOCKER_ROOT/$two"
  is "$(listing "$BOCKER_ROOT/$two/rootfs")" "$(listing "$BOCKER_ROOT/$three/rootfs")"
  is "$(ls "$BOCKER_ROOT/$two")" "$(ls "$BOCKER_ROOT/$three")"
  echo newer > "$BOCKER_ROOT/$ps/rootfs/new"
  bocker-store commit --dry-run "$ps" y > script
  is "$(sh -e script)" "$two"
  is "$(cat "$BOCKER_ROOT/$two/rootfs/new")" newer
  bocker-store tag --explain "$two" w 2>said
  like "$(cat said)" '^mv -T .*/names/.new_name .*/names/docker.io/library/w:latest$'
  is "$(bocker-store path w)" "$BOCKER_ROOT/$two"
}

test_bocker_with_names() {
  a_tree tree
  img=$(bocker init tree 2>/dev/null | sed 's/Created: //')
  is "$(bocker tag "$img" mine:1)" ""
  is "$(bocker images | tail -n +2)" "$img		mine:1"
  bocker run mine:1 "echo more > /more" 2>/dev/null
  ps=$(bocker ps | awk 'NR > 1 { print $1 }')
  out=$(bocker commit "$ps" mine:2)
  like "$out" '^Created: img_[0-9]+$'
  is "$(bocker run mine:2 cat /more)" more
  fails 1 'No such file' bocker run mine:1 cat /more
  is "$(bocker --dry-run commit "$ps" mine:2 | sh)" "$out"
  is "$(bocker commit "$ps" "$img")" "$(printf 'Removed: %s\nCreated: %s' "$img" "$img")"
  bocker tag mine:2 mine:3
  fails 1 "has 2 names: mine:2, mine:3" bocker rmi "${out#Created: }"
  is "$(bocker rmi mine:2)" "Removed: mine:2"
  is "$(bocker --dry-run rmi mine:3 | sh)" "Removed: mine:3"
  is "$(bocker images | tail -n +2)" "$img		mine:1"
  bocker tag mine:1 other && bocker tag mine:1 ps_tools
  is "$(bocker rmi ps_tools)" "Removed: ps_tools"
  is "$(bocker rmi -f "$img")" "Removed: $img"
  is "$(bocker images | wc -l)" 1
  fails 125 "No image named 'mine:1' exists" bocker run --pull=never mine:1 true
}
