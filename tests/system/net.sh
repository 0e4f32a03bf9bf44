# shellcheck shell=bash
# bocker-net in a disposable host. Sourced by tests/run.

# What the kernel has in the host and in the container's namespace, without what differs each time:
# indexes, timers, the random MAC of the host's end, and the IPv6 address that a bridge gives itself a while later.
kernel_state() {
  local at
  for at in "" "-n netns_ps_42045"; do
    [ -z "$at" ] || [ -e /run/netns/netns_ps_42045 ] || continue
    # shellcheck disable=SC2086 # two words
    ip $at -j -d address | jq -S 'sort_by(.ifname) | map(
      if .ifname | startswith("veth0_") then del(.address) else . end
      | del(.ifindex, .link_index, .link_netnsid)
      | if .ifname == "bridge0" then del(.addr_info[] | select(.family == "inet6")) else . end
      | del(.linkinfo.info_data | .hello_timer, .gc_timer, .tcn_timer, .topology_change_timer)
      | del(.linkinfo.info_slave_data | .hold_timer, .message_age_timer, .forward_delay_timer))'
    # shellcheck disable=SC2086
    ip $at -j -d route | jq -S .
  done
  nft -s list ruleset
  cat /proc/sys/net/ipv4/ip_forward
  find /run/netns -mindepth 1 -printf '%f %m\n' 2>/dev/null || true
}

links_and_names() {
  ip -o link | sed -E 's/^[0-9]+: ([^:@]+).*/\1/'
  find /run/netns -mindepth 1 -printf '%f\n' 2>/dev/null || true
}

# The bridge's carrier follows its ports a moment later.
a_port() { ip -j link show bridge0 | jq -e '.[0].operstate == "UP"' >/dev/null; }
no_port() { ip -j link show bridge0 | jq -e '.[0].operstate == "DOWN"' >/dev/null; }

runs() { [ "$(cat "/proc/$1/comm")" = "$2" ]; }

is_up() { ip -j -n "netns_$1" link show dev eth0 | jq -e '.[0].operstate == "UP"' >/dev/null; }

# without_netns_mount: a census without the mount that `ip netns add` leaves, too
census_is() { [ "$(census | grep -v '^mount /run/netns$')" = "$1" ]; }

test_net_up_makes_what_the_script_made() {
  bocker-net setup 2>err
  is "$(cat err)" "bocker-net: set up bridge0 with 10.0.0.1/24, forwarding and NAT (bocker-net setup --undo takes it back)"
  is "$(bocker-net setup 2>&1)" "" "the second time"
  is "$(bocker-net up ps_42045)" 10.0.0.45 "up prints the address"
  is "$(ip -j -n netns_ps_42045 address show dev eth0 | jq -r '.[0].addr_info[] | "\(.local)/\(.prefixlen)"')" 10.0.0.45/24
  eventually 10 is_up ps_42045
  is "$(ip -j -n netns_ps_42045 link show dev veth1_ps_42045 | jq -r '.[0] | "\(.ifname) \(.address) \(.operstate)"')" \
    "eth0 02:42:0a:00:00:2d UP"
  is "$(ip -j -n netns_ps_42045 route show default | jq -r '.[0].gateway')" 10.0.0.1
  is "$(ip -j link show dev veth0_ps_42045 | jq -r '.[0].master')" bridge0
  is "$(ip -n netns_ps_42045 link show dev lo up | wc -l)" 2 "lo is up"
  is "$(ip -6 address show scope link | grep -c 'veth0_')" 0 "no IPv6 address on the host's end"
  is "$(ip -n netns_ps_42045 -6 address show dev eth0)" "" "no IPv6 address inside"
  eventually 10 pings ps_42045 10.0.0.1
}

test_net_ids_that_collided_reach_each_other() {
  bocker-net setup
  # The script gave all three 10.0.0.2.
  local id
  for id in ps_42002 ps_42020 ps_42200; do bocker-net up "$id"; done >addresses
  is "$(cat addresses)" "$(printf '10.0.0.%s\n' 2 20 200)"
  eventually 10 pings ps_42002 10.0.0.20
  eventually 10 pings ps_42020 10.0.0.200
  is "$(bocker-net list)" "$(printf 'ps_%s\t10.0.0.%s\t02:42:0a:00:00:%s\n' 42002 2 02 42020 20 14 42200 200 c8)"
  is "$(bocker-net list --json | jq -r .address | tr '\n' ' ')" "10.0.0.2 10.0.0.20 10.0.0.200 "
  bocker-net list | true
}

