# shellcheck shell=bash disable=SC2016,SC2154 # what is in single quotes is for the container's shell; repo: tests/lib.sh
# The network's flags through the whole of bocker: ports, names, networks, at the first start and at every other.

# A host that is set up, and an image of busybox in $img, which serves what is in /srv.
image() {
  bocker setup 2>/dev/null
  a_tree tree
  mkdir tree/srv
  img=$(bocker init "$PWD/tree" | sed -n 's/^Created: //p')
}
# serve NAME FLAG...: a container that says its name on port 80
serve() {
  local name=$1
  shift
  bocker run -d --name "$name" --dns 127.0.0.1 "$@" "$img" sh -c "echo i am $name >/srv/index.html; exec busybox httpd -f -p 80 -h /srv" >/dev/null
}
get() { curl -fsS -m 5 --noproxy '*' "http://$1/"; }
quietly() { "$@" >/dev/null 2>&1; }
says() { [ "$(get "$1" 2>/dev/null)" = "i am $2" ]; }
refused() { ! curl -s -m 2 --noproxy '*' "http://$1/" >/dev/null; }
over() { bocker rm -f "$@" >/dev/null; }
once() { timeout 2 bocker exec "$1" wget -q -O - "http://$2/"; }
# A machine that stands still for a while is no answer.
from() { once "$@" || once "$@" || once "$@"; }
# A neighbour: another host on the wire, $host is our address there.
neighbour() {
  host=192.0.2.1
  ip netns add next && ip link add wire type veth peer name eth0 netns next
  ip addr add $host/24 dev wire && ip link set wire up
  ip -n next addr add 192.0.2.2/24 dev eth0 && ip -n next link set eth0 up && ip -n next link set lo up
}
no_neighbour() { ip link del wire && ip netns del next; }

test_a_published_port() {
  image
  neighbour
  before=$(census)
  serve web -p 8080:80 -p 127.0.0.1:8081:80 -p 5353:53/udp
  eventually 5 says 127.0.0.1:8080 web
  is "$(get 127.0.0.1:8080)" 'i am web' "from the host by its own loopback"
  is "$(get $host:8080)" 'i am web' "by its address"
  is "$(ip netns exec next curl -fsS -m 5 http://$host:8080/)" 'i am web' "from a neighbour"
  is "$(get 127.0.0.1:8081)" 'i am web'
  ! ip netns exec next curl -s -m 2 http://$host:8081/ >/dev/null || fail "what is published on loopback is to be had from outside"
  # From another container, by the host's address, and by a link.
  serve other --link web:store
  eventually 5 quietly from other store
  is "$(from other store) $(from other web) $(from other "$(bocker-store id web)")" 'i am web i am web i am web' "by alias, name and id"
  is "$(from other $host:8080)" 'i am web' "through the host"
  is "$(bocker port web | sort)" $'53/udp -> 0.0.0.0:5353\n80/tcp -> 0.0.0.0:8080\n80/tcp -> 127.0.0.1:8081'
  is "$(bocker port web 53/udp)" 0.0.0.0:5353
  is "$(bocker ps --filter name=^web$ --format '{{.Ports}}' | sed 's/, /\n/g' | sort | xargs)" \
    '0.0.0.0:5353->53/udp 0.0.0.0:8080->80/tcp 127.0.0.1:8081->80/tcp'
  like "$(bocker inspect web)" '^network	publish=8080:80$'
  # One that is taken is said before anything starts, and nothing is left of who asked.
  now=$(census)
  fails 125 '^bocker-net: .*8080.*' bocker run --rm -p 8080:80 "$img" true
  fails 125 '^bocker-net: .*8080.*' bocker run -d -p 8080:80 "$img" true
  is "$(census)" "$now"
  # When it has ended the port is free, and when it starts it has it again.
  bocker stop -t 0 web >/dev/null
  refused 127.0.0.1:8080 || fail "it goes on"
  is "$(bocker ps --filter name=^web$ --format '{{.Ports}}')" ''
  bocker start web >/dev/null
  eventually 5 says $host:8080 web
  bocker restart -t 0 web >/dev/null
  eventually 5 says 127.0.0.1:8081 web
  is "$(bocker port web | wc -l)" 3
  # A start that cannot have it leaves the container as it was.
  bocker stop -t 0 web >/dev/null
  serve thief -p 8080:80
  fails 1 '^bocker-net: .*8080.*' bocker start web
  over thief
  bocker start web >/dev/null
  eventually 5 says 127.0.0.1:8080 web
  over web other
  ends_as "$before"
  # Control.
  refused 127.0.0.1:8080 || fail "something else serves there"
  no_neighbour
}

