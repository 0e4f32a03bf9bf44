# Servers that people run, published by whole runs of bocker, and their own clients: from this host, from a neighbour on the wire and
# from another container; and many runs at once for what only one can have (check 40).
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh

# A host that is set up, with the programs of scripts/programs-image.
image() {
  [ -e "$TEST_IMAGES/programs/programs" ] || fail "no image (scripts/programs-image $TEST_IMAGES/programs makes it)"
  bocker setup 2>/dev/null
  bocker import - programs <"$TEST_IMAGES/programs/root.tar" >/dev/null
}
# d NAME WORDS...: in the background
d() { bocker run -d --name "$@" >/dev/null; }
quietly() { "$@" >/dev/null 2>&1; }
# A neighbour, which knows a way to the containers' own addresses; $host is our address there.
neighbour() {
  host=192.0.2.1
  ip netns add next && ip link add wire type veth peer name eth0 netns next
  ip addr add $host/24 dev wire && ip link set wire up
  ip -n next addr add 192.0.2.2/24 dev eth0 && ip -n next link set eth0 up && ip -n next link set lo up
  ip -n next route add 10.0.0.0/8 via $host
}
no_neighbour() { ip link del wire && ip netns del next; }

# Where a client runs, before its own words.
here() { "$@"; }
next() { ip netns exec next "$@"; }
inside() { bocker exec client "$@"; }

# asks HTTP-ADDRESS REDIS-ADDRESS WHERE: both answer, many times
asks() {
  is "$("$3" python3 -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode().strip())' "http://$1/")" \
    'hello from nginx' "http://$1/ from $3"
  # Each of 300 has its answer, or it would not end with a rate.
  "$3" timeout 20 redis-benchmark -h "${2%:*}" -p "${2#*:}" -n 300 -c 10 -d 2000 -q -t set,get >out 2>err || fail "redis-benchmark from $3: $(cat out err)"
  is "$(tr '\r' '\n' <out | grep -cE '^(SET|GET): [0-9.]+ requests per second')" 2 "redis at $2 from $3: $(cat out err)"
}

test_nginx_and_redis_from_everywhere() {
  image
  neighbour
  local before at port
  before=$(census)
  bocker network create back >/dev/null
  echo 'hello from nginx' >index.html
  d web --network back -p 8080:80 -v "$PWD/index.html:/var/www/html/index.html:ro" programs \
    sh -c 'ln -sf /dev/stdout /var/log/nginx/access.log; exec nginx -g "daemon off;"'
  d red --network back --network-alias cache -p 6379:6379 programs redis-server --bind 0.0.0.0 --protected-mode no --save ''
  d client --network back programs sleep 100
  eventually 10 quietly curl -fsS -m 2 http://127.0.0.1:8080/
  eventually 10 quietly redis-cli -h 127.0.0.1 ping
  # The host's own client, as well as one that is the same everywhere.
  is "$(curl -fsS -m 5 http://127.0.0.1:8080/) $(next curl -fsS -m 5 "http://$host:8080/")" 'hello from nginx hello from nginx'
  asks 127.0.0.1:8080 127.0.0.1:6379 here
  asks "$host:8080" "$host:6379" here
  asks "$host:8080" "$host:6379" next
  asks "$host:8080" "$host:6379" inside
  asks web:80 cache:6379 inside
  # One database, whoever asks; and nginx knows who the neighbour is.
  redis-cli -h 127.0.0.1 set from here >/dev/null
  is "$(next redis-cli -h "$host" get from) $(inside redis-cli -h red get from)" 'here here'
  served() { bocker logs web 2>/dev/null | grep -q '^192\.0\.2\.2 .*"GET / '; }
  eventually 10 served
  # By a link, from a network where names are nobody's.
  bocker run --rm --link red:store --network back programs redis-cli -h store get from >out
  is "$(cat out)" here
  # What is not published is this host's and its network's only: the container's own address, and a port beside it.
  at=$(bocker-net address "$(bocker-store id red)")
  is "$(redis-cli -h "$at" ping)" PONG "the control: from this host"
  ! quietly next timeout 2 redis-cli -h "$at" ping || fail "the neighbour reaches $at:6379"
  ! quietly next curl -fsS -m 2 "http://$host:80/" || fail "port 80 is published"
  # A server that goes takes its ports along, and another can have them at once.
  bocker rm -f red web client >/dev/null
  for port in 8080 6379; do
    ! quietly next bash -c "</dev/tcp/$host/$port" || fail "$port is still open"
    python3 -c 'import socket, sys; socket.create_server(("", int(sys.argv[1])))' "$port" || fail "$port is not free"
  done
  bocker network rm back >/dev/null
  ends_as "$before"
  no_neighbour
}

