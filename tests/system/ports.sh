# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh
# bocker-net: published ports, the firewall and the guard on the bridge. Sourced by tests/run.

# A neighbour, 192.0.2.2, with a route to the containers by this host, 192.0.2.1; and a host beyond, 198.51.100.2.
neighbours() {
  local name
  ip netns add lan
  ip netns add far
  for name in lan far; do
    ip link add "to_$name" type veth peer name eth0 netns "$name"
    ip link set "to_$name" up
    ip -n "$name" link set lo up
    ip -n "$name" link set eth0 up
  done
  ip address add 192.0.2.1/24 dev to_lan
  ip address add 192.0.2.9/24 dev to_lan
  ip -n lan address add 192.0.2.2/24 dev eth0
  ip -n lan route add default via 192.0.2.1
  ip address add 198.51.100.1/24 dev to_far
  ip -n far address add 198.51.100.2/24 dev eth0
  ip -n far route add default via 198.51.100.1
}

# serve NAMESPACE PORT: HTTP, which says the namespace's name
serve() {
  mkdir -p "www.$1"
  echo "$1" >"www.$1/who"
  ip netns exec "$1" busybox httpd -p "$2" -h "www.$1"
}

# who URL [NAMESPACE]: which server answers; `nobody` where none does
who() {
  local from=()
  [ -z "${2:-}" ] || from=(ip netns exec "$2")
  "${from[@]}" curl -sS --connect-timeout 4 -m 20 "http://$1/who" 2>/dev/null || echo nobody
}

# echo_udp NAMESPACE PORT: answers each datagram with what it holds, and who asked
echo_udp() {
  # What the one before said.
  rm -f "udp.$1"
  ip netns exec "$1" python3 -c '
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", int(sys.argv[1])))
print("listening", flush=True)
while True:
    data, client = s.recvfrom(65536)
    s.sendto(data, client)' "$2" >"udp.$1" &
  eventually 5 test -s "udp.$1"
}

# says ADDRESS PORT [NAMESPACE]: whether an echo comes from there, each of three datagrams by one socket
says() {
  local from=()
  [ -z "${3:-}" ] || from=(ip netns exec "$3")
  "${from[@]}" python3 -c '
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
try:
    s.connect((sys.argv[1], int(sys.argv[2])))
    for data in b"one", b"two", b"x" * 1400:
        s.send(data)
        if s.recv(65536) != data: sys.exit("another answer")
    print("echo")
except OSError:
    print("nobody")' "$1" "$2"
}

relay_of() { pgrep -xf "bocker-net relay $1"; }
no_relay() { ! pgrep -f '^bocker-net relay' >/dev/null; }
listening() { ss -Hltnu "sport = :$1" | wc -l; }
# end_servers: those of `serve`, which are nobody's children
end_servers() { pkill -x busybox; eventually 10 eval '! pgrep -x busybox >/dev/null'; }

test_ports_are_reached_from_everywhere() {
  neighbours
  bocker-net setup 2>/dev/null
  local before on from
  before=$(census)
  for on in 0 1; do
    echo "$on" >/proc/sys/net/bridge/bridge-nf-call-iptables
    is "$(bocker-net up ps_42045 publish=8080:80 publish=5353:53/udp publish=192.0.2.9:8081:80)" 10.0.0.45
    bocker-net up ps_42046 >/dev/null
    serve netns_ps_42045 80
    echo_udp netns_ps_42045 53
    is "$(bocker-net port ps_42045)" "$(printf '80/tcp -> 0.0.0.0:8080\n53/udp -> 0.0.0.0:5353\n80/tcp -> 192.0.2.9:8081')"
    for from in 127.0.0.1 127.0.0.9 192.0.2.1 10.0.0.1; do is "$(who $from:8080)" netns_ps_42045 "from this host by $from"; done
    is "$(who 192.0.2.1:8080 lan) $(who 192.0.2.9:8080 lan)" "netns_ps_42045 netns_ps_42045" "from a neighbour"
    is "$(who 192.0.2.1:8080 netns_ps_42046)" netns_ps_42045 "from another container, bridge-nf-call-iptables=$on"
    is "$(who 192.0.2.1:8080 netns_ps_42045)" netns_ps_42045 "from itself, bridge-nf-call-iptables=$on"
    is "$(who 10.0.0.1:8080 netns_ps_42045)" netns_ps_42045 "from itself by the gateway"
    for from in 127.0.0.1 192.0.2.1; do is "$(says $from 5353)" echo "UDP from this host by $from"; done
    is "$(says 192.0.2.1 5353 lan) $(says 192.0.2.1 5353 netns_ps_42046)" "echo echo" "UDP from a neighbour and a container"
    # Where it was published, and nowhere else.
    is "$(who 192.0.2.9:8081 lan) $(who 192.0.2.9:8081)" "netns_ps_42045 netns_ps_42045" "at its address"
    is "$(who 192.0.2.1:8081 lan) $(who 192.0.2.1:8081) $(who 127.0.0.1:8081)" "nobody nobody nobody" "at another"
    kill %%
    end_servers
    wait
    bocker-net down ps_42045
    bocker-net down ps_42046
    is "$(listening 8080) $(listening 5353)" "0 0" "down frees the ports at once"
    is "$(census)" "$before"
    rm -r www.netns_ps_42045
  done
}