test_all_that_an_image_names() {
  image
  before=$(census)
  jq -c '.config.ExposedPorts = {"80/tcp": {}}' "$BOCKER_ROOT/$img/config" >config && cat config >"$BOCKER_ROOT/$img/config"
  before=$(census)
  serve web -P --expose 9000 --expose 53/udp
  port=$(bocker port web 80)
  like "$port" '^0\.0\.0\.0:[0-9]+$'
  eventually 5 says "127.0.0.1:${port#*:}" web
  is "$(bocker port web | sed 's/ .*//' | sort | xargs)" '53/udp 80/tcp 9000/tcp'
  bocker restart -t 0 web >/dev/null
  port=$(bocker port web 80/tcp)
  eventually 5 says "127.0.0.1:${port#*:}" web
  over web
  # Without -P they are only told.
  serve web --expose 9000
  is "$(bocker ps --format '{{.Ports}}') $(bocker port web)" '80/tcp, 9000/tcp '
  over web
  # create looks at the words, though it does nothing with them.
  for words in '-p 80:x' '-p 70000:80' '--ip 10.0.0' '--mac-address x' '--network a/b' '--network none -p 80:80' '--expose x'; do
    # shellcheck disable=SC2086 # words
    fails 125 '^bocker-net: ' bocker create $words "$img" true
  done
  ends_as "$before"
}

test_networks_with_names() {
  image
  before=$(census)
  bocker network create back >/dev/null
  bocker network create --subnet 10.77.0.0/24 front >/dev/null
  is "$(bocker network ls -q | sort | xargs)" "$(printf '%s\n' bridge back front | sort | xargs)"
  serve db --network back --network-alias sql
  serve web --network back --network name=front,ip=10.77.0.9 --add-host gate:192.0.2.9 --link db:store
  eventually 5 quietly from web db
  is "$(from web db) $(from web sql) $(from web "$(bocker-store id db)")" 'i am db i am db i am db'
  is "$(from db web)" 'i am web'
  is "$(bocker exec web grep -c 192.0.2.9 /etc/hosts) $(from web store)" '1 i am db' "names of its own beside them"
  like "$(bocker exec web ip -o -4 addr)" '10\.77\.0\.9/24'
  is "$(bocker ps --filter name=web --format '{{.Networks}}')" back,front
  # One that comes later is known to those that are there, and one that goes no more.
  serve late --network back
  eventually 5 quietly from db late
  over late
  ! quietly once db late || fail "known for ever"
  # Others do not know them, by name or by address.
  serve alone
  at=$(bocker-net address "$(bocker-store id db)")
  ! quietly once alone db || fail "known to all"
  ! quietly once alone "$at" || fail "reached from another network"
  bocker network connect --alias solo back alone
  eventually 5 quietly from alone "$at"
  eventually 5 quietly from db solo
  is "$(bocker ps --filter name=alone --format '{{.Networks}}')" bridge,back
  # All of that again.
  bocker restart -t 0 web alone db >/dev/null
  eventually 5 quietly from web db
  eventually 5 quietly from db solo
  eventually 5 quietly from alone sql
  is "$(bocker exec web grep -c 192.0.2.9 /etc/hosts)" 1
  like "$(bocker exec web ip -o -4 addr)" '10\.77\.0\.9/24'
  bocker network disconnect back alone
  ! quietly once alone "$at" || fail "still reached"
  bocker restart -t 0 alone >/dev/null
  ! quietly once alone "$at" || fail "again reached"
  is "$(bocker ps --filter name=alone --format '{{.Networks}}')" bridge
  # Another name from the next start on.
  bocker rename db base
  bocker restart -t 0 base >/dev/null
  eventually 5 quietly from web base
  # One that does not run joins at its start.
  bocker stop -t 0 alone >/dev/null
  bocker network connect front alone
  bocker start alone >/dev/null
  eventually 5 quietly from web alone
  fails 1 '^bocker-net: ' bocker network rm back
  # Without a way out there is a gateway all the same.
  bocker network create --internal inner >/dev/null
  like "$(bocker run --rm --network inner --add-host gate:host-gateway "$img" awk '$2 == "gate" { print $1 }' /etc/hosts)" '^10\.64\.[0-9]+\.1$'
  bocker network rm inner >/dev/null
  over web base alone
  bocker network rm back front >/dev/null
  ends_as "$before"
}

