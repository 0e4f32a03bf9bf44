# What a container remembers: its files, its name, its volumes.
# shellcheck shell=bash disable=SC2154,SC2054,SC2011 # repo: tests/lib.sh; commas in a word; names that we know

# The store, and an image with a place for data at the end of a link; $img.
store() {
  bocker-store init --size 512M
  mkdir -p tree/{bin,etc,opt} tree/srv/real/sub
  echo here > tree/srv/real/file
  ln tree/srv/real/file tree/srv/real/again
  truncate -s 1M tree/srv/real/sub/hole && echo end >> tree/srv/real/sub/hole
  head -c 70000 /dev/urandom > tree/srv/real/sub/big
  mkfifo -m 601 tree/srv/real/pipe
  mknod -m 640 tree/srv/real/node c 1 3
  ln -s ../../../../outside tree/srv/real/away
  setfattr -n user.note -v kept tree/srv/real/file
  chown 7:9 tree/srv/real/sub/big && chmod 4711 tree/srv/real/sub/big
  chown 999:998 tree/srv/real && chmod 2750 tree/srv/real && touch -d @1000000000 tree/srv/real tree/srv/real/sub
  ln -s srv/real tree/data
  img=$(bocker-store import --source base tree)
}

# config JQ: the image's configuration, changed
config() { jq -c "$1" "$BOCKER_ROOT/$img/config" > changed && cat changed > "$BOCKER_ROOT/$img/config"; }
# Without the word that all have.
text() { LC_ALL=C sed '/^--hostname=ps_[0-9]*$/d' "$BOCKER_ROOT/$1/$2"; }
volumes() { bocker-store volume ls -q | xargs; }
all_of() { python3 "$repo/tests/listing.py" "$1"; }

test_a_container_remembers_what_it_was_told() {
  store
  ps=$(bocker-store snapshot --name web --label a=1 --label b --label a=2=3 --limit memory=512M --limit device=c:1:3:rwm \
    --limit device=c:1:5:r --word=--env=A=1 --word=--env=$'B=two\nlines\\n' --word=--env=$'C=\xff' --word=--tty --auto-remove \
    -- base -- sh -c $'echo a\necho \\' '' --)
  is "$(text "$ps" name)" web
  is "$(text "$ps" labels)" "b=
a=2=3"
  is "$(text "$ps" limits)" "memory=512M
device=c:1:3:rwm
device=c:1:5:r"
  is "$(text "$ps" life)" rm
  is "$(text "$ps" words | od -c)" "$(printf '%s\n' --env=A=1 '--env=B=two\nlines\\n' $'--env=C=\xff' --tty -- sh -c 'echo a\necho \\' '' -- | od -c)"
  is "$(text "$ps" cmd | od -c)" "$(printf 'sh -c echo a\necho \\  --\n' | od -c)"
  [ ! -e "$BOCKER_ROOT/$ps/volumes" ] || fail "volumes of one that has none"
  is "$(grep ^--hostname= "$BOCKER_ROOT/$ps/words")" "--hostname=$ps"
  is "$(bocker-store inspect web | grep -E '^(name|life|limit|word|label)' | grep -v hostname=)" "name	web
life	rm
limit	memory=512M
limit	device=c:1:3:rwm
limit	device=c:1:5:r
word	--env=A=1
word	--env=B=two\\nlines\\n
word	--env=C=�
word	--tty
label	a=2=3
label	b="
  is "$(bocker-store inspect --json web | jq -c '[.name, .labels, .limits[0], .words[1], .args, .auto_remove, .mounts]')" \
    '["web",{"a":"2=3","b":""},"memory=512M","--env=B=two\nlines\\n",["sh","-c","echo a\necho \\","","--"],true,[]]'
  # The image's labels, and the container's over them.
  config '.config.Labels = {"a": "image", "esc\u001b": "x\ny"}'
  other=$(bocker-store snapshot --label a=mine base)
  is "$(bocker-store inspect "$other" | grep ^label)" "$(printf 'label\t%s\n' a=mine 'esc\u{1b}=x\ny')"
  # Another host name of its own choice, and other limits from now on.
  is "$(grep ^--hostname= "$BOCKER_ROOT/$(bocker-store snapshot --word=--hostname=box base)/words")" --hostname=box
  bocker-store limits web memory=1g pids=7 device=c:1:9:r
  is "$(bocker-store limits web)" "$(text "$ps" limits)"
  is "$(text "$ps" limits | xargs)" "device=c:1:3:rwm device=c:1:5:r memory=1g pids=7 device=c:1:9:r"
  bocker-store limits --dry-run web pids=8 > script && is "$(bocker-store limits web | grep pids)" pids=7
  sh -e script && is "$(bocker-store limits web | grep pids)" pids=8
  fails 2 "KEY=VALUE" bocker-store limits web nonsense
  # Who has to pull an image asks so; a container of that name is none.
  is "$(bocker-store id --missing nosuch && bocker-store id --missing web && echo both)" both
  fails 1 "There is an image named 'base'" bocker-store id --missing base
  # What was not told is not there; words are, for whoever starts it again.
  plain=$(bocker-store snapshot base -- cat x)
  is "$(cd "$BOCKER_ROOT/$plain" && echo *)" "cmd config image named rootfs source status words"
  is "$(text "$plain" words)" "--
cat
x"
  is "$(text "$(bocker-store snapshot base)" words)" ""
  # More than btrfs keeps beside a file's name.
  long=$(printf 'word%.0s ' $(seq 1000))
  is "$(text "$(bocker-store snapshot --word="--env=A=$long" base -- x)" words)" "--env=A=$long
--
x"
  is "$(bocker-store fsck)" ""
}