test_ports_nothing_else_is_reached() {
  neighbours
  bocker-net up --setup ps_42045 publish=127.0.0.1:8080:80 publish=192.0.2.1:9090:80 >/dev/null 2>&1
  serve netns_ps_42045 80
  serve netns_ps_42045 81
  is "$(who 127.0.0.1:8080) $(who 192.0.2.1:9090 lan)" "netns_ps_42045 netns_ps_42045" "both are published"
  is "$(who 10.0.0.45:80 lan) $(who 10.0.0.45:81 lan) $(who 192.0.2.1:8080 lan) $(who 192.0.2.1:81 lan)" \
    "nobody nobody nobody nobody" "neither the container's own address, nor what is localhost's"
  is "$(who 10.0.0.45:81)" netns_ps_42045 "this host reaches its containers"
  # What leaves the bridge for the world comes back.
  serve far 8080
  is "$(who 198.51.100.2:8080 netns_ps_42045)" far
  # The worst that a neighbour can do: 127.0.0.1 is this host for it, and somebody has set route_localnet here.
  echo 1 >/proc/sys/net/ipv4/conf/to_lan/route_localnet
  ip -n lan address delete 127.0.0.1/8 dev lo
  ip -n lan route add 127.0.0.1 via 192.0.2.1 src 192.0.2.2
  ip netns exec lan sysctl -qw net.ipv4.conf.all.route_localnet=1
  is "$(who 127.0.0.1:8080 lan)" nobody "localhost's port by a neighbour"
  # That it is our rules that do all this:
  nft delete table ip bocker
  is "$(who 127.0.0.1:8080 lan) $(who 10.0.0.45:81 lan)" "netns_ps_42045 netns_ps_42045" "without the table: or this test proves nothing"
  bocker-net down ps_42045 2>err
  is "$(cat err)" "bocker-net: the rules of table ip bocker were gone: made again, with 1 published ports"
}

test_ports_leave_what_is_not_theirs() {
  neighbours
  serve far 8080
  nft -f - <<'EOF_RULES'
table ip bocker2 {
  chain forward {
    type filter hook forward priority 0; policy accept;
    counter
  }
  chain prerouting { type nat hook prerouting priority -90; policy accept; }
}
table inet filter {
  chain input {
    type filter hook input priority 0; policy accept;
    tcp dport 1 drop
  }
}
EOF_RULES
  foreign() { nft -s list table ip bocker2; nft list table inet filter; }
  local before
  before=$(foreign)
  bocker-net up --setup ps_42045 publish=8080:80 >/dev/null 2>&1
  serve netns_ps_42045 80
  is "$(who 192.0.2.1:8080 lan)" netns_ps_42045
  is "$(who 198.51.100.2:8080 lan) $(who 198.51.100.2:8080 netns_ps_42045) $(who 198.51.100.2:8080)" "far far far" \
    "what only passes through this host, or is another's, is not taken"
  is "$(cat /proc/sys/net/ipv4/conf/{all,default,bridge0,to_lan}/route_localnet | sort -u)" 0
  bocker-net down ps_42045
  bocker-net setup --undo
  is "$(foreign)" "$before" "foreign tables"
  is "$(nft list tables | grep -c bocker)" 1
}

test_ports_taken_is_said_before_anything_starts() {
  local before n status=0 pids=()
  before=$(census)
  python3 -c '
import socket, time
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1", 8080)); s.listen()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("0.0.0.0", 5353))
print("listening", flush=True); time.sleep(100)' >taken &
  eventually 5 test -s taken
  fails 1 "^bocker-net: publish 0.0.0.0:8080/tcp: Address already in use \(ss -ltnp 'sport = :8080' shows by whom\)\$" \
    bocker-net up --setup ps_42045 publish=8080:80
  fails 1 "publish 0.0.0.0:5353/udp: Address already in use \(ss -lunp" bocker-net up --setup ps_42045 publish=8082:80 publish=5353:53/udp
  fails 1 'publish 203.0.113.9:8080/tcp: Cannot assign requested address \(ip address' bocker-net up --setup ps_42045 publish=203.0.113.9:8080:80
  is "$(listening 8082)" 0 "all or none"
  kill %%
  wait
  is "$(census)" "$before" "nothing was begun"
  # Of twenty at once, one has it.
  bocker-net setup 2>/dev/null
  before=$(census)
  for n in $(seq 2 21); do
    bocker-net up "ps_$((42000 + n))" publish=8080:80 >"out.$n" 2>"err.$n" &
    pids+=($!)
  done
  for n in "${pids[@]}"; do wait "$n" || status=$((status + 1)); done
  is "$status $(cat out.* | wc -l) $(grep -c 'already in use' err.* | grep -c ':1$')" "19 1 19" "one of twenty"
  is "$(bocker-net list | wc -l)" 1
  n=$(bocker-net list | cut -f1)
  # The number is free at once for the next, and again.
  for _ in 1 2 3 4 5; do
    bocker-net down "$n"
    bocker-net up "$n" publish=8080:80 >/dev/null
  done
  bocker-net down "$n"
  is "$(census)" "$before"
}