test_no_network_the_hosts_and_anothers() {
  image
  before=$(census)
  is "$(bocker run --rm --network none "$img" sh -c 'ls /sys/class/net; grep -c "$(hostname)" /etc/hosts')" $'lo\n0'
  # The host's: its links are seen, and are nobody's to change; its loopback is here.
  busybox httpd -p 127.0.0.1:8099 -h tree/etc
  bocker run --rm --network host --cap-add NET_ADMIN --add-host gate:host-gateway "$img" \
    sh -c 'ls /sys/class/net; wget -q -O - http://gate:8099/passwd; ip link set bridge0 down 2>&1; cat /proc/self/uid_map' >out
  like "$(cat out)" '^bridge0$'
  like "$(cat out)" '^root:x:0:'
  like "$(cat out)" 'Operation not permitted'
  like "$(cat out)" '^ +0 +[1-9][0-9]+ +65536$'
  like "$(ip -o link show bridge0)" '[<,]UP[,>]'
  kill "$(pgrep -f 'httpd -p 127.0.0.1:8099')"
  # And its names, but for what is said otherwise; a container with a network of its own has not got them.
  printf '# a resolver on its localhost\nnameserver 127.0.0.53\nsearch corp.example\n' > resolv.conf
  printf '192.0.2.9 intranet\n127.0.0.1 localhost' > hosts
  mount --bind resolv.conf "$(readlink -f /etc/resolv.conf)"
  mount --bind hosts /etc/hosts
  local names='cat /etc/resolv.conf /etc/hosts'
  is "$(bocker run --rm --network host --add-host db:192.0.2.7 "$img" sh -c "$names")" $'nameserver 127.0.0.53\nsearch corp.example\n192.0.2.9 intranet\n127.0.0.1 localhost\n192.0.2.7\tdb'
  is "$(bocker run --rm --network host --dns 192.0.2.53 --dns-search . "$img" cat /etc/resolv.conf)" 'nameserver 192.0.2.53'
  bocker create --name later --network host "$img" sh -c "$names" >/dev/null
  echo 'nameserver 192.0.2.54' > resolv.conf
  like "$(bocker start -a later)" '^nameserver 192.0.2.54$'
  over later
  like "$(bocker run --rm "$img" sh -c "$names" | xargs)" '^nameserver 8.8.8.8 127.0.0.1 localhost'
  umount /etc/hosts "$(readlink -f /etc/resolv.conf)"
  # Another's: one loopback, and one set of users.
  serve web
  eventually 5 quietly bocker exec web wget -q -O - http://127.0.0.1/
  is "$(bocker run --rm --network container:web "$img" wget -q -O - http://127.0.0.1/)" 'i am web'
  is "$(bocker run --rm --network container:web "$img" cat /proc/self/uid_map)" "$(bocker exec web cat /proc/self/uid_map)"
  bocker create --name beside --network container:web "$img" wget -q -O - http://127.0.0.1/ >/dev/null
  is "$(bocker start -a beside) $(bocker start -a beside)" 'i am web i am web'
  is "$(bocker ps --filter name=beside --format '{{.Networks}}|{{.Ports}}')" '|'
  over beside
  # A namespace of anybody's.
  ip netns add blue && ip -n blue link set lo up && ip -n blue link add blue0 type veth peer name blue1
  is "$(bocker run --rm --network ns:/run/netns/blue "$img" ls /sys/class/net | xargs)" 'blue0 blue1 lo'
  ip netns del blue
  # What cannot be together.
  fails 125 '^bocker: --publish-all with --network host: ' bocker run --network host -P "$img" true
  fails 125 '^bocker: --dns with --network container:web: ' bocker run --network container:web --dns 1.1.1.1 "$img" true
  fails 125 'nosuch' bocker run --network container:nosuch "$img" true
  fails 125 'nosuch' bocker run --network nosuch "$img" true
  over web
  ends_as "$before"
}

