# The list of containers (bocker-store ps).
# shellcheck shell=bash disable=SC2154,SC2016 # repo: tests/lib.sh; words for another shell

# Containers a, b and c in the order of their making: a has exited with 3, b runs, c never ran.
containers() {
  bocker-store init --size 512M
  mkdir -p tree/bin
  img=$(bocker-store import --source mine:1 tree)
  jq -c '.config += {"Labels":{"tier":"web","x":"image"},"ExposedPorts":{"80/tcp":{},"443/tcp":{}}}' "$BOCKER_ROOT/$img/config" > config
  cat config > "$BOCKER_ROOT/$img/config"
  a=$(bocker-store snapshot "$img" -- sh -c 'echo "a long command"'); sleep 0.01
  b=$(bocker-store snapshot "$img" -- sleep 1000); sleep 0.01
  c=$(bocker-store snapshot "$img" -- true)
  echo 'exited 3' > "$BOCKER_ROOT/$a/status"
  echo web > "$BOCKER_ROOT/$a/name"
  printf 'x=own\nnote=a=b\n' > "$BOCKER_ROOT/$a/labels"
  printf 'db\t/var/db\n' > "$BOCKER_ROOT/$b/volumes"
  printf -- '--env=A=1\n--volume=%s/vol_db/data:/var/db\n--volume=/etc:/host:ro\n--\nsleep\n' "$BOCKER_ROOT" > "$BOCKER_ROOT/$b/words"
  runs "$b"
}

# by_id WORD...: the words in the order of `ps`
by_id() { printf '%s\n' "$@" | sort; }
ps() { bocker-store ps "$@"; }

