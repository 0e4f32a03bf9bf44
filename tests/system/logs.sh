# What a container has said (bocker-store logs).
# shellcheck shell=bash disable=SC2154,SC2016 # repo: tests/lib.sh; words for another shell

T=2020-02-29T14:06:0

# A container whose log can be written by hand; its id in $ps, its directory in $dir.
container() {
  bocker-store init --size 512M
  mkdir -p tree/bin
  img=$(bocker-store import tree) ps=$(bocker-store snapshot "$img" -- x) dir=$BOCKER_ROOT/$ps
}

# record SECOND STREAM F|P [TEXT]: one record of the CRI's format
record() { printf '%s%s.000000001Z %s %s %s\n' "$T" "$1" "$2" "$3" "${4-}"; }

has() { [ "$(cat "$1")" = "$2" ]; }
# follows PID: it has looked at what there is, and waits for more
follows() { grep -qs '^inotify' "/proc/$1/fdinfo/"* && grep -qs '^State:.S' "/proc/$1/status"; }

test_logs_go_where_they_came_from() {
  container
  is "$(bocker-store logs "$ps" 2>&1)" "" "nothing said yet"
  { record 1 stdout F one; record 2 stderr F oops; record 3 stdout P tw; record 4 stdout F o; record 5 stdout F three; } > "$dir/log"
  is "$(bocker-store logs "$ps" 2>err)" "$(printf 'one\ntwo\nthree')"
  is "$(cat err)" oops
  # To one place: in the order of the log.
  is "$(bocker-store logs "$ps" 2>&1)" "$(printf 'one\noops\ntwo\nthree')"
  is "$(bocker-store logs -t "$ps" 2>/dev/null)" "${T}1.000000001Z one
${T}3.000000001Z two
${T}5.000000001Z three"
  is "$(bocker-store logs --tail 2 "$ps" 2>/dev/null)" "$(printf 'two\nthree')"
  is "$(bocker-store logs -n 0 "$ps" 2>&1)" ""
  is "$(bocker-store logs -n all "$ps" 2>&1 | wc -l)" 4
  is "$(bocker-store logs --since "${T}3Z" "$ps" 2>&1)" "$(printf 'two\nthree')"
  is "$(bocker-store logs --until 2020-02-29T15:06:03+01:00 "$ps" 2>&1)" "$(printf 'one\noops')"
  is "$(bocker-store logs --since "$(date -d "${T}5Z" +%s)" "$ps" 2>&1)" three
  { cat "$dir/log"; echo "$(date -u +%FT%TZ) stdout F now"; } > log && mv log "$dir/log"
  is "$(bocker-store logs --since 1m "$ps" 2>&1)" now
  for words in "--tail x" --tail=-1 "--since yesterday" "--until 2020-02-29" "--since 10"m:; do
    # shellcheck disable=SC2086 # words
    fails 2 "^bocker-store: .*'--(tail|since|until)" bocker-store logs $words "$ps"
  done
  fails 1 "^bocker-store: No container named 'ps_42001' exists$" bocker-store logs ps_42001
  fails 1 "^bocker-store: No container named '$img' exists$" bocker-store logs "$img"
}

# An old log is no list of records, and is printed as it is.
test_logs_of_before() {
  container
  printf 'said\n\033[2Jraw\0\377\r\nno end' > "$dir/log"
  bocker-store logs "$ps" | cmp - "$dir/log"
  bocker-store logs -t --since 1h "$ps" | cmp - "$dir/log"
  is "$(bocker-store logs --tail 1 "$ps")" "no end"
  # Begun by an older bocker, gone on with by a newer one.
  { printf 'old\n'; record 1 stderr F new; } > "$dir/log"
  is "$(bocker-store logs "$ps" 2>err) $(cat err)" "old new"
}

test_logs_of_a_log_that_was_full() {
  container
  record 1 stdout F 1 > "$dir/log.2"; record 2 stdout F 2 > "$dir/log.1"; record 3 stdout F 3 > "$dir/log"
  record 0 stdout F lost > "$dir/log.9"
  is "$(bocker-store logs "$ps" | xargs)" "1 2 3"
  is "$(bocker-store logs --tail 2 "$ps" | xargs)" "2 3"
  is "$(bocker-store logs --tail 9 "$ps" | xargs)" "1 2 3"
  # A part at the end of one is gone on with in the next.
  record 2 stdout P half > "$dir/log.1"
  is "$(bocker-store logs "$ps" | xargs)" "1 half3"
  is "$(bocker-store logs -n 1 "$ps" | xargs)" "half3"
}

