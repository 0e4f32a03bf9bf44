# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh
# Networks with names, other namespaces, names, MTU, IPv6, tap and doctor. Sourced by tests/run.

ping_from() { pings "$@" || pings "$@" || pings "$@"; }
no_ping_from() { ! bocker-net exec "$1" -- busybox ping -c 1 -W 1 "$2" >/dev/null 2>&1 || fail "$1 reached $2"; }
# What a container calls others: its hosts file without what is dead and what pads.
hosts() { sed -E '/^#/d; s/ +$//' "/run/bocker-net/$1/hosts" | tr '\t' ' '; }
a_world_by_default() { a_world; ip route add default via 192.0.2.2; }

test_networks_create_ls_rm() {
  is "$(bocker-net network create back)" back
  is "$(cat networks/back)" subnet=10.64.0.0/24
  is "$(bocker-net network create front)" front
  is "$(cat networks/front)" subnet=10.64.1.0/24 "another subnet"
  bocker-net network create --subnet 10.99.0.0/16 --subnet6 fd00:9::/64 --internal --mtu 1400 deep >/dev/null
  is "$(cat networks/deep)" "$(printf 'subnet=10.99.0.0/16\nsubnet6=fd00:9::/64\ninternal=yes\nmtu=1400')"
  is "$(bocker-net network ls)" "$(printf '%s\t%s\t%s\t%s\t%s\n' bridge 10.0.0.0/24 - bridge0 - back 10.64.0.0/24 - bkr_back - \
    deep 10.99.0.0/16 fd00:9::/64 bkr_deep internal front 10.64.1.0/24 - bkr_front -)"
  is "$(bocker-net network ls -q | tr '\n' ' ')" "bridge back deep front "
  is "$(bocker-net network ls --json | jq -r 'select(.internal).name')" deep
  is "$(bocker-net network inspect deep | head -2 | tr '\n' ' ')" "name=deep bridge=bkr_deep "
  is "$(bocker-net network inspect --json deep | jq -c '[.mtu, .containers]')" '[1400,[]]'
  # Nothing of the kernel's has changed.
  is "$(ip -o link | grep -c bkr_)" 0
  fails 1 'create .*/networks/back: File exists \(bocker-net network rm back' bocker-net network create back
  fails 1 '10.99.7.0/24 overlaps 10.99.0.1/16 of the network deep' bocker-net network create --subnet 10.99.7.0/24 x
  fails 1 'overlaps 10.0.0.1/24 of the network bridge' bocker-net network create --subnet 10.0.0.0/24 x
  fails 1 'IPv6 subnet overlaps that of deep' bocker-net network create --subnet6 fd00:9::/64 x
  local name
  for name in '' . .. -x a/b ../x 'a b' "$(printf 'a\nb')" bridge host none "$(printf 'x%.0s' $(seq 65))"; do
    fails 2 . bocker-net network create -- "$name"
  done
  fails 2 'not a network|prefix length' bocker-net network create --subnet 10.0.0.0/8 x
  fails 2 'MTU' bocker-net network create --mtu 20 x
  fails 2 'IPv6 needs an MTU of 1280' bocker-net network create --mtu 1000 --subnet6 fd00:1::/64 x
  fails 1 'no network nosuch \(bocker-net network create nosuch' bocker-net network rm nosuch
  fails 1 'it is always there' bocker-net network rm bridge
  fails 1 'needs root' setpriv --reuid 1000 --clear-groups bocker-net network create x
  # What a person wrote wrong is said with its place.
  echo fly=1 >networks/wrong
  fails 1 "read .*/networks/wrong: 'fly=1' is none of" bocker-net network ls
  rm networks/wrong
  is "$(bocker-net network rm back front | tr '\n' ' ')" "back front "
  is "$(bocker-net network prune)" deep
  is "$(ls -A networks)" ""
  # A host that uses the pool keeps its part of it.
  ip link add lan type bridge
  ip address add 10.64.0.9/23 dev lan
  ip link set lan up
  bocker-net network create back >/dev/null
  is "$(cat networks/back)" subnet=10.64.2.0/24
  BOCKER_SUBNET=10.20.0.0/16 bocker-net network create wide >/dev/null
  is "$(cat networks/wide)" subnet=10.65.0.0/16 "as wide as the default network"
}

test_networks_two_at_once_choose_two_subnets() {
  local n pids=()
  for n in $(seq 8); do bocker-net network create "n$n" >/dev/null & pids+=($!); done
  for n in "${pids[@]}"; do wait "$n"; done
  is "$(cat networks/* | sort -u | wc -l)" 8
}

test_networks_are_apart() {
  a_world_by_default
  bocker-net setup 2>/dev/null
  local before
  before=$(census | sort)
  bocker-net network create back >/dev/null
  bocker-net network create front >/dev/null
  bocker-net network create --internal deep >/dev/null
  is "$(bocker-net up ps_42045 network=back)" 10.64.0.45
  is "$(bocker-net up ps_42046 network=back)" 10.64.0.46
  is "$(bocker-net up ps_42047 network=front)" 10.64.1.47
  is "$(bocker-net up ps_42048 network=deep)" 10.64.2.48
  is "$(bocker-net up ps_42049 network=deep)" 10.64.2.49
  bocker-net up ps_42050 >/dev/null
  is "$(ip -j -n netns_ps_42045 link show dev eth0 | jq -r '.[0].address')" 02:42:0a:40:00:2d
  is "$(ip -j link show dev veth0_ps_42045 | jq -r '.[0].master')" bkr_back
  # Within one, and out.
  ping_from ps_42045 10.64.0.46 || fail "not within one network"
  ping_from ps_42045 10.64.0.1 || fail "not to the gateway"
  ping_from ps_42045 192.0.2.2 || fail "not to the world"
  ping_from ps_42048 10.64.2.49 || fail "not within an internal network"
  ping_from ps_42050 192.0.2.2 || fail "not from the default network"
  no_ping_from ps_42045 10.64.1.47
  no_ping_from ps_42047 10.64.0.45
  no_ping_from ps_42045 10.0.0.50
  no_ping_from ps_42050 10.64.0.45
  # Internal: neither by the routes it has nor by those that it makes.
  no_ping_from ps_42048 192.0.2.2
  ip -n netns_ps_42048 route add default via 10.64.2.1
  no_ping_from ps_42048 192.0.2.2
  no_ping_from ps_42048 10.64.0.45
  no_ping_from ps_42050 10.64.2.48
  # Of all these noes our rules are the reason.
  nft delete table ip bocker
  ip netns exec netns_ps_42045 busybox ping -c 1 -W 10 10.64.1.47 >/dev/null || fail "apart without rules: the test proves nothing"
  like "$(bocker-net doctor || true)" $'^bad\tsetup\tsomething was taken away'
  # The next command puts them back, these networks' too.
  like "$(bocker-net list 2>&1)" 'the rules of table ip bocker were gone: made again'
  no_ping_from ps_42045 10.64.1.47
  no_ping_from ps_42048 192.0.2.2
  ping_from ps_42045 192.0.2.2 || fail "not put back"
  fails 1 'in use by ps_42045, ps_42046' bocker-net network rm back
  is "$(bocker-net network inspect back | tail -2 | cut -f 1-3)" "$(printf 'container\tps_4204%s\t10.64.0.4%s\n' 5 5 6 6)"
  is "$(bocker-net network inspect --json bridge | jq -r '.containers[].id')" ps_42050
  fails 1 'in use by' bocker-net setup --undo
  local id
  for id in 45 46 47 48 49 50; do bocker-net down "ps_420$id"; done
  is "$(find /run/bocker-net -mindepth 1)" ""
  is "$(bocker-net network prune | tr '\n' ' ')" "back deep front "
  bocker-net setup
  is "$(census | sort)" "$before"
  bocker-net setup --undo
}