test_ports_words() {
  local word before
  bocker-net setup 2>/dev/null
  before=$(census)
  for word in publish= publish=0:80 publish=80:0 publish=65536:1 publish=a:80 publish=8080:80/sctp publish=8000-8001:80-82 \
    publish=8080:80,8081:81 'publish=8080:80 } ; flush ruleset' $'publish=8080:80\nadd table ip x' publish=224.0.0.1:80:80 publish=::1:80:80 \
    publish=-1:80 'publish=$(id):80' publish-all=maybe expose=x fly=1 publish "publish=$(printf '%010000d' 1):80"; do
    fails 2 . bocker-net up ps_42045 "$word"
    fails 2 . bocker-net check "$word"
  done
  is "$(census)" "$before"
  bocker-net check publish=8080:80 publish=[::1]::80
  # Ports of the kernel's choice, and the first free one of a range.
  bocker-net up ps_42045 publish=80 publish=127.0.0.1::53/udp publish=8000-8002:90 publish=9000-9001:9100-9101 >/dev/null
  bocker-net up ps_42046 publish=8000-8002:90 >/dev/null
  like "$(bocker-net port ps_42045 80)" '^0\.0\.0\.0:[1-9][0-9]{3,4}$'
  like "$(bocker-net port ps_42045 53/udp)" '^127\.0\.0\.1:[1-9][0-9]{3,4}$'
  is "$(bocker-net port ps_42045 90) $(bocker-net port ps_42046 90)" "0.0.0.0:8000 0.0.0.0:8001"
  is "$(bocker-net port ps_42045 9100-9101)" "$(printf '0.0.0.0:9000\n0.0.0.0:9001')"
  fails 1 '^bocker-net: ps_42045: 81/tcp is not published$' bocker-net port ps_42045 81
  is "$(bocker-net list | sed 1d)" "$(printf 'ps_42046\t10.0.0.46\t02:42:0a:00:00:2e\t0.0.0.0:8001->90/tcp')"
  is "$(bocker-net list --json | jq -r 'select(.id == "ps_42046").ports[]')" '0.0.0.0:8001->90/tcp'
  printf 'ps_42045\nps_42046\n' | bocker-net down - >gone
  is "$(cat gone)" "$(printf 'netns_ps_42045\nnetns_ps_42046')"
  # What an image and its user expose, each at a free port; from a file of words, too.
  echo '{"config":{"ExposedPorts":{"80/tcp":{},"53/udp":{}}}}' >config
  printf 'publish-all=yes\nconfig=%s\n' "$PWD/config" >words
  bocker-net up --from words ps_42045 expose=7000 publish=8080:80 >/dev/null
  is "$(bocker-net port ps_42045 | sed 's/:[0-9]*$//' | sort)" "$(printf '53/udp -> 0.0.0.0\n7000/tcp -> 0.0.0.0\n80/tcp -> 0.0.0.0')"
  is "$(bocker-net port ps_42045 80)" 0.0.0.0:8080
  bocker-net down ps_42045
  # As many as a voice server has.
  bocker-net up ps_42045 publish=20000-21999:20000-21999/udp >/dev/null
  is "$(bocker-net port ps_42045 | wc -l)" 2000
  bocker-net down ps_42045
  is "$(census)" "$before"
}

test_ports_relay_is_nobodys_burden() {
  local before relay address
  bocker-net setup 2>/dev/null
  before=$(census)
  # It keeps no pipe, no terminal, no descriptor and no namespace of anybody.
  address=$(timeout 10 bocker-net up ps_42045 publish=8080:80 publish=8081:81 7</etc/passwd)
  is "$address" 10.0.0.45
  relay=$(relay_of ps_42045)
  is "$(wc -w <<<"$relay")" 1 "one process for all ports"
  is "$(ps -o sid= -p "$relay" | tr -d ' ')" "$relay" "a session of its own"
  is "$(find "/proc/$relay/fd" -lname '*passwd*')" ""
  is "$(readlink "/proc/$relay/cwd") $(cat "/proc/$relay/comm")" "/ bocker-net"
  is "$(readlink "/proc/$relay/ns/net")" "$(readlink /proc/self/ns/net)"
  is "$(find "/proc/$relay/fd" -lname '*net:*' | wc -l)" 0
  is "$(tr '\0' ' ' <"/proc/$relay/environ")" ""
  # A small one.
  [ "$(awk '/^Pss_Anon/ { print $2 }' "/proc/$relay/smaps_rollup")" -lt 2048 ] || fail "it has $(grep Anon "/proc/$relay/smaps_rollup")"
  # Killed: nft still serves, and down cleans up.
  serve netns_ps_42045 80
  kill -9 "$relay"
  eventually 5 no_relay
  is "$(who 10.0.0.1:8080)" netns_ps_42045 "by nft alone"
  is "$(who 127.0.0.1:8080)" nobody "localhost was the relay's"
  end_servers
  bocker-net down ps_42045
  is "$(census)" "$before"
  # It goes with the name of the namespace, whoever takes that; what was written down is then named and removed.
  bocker-net up ps_42045 publish=8080:80 >/dev/null
  ip netns delete netns_ps_42045
  eventually 5 no_relay
  is "$(listening 8080)" 0
  is "$(bocker-net list)" "$(printf 'ps_42045\t-\t-\t0.0.0.0:8080->80/tcp')"
  bocker-net list | bocker-net down - >/dev/null
  is "$(nft list map ip bocker everywhere | grep -c elements)" 0
  eventually 10 census_is "$before"
  # Told to end in the middle, there is all of it or nothing.
  local i
  for i in $(seq 20); do
    bocker-net up ps_42045 publish=8080:80 >/dev/null 2>&1 &
    sleep "0.0$((i % 4))$((i % 10))"
    kill -TERM $! 2>/dev/null || true
    wait $! || true
    is "$(listening 8080)" "$(find /run/netns -name netns_ps_42045 | wc -l)" "either both or none"
    bocker-net down ps_42045
  done
  eventually 5 census_is "$before"
}
census_is() { [ "$(census)" = "$1" ]; }

# Check 36: killed at any call that changes something, all that is left has a name in `list`, `down` takes it, and the port is free.
test_ports_killed_at_every_step() {
  local call k status steps=0 left=0 before
  bocker-net setup 2>/dev/null
  before=$(census)
  # killed CALL K COMMAND...: at its Kth CALL, strace counts each by itself; and only the tool itself. Fails if it ended before.
  killed() {
    status=0
    { strace -qq -o /dev/null -e trace="$1" -e inject="$1:signal=SIGKILL:when=$2" "${@:3}" >out 2>err; } 2>/dev/null || status=$?
    [ "$status" != 0 ] || return 1
    is "$status" 137 "$1 $2: $(cat err)"
    steps=$((steps + 1))
  }
  clean() {
    bocker-net list >left
    bocker-net down - <left >/dev/null
    eventually 10 census_is "$before"
  }
  for call in bind listen flock mkdir mount clone clone3 sendmsg sendto write; do
    for ((k = 1; ; k++)); do
      killed "$call" "$k" bocker-net up ps_42045 publish=8080:80 || break
      clean
      left=$((left + $(wc -l <left)))
    done
    # What it was to do can be done at once: that is how the loop ended.
    is "$(cat out)" 10.0.0.45
    clean
  done
  [ "$steps" -gt 30 ] && [ "$left" -gt 15 ] || fail "killed at $steps steps, $left of which left something"
  steps=0
  for call in umount2 unlink unlinkat rmdir pidfd_send_signal flock clone3 sendto; do
    for ((k = 1; ; k++)); do
      bocker-net up ps_42045 publish=8080:80 >/dev/null
      killed "$call" "$k" bocker-net down ps_42045 || break
      clean
    done
  done
  [ "$steps" -gt 8 ] || fail "down: killed at $steps steps"
  is "$(census)" "$before"
}