test_what_makes_no_sense_is_refused_before_anything_is_made() {
  store
  before=$(census)
  for name in '' . .. -x _x a/b '../x' 'a b' $'a\nb' é ps_42045 42045 img_42150 ps_ "$(printf 'x%.0s' $(seq 256))"; do
    fails 2 "^bocker-store: .*(is not a container's name|a value is required)" bocker-store snapshot "--name=$name" base
  done
  fails 2 'a label has a key' bocker-store snapshot --label =x base
  fails 2 'it is one line' bocker-store snapshot --label $'a=b\nc=d' base
  for limit in memory memory= =1; do fails 2 'a limit is KEY=VALUE' bocker-store snapshot --limit "$limit" base; done
  for word in -- x ''; do fails 2 "--word '$word' is no option" bocker-store snapshot --word="$word" base; done
  for volume in data data:x data:/ data:/a/../b data:/../etc a:/x ../x:/x /host:/x data:/x:suid $'data:/a\tb'; do
    fails 2 "^bocker-store: " bocker-store snapshot --volume "$volume" base
  done
  fails 2 "two mounts at '/x'" bocker-store snapshot --volume one:/x --volume two:/x/. base
  fails 2 "two mounts at '/x'" bocker-store snapshot --word=--volume=/host:/x --volume two:/x base
  fails 1 "No container named 'nosuch' exists" bocker-store snapshot --volumes-from nosuch base
  is "$(census)" "$before"
  # And the like of it that does.
  for name in x 4 42 x.y_z-0 "$(printf 'x%.0s' $(seq 255))"; do
    bocker-store rm "$(bocker-store snapshot "--name=$name" --label x= --limit a=b --word=-- --word=-x base 2>/dev/null ||
      bocker-store snapshot "--name=$name" --label x= --limit a=b --word=-x base)"
  done
  is "$(census)" "$before"
}

