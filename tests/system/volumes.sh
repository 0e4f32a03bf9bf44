# Volumes.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh

store() { bocker-store init --size 512M; }

test_volumes_come_and_go() {
  store
  is "$(bocker-store volume ls)" "DRIVER    VOLUME NAME"
  is "$(bocker-store volume create db-data)" db-data
  is "$(stat -c '%i %a %u' "$BOCKER_ROOT/vol_db-data" "$BOCKER_ROOT/vol_db-data/data" | xargs)" "256 755 0 257 755 0"
  echo kept > "$BOCKER_ROOT/vol_db-data/data/file"
  # Again: the one that is there.
  is "$(bocker-store volume create db-data)" db-data
  is "$(cat "$BOCKER_ROOT/vol_db-data/data/file")" kept
  anonymous=$(bocker-store volume create)
  like "$anonymous" '^[0-9a-f]{64}$'
  bocker-store volume create a.b_c >/dev/null
  is "$(bocker-store volume ls)" "$(printf 'DRIVER    VOLUME NAME\nlocal     %s\nlocal     a.b_c\nlocal     db-data' "$anonymous" |
    { read -r head; echo "$head"; LC_ALL=C sort; })"
  is "$(bocker-store volume ls -q | wc -l)" 3
  is "$(bocker-store volume inspect db-data | sed 's/T.*Z$/T/')" "name	db-data
driver	local
mountpoint	$BOCKER_ROOT/vol_db-data/data
created	$(date -u -d "@$(stat -c %W "$BOCKER_ROOT/vol_db-data")" +%F)T"
  is "$(bocker-store volume ls --json | jq -c 'select(.name == "db-data") | [.driver, .mountpoint, .containers]')" \
    "[\"local\",\"$BOCKER_ROOT/vol_db-data/data\",[]]"
  is "$(bocker-store volume inspect --json a.b_c db-data | jq -r .name | xargs)" "a.b_c db-data"
  # Neither images nor containers, and gc lets them be.
  is "$(bocker-store images | wc -l) $(bocker-store ps | wc -l) $(bocker-store gc)" "1 1 "
  # Subvolumes within, and a full disk: deleting works.
  btrfs subvolume create "$BOCKER_ROOT/vol_a.b_c/data/inner" >/dev/null
  head -c 600000000 /dev/zero > "$BOCKER_ROOT/vol_db-data/data/fill" 2>/dev/null || true
  is "$(bocker-store volume rm a.b_c db-data "$anonymous")" "a.b_c
db-data
$anonymous"
  is "$(ls -A "$BOCKER_ROOT")" ""
}

test_volumes_that_are_none() {
  store
  bocker-store volume create ab >/dev/null
  mkdir "$BOCKER_ROOT/vol_plain" && ln -s /etc "$BOCKER_ROOT/vol_link" && btrfs subvolume create "$BOCKER_ROOT/vol_-x" >/dev/null
  before=$(census)
  for name in a .. . '' ../ab a/b 'a b' $'a\nb' -x .x _x "$(printf 'x%.0s' $(seq 201))" "$(printf 'x%.0s' $(seq 10000))"; do
    fails 2 "^bocker-store: '.*' is not a volume's name " bocker-store volume create -- "$name"
    fails 1 "^bocker-store: No volume named '.*' exists$" bocker-store volume rm -- "$name"
    fails 1 "^bocker-store: No volume named '.*' exists$" bocker-store volume inspect -- "$name"
    is "$(bocker-store volume rm --force -- "$name")" ""
  done
  for name in plain link nosuch; do
    fails 1 "^bocker-store: No volume named '$name' exists$" bocker-store volume rm ab "$name"
  done
  is "$(bocker-store volume ls -q)" ab "all or nothing"
  is "$(census)" "$before"
  fails 2 "'nosuch'" bocker-store volume nosuch
  # A name of 200 bytes works, from the temporary one to the deletion of what has subvolumes in it.
  long=$(printf 'x%.0s' $(seq 200))
  bocker-store volume create "$long" >/dev/null
  btrfs subvolume create "$BOCKER_ROOT/vol_$long/data/inner" >/dev/null
  is "$(bocker-store volume rm "$long")" "$long"
  is "$(census)" "$before"
}