# speed WHERE ADDRESS PORT: 100 MB each way by TCP and 2 MB by UDP. What is on its way at the end iperf3 does not wait for: half of it must
# have arrived.
speed() {
  local way
  # It serves one at a time, and takes a moment to see that the last one is done.
  iperf() {
    local status
    for _ in $(seq 50); do
      status=0
      "$@" >out 2>&1 || status=$?
      jq -e '.error // "" | contains("server is busy")' out >/dev/null 2>&1 || return "$status"
      sleep 0.1
    done
    return 1
  }
  for way in '' -R; do
    # shellcheck disable=SC2086 # none, or one
    iperf "$1" timeout 20 iperf3 -c "$2" -p "$3" -n 100M -J $way || fail "iperf3 $way from $1 to $2: $(cat out)"
    is "$(jq '.end.sum_received.bytes >= 50000000' out)" true "iperf3 $way from $1 to $2: $(jq -c '[.error, .end.sum_sent.bytes, .end.sum_received.bytes, .end.sum_received.seconds]' out)"
  done
  # 1400 bytes a datagram; the kernel may drop some where the machine is busy, and all that it has no room for where the server stands still.
  for _ in 1 2 3; do
    iperf "$1" timeout 20 iperf3 -c "$2" -p "$3" -u -b 40M -l 1400 -n 2M -J || fail "iperf3 -u from $1 to $2: $(cat out)"
    ! jq -e '.end.sum.lost_percent < 20' out >/dev/null || break
  done
  is "$(jq '.end.sum.packets > 1400 and .end.sum.lost_percent < 20' out)" true "iperf3 -u from $1 to $2: $(jq -c .end.sum out)"
}

test_iperf3_from_everywhere() {
  image
  neighbour
  before=$(census)
  # Twice: once for all, and once for this host alone.
  d perf -p 5201:5201 -p 5201:5201/udp -p 127.0.0.1:5300:5201 -p 127.0.0.1:5300:5201/udp programs iperf3 -s
  d client --link perf:fast programs sleep 100
  eventually 10 quietly timeout 5 iperf3 -c 127.0.0.1 -n 1K
  speed here 127.0.0.1 5201
  speed here "$host" 5201
  speed here 127.0.0.1 5300
  speed next "$host" 5201
  speed inside fast 5201
  speed inside "$host" 5201
  ! quietly next timeout 5 iperf3 -c "$host" -p 5300 -n 1M || fail "what is 127.0.0.1's is the neighbour's"
  bocker rm -f perf client >/dev/null
  ! quietly timeout 5 iperf3 -c "$host" -p 5201 -n 1M || fail "it goes on"
  ends_as "$before"
  no_neighbour
}

test_dnsmasq_from_everywhere() {
  image
  neighbour
  before=$(census)
  # The A record of answer.example as the server at ADDRESS PORT tells it (RFC 1035), and no more than ten SECONDS.
  cat >ask.py <<'P'
import os, socket, sys
query = os.urandom(2) + bytes.fromhex("01000001000000000000") + b"\x06answer\x07example\x00" + bytes.fromhex("00010001")
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(float((sys.argv[3:] + ["10"])[0]))
s.connect((sys.argv[1], int(sys.argv[2])))
s.send(query)
answer = s.recv(512)
assert answer[:2] == query[:2] and answer[7] == 1, answer
# One write: many of us share a file below, and print() makes two where PYTHONUNBUFFERED is set.
os.write(1, f"{socket.inet_ntoa(answer[-4:])}\n".encode())
P
  d dns -p 5353:53/udp programs dnsmasq -k -u root --no-resolv --no-hosts --host-record=answer.example,192.0.2.77
  d client --link dns:ns -v "$PWD/ask.py:/ask.py:ro" programs sleep 100
  eventually 15 quietly python3 ask.py 127.0.0.1 5353 2
  is "$(for at in 127.0.0.1 "$host" 10.0.0.1; do python3 ask.py "$at" 5353; done | xargs)" '192.0.2.77 192.0.2.77 192.0.2.77' "from this host"
  is "$(next python3 ask.py "$host" 5353)" 192.0.2.77 "from a neighbour"
  is "$(inside python3 /ask.py "$host" 5353) $(inside python3 /ask.py ns 53)" '192.0.2.77 192.0.2.77' "from another container"
  # Many that ask at once, each by a port of its own.
  for _ in $(seq 10); do next python3 ask.py "$host" 5353 & python3 ask.py 127.0.0.1 5353 & done >answers
  wait
  is "$(sort answers | uniq -c | xargs)" '20 192.0.2.77'
  # Its TCP is not published, nor its own address for a neighbour.
  ! quietly next timeout 2 bash -c "</dev/tcp/$host/5353" || fail "TCP too"
  at=$(bocker-net address "$(bocker-store id dns)")
  is "$(python3 ask.py "$at" 53)" 192.0.2.77
  ! quietly next python3 ask.py "$at" 53 2 || fail "the neighbour reaches $at"
  bocker rm -f dns client >/dev/null
  ! quietly next python3 ask.py "$host" 5353 2 || fail "it goes on"
  python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(("", 5353))'
  ends_as "$before"
  no_neighbour
}