test_ps_is_the_originals_and_more() {
  containers
  is "$(ps)" "CONTAINER_ID		COMMAND
$(by_id "$a		sh -c echo \"a long command\"" "$b		sleep 1000" "$c		true")"
  is "$(ps -a)" "$(ps)"
  is "$(ps -q)" "$(by_id "$a" "$b" "$c")"
  is "$(ps -aq -n 2)" "$c
$b"
  is "$(ps -lq)" "$c"
  is "$(ps -n 1)" "CONTAINER_ID		COMMAND
$c		true"
  is "$(ps --json | jq -c "select(.id == \"$a\") | [.name, .image, .state, .running, .exit, .pid, .labels, .mounts]")" \
    "[\"web\",\"$img\",\"exited\",false,3,null,{\"note\":\"a=b\",\"tier\":\"web\",\"x\":\"own\"},[]]"
  is "$(ps --json | jq -c "select(.id == \"$b\") | [.name, .state, .running, .exit, .pid, .mounts]")" \
    "[\"$b\",\"running\",true,null,$(cut -d' ' -f 2 "$BOCKER_ROOT/$b/status"),[{\"destination\":\"/var/db\",\"readonly\":false,\"source\":\"db\",\"type\":\"volume\"},{\"destination\":\"/host\",\"readonly\":true,\"source\":\"/etc\",\"type\":\"bind\"}]]"
  is "$(ps --json | jq -c "select(.id == \"$c\") | [.command, .state, .status]")" '["true","created","Created"]'
  local made
  made=$(date -d "$(ps --json | jq -r "select(.id == \"$a\").created")" +%s)
  [ $(($(date +%s) - made)) -lt 60 ] || fail "made $made"
  stops
  # What the file says is not what counts: nobody holds the lock.
  is "$(ps --json | jq -c "select(.id == \"$b\") | [.state, .running, .pid, .exit, .status]")" '["exited",false,null,null,"Exited (unknown)"]'
}

test_ps_in_dockers_forms() {
  containers
  touch -d '3 hours ago' "$BOCKER_ROOT/$a/status" && touch -d '150 seconds ago' "$BOCKER_ROOT/$b/status"
  of() { ps --filter "id=$1" --format "$2"; }
  is "$(of "$a" '{{.Names}} {{.State}} {{.Status}}')" "web exited Exited (3) 3 hours ago"
  is "$(of "$b" '{{.Names}} {{.State}} {{.Status}}')" "$b running Up 2 minutes"
  is "$(of "$c" '{{.ID}}\t{{ .Image }}\t{{.Status}}')" "$c	mine:1	Created"
  is "$(of "$a" '{{.Command}}')" '"sh -c echo \"a long …"'
  is "$(ps --no-trunc --filter "id=$a" --format '{{.Command}}')" '"sh -c echo \"a long command\""'
  is "$(of "$b" '{{.Mounts}}|{{.Ports}}')" "db,/etc|443/tcp, 80/tcp"
  is "$(of "$a" '{{.Labels}}|{{.Label "note"}}|{{.Label "none"}}|{{.Ports}}|{{.Networks}}')" "note=a=b,tier=web,x=own|a=b|||"
  mkdir -p /run/netns && : > "/run/netns/netns_$b"
  is "$(of "$b" '{{.Networks}}')" bridge
  like "$(of "$b" '{{.CreatedAt}}|{{.RunningFor}}')" '^20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9:]{8} \+0000 UTC\|(Less than a second|[0-9]+ seconds?) ago$'
  head -c 2000000 /dev/urandom > "$BOCKER_ROOT/$b/rootfs/own"
  like "$(of "$b" '{{.Size}}')" '^2(\.[0-9]+)?MB \(virtual 2(\.[0-9]+)?MB\)$'
  is "$(ps -l --format json | jq -c '[.ID, .Names, .State, .Status, .Command, .Image]')" "[\"$c\",\"$c\",\"created\",\"Created\",\"\\\"true\\\"\",\"mine:1\"]"
  is "$(ps -l --format '{{json .Names}}{{json .}}' | sed 's/{.*//')" "\"$c\""
  like "$(ps -l --format table | head -1)" '^CONTAINER ID   IMAGE     COMMAND   CREATED +STATUS    PORTS     NAMES$'
  like "$(ps -l --format table | tail -1)" "^$c       mine:1    \"true\"    [a-zA-Z0-9 ]+ ago   Created             $c\$"
  is "$(ps -n 2 --format 'table {{.ID}}\t{{.Names}}\t{{.Label "com.example.tier"}}')" "CONTAINER ID   NAMES      tier
$c       $c   
$b       $b   "
  is "$(ps -lq --format table)" "$c"
  for template in '{{' '{{.Nosuch}}' '{{.ID}' 'table {{.X}}' '{{if .ID}}x{{end}}' '{{.Label}}' '{{range .}}{{end}}'; do
    fails 64 "^bocker-store: bad template '" bocker-store ps --format "$template"
  done
  fails 2 "cannot be used with" bocker-store ps --json --format json
  stops
}

test_ps_filters() {
  containers
  d=$(bocker-store snapshot "$img" -- x) && echo 'exited 0' > "$BOCKER_ROOT/$d/status" && echo web2 > "$BOCKER_ROOT/$d/name"
  bocker-store tag "$img" mine:2
  mkdir other && other=$(bocker-store import other) e=$(bocker-store snapshot "$other" -- x)
  found() { local words=() word; for word in "$@"; do words+=(--filter "$word"); done; ps -q "${words[@]}" | sort | xargs; }
  are() { is "$(found "${@:2}")" "$(by_id $1 | xargs)" "${*:2}"; }
  # shellcheck disable=SC2086 # words
  for line in "$a|id=$a" "|id=ps_1" "$a $d|name=web" "$a|name=^/web$" "$d|name=web2" "$a $d|name=^web" "$b|name=$b" \
    "$a $b $c $d|label=tier=web" "$a|label=note" "$a|label=x=own" "$b $c $d|label=x=image" "$a|label=tier=web label=note=a=b" "|label=note label=nosuch" \
    "$a|exited=3" "$d|exited=0" "$a $d|exited=3 exited=0" "|exited=1" "$c $e|status=created" "$b|status=running" "$a $d|status=exited" \
    "$a $b $d|status=exited status=running" "|status=paused" "|status=dead" "$a $b $c $d|ancestor=$img" "$e|ancestor=$other" "$a $b $c $d|ancestor=mine:2" \
    "|ancestor=nosuch" "$b|volume=db" "$b|volume=/var/db" "$b|volume=/etc" "|volume=/var" "$a $b|before=$c" "$d $e|since=$c" "$c|since=$b before=$d" \
    "$a|status=exited name=web exited=3"; do
    are "${line%%|*}" ${line#*|}
  done
  # What is made of an image's layers comes from it.
  printf 'sha256:%064d\n' 1 > "$BOCKER_ROOT/$other/layers"
  printf 'sha256:%064d\nsha256:%064d\n' 1 2 > "$BOCKER_ROOT/$a/layers"
  are "$a $e" "ancestor=$other"
  fails 2 "there is no such key" bocker-store ps --filter color=red
  for word in x status=up exited=x name='a.*b'; do fails 2 "'$word'|wanted|part of a name" bocker-store ps --filter "$word"; done
  fails 1 "^bocker-store: No container named 'ps_42001' exists$" bocker-store ps --filter since=ps_42001
  stops
}

# Paused is what the kernel's freezer says.
test_ps_knows_what_is_frozen() {
  containers
  state() { ps --json "$@" | jq -r "select(.id == \"$b\") | .state + \" \" + .status" | sed -E 's/Up .*second/Up a second/; s/seconds/second/'; }
  like "$(state)" '^running Up a second$'
  mkdir -p "v1/freezer/$b" "v2/$b"
  echo THAWED > "v1/freezer/$b/freezer.state"; printf 'populated 1\nfrozen 0\n' > "v2/$b/cgroup.events"
  like "$(state --cgroups v1)|$(state --cgroups v2)" '^running Up a second\|running Up a second$'
  echo FROZEN > "v1/freezer/$b/freezer.state"; printf 'populated 1\nfrozen 1\n' > "v2/$b/cgroup.events"
  like "$(state --cgroups v1)|$(state --cgroups v2)" '^paused Up a second \(Paused\)\|paused Up a second \(Paused\)$'
  is "$(ps --cgroups v1 -q --filter status=paused)" "$b"
  # And the kernel's own.
  if [ -d /sys/fs/cgroup/freezer ]; then
    mkdir "/sys/fs/cgroup/freezer/$b" && echo FROZEN > "/sys/fs/cgroup/freezer/$b/freezer.state"
    like "$(state)" '^paused '
    rmdir "/sys/fs/cgroup/freezer/$b"
  fi
  stops
  like "$(state --cgroups v1)" '^exited ' "the lock comes first"
}

# Check 32: names, labels and commands are not ours to trust; checks 29: no link is followed.
test_ps_shows_no_control_characters() {
  containers
  for file in name cmd labels words volumes; do printf 'k=\033[2J\302\233\177x\n' > "$BOCKER_ROOT/$c/$file"; done
  for words in "" "--format {{.Names}}{{.Command}}{{.Labels}}{{.Mounts}}" "--format table" "--no-trunc --format {{.Labels}}"; do
    # shellcheck disable=SC2086 # words
    unlike "$(ps $words | sed 's/…//g' | cat -v)" '\^|M-'
  done
  for file in name cmd labels words volumes config status; do rm -f "$BOCKER_ROOT/$c/$file" && ln -s /etc/passwd "$BOCKER_ROOT/$c/$file"; done
  unlike "$(ps; ps -l --format '{{.Names}}{{.Command}}{{.Labels}}{{.Mounts}}' 2>&1)" 'root:'
  fails 1 "^bocker-store: look at .*/$c/status: Too many symbolic links encountered$" bocker-store ps --json
  rm "$BOCKER_ROOT/$c/status" "$BOCKER_ROOT/$c/cmd" && mkfifo "$BOCKER_ROOT/$c/cmd"
  is "$(timeout 5 bocker-store ps --json | jq -r "select(.id == \"$c\") | .state + .command")" created
  stops
}

# 250 containers: few calls for each, and only for what is shown.
test_ps_of_250_containers() {
  bocker-store init --size 512M
  local id
  for id in $(seq 42003 42252); do
    mkdir "$BOCKER_ROOT/ps_$id"
    for file in cmd image status name; do echo "exited 0" > "$BOCKER_ROOT/ps_$id/$file"; done
  done
  # A debug build asks about each descriptor that it closes.
  calls() { strace -f -o calls bocker-store ps "$@" > out; grep -vc fcntl calls; }
  local base
  base=$(calls -q)
  is "$(wc -l < out)" 250
  [ "$base" -lt 300 ] || fail "ps -q: $base calls"
  [ $(($(calls) - base)) -le $((250 * 5 + 20)) ] || fail "ps: $(wc -l < calls) calls"
  [ $(($(calls --format '{{.ID}} {{.State}}') - base)) -le $((250 * 7 + 20)) ] || fail "ps --format: $(wc -l < calls) calls"
  is "$(wc -l < out)" 250
  [ "$(grep -c name calls)" -lt 20 ] || fail "names were not asked for"
}