test_net_nat_reaches_the_world() {
  a_world
  bocker-net up --setup ps_42045 2>/dev/null >/dev/null
  eventually 10 pings ps_42045 192.0.2.2
  nft delete table ip bocker
  # bocker-net exec would make it again.
  ! ip netns exec netns_ps_42045 busybox ping -c 1 -W 1 192.0.2.2 >/dev/null || fail "reached without NAT: the test proves nothing"
  bocker-net setup
  eventually 10 pings ps_42045 192.0.2.2
}

test_net_down_leaves_nothing() {
  bocker-net setup
  local before i
  before=$(census | grep -v '^mount /run/netns$')
  for i in 1 2 3 4 5; do
    bocker-net up ps_42045 >/dev/null
    bocker-net down ps_42045
    ! ip link show dev veth0_ps_42045 2>/dev/null || fail "the link is there after down"
    [ ! -e /run/netns/netns_ps_42045 ] || fail "the name is there after down"
  done
  is "$(bocker-net down ps_42045 2>&1)" "" "already gone is no error"
  # What a crash may leave: a file without a mount, a link without a name.
  touch /run/netns/netns_ps_42045
  is "$(bocker-net list)" "$(printf 'ps_42045\t-\t-')"
  bocker-net down ps_42045
  bocker-net up ps_42045 >/dev/null
  ip netns delete netns_ps_42045 &
  wait
  bocker-net down ps_42045
  # A process that stays inside keeps the namespace; the cable goes.
  bocker-net up ps_42045 >/dev/null
  bocker-net exec ps_42045 -- sleep 60 &
  local sleeper=$!
  eventually 5 runs "$sleeper" sleep
  bocker-net down ps_42045
  ! ip link show dev veth0_ps_42045 2>/dev/null || fail "the link is there though a process lives"
  kill "$sleeper"
  wait "$sleeper" || true
  # The child that waits for the kernel ends within a moment.
  eventually 10 census_is "$before"
}

test_net_down_is_done_when_it_ends() {
  bocker-net setup
  local before
  before=$(census)
  # One after another, faster than the kernel takes a namespace down; and one that a process still holds.
  for n in 45 46 47 48 49; do
    bocker-net up "ps_420$n" >/dev/null
    bocker-net down "ps_420$n"
    is "$(census)" "$before" "after the $n"
  done
  bocker-net up ps_42045 >/dev/null
  bocker-net exec ps_42045 -- sleep 100 &
  eventually 5 grep -q sleep "/proc/$!/comm"
  bocker-net down ps_42045
  ! ip link show veth0_ps_42045 2>/dev/null || fail "the link is still there"
  kill "$!"
  wait "$!" || true
}

test_net_failure_rolls_back() {
  bocker-net setup
  local before
  before=$(links_and_names)
  # Someone else's link of that name.
  ip link add veth0_ps_42045 type bridge
  fails 1 '^bocker-net: create veth0_ps_42045: File exists ' bocker-net up ps_42045
  [ ! -e /run/netns/netns_ps_42045 ] || fail "the name was left"
  fails 1 'veth0_ps_42045 is no veth' bocker-net down ps_42045
  ip link show dev veth0_ps_42045 >/dev/null || fail "touched what is not ours"
  ip link delete veth0_ps_42045
  # The last step fails: everything is taken back.
  local status=0
  bocker-net up ps_42045 2>err >/dev/full || status=$?
  is "$status $(cat err)" "1 bocker-net: write stdout: No space left on device"
  is "$(links_and_names)" "$before" "state after a failed up"
  # Twice the same id.
  bocker-net up ps_42045 >/dev/null
  before=$(links_and_names)
  fails 1 'netns_ps_42045: File exists \(bocker-net down ps_42045' bocker-net up ps_42045
  is "$(links_and_names)" "$before" "state after a second up"
}

test_net_signals_do_not_cut_it_in_half() {
  bocker-net setup
  local i links names
  for i in $(seq 1 30); do
    bocker-net up ps_42045 >/dev/null 2>&1 &
    sleep "0.00$((i % 10))"
    kill -TERM $! 2>/dev/null || true
    wait $! || true
    links=$(ip -o link | grep -c veth0_ps_42045 || true)
    names=$(find /run/netns -name 'netns_*' 2>/dev/null | wc -l || true)
    is "$links" "$names" "either both or none"
    [ "$names" = 0 ] || is "$(ip -n netns_ps_42045 route show default)" "default via 10.0.0.1 dev eth0 " "a whole one"
    bocker-net down ps_42045
  done
}