# Check 29 and 32: what is no plain file is not read, and a terminal is not steered.
test_logs_are_not_followed_and_do_not_steer() {
  container
  ln -s /etc/passwd "$dir/log"
  fails 1 "^bocker-store: '$ps' has no log " bocker-store logs "$ps"
  rm "$dir/log" && mkfifo "$dir/log"
  fails 1 "^bocker-store: '$ps' has no log " timeout 20 bocker-store logs "$ps"
  rm "$dir/log" && record 1 stdout F new > "$dir/log" && ln -s /etc/passwd "$dir/log.1"
  fails 1 "^bocker-store: '$ps' has no log.1 " bocker-store logs "$ps"
  rm "$dir/log.1"
  record 1 stdout F "$(printf 'a\033[2J\302\233b\tc\r')" > "$dir/log"
  record 2 stderr F "$(printf '\033]0;x\007')" >> "$dir/log"
  is "$(script -qec "bocker-store logs $ps" /dev/null | tr -d '\r')" 'a\u{1b}[2J\u{9b}b	c\r
\u{1b}]0;x\u{7}'
  is "$(bocker-store logs "$ps" 2>/dev/null | od -An -c | tr -s ' ')" ' a 033 [ 2 J 302 233 b \t c \r \n'
  # A character cut in two by two records is whole.
  { record 1 stdout P "$(printf '\303')"; record 1 stdout F "$(printf '\274')"; } > "$dir/log"
  is "$(script -qec "bocker-store logs $ps" /dev/null | tr -d '\r')" 'ü'
}

# Check 32: a line of 60 MB, and a log of 80 MB: a few MiB, and the end is found from the end.
test_logs_need_little_memory() {
  container
  most() { ( ulimit -v 40000; exec bocker-store logs "$@" ); }
  { printf '%s1Z stdout F ' "$T"; head -c 60000000 /dev/zero | tr '\0' x; echo; record 2 stdout F end; } > "$dir/log"
  is "$(most "$ps" | wc -c)" 60000005
  is "$(most --tail 1 "$ps")" end
  { head -c 20000000 /dev/zero | tr '\0' '\n'; } > "$dir/log"
  is "$(most --tail 1000000 "$ps" | wc -l)" 1000000
  # Seven reads would be half a megabyte: nobody reads from the begin.
  yes "$(record 1 stdout F text)" | head -n 2000000 > "$dir/log" || true
  strace -o calls -e trace=pread64 bocker-store logs --tail 5 "$ps" > out
  is "$(wc -l < out)" 5
  [ "$(grep -c '"' calls)" -lt 7 ] || fail "$(cat calls)"
}

test_logs_followed_until_the_end() {
  container
  # One that does not run: what is there, and no waiting.
  record 1 stdout F one > "$dir/log"
  is "$(timeout 20 bocker-store logs -f "$ps")" one
  runs "$ps"
  bocker-store logs -f "$ps" > out 2>err & local job=$!
  eventually 5 has out one
  record 2 stdout F two >> "$dir/log"
  eventually 5 has out "$(printf 'one\ntwo')"
  record 3 stderr F oops >> "$dir/log"
  eventually 5 has err oops
  # Full: the log becomes log.1, twice, and the second time before anybody looks.
  kill -STOP "$job"
  record 4 stdout F three >> "$dir/log"; mv "$dir/log" "$dir/log.1"
  record 5 stdout F four > "$dir/log"; mv "$dir/log.1" "$dir/log.2"; mv "$dir/log" "$dir/log.1"
  record 6 stdout F five > "$dir/log"
  kill -CONT "$job"
  eventually 5 has out "$(printf 'one\ntwo\nthree\nfour\nfive')"
  # A head that is not whole yet is no line of its own.
  printf '%s' "${T}7Z std" >> "$dir/log"; sleep 0.1; printf '%s\n' "out F six" >> "$dir/log"
  eventually 5 has out "$(printf 'one\ntwo\nthree\nfour\nfive\nsix')"
  # It sleeps meanwhile: no polling.
  local before after
  eventually 5 follows "$job"
  before=$(grep ctxt "/proc/$job/status"); sleep 0.5; after=$(grep ctxt "/proc/$job/status")
  is "$after" "$before" "switches while nothing came"
  kill -0 "$job" || fail "ended before the container"
  # What is said last is printed before it ends.
  kill -STOP "$job"
  record 8 stdout F last >> "$dir/log"; stops
  kill -CONT "$job"; wait "$job"
  is "$(tail -n 1 out)" last
}

test_logs_followed_from_nothing_and_from_the_tail() {
  container
  runs "$ps"
  bocker-store logs -f --tail 0 "$ps" > out & local job=$!
  eventually 5 follows "$job"
  record 1 stdout F first > "$dir/log"
  eventually 5 has out first
  record 2 stdout F second >> "$dir/log"
  is "$(timeout 20 bocker-store logs -f --until "${T}1Z" -n 1 "$ps")" "" "a time that has passed"
  is "$(timeout 20 bocker-store logs -f --until "$(date -u -d '+1 second' +%FT%TZ)" -n 1 "$ps")" second
  stops
  wait "$job"
  is "$(cat out)" "$(printf 'first\nsecond')"
}

# Whoever has read enough ends it, whether or not more is said.
test_logs_of_a_reader_that_goes() {
  container
  runs "$ps"
  record 1 stdout F one > "$dir/log"
  (set +o pipefail; timeout 60 bocker-store logs -f "$ps" 2>err | head -n 1 > out; echo "${PIPESTATUS[0]}" > status)
  is "$(cat out err)" one
  [ "$(cat status)" != 124 ] || fail "it went on without a reader"
  stops
  yes "$(record 1 stdout F text)" | head -n 100000 > "$dir/log" || true
  (set +o pipefail; bocker-store logs "$ps" 2>err | head -n 1 >/dev/null)
  is "$(cat err)" ""
}