test_names_and_servers_of_ones_own() {
  image
  ps=$(bocker run -d --name web --add-host db:192.0.2.5 --add-host gate:host-gateway --dns 192.0.2.53 --dns-search a.example --dns-option ndots:2 \
    --mac-address 02:00:00:00:00:09 -h box "$img" sleep 60)
  both() {
    is "$(bocker exec web cat /etc/resolv.conf)" $'nameserver 192.0.2.53\nsearch a.example\noptions ndots:2'
    is "$(bocker exec web tail -3 /etc/hosts)" "10.0.0.$((${ps#ps_} - 42000))"$'\tbox\n192.0.2.5\tdb\n10.0.0.1\tgate'
    is "$(bocker exec web cat /sys/class/net/eth0/address)" 02:00:00:00:00:09
  }
  both
  bocker restart -t 0 web >/dev/null
  both
  over web
}

# The plan as the shell does it.
test_the_printed_plan() {
  image
  before=$(census)
  serve db
  bocker --dry-run run -d --name web -p 8080:80 -P --expose 81 --link db:store -e 'A=it'"'"'s' -l note=x "$img" \
    sh -c 'echo "i am $A" >/srv/index.html; exec busybox httpd -f -p 80 -h /srv' >plan
  sh plan >/dev/null
  eventually 5 says 127.0.0.1:8080 "it's"
  is "$(from web store)" 'i am db'
  is "$(bocker port web | wc -l)" 2
  bocker --dry-run stop -t 0 web | sh >/dev/null
  bocker --dry-run start web | sh >/dev/null
  eventually 5 says 127.0.0.1:8080 "it's"
  bocker --dry-run port web 80 | sh | grep -qx 0.0.0.0:8080
  bocker --dry-run rm -f web db | sh >/dev/null
  ends_as "$before"
}

# A server that people run, and what it writes down of its clients.
test_nginx_published() {
  [ -e "$TEST_IMAGES/programs/root.tar" ] || fail "no image (scripts/programs-image $TEST_IMAGES/programs makes it)"
  bocker setup 2>/dev/null
  bocker import - programs <"$TEST_IMAGES/programs/root.tar" >/dev/null
  neighbour
  echo 'hello from nginx' >index.html
  bocker run -d --name web -p 8080:80 -v "$PWD/index.html:/var/www/html/index.html:ro" programs \
    sh -c 'ln -sf /dev/stdout /var/log/nginx/access.log; exec nginx -g "daemon off;"' >/dev/null
  eventually 10 quietly get 127.0.0.1:8080
  is "$(get $host:8080) $(ip netns exec next curl -fsS -m 5 http://$host:8080/)" 'hello from nginx hello from nginx'
  eventually 5 eval 'bocker logs web 2>/dev/null | grep -q "^192.0.2.2 .*GET / "'
  # Many at once, and more than the pipe holds.
  head -c 3000000 /dev/urandom >big && bocker cp big web:/var/www/html/big
  for _ in 1 2 3 4; do curl -fsS -m 20 --noproxy '*' http://127.0.0.1:8080/big | cmp - big & done
  ip netns exec next curl -fsS -m 20 http://$host:8080/big | cmp - big
  wait
  over web
  no_neighbour
}