# Rules that did not go keep the file that names them, or nobody would take them out.
test_ports_down_where_the_kernel_refuses() {
  as_before() { [ "$(census)" = "$before" ]; }
  bocker-net setup 2>/dev/null
  bocker-net network create back >/dev/null
  local before words n status named=0
  # Its bridge stays, so it is there before.
  bocker-net up ps_42046 network=back >/dev/null && bocker-net down ps_42046
  before=$(census)
  for words in network=back 'publish=8080:80 network=back'; do
    for n in $(seq 100); do
      # shellcheck disable=SC2086 # words
      bocker-net up ps_42045 $words >/dev/null
      status=0
      strace -qq -o trace -e trace=sendto -e inject=sendto:error=EUCLEAN:when="$n" bocker-net down ps_42045 >out 2>err || status=$?
      grep -q INJECTED trace || break
      if [ "$status" != 0 ]; then
        is "$status $(wc -l < err)" '1 1' "$(cat err)"
        if grep -qE '^bocker-net: .* table (ip|bridge) bocker: ' err; then
          named=$((named + 1))
          is "$(bocker-net list | cut -f 1)" ps_42045 "it has a name yet, with $words"
        fi
        bocker-net down ps_42045
      fi
      eventually 10 as_before
    done
    [ "$n" -gt 3 ] && [ "$n" -lt 100 ] || fail "$n calls"
  done
  [ "$named" -ge 3 ] || fail "$named with a name of three"
  bocker-net network rm back
}

# Every message of a transaction that fails has an answer of its own: none is taken for one of the next.
test_ports_down_where_elements_are_gone() {
  neighbours
  bocker-net setup 2>/dev/null
  bocker-net network create --subnet 10.80.0.0/24 --subnet6 fd00:80::/64 back >/dev/null
  local before
  bocker-net up ps_42046 network=back >/dev/null && bocker-net down ps_42046
  before=$(census)
  bocker-net up ps_42045 network=back publish=8080:80 publish=192.0.2.1:5353:53/udp >/dev/null
  nft flush map ip bocker everywhere
  nft flush map ip bocker somewhere
  nft flush set bridge bocker stations6
  bocker-net down ps_42045
  is "$(census)" "$before"
  bocker-net network rm back >/dev/null
}

# The kernel has done it, and its answer is lost: `up` fails, and takes that back, too.
test_ports_up_where_an_answer_is_lost() {
  as_before() { [ "$(census)" = "$before" ]; }
  bocker-net setup 2>/dev/null
  bocker-net network create back >/dev/null
  bocker-net up ps_42046 network=back >/dev/null && bocker-net down ps_42046
  # What nf_tables answers is read into 32 KiB; the other socket's answers are not meant.
  local before words n status lost=0 answer='^recvfrom\([0-9]+, .*, 32768, 0, NULL, NULL\) '
  before=$(census)
  for words in network=back publish=8080:80; do
    for n in $(seq 60); do
      status=0
      # shellcheck disable=SC2086 # words
      timeout 20 strace -qq -o trace -e trace=recvfrom -e inject=recvfrom:error=ENOBUFS:when="$n" bocker-net up ps_42045 $words >out 2>err || status=$?
      if ! grep -q INJECTED trace; then
        bocker-net down ps_42045
        break
      elif [ "$status" = 0 ] || ! grep INJECTED trace | grep -qE "$answer"; then
        bocker-net down ps_42045
      else
        is "$status $(wc -l < err)" '1 1' "$(cat err)"
        like "$(cat err)" '^bocker-net: .* table (ip|bridge) bocker: '
        lost=$((lost + 1))
      fi
      eventually 10 as_before
    done
  done
  [ "$lost" -ge 2 ] || fail "$lost answers of transactions"
  bocker-net network rm back
}

# What the kernel refuses, at any step of it: all or nothing.
test_ports_up_where_the_kernel_refuses() {
  as_before() { [ "$(census)" = "$before" ]; }
  bocker-net setup 2>/dev/null
  local before n status refused=0
  before=$(census)
  for n in $(seq 100); do
    status=0
    strace -qq -o trace -e trace=sendto -e inject=sendto:error=EUCLEAN:when="$n" bocker-net up ps_42045 publish=8080:80 >out 2>err || status=$?
    if [ "$status" = 0 ]; then
      # What is only asked may fail: it is as if the answer were no.
      bocker-net down ps_42045 >/dev/null
    else
      is "$status $(wc -l < err)" '1 1' "$(cat err)"
      like "$(cat err)" '^bocker-net: ' "sendto $n"
      refused=$((refused + 1))
    fi
    # A cable goes with its namespace, when the kernel comes to that.
    eventually 10 as_before
    grep -q INJECTED trace || break
  done
  [ "$refused" -gt 10 ] && [ "$n" -lt 100 ] || fail "$refused refused of $n"
}