test_volumes_in_use_stay() {
  store
  mkdir -p tree/bin
  img=$(bocker-store import tree) ps=$(bocker-store snapshot "$img" -- x)
  for name in one two; do bocker-store volume create "$name" >/dev/null; done
  printf 'one\t/data\nother\t/x\n' > "$BOCKER_ROOT/$ps/volumes"
  fails 1 "^bocker-store: Volume 'one' is in use \\($ps has it; bocker rm $ps\\)$" bocker-store volume rm one
  like "$(bocker-store volume inspect one)" "^container	$ps$"
  is "$(bocker-store volume rm two)" two
  bocker-store rm "$ps"
  is "$(bocker-store volume rm one)" one
}

# A container gets its volume between the look at who has it and the deletion: whoever gives it holds the store meanwhile.
test_volume_rm_and_prune_beside_a_starting_container() {
  store
  mkdir tree && img=$(bocker-store import tree) ps=$(bocker-store snapshot "$img" -- x)
  anonymous=$(bocker-store volume create)
  bocker-store volume create one >/dev/null
  for verb in "rm one $anonymous" "prune --all --force"; do
    exec 9<"$BOCKER_ROOT" && flock -s 9
    # shellcheck disable=SC2086 # words
    bocker-store volume $verb >out 2>err 9<&- & local job=$!
    sleep 0.3
    is "$(bocker-store volume ls -q | wc -l)" 2 "while a container is being given one"
    printf '%s\n' one "$anonymous" > "$BOCKER_ROOT/$ps/volumes"
    exec 9<&-
    local status=0
    wait "$job" || status=$?
    is "$(cat out)" "" "$verb"
    case $verb in
      rm*) is "$status $(cat err)" "1 bocker-store: Volume 'one' is in use ($ps has it; bocker rm $ps)" ;;
      *) is "$status $(cat err)" "0 " ;;
    esac
    is "$(bocker-store volume ls -q | wc -l)" 2 "after $verb"
    rm "$BOCKER_ROOT/$ps/volumes"
  done
  # Two who remove the same: one of them does, the other finds nothing.
  local jobs ended
  for verb in "rm twice" "prune --all --force"; do
    bocker-store volume create twice >/dev/null
    printf '%s\n' one "$anonymous" > "$BOCKER_ROOT/$ps/volumes"
    exec 9<"$BOCKER_ROOT" && flock -s 9
    jobs=() ended=
    # shellcheck disable=SC2086 # words
    for n in 1 2; do bocker-store volume $verb >"out.$n" 2>"err.$n" 9<&- & jobs+=($!); done
    sleep 0.3
    exec 9<&-
    for job in "${jobs[@]}"; do status=0; wait "$job" || status=$?; ended+=$status; done
    is "$(cat out.1 out.2 | cut -f 1 | sed s/vol_//)" twice "$verb"
    case $verb in
      rm*) is "$(cat err.1 err.2)" "bocker-store: No volume named 'twice' exists"; like "$ended" '^(01|10)$' ;;
      *) is "$(cat err.1 err.2)$ended" 00 ;;
    esac
    rm "$BOCKER_ROOT/$ps/volumes"
  done
  # One that is being made counts, one that a crash left does not.
  new=$BOCKER_ROOT/.new_ps_42100
  btrfs subvolume snapshot "$BOCKER_ROOT/$img" "$new" >/dev/null && echo one > "$new/volumes"
  exec 9<"$new" && flock 9
  fails 1 "^bocker-store: Volume 'one' is in use \\(ps_42100 has it; " bocker-store volume rm one
  is "$(bocker-store volume prune --all --force | cut -f 1)" "vol_$anonymous"
  exec 9<&-
  is "$(bocker-store volume rm one)" one
}