test_networks_undo_takes_bridges_and_rules() {
  local before
  before=$(census | grep -v '^mount /run/netns$')
  bocker-net network create --subnet6 fd00:1::/64 back >/dev/null
  bocker-net up --setup ps_42045 network=back >/dev/null 2>&1
  is "$(cat /proc/sys/net/ipv6/conf/all/forwarding)" 1
  bocker-net down ps_42045
  bocker-net setup --undo
  is "$(cat /proc/sys/net/ipv6/conf/all/forwarding)" 0
  is "$(census | grep -v '^mount /run/netns$')" "$before"
  is "$(cat networks/back | head -1)" subnet=10.64.0.0/24 "the network itself stays"
  # And works again.
  is "$(bocker-net up --setup ps_42045 network=back 2>/dev/null)" 10.64.0.45
  bocker-net down ps_42045
  fails 1 'no bridge0' bash -c 'bocker-net setup --undo && bocker-net up ps_42045 network=back'
}

test_networks_bridges_of_others_are_left_alone() {
  bocker-net setup 2>/dev/null
  bocker-net network create back >/dev/null
  ip link add bkr_back type bridge
  ip link set bkr_back up
  fails 1 "bkr_back is not bocker's \(ip link delete bkr_back" bocker-net up ps_42045 network=back
  [ ! -e /run/netns/netns_ps_42045 ] || fail "the name was left"
  bocker-net network rm back >/dev/null
  ip link show bkr_back >/dev/null || fail "somebody else's bridge went"
  ip link delete bkr_back
  # Killed between making the bridge and writing its alias.
  bocker-net network create back >/dev/null
  ip link add bkr_back address 02:42:0a:40:00:01 type bridge
  is "$(bocker-net up ps_42045 network=back)" 10.64.0.45
  # A file that changes is heeded when nobody is on it.
  echo subnet=10.70.0.0/24 >networks/back
  fails 1 'bkr_back was not made from what .*/networks/back says now \(first stop who is on it: veth0_ps_42045' \
    bocker-net up ps_42046 network=back
  bocker-net down ps_42045
  is "$(bocker-net up ps_42046 network=back)" 10.70.0.46
  bocker-net down ps_42046
  fails 1 'no network nosuch' bocker-net up ps_42045 network=nosuch
  # Without nft two networks would be one: refused, and nothing is left.
  bocker-net network create other >/dev/null
  mount --bind /bin/false /usr/sbin/nft
  fails 1 'without nft networks would not be apart' bocker-net up ps_42045 network=other
  umount /usr/sbin/nft
  ! ip link show bkr_other 2>/dev/null || fail "half a bridge"
}

test_networks_addresses_are_one_containers() {
  bocker-net setup 2>/dev/null
  bocker-net network create --subnet 10.64.0.0/24 back >/dev/null
  is "$(bocker-net up ps_42045 network=back ip=10.64.0.99 mac=02:00:00:00:00:07)" 10.64.0.99
  is "$(ip -j -n netns_ps_42045 address show dev eth0 | jq -r '.[0] | "\(.address) \(.addr_info[0].local)"')" "02:00:00:00:00:07 10.64.0.99"
  is "$(bocker-net address ps_42045)" 10.64.0.99
  fails 1 '10.64.0.99 is ps_42045.s on the network back' bocker-net up ps_42099 network=back
  fails 1 '10.64.0.99 is ps_42045.s' bocker-net up ps_42046 network=back ip=10.64.0.99
  fails 1 '02:00:00:00:00:07 is ps_42045.s' bocker-net up ps_42046 network=back mac=02:00:00:00:00:07
  fails 1 'not for a container' bocker-net up ps_42046 network=back ip=10.64.0.1
  fails 1 'not for a container' bocker-net up ps_42046 network=back ip=10.64.0.255
  fails 1 'not for a container' bocker-net up ps_42046 network=back ip=10.64.1.5
  fails 1 "is the gateway's" bocker-net up ps_42046 network=back mac=02:42:0a:40:00:01
  fails 2 'MAC' bocker-net up ps_42046 network=back mac=01:00:5e:00:00:01
  fails 2 'named twice' bocker-net up ps_42046 network=back connect=back
  [ ! -e /run/netns/netns_ps_42046 ] && [ ! -e /run/bocker-net/ps_42046 ] || fail "a refusal left something"
  # Free again when its owner is gone, also where that crashed.
  bocker-net down ps_42045
  is "$(bocker-net up ps_42099 network=back)" 10.64.0.99
  ip netns delete netns_ps_42099
  is "$(bocker-net up ps_42046 network=back ip=10.64.0.99)" 10.64.0.99
  # What is left of the crashed one has a name, and goes.
  is "$(bocker-net list)" "$(printf 'ps_42046\t10.64.0.99\t02:42:0a:40:00:63\nps_42099\t-\t-')"
  is "$(echo ps_42099 | bocker-net down -)" netns_ps_42099
  bocker-net down ps_42046
  # On the default network, where most have what follows from their ids.
  bocker-net up ps_42050 >/dev/null
  fails 1 '10.0.0.50 is ps_42050.s on the network bridge' bocker-net up ps_42051 ip=10.0.0.50
  fails 1 '02:42:0a:00:00:32 is ps_42050.s' bocker-net up ps_42051 mac=02:42:0a:00:00:32
  is "$(bocker-net up ps_42051 ip=10.0.0.60)" 10.0.0.60
  fails 1 '10.0.0.60 is ps_42051.s' bocker-net up ps_42060
  is "$(bocker-net up ps_42061)" 10.0.0.61
  bocker-net down ps_42051
  is "$(bocker-net up ps_42060)" 10.0.0.60
  fails 2 'on the network bridge nobody has a name' bocker-net up ps_42062 alias=web
}