# Bytes, half-closed connections, refusals and many at once, through the relay.
test_ports_relay_carries() {
  bocker-net up --setup ps_42045 publish=127.0.0.1:8080:80 publish=127.0.0.1:8081:81 publish=127.0.0.1:5353:53/udp 'publish=[::1]:8080:80' >/dev/null 2>&1
  serve netns_ps_42045 80
  is "$(who '[::1]:8080')" netns_ps_42045 "IPv6 on the host, IPv4 inside"
  # Nobody listens at 81: refused, not kept waiting.
  like "$(curl -sS -m 5 http://127.0.0.1:8081/ 2>&1)" 'reset|Empty reply|Failed to connect'
  head -c 20000000 /dev/urandom >www.netns_ps_42045/big
  curl -sS -m 60 http://127.0.0.1:8080/big | cmp - www.netns_ps_42045/big
  local n
  for n in $(seq 40); do curl -sS -m 60 http://127.0.0.1:8080/big | md5sum >"sum.$n" & done
  wait
  is "$(cat sum.* | sort -u | wc -l)" 1
  is "$(sort -u sum.*)" "$(md5sum <www.netns_ps_42045/big)"
  # Upper-cases what it got when it has got all: the end of one direction arrives, and the other goes on.
  ip netns exec netns_ps_42045 python3 -c '
import socket
s = socket.create_server(("0.0.0.0", 81)); print("listening", flush=True)
while True:
    c, _ = s.accept(); data = b""
    while part := c.recv(65536): data += part
    c.sendall(data.upper()); c.close()' >upper &
  eventually 5 test -s upper
  is "$(python3 -c '
import socket
s = socket.create_connection(("127.0.0.1", 8081)); s.sendall(b"abc" * 100000); s.shutdown(socket.SHUT_WR); data = b""
while part := s.recv(65536): data += part
print(data == b"ABC" * 100000)')" True
  echo_udp netns_ps_42045 53
  is "$(says 127.0.0.1 5353)" echo
  local clients=()
  for n in $(seq 20); do says 127.0.0.1 5353 >"udp.$n" & clients+=($!); done
  wait "${clients[@]}"
  is "$(cat udp.[0-9]* | sort | uniq -c | tr -s ' ')" " 20 echo" "twenty clients at once"
  # Idle, it sleeps: no tick of the processor in a second, once it has seen the last of all that.
  local relay
  relay=$(relay_of ps_42045)
  ticks() { awk '{ print $14 + $15 }' "/proc/$relay/stat"; }
  # shellcheck disable=SC2317,SC2329
  idle() { local was; was=$(ticks); sleep 1; [ "$(ticks)" = "$was" ]; }
  eventually 10 idle
}

# The kernel remembers where it sent a client. Whoever has the address next, and published nothing, is not reached by that.
test_ports_end_with_who_published_them() {
  neighbours
  bocker-net up --setup ps_42045 publish=5353:53/udp >/dev/null 2>&1
  echo_udp netns_ps_42045 53
  local server=$! client
  cat >client <<'EOF'
import os, socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", 40000)); s.settimeout(10)
s.connect(("192.0.2.1", 5353))
def says():
    try:
        s.send(b"x"); return s.recv(9) == b"x"
    except OSError:
        return False
print(says() and says(), flush=True)
while not os.path.exists("again"): time.sleep(0.02)
s.settimeout(1)
print(says(), says())
EOF
  ip netns exec lan python3 client >answers &
  client=$!
  eventually 30 test -s answers
  kill "$server"
  bocker-net down ps_42045
  bocker-net up ps_42045 >/dev/null
  rm udp.netns_ps_42045
  echo_udp netns_ps_42045 53
  touch again
  wait "$client"
  is "$(tr '\n' ' ' <answers)" "True False False "
  is "$(says 10.0.0.45 53)" echo "it is there"
}

# Connections that stand still, in both directions, have none of the relay's memory; and one more is served.
test_ports_relay_keeps_nothing() {
  bocker-net up --setup ps_42045 publish=127.0.0.1:8080:80 publish=127.0.0.1:8081:81 >/dev/null 2>&1
  serve netns_ps_42045 80
  ip netns exec netns_ps_42045 python3 -c '
import socket
s = socket.create_server(("0.0.0.0", 81), backlog=500); s.settimeout(30); print("listening", flush=True)
all = []
for _ in range(150):
    c, _ = s.accept(); c.setblocking(False); all.append(c)
    try:
        while True: c.send(b"x" * 65536)
    except BlockingIOError: pass
print("all", flush=True); s.accept()' >server &
  eventually 5 test -s server
  python3 -c '
import socket, time
all = []
for _ in range(150):
    c = socket.create_connection(("127.0.0.1", 8081)); c.setblocking(False); all.append(c)
for _ in range(5):
    time.sleep(0.1)
    for c in all:
        try:
            while True: c.send(b"x" * 65536)
        except BlockingIOError: pass
print("full", flush=True); time.sleep(60)' >clients &
  eventually 30 grep -q full clients
  eventually 30 grep -q all server
  [ "$(awk '/^Pss_Anon/ { print $2 }' "/proc/$(relay_of ps_42045)/smaps_rollup")" -lt 2048 ] ||
    fail "it has $(grep Anon "/proc/$(relay_of ps_42045)/smaps_rollup")"
  is "$(who 127.0.0.1:8080)" netns_ps_42045
}

