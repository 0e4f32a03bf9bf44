# shellcheck shell=bash disable=SC2016,SC2154 # what is in single quotes is for the container's shell; repo: tests/lib.sh
# Programs of Debian's, unmodified, do their work behind the walls that a container has unless told otherwise: users of its own,
# eleven capabilities, the filter of system calls, masks, devices, 512 MB, 2048 processes. Each has a control: the same without
# what it needs fails. The image is scripts/programs-image's.

image() {
  [ -e "$TEST_IMAGES/programs/root.tar" ] || fail "no image (scripts/programs-image $TEST_IMAGES/programs makes it)"
  bocker setup 2>/dev/null
  bocker import - programs < "$TEST_IMAGES/programs/root.tar" >/dev/null
}

# run WORDS...: in the foreground, what it says and how it ends is the test's; d: in the background, as NAME
run() { timeout 30 bocker run --rm "$@" </dev/null; }
d() { bocker run -d --name "$@" >/dev/null; }
# address NAME
address() { bocker-net list | awk -v id="$(bocker-store id "$1")" '$1 == id { print $2 }'; }
over() { bocker rm -f "$@" >/dev/null; }
get() { curl -fsS -m 5 "$@"; }
quietly() { "$@" >/dev/null 2>&1; }
on_stdout() { bocker logs "$1" 2>/dev/null | grep -qE -- "$2"; }
logged() { bocker logs "$1" 2>&1 | grep -qE -- "$2"; }
# users NAME PATTERN: how many processes match, and whose they are inside. A pattern like [n]ginx does not match itself.
users() { bocker exec "$1" sh -c 'for p in /proc/[0-9]*; do tr "\0" " " < $p/cmdline | grep -q "$0" && stat -c %U $p; done 2>/dev/null | sort | uniq -c | xargs' "$2"; }

# What all the others are about: nothing here was told to do without a wall.
test_programs_have_the_default_walls() {
  image
  like "$(run programs grep -E '^(CapBnd|CapEff|Seccomp|NoNewPrivs):' /proc/self/status | tr -d '\t' | xargs)" \
    '^CapEff:00000000800405fb CapBnd:00000000800405fb NoNewPrivs:0 Seccomp:2$'
  unlike "$(run programs cat /proc/self/uid_map)" '^ *0 +0 '
  # The limits are the ones that a program meets: within them it works, beyond them it ends.
  is "$(run programs python3 -c 'print(len(b"x" * 300000000))')" 300000000
  local status=0
  run programs python3 -c 'print(len(b"x" * 600000000))' >out 2>&1 || status=$?
  is "$status" 137 "600 MB where 512 are allowed"
  is "$(run -m 1g programs python3 -c 'print(len(b"x" * 600000000))')" 600000000
}

test_nginx() {
  image
  # As docker's image has it: the logs are links to the streams.
  local master='ln -sf /dev/stdout /var/log/nginx/access.log; ln -sf /dev/stderr /var/log/nginx/error.log; exec nginx -g "daemon off;"'
  echo 'hello from nginx' > index.html
  d web -v "$PWD/index.html:/var/www/html/index.html:ro" programs sh -c "$master"
  local at
  at=http://$(address web)
  eventually 10 quietly get "$at/"
  is "$(get "$at/")" 'hello from nginx'
  is "$(curl -s -m 5 -o /dev/null -w '%{http_code}' "$at/none")" 404
  # It answers before it writes that down.
  eventually 10 on_stdout web '^10\.0\.0\.1 .*"GET / HTTP/1\.1" 200 17 '
  eventually 10 on_stdout web '"GET /none HTTP/1\.1" 404 '
  # A worker is called so when it has become its user; until then it is called as the master.
  are() { [[ "$(users web '[n]ginx: master'), $(users web '[n]ginx: worker')" =~ ^1\ root,\ [0-9]+\ www-data$ ]]; }
  eventually 10 are
  bocker exec web nginx -s reload 2>/dev/null
  eventually 10 quietly get "$at/"
  is "$(bocker stop web) $(bocker wait web)" 'web 0'
  # Without the capability that it needs, its workers never work.
  d without --cap-drop SETUID -v "$PWD/index.html:/var/www/html/index.html:ro" programs sh -c "$master"
  eventually 10 logged without 'setuid\(33\) failed \(1: Operation not permitted\)'
  ! curl -fs -m 2 "http://$(address without)/" 2>/dev/null || fail "served without SETUID"
  over web without
}