test_a_name_is_one_containers() {
  store
  local jobs=() n made=0 status
  # Of many at once one has it, and the others leave nothing.
  for n in $(seq 10); do bocker-store snapshot --name same --volume /x base >"out.$n" 2>"err.$n" & jobs+=($!); done
  for n in $(seq 10); do
    status=0
    wait "${jobs[n - 1]}" || status=$?
    case $status in
      0) made=$((made + 1)) ps=$(cat "out.$n") ;;
      1) like "$(cat "err.$n")" "^bocker-store: the name 'same' is container ps_[0-9]+'s \\(bocker rm same, or " ;;
      *) fail "status $status: $(cat "err.$n")" ;;
    esac
  done
  is "$made $(bocker-store ps | sed 1d | wc -l) $(bocker-store volume ls -q | wc -l) $(ls /run/bocker)" "1 1 1 $ps"
  is "$(readlink "$BOCKER_ROOT/containers/same")" "../$ps"
  is "$(bocker-store fsck)$(bocker-store gc)" ""
  # Wherever an id may be typed, and the beginning of an id where that is one's only.
  for name in same "$ps" "${ps#ps_}" ps_4 4; do is "$(bocker-store id "$name") $(bocker-store path "$name")" "$ps $BOCKER_ROOT/$ps" "$name"; done
  two=$(bocker-store snapshot --name 4 base -- two)
  fails 1 "^bocker-store: the ids of several containers begin with 'ps_4' \\(ps_[0-9]+, ps_[0-9]+\\)$" bocker-store id ps_4
  is "$(bocker-store id 4)" "$two" "a name comes before the beginning of an id"
  for name in 5 ps_5 ps_ same/ sam SAME img_4; do fails 1 "No container named '$name' exists" bocker-store id --container "$name"; done
  # Another name, in one step; back, and to the one it has.
  bocker-store rename same other
  is "$(bocker-store id other) $(text "$ps" name) $(cd "$BOCKER_ROOT/containers" && echo *)" "$ps other 4 other"
  fails 1 "No container named 'same' exists" bocker-store id same
  fails 1 "the name '4' is container $two's" bocker-store rename other 4
  fails 2 "is not a container's name" bocker-store rename other ps_42045
  fails 1 "No container named 'base' exists" bocker-store rename base x
  bocker-store rename other other
  bocker-store rename "$ps" same
  nameless=$(bocker-store snapshot base -- three)
  bocker-store rename "$nameless" third
  is "$(bocker-store id third) $(bocker-store id same) $(bocker-store fsck)" "$nameless $ps "
  # Many who rename to the same.
  jobs=() made=0
  for n in $(seq 8); do bocker-store rename same "try$((n % 2))" 2>/dev/null & jobs+=($!); done
  for n in 1 2 3 4; do bocker-store rename third try0 2>/dev/null & jobs+=($!); done
  for n in "${jobs[@]}"; do wait "$n" || true; done
  is "$(bocker-store fsck)$(bocker-store gc)" "" "after many renamed at once"
  is "$(cd "$BOCKER_ROOT/containers" && echo * | wc -w)" 3
  for n in "$ps" "$nameless"; do is "$(bocker-store id "$(text "$n" name)")" "$n"; done
}

test_who_is_gone_has_no_name() {
  store
  before=$(census)
  for way in "bocker-store rm web" "bocker-store rm --unstarted web" 'btrfs -q subvolume delete' 'mv'; do
    ps=$(bocker-store snapshot --name web base -- one)
    is "$(bocker-store fsck)" ""
    case $way in
      btrfs*) $way "$BOCKER_ROOT/$ps" ;;
      # Another takes the number.
      mv) btrfs -q subvolume delete "$BOCKER_ROOT/$ps" && rm "/run/bocker/$ps" && is "$(bocker-store snapshot --ids "${ps#ps_}-${ps#ps_}" base -- two)" "$ps" ;;
      *) $way; is "$(census)" "$before" "$way" ;;
    esac
    fails 1 "No container named 'web' exists" bocker-store id web
    case $way in
      btrfs* | mv)
        like "$(bocker-store fsck)" "^containers/web	its container $ps has another name, or is gone \\(bocker-store gc removes it\\)$" "$way"
        # At once, also before gc.
        new=$(bocker-store snapshot --name web base -- three)
        is "$(bocker-store id web)$(bocker-store fsck)" "$new"
        btrfs -q subvolume delete "$BOCKER_ROOT/$new"
        is "$(bocker-store gc | grep -v ^/run)" "containers/web"
        [ "$way" != mv ] || bocker-store rm "$ps"
        is "$(census)" "$before" "$way"
        ;;
    esac
  done
  # What is none of ours there is told, and stays.
  ps=$(bocker-store snapshot --name web base)
  ln -s /etc "$BOCKER_ROOT/containers/away" && mkdir "$BOCKER_ROOT/containers/dir" && ln -s ../../../etc "$BOCKER_ROOT/containers/-x"
  for name in away dir; do fails 1 "No container named '$name' exists" bocker-store path "$name"; done
  is "$(bocker-store fsck | sort)" "containers/-x	it is no name
containers/away	it is no name
containers/dir	it is no name"
  is "$(bocker-store gc)" ""
  rm "$BOCKER_ROOT/containers/"{away,-x} && rmdir "$BOCKER_ROOT/containers/dir"
  # A file that says what no link says.
  echo elsewhere > "$BOCKER_ROOT/$ps/name"
  like "$(bocker-store fsck)" "^$ps	nobody finds it by its name elsewhere \\(bocker rename $ps elsewhere\\)$"
  bocker-store rename "$ps" elsewhere && bocker-store gc >/dev/null
  is "$(bocker-store fsck) $(bocker-store id elsewhere)" " $ps"
  for file in words:'a\x' words:'\' labels:x limits:=x name:../x; do
    cp "$BOCKER_ROOT/$ps/${file%%:*}" kept 2>/dev/null || rm -f kept
    printf '%s\n' "${file#*:}" > "$BOCKER_ROOT/$ps/${file%%:*}"
    like "$(bocker-store fsck)" "^$ps	its file ${file%%:*} " "$file"
    rm "$BOCKER_ROOT/$ps/${file%%:*}"; [ ! -e kept ] || cp kept "$BOCKER_ROOT/$ps/${file%%:*}"
  done
  is "$(bocker-store fsck)" ""
}