test_net_dry_run_is_what_it_does() {
  local before i
  before=$(kernel_state)
  for i in tool shell; do
    if [ "$i" = tool ]; then
      is "$(bocker-net up --setup ps_42045 2>/dev/null)" 10.0.0.45
    else
      bocker-net up --setup --dry-run ps_42045 >script
      is "$(kernel_state)" "$before" "a dry run does nothing"
      is "$(sh -e <script)" 10.0.0.45
    fi
    eventually 5 a_port
    kernel_state >"made.$i"
    if [ "$i" = tool ]; then bocker-net down ps_42045; else bocker-net down --dry-run ps_42045 | sh -e; fi
    eventually 5 no_port
    kernel_state >"down.$i"
    if [ "$i" = tool ]; then bocker-net setup --undo; else bocker-net setup --undo --dry-run | sh -e; fi
    kernel_state >"undone.$i"
    is "$(cat "undone.$i")" "$before" "undone by the $i"
  done
  diff -u made.tool made.shell || fail "up differs"
  diff -u down.tool down.shell || fail "down differs"
  # setup alone
  bocker-net setup
  eventually 5 no_port
  kernel_state >setup.tool
  [ -e /run/bocker-net.lock ] || fail "no lock: the next line proves nothing"
  bocker-net setup --undo
  [ ! -e /run/bocker-net.lock ] || fail "its lock is left"
  bocker-net setup --dry-run | sh -e
  eventually 5 no_port
  kernel_state >setup.shell
  diff -u setup.tool setup.shell || fail "setup differs"
  is "$(bocker-net setup --dry-run)" "" "the shell's set-up is complete"
  # --explain says the same on stderr, and acts.
  bocker-net setup --undo --dry-run >said
  bocker-net setup --undo --explain 2>told >told.out
  diff said told
  is "$(cat told.out)" ""
  ! ip link show bridge0 2>/dev/null || fail "--explain did not act"
}

test_net_setup_is_idempotent_and_repairs() {
  bocker-net setup
  local whole
  eventually 5 no_port
  whole=$(kernel_state)
  is "$(bocker-net setup --explain 2>&1)" "" "nothing to do"
  ip address flush dev bridge0
  nft flush table ip bocker
  echo 0 >/proc/sys/net/ipv4/ip_forward
  ip link set bridge0 down
  bocker-net setup
  is "$(ip -4 -o address show dev bridge0 | wc -l)" 1
  like "$(nft list table ip bocker)" masquerade
  is "$(cat /proc/sys/net/ipv4/ip_forward)" 1
  eventually 5 no_port
  is "$(kernel_state | grep -c UP)" "$(grep -c UP <<<"$whole")"
  is "$(cat /sys/class/net/bridge0/address)" 02:42:0a:00:00:01
  # A table of someone else with a like name stays.
  nft add table ip bocker2
  bocker-net setup --undo
  bocker-net setup --undo
  is "$(nft list tables)" "table ip bocker2"
  is "$(cat /proc/sys/net/ipv4/ip_forward)" 0
  # Forwarding that was on stays on.
  echo 1 >/proc/sys/net/ipv4/ip_forward
  bocker-net setup
  bocker-net setup --undo
  is "$(cat /proc/sys/net/ipv4/ip_forward)" 1
}

test_net_setup_refuses_what_is_not_ours() {
  local before
  ip link add bridge0 type veth peer name other-end
  before=$(kernel_state)
  fails 1 'bridge0 is not a bridge' bocker-net setup
  fails 1 'bridge0 is not a bridge' bocker-net up --setup ps_42045
  ip link delete bridge0
  ip link add bridge0 type bridge
  fails 1 "bridge0 is not bocker's" bocker-net setup
  fails 1 "bridge0 is not bocker's" bocker-net up --setup ps_42045
  bocker-net setup --undo
  ip link show bridge0 >/dev/null || fail "undo took someone else's bridge"
  # With the original's prerequisites, made by hand, it is used as it is.
  ip address add 10.0.0.1/24 dev bridge0
  ip link set bridge0 up
  is "$(bocker-net up --setup ps_42045 2>&1)" 10.0.0.45
  is "$(nft list tables)" "" "no rules on a bridge that is not ours"
  bocker-net down ps_42045
  ip link delete bridge0
  ip link add other type bridge
  ip address add 10.0.0.9/16 dev other
  fails 1 'overlaps 10.0.0.9/16 of other' bocker-net setup
  ! ip link show bridge0 2>/dev/null || fail "half a set-up"
  BOCKER_SUBNET=10.9.0.0/24 bocker-net setup || fail "a subnet that is free was refused"
  bocker-net setup --undo
}