# Where there is no NAT, the relay does all of it; the bridge still works, and it was said once.
test_ports_without_nft() {
  neighbours
  mount --bind /bin/false /usr/sbin/nft
  bocker-net up --setup ps_42045 publish=8080:80 2>err >/dev/null
  is "$(wc -l <err)" 2
  like "$(cat err)" '^bocker-net: no NAT and no guard: '
  serve netns_ps_42045 80
  is "$(who 127.0.0.1:8080) $(who 192.0.2.1:8080 lan)" "netns_ps_42045 netns_ps_42045"
  is "$(bocker-net list 2>&1 | wc -l) $(bocker-net up ps_42046 2>&1)" "1 10.0.0.46" "said once"
  bocker-net down ps_42045
  bocker-net down ps_42046
  is "$(listening 8080)" 0
  umount /usr/sbin/nft
  bocker-net setup 2>/dev/null
  is "$(bocker-net setup --dry-run)" "" "whole, once nft is there"
  like "$(nft list table bridge bocker)" stations
  nft flush ruleset
  is "$(bocker-net list 2>&1 | wc -l)" 2 "and from then on it is looked after"
}

# Check 35 of docs/SECURITY: what somebody takes away comes back before anything else.
test_ports_rules_that_are_gone_come_back() {
  neighbours
  bocker-net up --setup ps_42045 publish=8080:80 publish=127.0.0.1:8081:81 >/dev/null 2>&1
  bocker-net up ps_42046 publish=9090:90 >/dev/null
  serve netns_ps_42045 80
  local whole verb
  whole=$(nft -s list ruleset)
  for verb in 'up ps_42047' 'down ps_42047' list 'port ps_42045' 'exec ps_42045 -- true' setup; do
    # By turns: all tables, the rules of one, one chain of it.
    for way in 'flush ruleset' 'flush table ip bocker' 'flush chain ip bocker forward' 'delete table bridge bocker'; do
      # shellcheck disable=SC2086 # words
      nft $way
      # shellcheck disable=SC2086
      bocker-net $verb >out 2>err || fail "$verb after $way: $(cat err)"
      is "$(nft -s list ruleset)" "$whole" "$verb after $way"
      like "$(cat err)" 'made again|set up bridge0'
      [ "$verb" = setup ] || unlike "$(cat err)" 'set up'
      [ "$verb" != 'up ps_42047' ] || bocker-net down ps_42047
    done
  done
  is "$(who 192.0.2.1:8080 lan)" netns_ps_42045
  is "$(bocker-net list 2>&1 >/dev/null)" "" "silent while all is there"
  # Where they cannot be made again, it is an error, and nothing begins.
  nft flush ruleset
  mount --bind /bin/false /usr/sbin/nft
  fails 1 '^bocker-net: the rules of table ip bocker are gone, and cannot be made again: .*bocker-net setup' bocker-net list
  fails 1 'are gone' bocker-net up ps_42047
  fails 125 'are gone' bocker-net exec ps_42045 -- true
  # What ends needs none.
  fails 1 'are gone' bocker-net down ps_42045
  is "$(find /run/netns -name netns_ps_42045) $(listening 8080)" " 0"
  umount /usr/sbin/nft
}

# An address that is given up takes its ports with it: whoever gets it next is not to have them.
test_ports_go_with_their_address() {
  bocker-net setup 2>/dev/null
  bocker-net network create back >/dev/null
  bocker-net up ps_42045 network=back connect=bridge publish=8080:80 >/dev/null
  bocker-net disconnect ps_42045 bridge
  is "$(listening 8080)" 1 "not those of another one"
  bocker-net connect ps_42045 bridge
  bocker-net disconnect ps_42045 back
  is "$(listening 8080) $(nft list map ip bocker everywhere | grep -c elements) $(bocker-net port ps_42045)" "0 0 "
  # Nobody waits for its last moment.
  eventually 5 no_relay
  bocker-net up ps_42046 network=back ip=10.64.0.45 publish=8080:80 >/dev/null
  serve netns_ps_42046 80
  is "$(who 10.0.0.1:8080)" netns_ps_42046
}

test_ports_host_services_stay_inside() {
  bocker-net up --setup ps_42045 >/dev/null 2>&1
  python3 -c '
import socket, time
a = socket.socket(socket.AF_UNIX); a.bind("\0host-service"); a.listen()
t = socket.create_server(("127.0.0.1", 7777)); g = socket.create_server(("10.0.0.1", 7778))
print("listening", flush=True); time.sleep(100)' >services &
  eventually 5 test -s services
  # reaches [NAMESPACE]: which of the three
  reaches() {
    ${1:+ip netns exec "$1"} python3 -c '
import socket
for name, family, address in (("abstract", socket.AF_UNIX, "\0host-service"), ("localhost", socket.AF_INET, ("127.0.0.1", 7777)),
        ("gateway", socket.AF_INET, ("10.0.0.1", 7778))):
    s = socket.socket(family); s.settimeout(2)
    try: s.connect(address); print(name)
    except OSError: pass'
  }
  is "$(reaches)" "$(printf 'abstract\nlocalhost\ngateway')" "on this host"
  is "$(reaches netns_ps_42045)" gateway "what listens on the gateway's address means it"
  # Not by a route of its own either.
  ip -n netns_ps_42045 address delete 127.0.0.1/8 dev lo
  ip -n netns_ps_42045 route add 127.0.0.1 via 10.0.0.1 src 10.0.0.45
  ip netns exec netns_ps_42045 sysctl -qw net.ipv4.conf.all.route_localnet=1
  echo 1 >/proc/sys/net/ipv4/conf/bridge0/route_localnet
  is "$(reaches netns_ps_42045)" gateway "localhost of this host by the bridge"
  nft delete table ip bocker
  is "$(reaches netns_ps_42045)" "$(printf 'localhost\ngateway')" "without the table: or this test proves nothing"
}