# Images' names are another namespace: a name that both have is the container's, the image's is NAME:latest.
test_a_container_and_an_image_of_one_name() {
  store
  ps=$(bocker-store snapshot --name base base -- x)
  is "$(bocker-store id base) $(bocker-store id --container base) $(bocker-store id base:latest)" "$ps $ps $img"
  is "$(bocker-store inspect base | head -1)" "id	$ps"
  is "$(text "$(bocker-store snapshot base -- from the image)" image)" "$img"
  bocker-store rm base
  is "$(bocker-store id base)" "$img" "the container is gone, the image is not"
  ps=$(bocker-store snapshot --name base base -- x)
  bocker-store rename base web && is "$(bocker-store id base)" "$img"
  bocker-store untag base:latest && is "$(bocker-store id web)" "$ps"
}

test_a_new_volume_holds_what_the_image_has_there() {
  store
  mkdir outside && echo secret > outside/secret && echo sentinel > sentinel
  # By a link inside the image, as it is there to the last attribute.
  bocker-store snapshot --name one --volume data:/data/ base >/dev/null
  data=$BOCKER_ROOT/vol_data/data
  is "$(all_of "$data")" "$(all_of "$BOCKER_ROOT/$img/rootfs/srv/real")"
  is "$(stat -c '%a %u:%g %Y' "$data") $(getfattr --only-values -n user.note "$data/file") $(stat -c %h "$data/again")" "2750 999:998 1000000000 kept 2"
  is "$(text "$(bocker-store id one)" volumes)" "data	/data"
  is "$(text "$(bocker-store id one)" words)" "--volume=$data:/data"
  # Blocks are shared.
  like "$(filefrag -v "$data/sub/big")" shared
  is "$(cd "$BOCKER_ROOT/vol_data" && ls -A)" data
  # Once: what is there, be it one file, stays as it is.
  rm -r "${data:?}"/* && echo mine > "$data/mine" && chmod 700 "$data"
  bocker-store snapshot --volume data:/srv/real:ro base >/dev/null
  is "$(ls -A "$data") $(stat -c %a "$data")" "mine 2700"
  # One that is there and empty, as docker does; not with nocopy, nor where there is nothing, or no directory.
  bocker-store volume create empty >/dev/null && chattr +C "$BOCKER_ROOT/vol_empty/data"
  bocker-store snapshot --volume empty:/srv/real:nocopy base >/dev/null
  is "$(ls -A "$BOCKER_ROOT/vol_empty/data")" ""
  bocker-store snapshot --volume empty:/srv/real --volume none:/nosuch --volume file:/srv/real/file --volume etc:/etc base >/dev/null
  is "$(all_of "$BOCKER_ROOT/vol_empty/data")" "$(all_of "$BOCKER_ROOT/$img/rootfs/srv/real")"
  like "$(lsattr -d "$BOCKER_ROOT/vol_empty/data/sub")" '^-*C'
  for name in none file etc; do is "$(ls -A "$BOCKER_ROOT/vol_$name/data")" "" "$name"; done
  # Two at once: whole, from one of them.
  local jobs=()
  for _ in 1 2 3 4 5; do bocker-store snapshot --volume both:/data base >/dev/null & jobs+=($!); done
  for job in "${jobs[@]}"; do wait "$job"; done
  is "$(all_of "$BOCKER_ROOT/vol_both/data")" "$(all_of "$BOCKER_ROOT/$img/rootfs/srv/real")"
  is "$(bocker-store fsck)$(bocker-store gc)" ""
  is "$(cat sentinel outside/secret)" "sentinel
secret"
}

# Checks 29 and 30: whatever an image calls its volumes and makes of its links, nothing of the host is read.
test_no_volume_is_filled_from_outside_the_image() {
  store
  mkdir outside && echo secret > outside/secret
  for link in up:../../../../../../../..$HOST_DIR/outside abs:$HOST_DIR/outside proc:/proc/self/root self:. parent:../.. loop:loop magic:/proc/1/cwd; do
    ln -sn "${link#*:}" "$BOCKER_ROOT/$img/rootfs/${link%%:*}"
  done
  for path in /up /abs /proc /self /parent /loop /magic /up/secret /self/self/self; do
    ps=$(bocker-store snapshot --volume "vol:$path" base)
    is "$(find "$BOCKER_ROOT/vol_vol/data" -mindepth 1)" "" "$path"
    is "$(stat -c '%a %u' "$BOCKER_ROOT/vol_vol/data")" "755 0"
    bocker-store rm "$ps"; bocker-store volume rm vol >/dev/null
  done
  # The same path does hold something where the image has it.
  mkdir -p "$BOCKER_ROOT/$img/rootfs$HOST_DIR/outside" && echo image > "$BOCKER_ROOT/$img/rootfs$HOST_DIR/outside/file"
  for path in /up /abs; do
    ps=$(bocker-store snapshot --volume "vol:$path" base)
    is "$(cd "$BOCKER_ROOT/vol_vol/data" && cat *)" image "$path"
    bocker-store rm "$ps"; bocker-store volume rm vol >/dev/null
  done
  before=$(census)
  # CVE-2022-23648
  for path in '/../../../../../../etc' '/data/../../etc' '/..' 'etc' '' '/' '/a:b' "/$(printf 'x%.0s' $(seq 4001))"; do
    config ".config.Volumes = {$(jq -n --arg path "$path" '$path'): {}}"
    fails 1 "^bocker-store: the image's volume '.*': (a path|the root|the place)" bocker-store snapshot base
  done
  config '.config.Volumes = ["/x"]'
  fails 1 "Volumes is not an object" bocker-store snapshot base
  is "$(census)" "$before"
}

test_volumes_without_a_name_come_and_go() {
  store
  config '.config.Volumes = {"/data": {}, "/opt/": {}, "/new\nline": {}, "/own": {}, "/bind": {}, "/mount": {}, "/tmp": {}}'
  before=$(census)
  words=(--word=--volume=/host:/bind --word=--mount=type=bind,source=/host,target=/mount --word=--tmpfs=/tmp/:size=1m)
  ps=$(bocker-store snapshot --name one --volume kept:/own --volume /mine "${words[@]}" base -- x)
  is "$(cut -f 2- "$BOCKER_ROOT/$ps/volumes")" "/own
/mine	nameless
/data	nameless
/new\\nline	nameless
/opt	nameless"
  is "$(grep -c '^--volume=/.*/data:/' "$BOCKER_ROOT/$ps/words") $(tail -2 "$BOCKER_ROOT/$ps/words" | xargs)" "5 -- x"
  data=$(awk -F '\t' '$2 == "/data" { print $1 }' "$BOCKER_ROOT/$ps/volumes")
  is "$(all_of "$BOCKER_ROOT/vol_$data/data")" "$(all_of "$BOCKER_ROOT/$img/rootfs/srv/real")"
  is "$(bocker-store inspect --json one | jq -c '[.mounts[] | [.destination, .nameless, .options]]')" \
    '[["/own",false,""],["/mine",true,""],["/data",true,""],["/new\nline",true,""],["/opt",true,""]]'
  # Shared with another, but for what that one has itself; binds come along.
  two=$(bocker-store snapshot --volumes-from one:ro --volume own2:/own --word=--volume=/else:/bind plain -- x 2>/dev/null || true)
  bocker-store tag "$img" plain && config 'del(.config.Volumes)'
  two=$(bocker-store snapshot --volumes-from one:ro --volume own2:/own --word=--volume=/else:/bind plain -- x)
  is "$(text "$two" words | grep -v '^--volume=/.*/vol_' | xargs)" "--volume=/else:/bind --mount=type=bind,source=/host,target=/mount,readonly -- x"
  is "$(cut -f 2- "$BOCKER_ROOT/$two/volumes" | sort)" "/data:ro	nameless
/mine:ro	nameless
/new\\nline:ro	nameless
/opt:ro	nameless
/own"
  like "$(text "$two" volumes)" "^$data	/data:ro"
  # What is shared is as the other left it.
  rm -r "$BOCKER_ROOT/vol_$data/data/"*
  bocker-store rm "$(bocker-store snapshot --volumes-from one base)"
  is "$(ls -A "$BOCKER_ROOT/vol_$data/data")" ""
  # They stay with the last one that has them, and go with it when that is asked for.
  bocker-store rm --volumes one
  is "$(volumes | wc -w)" 6
  bocker-store rm "$two"
  is "$(volumes | wc -w)" 6 "nobody asked for it"
  three=$(bocker-store snapshot --volume "$data:/x" --volume /y plain -- x)
  bocker-store rm --volumes --dry-run "$three" > script
  is "$(bocker-store id --container "$three") $(volumes | wc -w)" "$three 7"
  sh -e script
  fails 1 "No container" bocker-store id --container "$three"
  is "$(volumes | wc -w)" 6 "what somebody called by its 64 digits stays"
  bocker-store volume prune --all --force >/dev/null
  bocker-store untag plain
  is "$(census)" "$before"
  # By themselves: where that was said, and of a run that did not begin.
  config '.config.Volumes = {"/data": {}}'
  one=$(bocker-store snapshot --auto-remove base -- x) two=$(bocker-store snapshot base -- x)
  bocker-store rm --auto "$two"
  bocker-store rm --auto "$one"
  is "$(bocker-store ps | sed 1d | cut -f 1) $(volumes | wc -w)" "$two 1"
  bocker-store rm --unstarted "$two"
  is "$(census)" "$before"
  # Where the container cannot be made, or nobody can be told of it, they are not left either.
  one=$(bocker-store snapshot --name taken base -- x)
  with=$(census)
  mv "$BOCKER_ROOT/containers/taken" link && ln -s "../$one" "$BOCKER_ROOT/containers/taken"
  fails 1 "the name 'taken'" bocker-store snapshot --name taken --volume /x base
  fails 1 "ids from" bocker-store snapshot --ids "${one#ps_}-${one#ps_}" --name free --volume /x base
  bocker-store snapshot --name free --volume /x base >/dev/full 2>err && fail "told nobody"
  is "$(census)" "$with" "$(cat err)"
  fails 1 "File exists|Not a directory" bocker-store snapshot --name free --volume "$(ln -s nowhere "$BOCKER_ROOT/vol_link"; echo link:/x)" --volume /y base
  rm "$BOCKER_ROOT/vol_link"
  bocker-store gc >/dev/null
  is "$(census)" "$with"
}