test_net_undo_refuses_while_in_use() {
  bocker-net up --setup ps_42045 >/dev/null 2>&1
  local before
  eventually 5 a_port
  before=$(kernel_state)
  fails 1 'in use by veth0_ps_42045' bocker-net setup --undo
  is "$(kernel_state)" "$before" "a refusal changes nothing"
  bocker-net down ps_42045
  bocker-net setup --undo
}

# Killed between making the bridge and writing its alias.
test_net_unfinished_bridge_is_ours() {
  local before
  before=$(kernel_state)
  ip link add bridge0 address 02:42:0a:00:00:01 type bridge
  bocker-net setup --undo
  is "$(kernel_state)" "$before" "after the undo of what was not finished"
  ip link add bridge0 address 02:42:0a:09:00:01 type bridge
  is "$(bocker-net up --setup ps_42045 2>/dev/null)" 10.0.0.45
  is "$(bocker-net setup --dry-run)" "" "the bridge is complete"
  bocker-net down ps_42045
  bocker-net setup --undo
  is "$(kernel_state)" "$before"
}

# Who was attached stays attached, who comes later makes the bridge again.
test_net_undo_beside_up() {
  local n undo
  for n in $(seq 25); do
    bocker-net setup 2>/dev/null
    bocker-net setup --undo 2>/dev/null & undo=$!
    bocker-net up --setup ps_42045 >/dev/null 2>err || fail "up in round $n: $(cat err)"
    wait "$undo" || true
    like "$(ip -o link show veth0_ps_42045)" 'master bridge0' "round $n"
    bocker-net down ps_42045
  done
  bocker-net setup --undo
}

test_net_many_at_once_on_a_bare_host() {
  local n status=0 pids=()
  for n in $(seq 2 21); do
    bocker-net up --setup "ps_$((42000 + n))" >"out.$n" 2>"err.$n" &
    pids+=($!)
  done
  for n in "${pids[@]}"; do wait "$n" || status=$?; done
  is "$status" 0 "all of them: $(cat err.*)"
  is "$(cat out.* | sort -u | wc -l)" 20 "addresses"
  is "$(cat err.* | wc -l)" 1 "one of them made the bridge: $(cat err.*)"
  is "$(bocker-net setup --dry-run)" "" "the bridge is complete"
  is "$(grep -c ' /netns /run/netns ' /proc/self/mountinfo)" 1 "one mount of /run/netns"
  eventually 10 pings ps_42002 10.0.0.21
  for n in $(seq 2 21); do bocker-net down "ps_$((42000 + n))" & done
  wait
  is "$(bocker-net list)" ""
  is "$(ip -o link | grep -c veth0_)" 0
  bocker-net setup --undo
}

test_net_subnet() {
  fails 1 '^bocker-net: ps_42255: 10.0.0.0/24 has no address for it \(BOCKER_SUBNET' bocker-net up ps_42255
  fails 2 "^bocker-net: BOCKER_SUBNET='10.0.0.1/24': bits of the host part" env BOCKER_SUBNET=10.0.0.1/24 bocker-net setup
  export BOCKER_SUBNET=10.20.0.0/16
  is "$(bocker-net up --setup ps_42300 2>/dev/null)" 10.20.1.44
  is "$(cat /sys/class/net/bridge0/address)" 02:42:0a:14:00:01
  eventually 10 pings ps_42300 10.20.0.1
  fails 1 'was made with 10.20.0.1/16' env BOCKER_SUBNET=10.0.0.0/24 bocker-net up --setup ps_42045
  fails 1 'was made with 10.20.0.1/16' env BOCKER_SUBNET=10.0.0.0/24 bocker-net setup
  bocker-net down ps_42300
  unset BOCKER_SUBNET
  bocker-net setup --undo
}