# Check 34: raw sockets, which a container has (CAP_NET_RAW is one of the default capabilities).
test_ports_nobody_speaks_for_another() {
  bocker-net up --setup ps_42045 >/dev/null 2>&1
  bocker-net up ps_42046 >/dev/null
  # hear: what the other container and this host get of all that is sent, with time for a sender that stands still for a while
  hear() {
    local sniffers=()
    rm -f there.err here.err
    ip netns exec netns_ps_42046 python3 "$repo/tests/forge.py" hear eth0 5 >there 2>there.err & sniffers+=($!)
    python3 "$repo/tests/forge.py" hear bridge0 5 >here 2>here.err & sniffers+=($!)
    eventually 5 grep -qs listening there.err
    eventually 5 grep -qs listening here.err
    ip netns exec netns_ps_42045 python3 "$repo/tests/forge.py" send eth0 02:42:0a:00:00:2d 10.0.0.45 02:42:0a:00:00:2e 10.0.0.46
    wait "${sniffers[@]}"
  }
  port_of() { bridge -j fdb show br bridge0 | jq -r '.[] | select(.mac == "02:42:0a:00:00:2e" and .state != "permanent").ifname'; }
  # The other one has been heard of.
  eventually 10 pings ps_42046 10.0.0.45
  is "$(port_of)" veth0_ps_42046
  hear
  is "$(cat here)" "$(printf 'honest-arp\nhonest-ip')" "at this host"
  is "$(cat there)" "$(printf 'honest-arp\nhonest-ip')" "at the other container"
  is "$(port_of)" veth0_ps_42046 "where the bridge sends what is for the other one"
  is "$(ip -n netns_ps_42046 -j neigh show 10.0.0.45 | jq -r '.[].lladdr')" 02:42:0a:00:00:2d
  # It works as a network.
  eventually 10 pings ps_42045 10.0.0.46
  eventually 10 pings ps_42045 10.0.0.1
  # The set has every id of the subnet, and its last one works.
  is "$(bocker-net up ps_42254)" 10.0.0.254
  eventually 10 pings ps_42254 10.0.0.45
  # Another MAC or address, set by the container's root: mute.
  ip -n netns_ps_42045 address add 10.0.0.77/24 dev eth0
  ! ip netns exec netns_ps_42045 busybox ping -c 1 -W 1 -I 10.0.0.77 10.0.0.46 >/dev/null || fail "spoke by an address that it was not given"
  # That it is the guard that does it:
  nft delete table bridge bocker
  hear
  for frame in ip-of-another all-of-another arp-for-another arp-with-its-mac router-advertisement vlan-of-another unknown-protocol; do
    like "$(cat there)" "^$frame\$" "without the guard: or this test proves nothing"
  done
  is "$(port_of)" veth0_ps_42045 "without the guard the bridge has learnt a lie"
}

# On networks with names, as on bridge0: published ports, nothing else from outside, and nobody speaks for another.
test_ports_on_networks() {
  neighbours
  bocker-net setup 2>/dev/null
  local before all
  before=$(census | sort)
  bocker-net network create --subnet 10.80.0.0/24 --subnet6 fd00:80::/64 back >/dev/null
  bocker-net network create --subnet 10.81.0.0/24 --internal deep >/dev/null
  is "$(bocker-net up ps_42045 network=back publish=8080:80)" 10.80.0.45
  is "$(bocker-net up ps_42046 ip=10.0.0.99 mac=02:42:00:00:00:99 connect=back publish=8081:80)" 10.0.0.99
  is "$(bocker-net up ps_42047 network=deep publish=8082:80)" 10.81.0.47
  bocker-net up ps_42048 >/dev/null
  local id
  for id in 45 46 47; do serve "netns_ps_420$id" 80; done
  is "$(who 192.0.2.1:8080 lan) $(who 192.0.2.1:8081 lan)" "netns_ps_42045 netns_ps_42046" "from a neighbour"
  is "$(who 192.0.2.1:8080 netns_ps_42048) $(who 192.0.2.1:8081 netns_ps_42045)" "netns_ps_42045 netns_ps_42046" "from another network"
  is "$(who 192.0.2.1:8080 netns_ps_42046)" netns_ps_42045 "from its own"
  is "$(who 10.80.0.45:80 lan) $(who 10.80.0.45:80 netns_ps_42048)" "nobody nobody" "past what is published"
  is "$(who 127.0.0.1:8082) $(who 192.0.2.1:8082 lan)" "netns_ps_42047 nobody" "an internal network is this host's"
  is "$(who 10.80.0.45:80 netns_ps_42046)" netns_ps_42045 "within a network"
  # IPv6 from outside: the way in is there, and closed.
  ip -6 address add fd00:1::1/64 dev to_lan nodad
  ip -n lan -6 address add fd00:1::2/64 dev eth0 nodad
  ip -n lan -6 route add default via fd00:1::1
  ip netns exec netns_ps_42045 python3 -c '
import socket; s = socket.create_server(("::", 90), family=socket.AF_INET6); print("listening", flush=True)
while True: s.accept()' >six.is &
  eventually 5 test -s six.is
  # six NAMESPACE: whether a connection comes about from there
  six() { ip netns exec "$1" python3 -c 'import socket; socket.create_connection(("fd00:80::2d", 90), 2); print("yes")' 2>/dev/null || echo no; }
  # shellcheck disable=SC2317,SC2329
  six_is() { [ "$(six "$1")" = "$2" ]; }
  eventually 10 six_is netns_ps_42046 yes
  is "$(six lan)" no
  # Without the table it comes through: or this test proves nothing.
  nft delete table ip6 bocker
  eventually 10 six_is lan yes
  bocker-net setup 2>/dev/null
  is "$(six lan)" no
  # Each speaks by what it was given, on each network.
  # forged SENDER INTERFACE MAC ADDRESS LISTENER INTERFACE [ADDRESS6 OTHER_ADDRESS6]: what of all arrives
  forged() {
    rm -f there.err
    ip netns exec "netns_$5" python3 "$repo/tests/forge.py" hear "$6" 5 2>there.err >there & local sniffer=$!
    eventually 5 grep -qs listening there.err
    ip netns exec "netns_$1" python3 "$repo/tests/forge.py" send "$2" "$3" "$4" 02:42:0a:50:00:4d 10.80.0.77 "${@:7}"
    wait "$sniffer"
    tr '\n' ' ' <there
  }
  is "$(forged ps_42045 eth0 02:42:0a:50:00:2d 10.80.0.45 ps_42046 eth1 fd00:80::2d fd00:80::2e)" "honest-arp honest-ip honest-neighbour "
  is "$(ip -n netns_ps_42046 -6 -j neigh show fd00:80::2d | jq -r '.[].lladdr')" 02:42:0a:50:00:2d
  is "$(forged ps_42046 eth1 02:42:0a:50:00:2e 10.80.0.46 ps_42045 eth0)" "honest-arp honest-ip "
  is "$(forged ps_42046 eth0 02:42:00:00:00:99 10.0.0.99 ps_42048 eth0)" "honest-arp honest-ip "
  # A network that it joins later, and leaves; then the rules once more, from what is written down.
  bocker-net connect ps_42048 back
  is "$(who 10.80.0.45:80 netns_ps_42048)" netns_ps_42045 "after connect"
  all=$(nft -s list ruleset | sort)
  nft flush ruleset
  bocker-net list 2>err >/dev/null
  is "$(wc -l <err)" 3 "one line for each table"
  is "$(nft -s list ruleset | sort)" "$all"
  is "$(who 192.0.2.1:8081 lan) $(who 10.80.0.45:80 netns_ps_42048)" "netns_ps_42046 netns_ps_42045"
  is "$(six lan)" no
  bocker-net disconnect ps_42048 back
  kill %%
  wait
  end_servers
  for id in 45 46 47 48; do bocker-net down "ps_420$id"; done
  bocker-net network rm back deep >/dev/null
  nft delete table ip6 bocker
  is "$(census | sort)" "$before" "elements and all are gone"
}