# Killed by force at any step (checks 36 and 37): what is listed is whole, and one gc takes the rest.
test_killed_at_every_step() {
  store
  config '.config.Volumes = {"/data": {}}'
  chmod 700 /run/bocker 2>/dev/null || mkdir -m 700 /run/bocker
  bocker-store snapshot --name keep base -- x >/dev/null
  before=$(bocker-store volume ls -q)
  mkdir "$BOCKER_ROOT/layers"; chmod 700 "$BOCKER_ROOT/layers"
  local there killed=0 verb call n status
  there=$(census | grep -v ^process)
  for verb in snapshot rename rm; do
    case $verb in
      snapshot) calls="ioctl:5 mkdirat:3 symlinkat:2 renameat2:4 renameat:1 write:2 unlinkat:2" ;;
      rename) calls="symlinkat:1 write:1 renameat:1 unlinkat:2" ;;
      rm) calls="ioctl:2 unlinkat:2" ;;
    esac
    for call in $calls; do
      for n in $(seq "${call#*:}"); do
        [ "$verb" = snapshot ] || bocker-store snapshot --name web --volume /x base -- x >/dev/null
        case $verb in
          snapshot) words=(snapshot --name web --label a=1 --limit b=2 --volume /x base -- x) ;;
          rename) words=(rename web other) ;;
          rm) words=(rm --volumes web) ;;
        esac
        status=0
        strace -f -qq -o /dev/null -e "inject=${call%:*}:signal=SIGKILL:when=$n" bocker-store "${words[@]}" >out 2>&1 || status=$?
        what="$verb killed at $call $n"
        for name in web other; do
          [ -L "$BOCKER_ROOT/containers/$name" ] || continue
          if id=$(bocker-store id --container "$name" 2>/dev/null); then
            is "$(text "$id" name) $(text "$id" words | tail -1) $(grep -c . "$BOCKER_ROOT/$id/volumes")" "$name x 2" "$what"
            while read -r volume _; do [ -d "$BOCKER_ROOT/vol_$volume/data" ] || fail "$what: $volume is not there"; done < "$BOCKER_ROOT/$id/volumes"
          fi
        done
        bocker-store gc >>gone
        is "$(bocker-store fsck)" "" "$what: after one gc"
        # Whole, or empty; and the name can be had.
        for volume in "$BOCKER_ROOT"/vol_*; do
          volume=${volume##*/vol_}
          [ -z "$(ls -A "$BOCKER_ROOT/vol_$volume/data")" ] ||
            is "$(all_of "$BOCKER_ROOT/vol_$volume/data")" "$(all_of "$BOCKER_ROOT/$img/rootfs/srv/real")" "$what"
        done
        for id in "$BOCKER_ROOT"/ps_*; do
          [ "$(cat "$id/name")" = keep ] || bocker-store rm --volumes "${id##*/}"
        done
        # A removal that was cut short may leave what has no name, for `volume prune`.
        [ "$verb" != rm ] || for volume in $(bocker-store volume ls -q | grep -vFx "$before" || true); do bocker-store volume rm "$volume" >/dev/null; done
        is "$(census | grep -v ^process)" "$there" "$what: what is left"
        [ "$status" = 137 ] || { is "$status" 0 "$what: $(cat out)"; break; }
        killed=$((killed + 1))
      done
    done
  done
  [ "$killed" -gt 18 ] || fail "only $killed kills"
  like "$(cat gone)" '\.new_ps_'
  like "$(cat gone)" 'containers/'
}