test_networks_addresses_at_once() {
  bocker-net setup 2>/dev/null
  bocker-net network create back >/dev/null
  local n pids=() won=0
  for n in 45 46 47 48 49 50; do bocker-net up "ps_420$n" network=back ip=10.64.0.200 >"out.$n" 2>"err.$n" & pids+=($!); done
  for n in "${pids[@]}"; do if wait "$n"; then won=$((won + 1)); fi; done
  is "$won" 1 "who got it: $(cat out.* err.*)"
  is "$(find /run/netns -name 'netns_*' | wc -l)" 1 "the others left nothing"
  is "$(ls /run/bocker-net | wc -l)" 1
  pids=()
  for n in $(seq 60 75); do bocker-net up "ps_420$n" network=back "name=c$n" >"out.$n" & pids+=($!); done
  for n in "${pids[@]}"; do wait "$n"; done
  is "$(cat out.6? out.7? | sort -u | wc -l)" 16
  is "$(hosts ps_42060 | grep -c ' c')" 16 "all names are known to one"
  is "$(hosts ps_42075 | grep -c ' c')" 16
}

test_networks_names() {
  bocker-net setup 2>/dev/null
  bocker-net network create back >/dev/null
  bocker-net network create front >/dev/null
  bocker-net up ps_42045 network=back name=db alias=sql alias=store >/dev/null
  is "$(hosts ps_42045)" "127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
10.64.0.45 ps_42045
10.64.0.45 db
10.64.0.45 sql
10.64.0.45 store"
  local node
  node=$(stat -c %i /run/bocker-net/ps_42045/hosts)
  bocker-net up ps_42046 network=front connect=back,alias=inner name=web >/dev/null
  is "$(ip -n netns_ps_42046 -4 -o address show dev eth1 | awk '{ print $4 }')" 10.64.0.46/24
  is "$(ip -n netns_ps_42046 route show default)" "default via 10.64.1.1 dev eth0 "
  is "$(hosts ps_42045 | tail -3)" "$(printf '10.64.0.46 %s\n' ps_42046 web inner)"
  like "$(hosts ps_42046)" '^10.64.1.46 web$'
  like "$(hosts ps_42046)" '^10.64.0.45 sql$'
  unlike "$(hosts ps_42045)" '^10\.64\.1\.'
  is "$(stat -c %i /run/bocker-net/ps_42045/hosts)" "$node" "it is written to in place, for a container has it mounted"
  is "$(stat -c %a /run/bocker-net/ps_42045/hosts)" 644
  # Programs read it: by the C library, in the container's place.
  is "$(unshare --mount sh -c 'mount --bind /run/bocker-net/ps_42045/hosts /etc/hosts; getent hosts web' | awk '{ print $1, $2 }')" "10.64.0.46 web"
  # Who goes, goes from the files of others; who crashed, with the next command.
  bocker-net up ps_42047 network=back name=third >/dev/null
  like "$(hosts ps_42045)" ' third$'
  bocker-net down ps_42046
  unlike "$(hosts ps_42045)" '10.64.0.46'
  ip netns delete netns_ps_42047
  bocker-net up ps_42048 network=back name=fourth >/dev/null
  unlike "$(hosts ps_42045)" 'third'
  like "$(hosts ps_42045)" '^10.64.0.48 fourth$'
  local name
  for name in localhost ip6-localhost 10.0.0.1 42 ps_42045 'a b' "$(printf 'a\n1.2.3.4 evil')" -x ..; do
    fails 2 . bocker-net up ps_42049 network=back "name=$name"
    fails 2 . bocker-net up ps_42049 network=back "alias=$name"
  done
  is "$(bocker-net up ps_42049 network=back name=ps_42049)" 10.64.0.49 "its own id is no lie"
}

# Nobody but root can keep us waiting: not by any file that is open to others, not out of a container on the host's network.
test_networks_wait_for_nobody_else() {
  bocker-net setup 2>/dev/null
  bocker-net network create back >/dev/null
  bocker-net up ps_42045 network=back publish=8080:80 >/dev/null
  local at out
  for at in /proc/self/ns/net /run/netns/netns_ps_42045 /run/bocker-net /run/bocker-net/ps_42045 /run/bocker-net/ps_42045/ports \
    /run/bocker-net/ps_42045/hosts /run/bocker-net.lock; do
    setpriv --reuid 65534 --regid 65534 --clear-groups flock -x "$at" sleep 30 2>/dev/null &
  done
  sleep 0.2
  out=$(timeout 10 bocker-net up ps_42046 network=back publish=8081:80) || fail "somebody's lock keeps it waiting"
  is "$out" 10.64.0.46
  timeout 10 bocker-net connect ps_42046 bridge
  timeout 10 bocker-net down ps_42045
  timeout 10 bocker-net down ps_42046
  # Only root's own do.
  flock -x /run/bocker-net.lock sleep 30 &
  eventually 5 bash -c '! flock -n /run/bocker-net.lock true'
  fails 124 '^$' timeout 0.5 bocker-net up ps_42046
}

# Of an `up` that fails at its end nobody keeps the names.
test_networks_names_of_what_failed_go() {
  bocker-net setup 2>/dev/null
  bocker-net network create back >/dev/null
  bocker-net up ps_42045 network=back >/dev/null
  local before
  before=$(hosts ps_42045)
  fails 1 'write stdout' bash -c 'bocker-net up ps_42046 network=back name=db >/dev/full'
  is "$(hosts ps_42045)" "$before"
  bocker-net up ps_42046 network=back name=db >/dev/null
  like "$(hosts ps_42045)" 'db'
}