test_net_works_without_nft() {
  local status=0
  mount --bind /bin/false /usr/sbin/nft
  bocker-net setup 2>err || status=$?
  is "$status" 0
  is "$(grep -c 'no NAT' err)" 1 "one warning"
  like "$(cat err)" '^bocker-net: no NAT and no guard: '
  like "$(cat err)" 'set up bridge0 with 10.0.0.1/24 and forwarding \('
  bocker-net setup 2>err
  like "$(cat err)" '^bocker-net: no NAT and no guard: '
  is "$(wc -l <err)" 1 "what is still missing is said, and nothing else"
  is "$(bocker-net up ps_42045)" 10.0.0.45
  bocker-net down ps_42045
  bocker-net setup --undo
  umount /usr/sbin/nft
  # No nft at all: an empty directory in its place.
  mkdir empty
  # shellcheck disable=SC2016 # expanded by the inner shell
  unshare --mount sh -ec 'mount --bind empty /usr/sbin; exec "$BOCKER_BIN/bocker-net" setup' 2>err
  like "$(cat err)" '^bocker-net: no NAT and no guard: '
  bocker-net setup --undo
}

test_net_exec_statuses() {
  bocker-net up --setup ps_42045 >/dev/null 2>&1
  fails 127 '^bocker-net: execute nosuch: No such file or directory$' bocker-net exec ps_42045 -- nosuch
  touch plain
  fails 126 '^bocker-net: execute ./plain: Permission denied$' bocker-net exec ps_42045 -- ./plain
  fails 125 'bocker-net up ps_42046 makes it' bocker-net exec ps_42046 -- true
  fails 125 'img_42045 is an image' bocker-net exec img_42045 -- true
  fails 125 'not an id' bocker-net exec ../../etc/passwd -- true
  fails 125 'not provided' bocker-net exec ps_42045
  local status=0
  bocker-net exec ps_42045 -- sh -c 'exit 42' || status=$?
  is "$status" 42
  status=0
  bocker-net exec ps_42045 -- sh -c 'kill -TERM $$' || status=$?
  is "$status" 143
  is "$(bocker-net exec ps_42045 -- printf '%s|' a '' 'b c' $'\xff' --help -- | od -An -c | tr -d ' \n')" 'a||bc|377|--help|--|'
  is "$(echo hi | bocker-net exec ps_42045 cat)" hi
  is "$(bocker-net exec --dry-run ps_42045 -- readlink /proc/self/ns/net | sh -e)" \
    "$(bocker-net exec ps_42045 -- readlink /proc/self/ns/net)"
  # SIGPIPE has its default again: yes dies of it in silence.
  is "$(bocker-net exec ps_42045 -- yes 2>&1 | head -1)" y
  # A descriptor that the caller leaked does not reach the command.
  is "$(bocker-net exec ps_42045 -- sh -c 'ls /proc/self/fd' 7</etc/passwd | grep -c '^7$')" 0
}

test_net_exec_is_a_link_of_the_chain() {
  bocker-net up --setup ps_42045 >/dev/null 2>&1
  bocker-cg create ps_42045
  local both
  both=$(bocker-cg exec ps_42045 -- bocker-net exec ps_42045 -- sh -c 'cat /proc/self/cgroup; readlink /proc/self/ns/net')
  like "$both" '/ps_42045$'
  like "$both" "^$(bocker-net exec ps_42045 readlink /proc/self/ns/net | sed 's/[][]/\\&/g')$"
  bocker-cg delete ps_42045
}

test_net_bad_words() {
  fails 2 'no command given' bocker-net
  fails 2 "unrecognized subcommand 'fly'" bocker-net fly
  local id
  for id in '' . .. / -x path ps ps_ ps_42001 ps_042045 ps_42045/.. "$(printf 'ps_%010000d' 4)"; do
    fails 2 . bocker-net up "$id"
    fails 2 . bocker-net down "$id"
  done
  fails 2 'img_42150 is an image' bocker-net up img_42150
  fails 1 'no bridge0 \(bocker-net setup' bocker-net up ps_42045
  local verb
  for verb in setup 'setup --undo' 'up ps_42045' 'down ps_42045' list; do
    # shellcheck disable=SC2086 # words
    fails 1 'needs root' setpriv --reuid 1000 --clear-groups bocker-net $verb
  done
  is "$(bocker-net --version | wc -l)" 1
}