# Check 38: after a power cut a container's files are whole, or it is not there.
test_power_cut_after_a_snapshot() {
  truncate -s 3G disk && mkfs.btrfs -q disk >/dev/null && mkdir outer && mount -o loop,nodev,nobarrier disk outer
  store
  umount "$BOCKER_ROOT"
  mv "$BOCKER_ROOT.btrfs" outer/pool && mount -o loop,nodev,noatime outer/pool "$BOCKER_ROOT"
  long=$(printf 'word%.0s ' $(seq 1000))
  bocker-store snapshot --name web --label a=1 --limit b=2 --word=--env=A=1 --volume data:/data --auto-remove base -- x >/dev/null
  bocker-store snapshot --name long --label "a=$long" --word="--env=A=$long" --volume /nosuch base -- x >/dev/null
  bocker-store snapshot --name before base -- x >/dev/null
  bocker-store rename before after
  # The transaction is written down, but not the data of files that nobody has brought to the disk.
  btrfs -q subvolume snapshot "$BOCKER_ROOT/$img" "$BOCKER_ROOT/.new_other" >/dev/null
  cp --reflink=always outer/pool outer/cut
  umount "$BOCKER_ROOT" && rm -r /run/bocker
  mount -o loop,nodev,noatime outer/cut "$BOCKER_ROOT"
  is "$(bocker-store gc)$(bocker-store fsck)" .new_other
  web=$(bocker-store id web) long_one=$(bocker-store id long)
  is "$(cat "$BOCKER_ROOT/$web/"{name,labels,limits,life,words,volumes} | grep -v ^--hostname=)" "web
a=1
b=2
rm
--env=A=1
--volume=$BOCKER_ROOT/vol_data/data:/data
--
x
data	/data"
  is "$(text "$long_one" labels)" "a=$long"
  is "$(head -1 "$BOCKER_ROOT/$long_one/words")" "--env=A=$long"
  is "$(text "$(bocker-store id after)" name)" after
  is "$(all_of "$BOCKER_ROOT/vol_data/data")" "$(all_of "$BOCKER_ROOT/$img/rootfs/srv/real")"
  umount "$BOCKER_ROOT"
}