test_networks_connect_and_disconnect() {
  a_world_by_default
  bocker-net setup 2>/dev/null
  local before
  before=$(census)
  bocker-net network create back >/dev/null
  bocker-net network create --internal deep >/dev/null
  bocker-net up ps_42045 >/dev/null
  bocker-net up ps_42046 network=back name=db >/dev/null
  is "$(bocker-net connect ps_42045 back name=web alias=w 2>&1)" ""
  is "$(ip -j -n netns_ps_42045 link show dev veth3_ps_42045 | jq -r '.[0].ifname')" eth1
  is "$(ip -j link show dev veth2_ps_42045 | jq -r '.[0].master')" bkr_back
  ping_from ps_42045 10.64.0.46 || fail "connected, and not there"
  ping_from ps_42045 10.0.0.1 || fail "no longer on the first network"
  is "$(ip -n netns_ps_42045 route show default)" "default via 10.0.0.1 dev eth0 "
  like "$(hosts ps_42046)" '^10.64.0.45 w$'
  fails 1 'is on the network back already' bocker-net connect ps_42045 back
  fails 1 '10.64.0.46 is ps_42046.s' bash -c 'bocker-net disconnect ps_42045 back && bocker-net connect ps_42045 back ip=10.64.0.46'
  unlike "$(hosts ps_42046)" '10.64.0.45'
  no_ping_from ps_42045 10.64.0.46
  fails 1 'is not on the network back' bocker-net disconnect ps_42045 back
  # The way out moves to who is left.
  bocker-net connect ps_42045 deep
  bocker-net connect ps_42045 back
  bocker-net disconnect ps_42045 bridge
  is "$(ip -n netns_ps_42045 route show default)" "default via 10.64.0.1 dev eth2 "
  ping_from ps_42045 192.0.2.2 || fail "no way out"
  bocker-net connect ps_42045 bridge
  is "$(ip -j link show dev veth0_ps_42045 | jq -r '.[0].master')" bridge0
  ping_from ps_42045 10.0.0.1 || fail "not back on the first network"
  # One that a process still holds: all of its cables go.
  bocker-net exec ps_42045 -- sleep 60 &
  eventually 5 grep -q sleep "/proc/$!/comm"
  bocker-net down ps_42045
  is "$(ip -o link | grep -c ps_42045)" 0
  kill "$!"
  wait "$!" || true
  bocker-net down ps_42046
  # On bridge0 alone again, it may still speak there.
  bocker-net up ps_42045 >/dev/null
  ping_from ps_42045 10.0.0.1 || fail "what it was told on two networks, it is not told on one"
  bocker-net down ps_42045
  fails 1 'bocker-net up ps_42045 makes it' bocker-net connect ps_42045 back
  fails 1 'bocker-net up ps_42045 makes it' bocker-net disconnect ps_42045 back
  bocker-net network prune >/dev/null
  is "$(census)" "$before"
  bocker-net setup --undo
}

test_networks_none_host_container_and_path() {
  local before
  before=$(census | grep -v '^mount /run/netns$')
  # None: no bridge is needed, and none is made.
  is "$(bocker-net up ps_42045 network=none)" -
  is "$(ip -n netns_ps_42045 -o link | wc -l)" 1
  ping_from ps_42045 127.0.0.1 || fail "lo is not up"
  is "$(bocker-net address ps_42045)" -
  # Host: the same namespace under a name of its own.
  is "$(bocker-net up ps_42046 network=host)" -
  is "$(bocker-net exec ps_42046 -- readlink /proc/self/ns/net)" "$(readlink /proc/self/ns/net)"
  is "$(bocker-net list --busy)" "$(printf 'ps_4204%s\t-\t-\n' 5 6)" "the host's processes are not the container's"
  fails 1 "its network is the host's" bocker-net connect ps_42046 bridge
  ! ip link show bridge0 2>/dev/null || fail "a bridge for nobody"
  # Another container's.
  bocker-net up --setup ps_42047 >/dev/null 2>&1
  is "$(bocker-net up ps_42048 network=container:ps_42047)" 10.0.0.47
  is "$(bocker-net address ps_42048)" 10.0.0.47
  is "$(bocker-net exec ps_42048 -- readlink /proc/self/ns/net)" "$(bocker-net exec ps_42047 -- readlink /proc/self/ns/net)"
  fails 1 'shared with ps_42047' bocker-net connect ps_42048 bridge
  bocker-net down ps_42047
  ip -n netns_ps_42048 link show lo >/dev/null || fail "the end of one was the end of both"
  ! ip link show veth0_ps_42047 2>/dev/null || fail "a cable was left"
  fails 1 'bocker-net up ps_42047 makes it' bocker-net up ps_42049 network=container:ps_42047
  fails 2 'its own network' bocker-net up ps_42049 network=container:ps_42049
  # Anybody's.
  ip netns add blue
  ip -n blue link add eth0 type bridge
  ip -n blue address add 192.0.2.7/24 dev eth0
  is "$(bocker-net up ps_42049 network=ns:/run/netns/blue)" 192.0.2.7
  bocker-net down ps_42049
  ip -n blue link show eth0 >/dev/null || fail "what was not ours went"
  fails 1 'not a network namespace' bocker-net up ps_42049 network=ns:/proc/self/ns/mnt
  fails 1 'not a network namespace' bocker-net up ps_42049 network=ns:/etc/passwd
  mkfifo pipe
  fails 1 'not a network namespace' timeout 20 bocker-net up ps_42049 "network=ns:$PWD/pipe"
  fails 1 'No such file' bocker-net up ps_42049 network=ns:/run/netns/nosuch
  [ ! -e /run/netns/netns_ps_42049 ] || fail "a refusal left a name"
  fails 1 'File exists' bocker-net up ps_42048 network=host
  local id
  for id in 45 46 48; do bocker-net down "ps_420$id"; done
  [ -d /sys/class/net/lo ] || fail "the host's namespace"
  ip netns delete blue
  bocker-net setup --undo
  is "$(census | grep -v '^mount /run/netns$')" "$before"
}

test_networks_exec_in_anybodys() {
  ip netns add blue
  sleep 60 &
  local here blue
  here=$(readlink /proc/self/ns/net)
  blue=$(ip netns exec blue readlink /proc/self/ns/net)
  is "$(bocker-net exec --ns /run/netns/blue -- readlink /proc/self/ns/net)" "$blue"
  is "$(bocker-net exec --ns "/proc/$!/ns/net" readlink /proc/self/ns/net)" "$here"
  is "$(bocker-net exec --dry-run --ns /run/netns/blue -- readlink /proc/self/ns/net | sh -e)" "$blue"
  is "$(bocker-net exec --ns /run/netns/blue -- printf '%s|' -a -- b)" '-a|--|b|'
  fails 125 'not a network namespace \(as /proc/PID/ns/net' bocker-net exec --ns /proc/self/ns/user -- true
  fails 125 'not a network namespace' bocker-net exec --ns /dev/null -- true
  fails 125 'No such file' bocker-net exec --ns /run/netns/nosuch -- true
  fails 125 'no command was provided' bocker-net exec --ns /run/netns/blue
  fails 127 'nosuch' bocker-net exec --ns /run/netns/blue -- nosuch
  kill "$!"
  wait "$!" || true
}