test_redis() {
  image
  d red programs redis-server --bind 0.0.0.0 --protected-mode no --dir /var/lib/redis --io-threads 2
  local redis='bocker exec red redis-cli' answer
  is "$(eventually 10 quietly $redis ping; $redis ping)" PONG
  is "$($redis set answer 42)" OK
  exec 3<>"/dev/tcp/$(address red)/6379"
  printf 'GET answer\r\n' >&3
  read -r -t 5 answer <&3
  read -r -t 5 answer <&3
  exec 3<&-
  is "$answer" $'42\r' "over the network"
  # In a process of its own, and in the one that serves.
  is "$($redis bgsave)" 'Background saving started'
  saved() { [ "$($redis info persistence | tr -d '\r' | grep -xE 'rdb_bgsave_in_progress:0|rdb_saves:1' | wc -l)" = 2 ]; }
  eventually 10 saved
  like "$($redis info persistence)" 'rdb_last_bgsave_status:ok'
  is "$($redis set other 43) $($redis save)" 'OK OK'
  like "$(bocker exec red head -c 5 /var/lib/redis/dump.rdb)" '^REDIS$'
  is "$(bocker stop red) $(bocker wait red)" 'red 0'
  # That it has ended is written down before the last of its output. Otherwise it did not end by itself.
  eventually 10 logged red 'ready to exit'
  bocker start red >/dev/null
  is "$(eventually 10 quietly $redis ping; $redis mget answer other | xargs)" '42 43' "after a start"
  over red
  d red --read-only programs redis-server --dir /var/lib/redis
  eventually 10 quietly $redis ping
  like "$($redis save 2>&1)" '^ERR'
  over red
}

test_postgresql() {
  image
  local server='PATH=/usr/lib/postgresql/15/bin:$PATH; [ -d ~/data ] || initdb -A trust -D ~/data >/dev/null; exec postgres -D ~/data'
  d pg --user postgres --env HOME=/var/lib/postgresql --stop-signal INT --tmpfs /run/postgresql programs sh -c "$server"
  local psql='bocker exec --user postgres pg psql -qAtc'
  eventually 40 quietly $psql 'select 1'
  $psql 'create table t as select generate_series(1, 100000) n'
  # Workers that share memory (/dev/shm) count it, and the compiler of queries runs what it has compiled.
  is "$($psql 'set min_parallel_table_scan_size = 0' -c 'set parallel_setup_cost = 0' -c 'set parallel_tuple_cost = 0' -c 'set jit_above_cost = 0' \
    -c 'select sum(n::bigint) from t')" 5000050000
  like "$($psql 'set min_parallel_table_scan_size = 0' -c 'set parallel_setup_cost = 0' -c 'set parallel_tuple_cost = 0' -c 'set jit_above_cost = 0' \
    -c 'explain (analyze) select sum(n::bigint) from t' | xargs)" 'Workers Launched: [12] .*JIT: .*Functions: [1-9]'
  is "$(bocker exec pg sh -c 'stat -c %U /proc/1 ~postgres/data /dev/shm/PostgreSQL* | sort -u')" postgres
  is "$(bocker stop pg) $(bocker wait pg)" 'pg 0'
  # By SIGINT.
  eventually 10 logged pg 'received fast shutdown request'
  bocker start pg >/dev/null
  eventually 20 quietly $psql 'select 1'
  is "$($psql 'select count(*) from t')" 100000 "after a start"
  ! logged pg 'not properly shut down' || fail "it had to recover"
  over pg
  # It can tell root, that of a user namespace too.
  like "$(run --env HOME=/var/lib/postgresql programs sh -c "$server" 2>&1)" 'cannot be run as root'
}