# What is committed is an image: its labels are in the configuration, and nothing else of the container is.
test_commit_keeps_the_labels_and_nothing_else() {
  store
  config '.config.Labels = {"a": "image", "b": "image"} | .config.Env = ["X=1"]'
  ps=$(bocker-store snapshot --name web --label a=mine --label c= --limit m=1 --word=--tty --volume data:/data --auto-remove base -- x)
  # A rename that a crash cut short.
  echo half > "$BOCKER_ROOT/$ps/.new_name"
  new=$(bocker-store commit web other:1)
  is "$(cd "$BOCKER_ROOT/$new" && ls -A | xargs)" "config named rootfs source"
  is "$(jq -c '[.config.Labels, .config.Env]' "$BOCKER_ROOT/$new/config")" '[{"a":"mine","b":"image","c":""},["X=1"]]'
  bocker-store commit web other:1 >/dev/null
  is "$(cd "$BOCKER_ROOT/$(bocker-store id other:1)" && ls -A | xargs)" "config named rootfs source"
  bocker-store commit "$ps" "$img"
  is "$(cd "$BOCKER_ROOT/$img" && ls -A | xargs)" "config named rootfs source"
  is "$(jq -c .config.Labels "$BOCKER_ROOT/$img/config")" '{"a":"mine","b":"image","c":""}'
  is "$(bocker-store gc)" "$ps/.new_name"
  # Without labels the configuration is the same to the byte.
  plain=$(bocker-store snapshot base -- x)
  cmp "$BOCKER_ROOT/$(bocker-store commit "$plain" third)/config" "$BOCKER_ROOT/$img/config"
  is "$(bocker-store fsck)" ""
}