# A pcap file's packets: time, length, and as what they came.
read_pcap() {
  perl -e 'binmode STDIN; local $/; my $all = <STDIN>; my ($magic, $major, $minor, $zone, $sigfigs, $snap, $link) = unpack("LSSLLLL", $all);
    die sprintf("magic %x\n", $magic) unless $magic == 0xa1b23c4d; print "version $major.$minor snaplen $snap link $link\n"; my $at = 24;
    while ($at < length $all) { my ($s, $ns, $kept, $len) = unpack("LLLL", substr $all, $at, 16); my $data = substr $all, $at + 16, $kept;
      die "cut off\n" if length $data < $kept; die "nanoseconds\n" if $ns >= 1e9; my ($dst, $src, $type) = unpack("H12H12H4", $data);
      print "$s $kept $len $src $dst $type\n"; $at += 16 + $kept }'
}

test_networks_tap() {
  bocker-net up --setup ps_42045 >/dev/null 2>&1
  local started tap
  # No echo is to be lost later.
  ping_from ps_42045 10.0.0.1 || fail "no gateway"
  started=$(date +%s)
  bocker-net tap ps_42045 >some.pcap &
  tap=$!
  eventually 5 test -s some.pcap
  bocker-net exec ps_42045 -- busybox ping -c 3 -s 1000 10.0.0.1 >/dev/null
  seen() { [ "$(read_pcap <some.pcap 2>/dev/null | grep -c ' 1042 1042 .* 0800$')" = 6 ]; }
  eventually 5 seen
  is "$(read_pcap <some.pcap | head -1)" "version 2.4 snaplen 262144 link 1"
  is "$(read_pcap <some.pcap | awk '$3 == 1042 { print $4, $5 }' | sort | uniq -c | awk '{ print $1, $2, $3 }')" \
    "$(printf '3 %s %s\n' 02420a000001 02420a00002d 02420a00002d 02420a000001)"
  local time
  time=$(read_pcap <some.pcap | awk 'NR == 2 { print $1 }')
  [ "$time" -ge "$started" ] && [ "$time" -le "$(date +%s)" ] || fail "the time of a packet: $time"
  # It is nobody in there, so the container's end is not kept up; and it ends with it.
  is "$(bocker-net list --busy | grep -c busy)" 0
  bocker-net down ps_42045
  wait "$tap"
  # Quiet when the reader goes, with packets and without.
  bocker-net up ps_42045 >/dev/null
  is "$(bocker-net tap ps_42045 2>&1 | head -c 4 | od -An -tx1 | tr -d ' ')" 4d3cb2a1
  bocker-net exec ps_42045 -- busybox ping -i 0.1 10.0.0.1 >/dev/null &
  local pinger=$!
  bocker-net tap --interface any ps_42045 2>err | head -c 2000 >any.pcap
  is "$(cat err)" ""
  is "$(od -An -tu4 -j 20 -N 4 any.pcap | tr -d ' ')" 276 "cooked"
  kill "$pinger"
  wait "$pinger" || true
  # Loopback passes twice and is seen once.
  bocker-net tap -i lo ps_42045 >lo.pcap &
  tap=$!
  eventually 5 test -s lo.pcap
  bocker-net exec ps_42045 -- busybox ping -c 2 127.0.0.1 >/dev/null
  both() { [ "$(read_pcap <lo.pcap 2>/dev/null | grep -c ' 0800$')" -ge 4 ]; }
  eventually 5 both
  is "$(read_pcap <lo.pcap | grep -c ' 0800$')" 4
  kill "$tap"
  wait "$tap" || true
  fails 1 'tap nosuch: no such interface there' bocker-net tap -i nosuch ps_42045
  fails 1 'bocker-net up ps_42046 makes it' bocker-net tap ps_42046
  fails 1 'not a network namespace' bocker-net tap --ns /dev/null
  bocker-net tap --ns /run/netns/netns_ps_42045 | head -c 24 | wc -c | grep -qx 24
  bocker-net down ps_42045
  bocker-net setup --undo
}

test_networks_mtu_is_the_uplinks() {
  mtu() { jq -r '.[0].mtu' <<<"$1"; }
  a_world_by_default
  ip link set uplink mtu 1400
  bocker-net setup 2>/dev/null
  bocker-net up ps_42045 >/dev/null
  is "$(mtu "$(ip -j link show bridge0)") $(mtu "$(ip -j link show veth0_ps_42045)") $(mtu "$(ip -j -n netns_ps_42045 link show eth0)")" "1400 1400 1400"
  bocker-net down ps_42045
  is "$(mtu "$(ip -j link show bridge0)")" 1400 "the last port takes nothing along"
  bocker-net network create back >/dev/null
  bocker-net network create --mtu 1300 small >/dev/null
  bocker-net up ps_42045 network=back connect=small >/dev/null
  is "$(mtu "$(ip -j -n netns_ps_42045 link show eth0)") $(mtu "$(ip -j -n netns_ps_42045 link show eth1)")" "1400 1300"
  is "$(mtu "$(ip -j link show bkr_back)") $(mtu "$(ip -j link show bkr_small)")" "1400 1300"
  bocker-net down ps_42045
  # setup follows the uplink.
  ip link set uplink mtu 1450
  is "$(bocker-net setup --dry-run | tail -1)" "ip link set bridge0 mtu 1450"
  bocker-net setup 2>/dev/null
  bocker-net up ps_42045 >/dev/null
  is "$(mtu "$(ip -j -n netns_ps_42045 link show eth0)")" 1450
}

# All IPv6 addresses of the host's bridges and ports, and of a container.
addresses6() { ip -6 -o address show | awk '$2 ~ /^(bridge0|bkr|veth)/'; }

test_networks_without_ipv6_none_leaks() {
  bocker-net setup 2>/dev/null
  bocker-net network create back >/dev/null
  bocker-net up ps_42045 connect=back >/dev/null
  bocker-net up ps_42046 connect=back >/dev/null
  # A kernel that may give an address does so within two seconds of the carrier.
  ip link add control type veth peer name other
  ip link set control up
  ip link set other up
  eventually 15 sh -c 'ip -6 -o address show dev control scope link | grep -v tentative | grep -q fe80'
  is "$(addresses6)" ""
  local interface
  for interface in eth0 eth1; do is "$(ip -n netns_ps_42045 -6 address show dev "$interface")" "" "$interface"; done
  is "$(ip -n netns_ps_42045 -6 -o address show dev lo | awk '{ print $4 }')" ::1/128 "the container's own"
  # A neighbour that plays the router, by hand: nobody listens.
  is "$(cat /proc/sys/net/ipv6/conf/{bridge0,bkr_back,veth0_ps_42045,veth2_ps_42045}/disable_ipv6 | tr -d '\n')" 1111
  bocker-net exec ps_42046 -- sh -c 'echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip address add fd00:5::2/64 dev eth0 nodad'
  ! bocker-net exec ps_42046 -- ping6 -c 1 -W 1 ff02::1%eth0 >/dev/null 2>&1 || fail "somebody answered"
  is "$(addresses6)" ""
  is "$(cat /proc/sys/net/ipv6/conf/all/forwarding)" 0
}