test_python_and_busybox() {
  image
  cat > work.py <<'EOF'
import asyncio, hashlib, multiprocessing, multiprocessing.shared_memory, subprocess, threading
all_at_once, found = threading.Barrier(64), {}
def hashes(n):
    all_at_once.wait()
    found[n] = hashlib.sha256(bytes([n]) * 1000000).hexdigest()
threads = [threading.Thread(target=hashes, args=(n,), daemon=True) for n in range(64)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(set(found.values())), found[0][:8])
with multiprocessing.Pool(4) as pool: print(sum(pool.map(abs, range(-100, 0))))
memory = multiprocessing.shared_memory.SharedMemory(create=True, size=1 << 20)
memory.buf[0] = 7
same = multiprocessing.shared_memory.SharedMemory(memory.name)
print(same.buf[0])
memory.unlink()
async def words():
    them = await asyncio.gather(*(asyncio.create_subprocess_exec("echo", str(n), stdout=subprocess.PIPE) for n in range(8)))
    return [int((await it.communicate())[0]) for it in them]
print(asyncio.run(words()))
EOF
  is "$(run -v "$PWD/work.py:/work.py" programs python3 /work.py)" "64 d29751f2
5050
7
[0, 1, 2, 3, 4, 5, 6, 7]"
  like "$(run --pids-limit 32 -v "$PWD/work.py:/work.py" programs python3 /work.py 2>&1 || true)" "can't start new thread"
  # A static program, at another user's hands.
  is "$(run --user www-data programs busybox sh -c 'busybox echo "$(busybox id -un)"; busybox tar c /etc/passwd 2>/dev/null | busybox gzip | busybox zcat | busybox tar xO | busybox grep -c ^www-data:')" $'www-data\n1'
}

test_su_sudo_cron_and_services() {
  image
  is "$(run programs su - postgres -c 'id -un; pwd; echo "$HOME $USER"')" $'postgres\n/var/lib/postgresql\n/var/lib/postgresql postgres'
  is "$(run programs sudo -u postgres id -un)" postgres
  is "$(run programs sudo -u www-data sh -c 'echo "$SUDO_USER $USER"')" 'root www-data'
  # From a user to root and to another, by programs that are setuid, with the password and without.
  cat > users <<'EOF'
echo 'postgres ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/test
echo 'Defaults use_pty' >> /etc/sudoers.d/test
echo root:secret | chpasswd
su postgres -s /bin/sh -c 'id -un; sudo id -un; sudo -u www-data id -un; echo secret | su -c "id -un; touch /root/was-here" 2>/dev/null'
EOF
  is "$(run -v "$PWD/users:/users" programs sh /users)" $'postgres\nroot\nwww-data\nroot'
  is "$(run -t -v "$PWD/users:/users" programs sh -c 'sh /users >/dev/null; exec su postgres -s /bin/sh -c "sudo tty"' | tr -d '\r')" /dev/pts/0
  like "$(run --security-opt no-new-privileges programs su postgres -s /bin/sh -c 'sudo -n true' 2>&1 || true)" 'no new privileges" flag is set'
  # cron without systemd, and Debian's own scripts for services.
  d boot programs sh -c '
    echo "@reboot id -un > /tmp/of-root" | crontab -
    echo "@reboot id -un > /tmp/of-postgres" | crontab -u postgres -
    echo "@reboot www-data id -un > /tmp/of-www" > /etc/cron.d/test
    service nginx start; service redis-server start; pg_createcluster 15 main --start
    exec cron -f'
  done_by() { [ "$(bocker exec boot sh -c "cat /tmp/of-*" 2>/dev/null | xargs)" = 'postgres root www-data' ]; }
  eventually 40 done_by
  # Its service is started before it listens.
  eventually 10 quietly bocker exec boot redis-cli ping
  is "$(bocker exec boot redis-cli ping)" PONG
  is "$(bocker exec --user postgres boot psql -Atc 'select current_user')" postgres
  quietly get "http://$(address boot)/" || fail "nginx does not serve: $(bocker logs boot 2>&1)"
  is "$(users boot '[r]edis-server')" '1 redis'
  is "$(bocker exec boot sh -c 'service nginx stop >/dev/null; service --status-all 2>/dev/null | grep -E "nginx|redis"' | xargs)" '[ - ] nginx [ + ] redis-server'
  over boot
}