test_what_is_printed_does_the_same() {
  store
  config '.config.Volumes = {"/data": {}}'
  words=(--name web --label 'a=it is' --limit m=1 --word=--env=$'A=$x\ny' --volume vol:/opt:ro --auto-remove)
  before=$(census)
  bocker-store snapshot --dry-run "${words[@]}" base -- x > script
  is "$(census)" "$before"
  files() { (cd "$BOCKER_ROOT/$1" && for file in name labels limits words volumes life cmd; do echo "$file"; cat "$file"; done) | sed -E '/^--hostname=/d; s/[0-9a-f]{64}/HEX/g'; }
  one=$(sh -e script)
  said=$(files "$one") volume=$(awk '$2 == "/data" { print $1 }' "$BOCKER_ROOT/$one/volumes")
  is "$(bocker-store id web) $(all_of "$BOCKER_ROOT/vol_$volume/data")" "$one $(all_of "$BOCKER_ROOT/$img/rootfs/srv/real")"
  bocker-store rename --dry-run web other > script && is "$(bocker-store id web)" "$one" && sh -e script
  is "$(bocker-store id other)$(bocker-store fsck)" "$one"
  bocker-store rename other web
  bocker-store rm --auto --dry-run web > script && is "$(bocker-store id web)" "$one" && sh -e script
  is "$(volumes)" vol
  two=$(bocker-store snapshot "${words[@]}" base -- x)
  is "$(files "$two")" "$said"
  # Over a name that somebody has, the words fail, too.
  bocker-store rm web && bocker-store snapshot --dry-run "${words[@]}" base -- x > script
  bocker-store snapshot --name web base -- y >/dev/null
  with=$(bocker-store id web)
  sh -e script >/dev/null 2>&1 && fail "two of one name"
  is "$(bocker-store id web)" "$with"
}

# What a crash left of filling a volume: half a copy goes, a whole one moves on, and what is there stays.
test_a_volume_that_was_being_filled() {
  store
  for way in gc snapshot; do
    bocker-store volume create "by-$way" >/dev/null
    at=$BOCKER_ROOT/vol_by-$way
    mkdir -p "$at/.filling/half/of" "$at/.filled/sub" && echo half > "$at/.filling/half/of/it" && echo whole > "$at/.filled/sub/file"
    echo ours > "$at/.filled/mine" && echo theirs > "$at/data/mine" && chown 7:9 "$at/.filled" && chmod 2770 "$at/.filled"
    is "$(bocker-store fsck | cut -f 1 | xargs)" "vol_by-$way/.filled vol_by-$way/.filling"
    case $way in
      gc)
        bocker-store gc --dry-run > script
        is "$(bocker-store gc)" "vol_by-gc/.filling
vol_by-gc/.filled"
        ;;
      snapshot) bocker-store snapshot --volume by-snapshot:/data base >/dev/null ;;
    esac
    is "$(cd "$at" && find . | sort | xargs) $(cat "$at/data/mine" "$at/data/sub/file" | xargs) $(stat -c '%a %u:%g' "$at/data")" \
      ". ./data ./data/mine ./data/sub ./data/sub/file theirs whole 2770 7:9" "$way"
    is "$(bocker-store fsck)$(bocker-store gc)" "" "$way"
  done
  # The words do the same.
  rm -r "${at:?}/data/sub" && mkdir -p "$BOCKER_ROOT/vol_by-gc/.filled" "$BOCKER_ROOT/vol_by-gc/.filling/x" && echo new > "$BOCKER_ROOT/vol_by-gc/.filled/new"
  sh -e script
  is "$(cd "$BOCKER_ROOT/vol_by-gc" && find . | sort | xargs) $(cat "$BOCKER_ROOT/vol_by-gc/data/mine")" \
    ". ./data ./data/mine ./data/new ./data/sub ./data/sub/file theirs"
}