# at_once N WORDS...: N times at once; out.N, err.N and status.N of each
at_once() {
  local n jobs=()
  for ((n = 1; n <= $1; n++)); do
    (status=0; "${@:2}" </dev/null >"out.$n" 2>"err.$n" || status=$?; echo "$status" >"status.$n") &
    jobs+=($!)
  done
  wait "${jobs[@]}"
}
# How many of each status, and no more than a line of an error each.
statuses() { cat status.* | sort -n | uniq -c | xargs; }
small() {
  bocker setup 2>/dev/null
  a_tree tree
  img=$(bocker init "$PWD/tree" | sed -n 's/^Created: //p')
}
# one_of N PATTERN: one had it, each other has one line that matches
one_of() {
  is "$(statuses)" "1 0 $(($1 - 1)) 125" "$(cat err.*)"
  for n in $(grep -lx 125 status.* | sed 's/.*\.//'); do
    is "$(wc -l <"err.$n") $(wc -c <"out.$n")" '1 0' "$(cat "err.$n")"
    like "$(cat "err.$n")" "$2"
  done
}

test_many_at_once_for_one_port() {
  small
  before=$(census)
  at_once 20 bocker run -d -p 8080:80 "$img" sleep 100
  one_of 20 '^bocker-net: .*8080'
  winner=$(cat out.*)
  is "$(bocker ps -aq)" "$winner" "nothing is left of the others"
  is "$(bocker port "$winner")" '80/tcp -> 0.0.0.0:8080'
  bocker rm -f "$winner" >/dev/null
  ends_as "$before"
}

# Whoever ran it, who removes it, who stops it and who cleans up, all at the same time: each is done soon, and none has more to say
# than that it is gone.
test_taken_down_by_many_at_once() {
  small
  before=$(census)
  local round jobs job
  for round in $(seq 12); do
    bocker run -d --rm --name it -p 8080:80 "$img" sleep 100 >/dev/null
    bocker-exec --kill "$(bocker-store path -- it)/status"
    jobs=()
    for job in 'rm -f it' 'stop it' gc 'rm -f it' gc; do
      # shellcheck disable=SC2086 # words
      timeout -k 1 20 bocker $job >"out.${#jobs[@]}" 2>"err.${#jobs[@]}" </dev/null &
      jobs+=($!)
    done
    for job in "${!jobs[@]}"; do
      status=0
      wait "${jobs[job]}" || status=$?
      case $status in
        0) is "$(cat "err.$job")" '' ;;
        1) like "$(cat "err.$job")" "^bocker-store: No container named '(it|ps_[0-9]+)' exists$"
           is "$(wc -l <"err.$job")" 1 "$(cat "err.$job")" ;;
        *) fail "round $round, job $job: status $status: $(cat "err.$job")" ;;
      esac
    done
    eventually 10 quietly python3 -c 'import socket; s = socket.socket(); s.bind(("", 8080)); s.listen()'
    # It may be its supervisor that removes it.
    eventually 10 eval '[ -z "$(bocker ps -aq)" ]'
  done
  # The same of a network alone.
  for round in $(seq 20); do
    bocker-net up ps_42101 publish=8080:80 >/dev/null
    jobs=()
    for job in 1 2 3; do timeout -k 1 20 bocker-net down ps_42101 & jobs+=($!); done
    for job in "${jobs[@]}"; do wait "$job" || fail "round $round: down: status $?"; done
  done
  ends_as "$before"
}

test_many_at_once_for_one_name() {
  small
  before=$(census)
  at_once 20 bocker run -d --name same "$img" sleep 100
  one_of 20 "^bocker(-store)?: .*same"
  is "$(bocker ps -aq)" "$(cat out.*)" "nothing is left of the others"
  bocker rm -f same >/dev/null
  ends_as "$before"
}

test_many_at_once_on_one_network() {
  small
  before=$(census)
  at_once 10 bocker network create back
  is "$(statuses)" '1 0 9 1' "$(cat err.*)"
  is "$(cat err.* | grep -c '^bocker-net: .*back')" 9 "one line each: $(cat err.*)"
  is "$(bocker network ls -q | grep -cx back)" 1
  at_once 20 bocker run -d --network back "$img" sleep 100
  is "$(statuses)" '20 0' "$(cat err.*)"
  # Each has an address of its own, and knows all.
  cat out.* | while read -r ps; do echo "$(bocker-net address "$ps") $ps"; done | sort >all
  is "$(cut -d ' ' -f 1 all | sort -u | wc -l)" 20 "$(cat all)"
  while read -r address ps; do
    is "$(bocker exec "$ps" ip -o -4 addr show dev eth0 | awk '{ sub("/.*", "", $4); print $4 }')" "$address"
    is "$(bocker exec "$ps" awk '/ps_/ { print $1, $2 }' /etc/hosts | sort -u)" "$(cat all)" "what $ps knows"
  done <all
  # They go as they came.
  # shellcheck disable=SC2046 # words
  printf '%s\n' $(cat out.*) | xargs -P 20 -n 1 bocker rm -f >/dev/null
  bocker network rm back >/dev/null
  ends_as "$before"
}