# A file capability that the container has works, one that it lacks is refused by the kernel: Debian's ping has NET_RAW where
# setcap(8) was there when it was installed. Without, ping needs no capability at all.
test_file_capabilities_and_ping() {
  image
  local pings='ping -c 1 -w 20 10.0.0.1 >/dev/null && echo pings'
  is "$(run programs getcap /usr/bin/ping)" '/usr/bin/ping cap_net_raw=ep'
  like "$(run programs sh -c "$pings" 2>&1 || true)" 'Operation not permitted'
  is "$(run --cap-add NET_RAW --user www-data programs sh -c "$pings")" pings
  is "$(run programs sh -c "setcap -r /usr/bin/ping; exec su www-data -s /bin/sh -c '$pings'")" pings
  is "$(run programs sh -c 'cp /bin/cat /bin/mine; setcap cap_net_bind_service+ep /bin/mine; exec su www-data -s /bin/sh -c "mine /proc/self/status"' |
    sed -n 's/^CapEff:\t//p')" 0000000000000400
}

# apt-get from two kinds of repositories, as its own user _apt; what it installs makes a user, and is a Go program that works.
test_apt_and_a_go_program() {
  image
  d repo programs sh -c 'ln -s /srv/repo /var/www/html/repo; exec nginx -g "daemon off;"'
  local from at
  at=http://$(address repo)/repo
  eventually 10 quietly get "$at/Packages"
  cat > install <<'EOF'
set -e
echo "deb [trusted=yes] $1 ./" > /etc/apt/sources.list
chmod 700 /root
apt-get -q update
DEBIAN_FRONTEND=noninteractive apt-get -q install -y docker-registry
stat -c '%U of %n' /var/lib/docker-registry /var/lib/apt/lists/partial
EOF
  for from in "$at" file:/srv/repo; do
    run -v "$PWD/install:/install:ro" programs sh /install "$from" >out 2>&1 || fail "$from: $(cat out)"
    like "$(cat out)" '^docker-registry of /var/lib/docker-registry$' "$from"
    like "$(cat out)" '^_apt of /var/lib/apt/lists/partial$' "$from"
    unlike "$(cat out)" '^(E|W):' "$from"
  done
  # Where it cannot become _apt it fails.
  ! run --cap-drop SETUID -v "$PWD/install:/install:ro" programs sh /install "$at" >out 2>&1 || fail "without SETUID: $(cat out)"
  like "$(cat out)" '^E: .*(setres|seteuid|setuid|Operation not permitted)'
  cat > registry.yml <<'EOF'
version: 0.1
storage: { filesystem: { rootdirectory: /var/lib/docker-registry } }
http: { addr: ":5000" }
EOF
  d reg -v "$PWD/install:/install:ro" -v "$PWD/registry.yml:/registry.yml:ro" programs sh -c \
    "sh /install $at && exec su docker-registry -s /bin/sh -c 'exec docker-registry serve /registry.yml'"
  at=$(address reg):5000
  eventually 40 quietly get "http://$at/v2/"
  "$repo/scripts/demo-image" "$TEST_IMAGES/debian" --push "$at/debian" 12
  is "$(get "http://$at/v2/debian/tags/list")" '{"name":"debian","tags":["12"]}'
  is "$(users reg '^docker-[r]egistry serve')" '1 docker-registry'
  over reg repo
}
