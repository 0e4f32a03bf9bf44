# inspect and history.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh

# An image with one of everything in its configuration; its id in $img.
described() {
  bocker-store init --size 512M
  mkdir -p tree/bin && echo hello > tree/bin/hello
  img=$(bocker-store import --source mine:1 tree)
  cat > "$BOCKER_ROOT/$img/config" <<'JSON'
{"architecture":"amd64","os":"linux","created":"2020-01-02T03:04:05Z","config":{"Entrypoint":["/bin/sh","-c"],"Cmd":["a b","c\u001b[2J\nd"],
"Env":["A=1","B=two words"],"WorkingDir":"/srv","User":"1000:7","Labels":{"k":"v"},"ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGINT"},
"history":[{"created":"2020-01-01T00:00:00Z","created_by":"ADD rootfs\tin /"},{"created_by":"ENV A=1","empty_layer":true},{"created_by":"RUN x","comment":"why"}],
"rootfs":{"type":"layers","diff_ids":[]}}
JSON
  printf 'sha256:%064d\nsha256:%064d\n' 1 2 > "$BOCKER_ROOT/$img/layers"
}

test_inspect_says_what_is_known() {
  described
  bocker-store tag mine:1 localhost/other
  is "$(bocker-store inspect mine:1)" "id	$img
name	mine:1
name	localhost/other:latest
source	mine:1
path	$BOCKER_ROOT/$img
layer	sha256:$(printf %064d 1)
layer	sha256:$(printf %064d 2)
entrypoint	/bin/sh
entrypoint	-c
cmd	a b
cmd	c\\u{1b}[2J\\nd
env	A=1
env	B=two words
workdir	/srv
user	1000:7
stopsignal	SIGINT
port	80/tcp
label	k=v
os	linux
architecture	amd64
created	2020-01-02T03:04:05Z"
  is "$(bocker-store inspect --json "$img" | jq -c '[.id, .kind, .names, .source, .path, (.layers | length), .config.config.Cmd[1], .config.os]')" \
    "[\"$img\",\"image\",[\"mine:1\",\"localhost/other:latest\"],\"mine:1\",\"$BOCKER_ROOT/$img\",2,\"c\\u001b[2J\\nd\",\"linux\"]"
  ps=$(bocker-store snapshot "$img" -- sleep 'a b')
  is "$(bocker-store inspect "$ps" | grep -v ^word | head -5)" "id	$ps
image	$img
command	sleep a b
running	false
source	mine:1"
  echo 'exited 3' > "$BOCKER_ROOT/$ps/status"
  like "$(bocker-store inspect "$ps")" '^exit	3$'
  flock -x "$BOCKER_ROOT/$ps/status" sh -c 'echo "running $$" > "$0/status"; touch running; until [ -e stop ]; do sleep 0.02; done' "$BOCKER_ROOT/$ps" &
  eventually 5 test -e running
  is "$(bocker-store inspect "$ps" "$img" | grep -E '^(id|running|pid)')" "id	$ps
running	true
pid	$(cut -d' ' -f2 "$BOCKER_ROOT/$ps/status")
id	$img"
  is "$(bocker-store inspect --json "$ps" "$img" | jq -c '[.kind, .running, (.pid | type), .exit, .image, .command]')" \
    "[\"container\",true,\"number\",null,\"$img\",\"sleep a b\"]
[\"image\",null,\"null\",null,null,null]"
  touch stop; wait
  like "$(bocker-store inspect "$ps")" '^running	false$'
  unlike "$(bocker-store inspect "$ps")" '^(pid|exit)'
  # All or nothing.
  fails 1 "^bocker-store: No container named 'nosuch' exists$" bocker-store inspect "$img" nosuch
  fails 1 "^bocker-store: No container named 'nosuch' exists$" bocker inspect --json -- "$img" nosuch
  is "$(bocker inspect mine:1 "$ps")" "$(bocker-store inspect mine:1 "$ps")"
  is "$(bocker --dry-run inspect --json mine:1 | sh)" "$(bocker-store inspect --json mine:1)"
  # What cannot be read is not there.
  echo '{"config":' > "$BOCKER_ROOT/$img/config"
  is "$(bocker-store inspect mine:1 | wc -l)" 7
  is "$(bocker-store inspect --json mine:1 | jq -c .config)" '{}'
}

test_history_is_the_configurations() {
  described
  is "$(bocker-store history mine:1)" "sha256:$(printf %064d 2)	-	RUN x	why
-	-	ENV A=1	-
sha256:$(printf %064d 1)	2020-01-01T00:00:00Z	ADD rootfs\\tin /	-"
  is "$(bocker-store history --json mine:1 | jq -c '[.layer, .created_by]' | tail -1)" "[\"sha256:$(printf %064d 1)\",\"ADD rootfs\\tin /\"]"
  is "$(bocker history "$img")" "$(bocker-store history "$img")"
  is "$(bocker --dry-run history --json mine:1 | sh)" "$(bocker history --json mine:1)"
  ps=$(bocker-store snapshot mine:1 -- x)
  fails 1 "^bocker-store: No image named '$ps' exists$" bocker-store history "$ps"
  # Nobody told.
  is "$(bocker-store history "$(bocker-store import tree)")" ""
}

# Whatever is typed where an id or a name belongs touches nothing, and is one line.
test_what_is_no_id_is_refused_by_every_verb_that_looks() {
  described
  bocker-store volume create data >/dev/null
  before=$(census)
  for name in .. . / '' "$img/" "../bocker/$img" ps_42001 img_42150x "$img
" names layers vol_data data .new_x $'\377' 'mine:1 ' MINE:1 "mine:1@sha256:$(printf %064d 0)" "$(printf 'x%.0s' $(seq 10000))"; do
    for verb in inspect export history diff "inspect --json" "path" "untag"; do
      # shellcheck disable=SC2086 # words on purpose
      fails 1 "^bocker-store: No (container|image) named '.*' exists$" bocker-store $verb -- "$name"
    done
    fails 1 "^bocker-store: No image named '.*' exists$" bocker-store tag -- "$name" other
  done
  is "$(census)" "$before"
  # Positive control.
  is "$(bocker-store path mine:1)" "$BOCKER_ROOT/$img"
  [ "$(bocker-store export mine:1 | wc -c)" -gt 1000 ] || fail "nothing exported"
}