# The rules of IPv6 come back, too, and a network that has no bridge yet lacks none.
test_networks_ipv6_rules_come_back() {
  bocker-net setup 2>/dev/null
  bocker-net network create --subnet6 fd00:1::/64 back >/dev/null
  is "$(bocker-net list 2>&1)" ""
  bocker-net up ps_42045 network=back >/dev/null
  local rules
  rules=$(nft list table ip6 bocker)
  like "$rules" 'oifname "bkr_back" .*drop'
  nft delete table ip6 bocker
  bocker-net list 2>err >/dev/null
  is "$(nft list table ip6 bocker)" "$rules"
  like "$(cat err)" 'table ip6 bocker were gone: made again$'
  is "$(bocker-net list 2>&1 | wc -l)" 1 "said once"
}

test_networks_ipv6_by_subnet() {
  export BOCKER_SUBNET6=fd00:42::/64
  ping6_from() { bocker-net exec "$1" -- busybox ping -6 -c 1 -W 2 "$2" >/dev/null 2>&1; }
  a_world_by_default
  ip address add fd00:aa::1/64 dev uplink nodad
  ip -n world address add fd00:aa::2/64 dev eth0 nodad
  bocker-net setup 2>/dev/null
  like "$(ip -d link show bridge0)" 'alias bocker 10.0.0.1/24 fd00:42::1/64; ip_forward was 0; ip6_forward was 0'
  is "$(bocker-net setup --dry-run)" "" "complete"
  is "$(bocker-net up ps_42045)" 10.0.0.45
  is "$(ip -n netns_ps_42045 -6 -o address show dev eth0 scope global | awk '{ print $4 }')" fd00:42::2d/64
  is "$(ip -n netns_ps_42045 -6 route show default | awk '{ print $3 }')" fd00:42::1
  eventually 15 ping6_from ps_42045 fd00:42::1
  eventually 15 ping6_from ps_42045 fd00:aa::2
  # What leaves bears the host's address: the world has no way back to fd00:42::.
  is "$(cat /proc/sys/net/ipv6/conf/bridge0/accept_ra) $(bocker-net exec ps_42045 -- cat /proc/sys/net/ipv6/conf/eth0/accept_ra)" "0 0"
  is "$(cat /proc/sys/net/ipv6/conf/veth0_ps_42045/disable_ipv6)" 1
  bocker-net network create --subnet6 fd00:43::/64 back >/dev/null
  bocker-net network create plain >/dev/null
  bocker-net up ps_42046 network=back >/dev/null
  is "$(bocker-net up ps_42047 network=back ip6=fd00:43::99 name=web)" 10.64.0.47
  eventually 15 ping6_from ps_42046 fd00:43::99
  eventually 15 ping6_from ps_42046 fd00:aa::2
  ! ping6_from ps_42046 fd00:42::2d || fail "networks are not apart by IPv6"
  like "$(hosts ps_42046)" '^fd00:43::99 web$'
  fails 1 'fd00:43::99 is ps_42047' bocker-net up ps_42048 network=back ip6=fd00:43::99
  fails 1 'not for a container' bocker-net up ps_42048 network=back ip6=fd00:44::9
  fails 1 'has no IPv6' bocker-net up ps_42048 network=plain ip6=fd00:44::9
  bocker-net up ps_42048 network=plain >/dev/null
  is "$(ip -n netns_ps_42048 -6 address show dev eth0)" ""
  local id
  for id in 45 46 47 48; do bocker-net down "ps_420$id"; done
  fails 1 'was made with fd00:42::1/64, not for fd00:50::/64' env BOCKER_SUBNET6=fd00:50::/64 bocker-net up ps_42045
  fails 2 "BOCKER_SUBNET6='fd00::1/64'" env BOCKER_SUBNET6=fd00::1/64 bocker-net setup
  bocker-net setup --undo
  is "$(cat /proc/sys/net/ipv6/conf/all/forwarding) $(nft list tables)" "0 "
}

# advertises NETNS INTERFACE: a router's advertisement from there, to all nodes of the link (RFC 4861)
advertises() {
  # shellcheck disable=SC2016 # perl's
  ip netns exec "$1" perl -MSocket=:all -e 'socket(my $s, AF_INET6, SOCK_RAW, 58) or die; setsockopt($s, 41, 18, pack("i", 255)) or die;
    open(my $i, "<", "/proc/net/if_inet6"); my ($index) = map { hex((split)[1]) } grep { /$ARGV[0]$/ } <$i>;
    setsockopt($s, 41, 17, pack("i", $index)) or die; send($s, pack("CCnCCnNN", 134, 0, 0, 64, 0, 1800, 0, 0), 0,
    pack_sockaddr_in6(0, Socket::inet_pton(AF_INET6, "ff02::1"), $index)) or die "send: $!"' "$2"
}
learned() { ip -6 route show default "$@" | grep -q 'proto ra'; }

# The host's own way out must not be lost by forwarding, nor may a container become it.
test_networks_ipv6_and_routers() {
  a_world_by_default
  learns() { advertises world eth0 2>/dev/null; sleep 0.1; learned; }
  eventually 10 learns
  fails 1 'uplink has its way out from a router.s advertisements.*\(sysctl -w net.ipv6.conf.uplink.accept_ra=2 first\)' \
    env BOCKER_SUBNET6=fd00:42::/64 bocker-net setup
  ! ip link show bridge0 2>/dev/null || fail "half a set-up"
  is "$(cat /proc/sys/net/ipv6/conf/all/forwarding)" 0
  sysctl -qw net.ipv6.conf.uplink.accept_ra=2
  export BOCKER_SUBNET6=fd00:42::/64
  bocker-net setup 2>/dev/null
  is "$(cat /proc/sys/net/ipv6/conf/all/forwarding)" 1
  learned || fail "the way out was lost"
  # A container that says it is a router: neither the host nor its neighbour believes it.
  bocker-net up ps_42045 >/dev/null
  bocker-net up ps_42046 >/dev/null
  local router=fe80::42:aff:fe00:2d
  is_up() { ip -n netns_ps_42045 -6 -o address show dev eth0 scope link | grep -v tentative | grep -q "$router"; }
  eventually 20 is_up
  bocker-net tap ps_42046 >ra.pcap &
  local tap=$!
  eventually 5 test -s ra.pcap
  # The guard lets no such thing into the bridge.
  advertises netns_ps_42045 eth0
  advertises netns_ps_42045 eth0
  sleep 0.3
  unlike "$(read_pcap <ra.pcap)" ' 70 70 .* 86dd$'
  # And without it, nobody believes it.
  nft delete table bridge bocker
  came() { advertises netns_ps_42045 eth0; read_pcap <ra.pcap 2>/dev/null | grep -q ' 70 70 .* 86dd$'; }
  eventually 10 came
  ! learned dev bridge0 || fail "the host took a container for its router"
  is "$(ip -n netns_ps_42046 -6 route show default | grep -c 'proto ra')" 0
  kill "$tap"
  wait "$tap" || true
}