test_volumes_made_at_once_and_after_crashes() {
  store
  local jobs=()
  for _ in $(seq 8); do
    bocker-store volume create same >> out 2>> err & jobs+=($!)
    bocker-store volume create >> random 2>> err & jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || true; done
  is "$(grep -v 'somebody else is creating it' err || true)" ""
  is "$(sort -u out)" same
  is "$(sort -u random | wc -l)" 8
  is "$(bocker-store volume ls -q | wc -l)" 9
  # What a kill left is no volume, and in nobody's way.
  for call in ioctl mkdirat renameat2 flock; do
    for n in 1 2 3; do
      strace -f -qq -o /dev/null -e "inject=$call:signal=SIGKILL:when=$n" bocker-store volume create killed >/dev/null 2>&1 || true
      is "$(bocker-store volume create killed)" killed "after a kill at $call $n"
      [ -d "$BOCKER_ROOT/vol_killed/data" ] || fail "half a volume"
      bocker-store volume rm killed >/dev/null
    done
  done
  bocker-store gc >/dev/null
  is "$(find "$BOCKER_ROOT" -maxdepth 1 -name '.new_*')" ""
}

test_what_is_printed_about_volumes_does_the_same() {
  store
  bocker-store volume create --dry-run some > script
  is "$(ls -A "$BOCKER_ROOT")" ""
  is "$(sh -e script)" some
  bocker-store volume create other >/dev/null
  is "$(cd "$BOCKER_ROOT/vol_some" && find . -printf '%p %y %m\n')" "$(cd "$BOCKER_ROOT/vol_other" && find . -printf '%p %y %m\n')"
  is "$(bocker-store volume ls -q | xargs)" "other some"
  bocker-store volume create --dry-run some > script
  is "$(sh -e script)" some
  bocker-store volume rm --dry-run some other > script
  is "$(bocker-store volume ls -q | xargs)" "other some"
  sh -e script
  is "$(ls -A "$BOCKER_ROOT")" ""
}

test_volume_prune_takes_what_nobody_chose_or_has() {
  store
  mkdir tree && img=$(bocker-store import tree) ps=$(bocker-store snapshot "$img" -- x)
  one=$(bocker-store volume create) two=$(bocker-store volume create)
  bocker-store volume create chosen >/dev/null
  head -c 2097152 /dev/urandom > "$BOCKER_ROOT/vol_$one/data/f"
  echo "$two" > "$BOCKER_ROOT/$ps/volumes"
  is "$(bocker-store volume prune 2>err)" "vol_$one	2097152"
  is "$(cat err)" "bocker-store: nothing was removed: 1 thing, 2097152 bytes (--force removes)"
  is "$(bocker-store volume prune --json 2>/dev/null)" "{\"bytes\":2097152,\"name\":\"vol_$one\"}"
  is "$(bocker volume prune --all 2>/dev/null | cut -f 1 | sort)" "$(printf 'vol_%s\n' "$one" chosen | sort)"
  is "$(bocker-store volume ls -q | wc -l)" 3
  bocker-store volume prune --dry-run > script && sh -e script
  is "$(bocker-store volume ls -q | sort)" "$(printf '%s\n' chosen "$two" | sort)"
  is "$(bocker volume prune --all --force)" "vol_chosen	0"
  is "$(bocker-store volume prune --all --force 2>&1)" ""
  is "$(bocker-store volume ls -q)" "$two"
}

test_bocker_volumes() {
  is "$(bocker volume create data 2>/dev/null)" data
  is "$(bocker volume ls)" "DRIVER    VOLUME NAME
local     data"
  is "$(bocker volume ls -q)$(bocker volume ls --json | jq -r .name)" datadata
  like "$(bocker volume inspect data)" "^mountpoint	$BOCKER_ROOT/vol_data/data$"
  is "$(bocker --dry-run volume create more | sh)" more
  is "$(bocker --dry-run volume rm data | sh)" data
  is "$(bocker volume rm -f nosuch more)" more
  fails 1 "^bocker-store: No volume named 'data' exists$" bocker volume rm data
  fails 2 "^bocker-store: '-x' is not a volume's name" bocker volume create -- -x
  like "$(bocker volume create)" '^[0-9a-f]{64}$'
}