# An nft before 1.0.3 cannot compare a packet's own bytes with a set: all else of the guard is there, and nobody makes it again and again.
test_ports_guard_of_an_old_nft() {
  cp "$(command -v nft)" nft.real
  cat >nft.old <<'S'
#!/bin/sh
cd "$HOST_DIR" && cat >told
grep -q '@th,64' told && { echo 'Error: can not use variable sized data types (integer) in concat expressions' >&2; exit 1; }
exec ./nft.real "$@" <told
S
  # nft is started without an environment.
  sed -i "s,\$HOST_DIR,$HOST_DIR," nft.old
  chmod 755 nft.old
  mount --bind nft.old "$(command -v nft)"
  bocker-net setup 2>err
  unlike "$(cat err)" 'no guard'
  bocker-net network create --subnet 10.80.0.0/24 --subnet6 fd00:80::/64 back >/dev/null
  local before id
  before=$(./nft.real -s list table bridge bocker)
  for id in 45 46; do bocker-net up "ps_420$id" network=back >/dev/null; done
  is "$(bocker-net list 2>&1 | cut -f 1 | xargs)" 'ps_42045 ps_42046' "nothing is made again"
  ip netns exec netns_ps_42046 python3 "$repo/tests/forge.py" hear eth0 5 2>there.err >there & local sniffer=$!
  eventually 5 grep -qs listening there.err
  ip netns exec netns_ps_42045 python3 "$repo/tests/forge.py" send eth0 02:42:0a:50:00:2d 10.80.0.45 02:42:0a:50:00:4d 10.80.0.77 fd00:80::2d fd00:80::2e
  wait "$sniffer"
  is "$(xargs <there)" 'honest-arp honest-ip honest-neighbour neighbour-behind neighbour-for-another'
  # A rule that is gone is missed all the same.
  ./nft.real flush chain bridge bocker prerouting
  like "$(bocker-net list 2>&1)" '^bocker-net: the rules of table bridge bocker were gone: made again$'
  for id in 45 46; do bocker-net down "ps_420$id"; done
  is "$(./nft.real -s list table bridge bocker)" "$before"
  umount "$(command -v nft)"
  bocker-net network rm back >/dev/null
}

# What --dry-run prints does the same. socat stands for the relay.
test_ports_dry_run_is_what_it_does() {
  command -v socat fuser >/dev/null || fail "socat and fuser are needed"
  neighbours
  bocker-net setup 2>/dev/null
  # shellcheck disable=SC2317,SC2329
  serves() { [ "$(who "$1")" = "$2" ]; }
  local i at before words=(publish=8080:80 publish=192.0.2.1:5353:53/udp publish=127.0.0.1:8081:80)
  before=$(census)
  for i in tool shell; do
    if [ "$i" = tool ]; then
      is "$(bocker-net up ps_42045 "${words[@]}")" 10.0.0.45
    else
      bocker-net up --dry-run ps_42045 "${words[@]}" >script
      is "$(census)" "$before" "a dry run does nothing"
      is "$(timeout 10 sh -e <script)" 10.0.0.45
    fi
    nft -s list ruleset >"rules.$i"
    cat /run/bocker-net/ps_42045/ports >"ports.$i"
    serve netns_ps_42045 80
    echo_udp netns_ps_42045 53
    # socat is started in the background.
    for at in 127.0.0.1:8080 127.0.0.1:8081; do eventually 10 serves "$at" netns_ps_42045; done
    is "$(who 127.0.0.1:8080) $(who 192.0.2.1:8080 lan) $(says 192.0.2.1 5353 lan)" "netns_ps_42045 netns_ps_42045 echo"
    end_servers
    kill %%
    wait %% || true
    rm -r www.netns_ps_42045
    if [ "$i" = tool ]; then bocker-net down ps_42045; else bocker-net down --dry-run ps_42045 | sh -e; fi
    eventually 10 census_is "$before"
  done
  diff rules.tool rules.shell
  diff ports.tool ports.shell
}