test_networks_wide_subnet() {
  export BOCKER_SUBNET=10.20.0.0/16
  bocker-net network create back >/dev/null
  # The highest id: no range of users is left for it, its network is.
  is "$(bocker-net up --setup --userns=host ps_107534 connect=back 2>/dev/null)" 10.20.255.254
  is "$(ip -n netns_ps_107534 -4 -o address show dev eth1 | awk '{ print $4 }')" 10.64.255.254/16
  is "$(ip -j link show veth2_ps_107534 | jq -r '.[0].master')" bkr_back
  is "$(ip -j -n netns_ps_107534 link show veth3_ps_107534 | jq -r '.[0].ifname')" eth1
  ping_from ps_107534 10.64.0.1 || fail "no gateway"
  like "$(hosts ps_107534)" '^10.64.255.254 ps_107534$'
  bocker-net down ps_107534
  fails 2 'not an id' bocker-net up ps_107535
  bocker-net network create --subnet 10.90.0.0/24 narrow >/dev/null
  fails 1 '10.90.0.0/24 of the network narrow has no address for it \(ip= names one' bocker-net up --userns=host ps_42300 network=narrow
  is "$(bocker-net up --userns=host ps_42300 network=narrow ip=10.90.0.7)" 10.90.0.7
}

# What --dry-run prints, done by a shell, and what the tool does: the same in the kernel and in the files.
networks_state() {
  local at
  for at in "" "-n netns_ps_42045"; do
    [ -z "$at" ] || [ -e /run/netns/netns_ps_42045 ] || continue
    # shellcheck disable=SC2086 # two words
    ip $at -j -d link | jq -S 'sort_by(.ifname) | map({ ifname, mtu, master, altnames, ifalias, kind: .linkinfo.info_kind, flags: (.flags - ["LOWER_UP", "NO-CARRIER"]) } +
      if .ifname | startswith("veth") then {} else { address } end)'
    # Not what the kernel makes itself of the MAC, a while later.
    # shellcheck disable=SC2086
    ip $at -o address show scope global | sed -E 's/^[0-9]+: //; s/ valid_lft.*//; s/\\.*//'
    # shellcheck disable=SC2086
    { ip $at route; ip $at -6 route show default; } | sed -E 's/ (linkdown|pref .*)//g'
  done
  nft -s list ruleset
  cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding
  grep -H . /proc/sys/net/ipv6/conf/*/disable_ipv6 | grep -E '/(bridge0|bkr|veth)' || true
  find /run/netns -mindepth 1 -printf '%f %m\n' 2>/dev/null || true
  { find /run/bocker-net networks -type f 2>/dev/null || true; } | sort | while read -r at; do echo "$at"; sed '/^#/d' "$at" | sort; done
}

test_networks_dry_run_is_what_it_does() {
  local i before
  before=$(networks_state)
  for i in tool shell; do
    mkdir -p "$i"
    # shellcheck disable=SC2329 # called below
    if [ "$i" = tool ]; then go() { "$@" 2>/dev/null; }; else go() { "$1" "$2" --dry-run "${@:3}" >script && sh -e <script; }; fi
    create() { if [ "$i" = tool ]; then bocker-net network create "$@"; else bocker-net network create --dry-run "$@" | sh -e; fi; }
    is "$(create --subnet6 fd00:1::/64 --mtu 1400 back)" back
    is "$(create --internal deep)" deep
    networks_state >"$i/created"
    go bocker-net setup
    is "$(go bocker-net up ps_42046 network=back name=db)" 10.64.0.46
    is "$(go bocker-net up ps_42045 network=back connect=deep,ip=10.64.1.77 name=web alias=w)" 10.64.0.45
    networks_state >"$i/up"
    go bocker-net disconnect ps_42045 deep
    go bocker-net connect ps_42045 bridge
    networks_state >"$i/connected"
    go bocker-net down ps_42045
    go bocker-net up ps_42047 network=none >/dev/null
    go bocker-net up ps_42048 network=container:ps_42047 >/dev/null
    networks_state >"$i/down"
    go bocker-net down ps_42046
    go bocker-net down ps_42047
    go bocker-net down ps_42048
    if [ "$i" = tool ]; then bocker-net network rm back >/dev/null; else bocker-net network rm --dry-run back | sh -e >/dev/null; fi
    networks_state >"$i/removed"
    go bocker-net setup --undo
    bocker-net network prune >/dev/null
    is "$(networks_state)" "$before" "undone by the $i"
  done
  diff -ru tool shell || fail "the shell's state (+) differs from the tool's (-)"
}

test_networks_doctor() {
  unset TEST_PATH
  bocker-net doctor >said || fail "a clean host: $(cat said)"
  is "$(cut -f 1 said | sort -u)" ok "$(cat said)"
  for what in bridge forwarding IPv6 subnet firewall 'left behind' namespaces 'link bridge' 'link veth' 'nft ip' 'nft ip6' 'nft bridge'; do
    like "$(cut -f 2 said)" "^$what\$"
  done
  is "$(awk -F '\t' 'NF != 3' said)" "" "three words a line"
  local before
  bocker-net setup 2>/dev/null
  before=$(census)
  bocker-net doctor >said || fail "with bridge0: $(cat said)"
  is "$(cut -f 1 said | sort -u)" ok
  like "$(cat said)" 'bridge0 is there with 10.0.0.1/24, MTU 1500'
  is "$(census)" "$before" "a look changes nothing"
  sick() { # STATUS LINE: what doctor says now
    local status=0
    bocker-net doctor >said || status=$?
    is "$status" "$1" "status: $(cat said)"
    like "$(cat said)" "$2"
  }
  echo 0 >/proc/sys/net/ipv4/ip_forward
  sick 1 $'^bad\tforwarding\t.*bocker-net setup'
  bocker-net setup 2>/dev/null
  nft delete table ip bocker
  sick 1 $'^bad\tsetup\tsomething was taken away'
  bocker-net setup 2>/dev/null
  # A firewall that drops, and the way out that is offered.
  nft add table ip filter
  nft add chain ip filter FORWARD '{ type filter hook forward priority 0; policy drop; }'
  sick 1 $'^bad\tfirewall\tthe chain ip filter FORWARD drops'
  a_world_by_default
  bocker-net up ps_42045 >/dev/null
  no_ping_from ps_42045 192.0.2.2
  sed -n 's/.*(\(nft insert [^)]*\)).*/\1/p' said | sh -e
  ping_from ps_42045 192.0.2.2 || fail "the way out is none"
  sick 0 $'^ok\tfirewall'
  nft delete table ip filter
  # The old iptables, which nft does not see.
  iptables-legacy -P FORWARD DROP
  sick 1 $'^bad\tfirewall\tthe chain FORWARD of iptables-legacy drops'
  no_ping_from ps_42045 192.0.2.2
  sed -n 's/^bad.firewall.*(\(iptables-legacy .*\))$/\1/p' said | sh -e
  ping_from ps_42045 192.0.2.2 || fail "the way out is none"
  sick 0 $'^ok\tfirewall'
  # Routes.
  ip route add 10.0.0.128/25 dev uplink
  sick 1 $'^bad\tsubnet\t10.0.0.0/24 of the network bridge overlaps the route to 10.0.0.128/25 by uplink'
  ip route delete 10.0.0.128/25 dev uplink
  # What a crash leaves, each with the way out.
  bocker-net network create back >/dev/null
  bocker-net up ps_42046 network=back >/dev/null
  touch /run/netns/netns_ps_42050
  rm networks/back
  ip netns delete netns_ps_42046
  bocker-net up ps_42051 >/dev/null
  ip netns exec netns_ps_42051 sleep 60 &
  eventually 5 grep -q sleep "/proc/$!/comm"
  ip netns delete netns_ps_42051
  sick 0 $'^warn\tleft behind\tnetns_ps_42050 is a name without a namespace \\(bocker-net down ps_42050'
  like "$(cat said)" '/run/bocker-net/ps_42046 is written down, and ps_42046 is not up \(bocker-net down ps_42046'
  like "$(cat said)" 'veth0_ps_42051 is a cable, and ps_42051 is not up \(bocker-net down ps_42051'
  like "$(cat said)" 'bkr_back is the bridge of the network back, which is no more \(ip link delete bkr_back'
  sed -n 's/^warn.*(\(.*\))$/\1/p' said | sh -e
  sick 0 $'^ok\tleft behind\tnothing'
  kill "$!"
  wait "$!" || true
  ip link delete bridge0
  ip link add bridge0 type veth peer name x
  sick 1 $'^bad\tbridge\tbridge0 is not a bridge'
  fails 1 'needs root' setpriv --reuid 1000 --clear-groups bocker-net doctor
}

# The default path writes nothing, calls no nft, and says no more to the kernel than it must.
test_networks_the_default_path_stays_short() {
  bocker-net setup 2>/dev/null
  mount --bind /bin/false /usr/sbin/nft
  bocker-net up ps_42045 >/dev/null
  [ ! -e /run/bocker-net ] || fail "a file for nobody"
  umount /usr/sbin/nft
  strace -f -e trace=sendto,sendmsg,write,execve -o trace bocker-net up ps_42046 >/dev/null
  # Two looks at bridge0; the pair, alternative name (2), address (2), eth0, lo, route.
  is "$(grep -c 'sendto(.*AF_NETLINK' trace)" 10 "$(grep sendto trace)"
  is "$(grep -c execve trace)" 1
}

# Check 36: killed at any call that changes something, nothing is left that `list` does not name and `down` does not take; and what
# it was to do can be done at once.
test_networks_killed_at_every_step() {
  local calls=sendto,mkdir,mount,rename,write,unlink,link,linkat,umount2,clone,clone3 k status left=0
  bocker-net setup 2>/dev/null
  # killed K COMMAND...: at its Kth call; fails if it ended by itself
  killed() {
    local at=$1
    shift
    status=0
    strace -f -qq -o /dev/null -e trace="$calls" -e inject="$calls:signal=SIGKILL:when=$at" "$@" >out 2>err || status=$?
    [ "$status" != 0 ] || return 1
    # Killed itself, or the nft that it started.
    [ "$status" = 137 ] || like "$(cat err)" '^bocker-net: ' "step $at, status $status"
  }
  for ((k = 1; ; k++)); do
    killed "$k" bocker-net network create back || break
    [ "$(bocker-net network create back 2>err)" = back ] || like "$(cat err)" 'File exists'
    is "$(cat networks/back)" subnet=10.64.0.0/24 "step $k"
    is "$(bocker-net network rm back)" back
    is "$(ls -A networks)" "" "step $k"
  done
  [ "$k" -gt 4 ] || fail "killed at $((k - 1)) steps only"
  bocker-net network rm back >/dev/null
  local before
  before=$(census)
  # With the bridges, which are made on the way.
  for ((k = 1; ; k++)); do
    bocker-net network create back >/dev/null
    bocker-net network create --internal deep >/dev/null
    killed "$k" bocker-net up ps_42045 network=back connect=deep name=web || break
    left=$((left + $(bocker-net list | wc -l)))
    bocker-net list | bocker-net down - >/dev/null
    is "$(bocker-net up ps_42045 network=deep)" 10.64.1.45 "step $k"
    bocker-net down ps_42045
    bocker-net network rm back deep >/dev/null
    is "$(census)" "$before" "step $k"
  done
  [ "$k" -gt 20 ] && [ "$left" -gt 10 ] || fail "killed at $((k - 1)) steps, $left of which left something"
  bocker-net down ps_42045
  before=$(census)
  for ((k = 1; ; k++)); do
    bocker-net up ps_42045 network=back connect=deep name=web >/dev/null
    killed "$k" bocker-net down ps_42045 || break
    bocker-net list | bocker-net down - >/dev/null
    is "$(census)" "$before" "down, step $k"
  done
  for ((k = 1; ; k++)); do
    killed "$k" bocker-net network rm back || break
    [ ! -e networks/back ] || bocker-net network rm back >/dev/null
    unlike "$(ip -o link; nft -s list ruleset)" bkr_back "rm, step $k"
    bocker-net network create --subnet 10.64.0.0/24 back >/dev/null
    bocker-net up ps_42045 network=back >/dev/null
    bocker-net down ps_42045
  done
}
