# Check 42: 300 runs with every way of failing among them; the host is what it was, and every status is exact.
#   TEST_SOAK=N: N runs instead of 300
# shellcheck shell=bash disable=SC2154,SC2016 # repo: tests/lib.sh; words for another shell

image() {
  bocker setup 2>/dev/null
  a_tree tree
  echo '# not to be executed' > tree/bin/no-program; chmod 644 tree/bin/no-program
  img=$(bocker init "$PWD/tree" | sed -n 's/^Created: //p')
}

# What census does not see: directories that each controller counts, loop devices, zombies, what lies in /run and /tmp.
deeper() {
  census
  losetup -a | grep "$HOST_DIR"
  ps -e -o stat=,args= | grep '^Z' | grep -v '\[bash\]' || true
  find /run -xdev -printf 'file %p\n' | sort
  df --output=iused "$BOCKER_ROOT" | tail -1
}

# ends WANT COMMAND...: with this status and nothing else is asked
ends() {
  local want=$1 status=0
  shift
  "$@" </dev/null >out 2>err || status=$?
  is "$status" "$want" "status of '$*' ($(head -1 err))"
}

# One of the ways in which a run goes wrong, by number.
fault() {
  case $1 in
    0) ends 127 bocker run --rm "$img" no-such-program ;;
    1) ends 126 bocker run --rm "$img" /bin/no-program ;;
    2) ends 126 bocker run --rm "$img" /etc ;;
    3) ends 125 bocker run --rm img_99999 true ;;
    4) ends 125 bocker run --rm -v /no/such:/x "$img" true ;;
    5) ends 125 bocker run --rm --memory nonsense "$img" true ;;
    6) ends 125 bocker run --rm --name taken "$img" true ;;
    7) ends 125 bocker run --rm -u nobody-of-that-name "$img" true ;;
    8) ends 125 bocker run --rm -w /etc/passwd/x "$img" true ;;
    9) ends 125 bocker run --rm --memory 1k "$img" true ;;
    10) ends 137 bocker run --rm "$img" sh -c 'sh -c "kill -9 \$\$"; exit $?' ;;
    11) ends 143 timeout --preserve-status 0.15 bocker run --rm "$img" sleep 60 ;;
    12) # Killed outright: what it leaves goes with gc, below.
      bocker run --rm "$img" sleep 60 </dev/null >/dev/null 2>&1 & sleep 0.1; kill -9 $!; wait $! 2>/dev/null || true ;;
    13) # Orphans in the background of process 1.
      ends 5 bocker run --rm "$img" sh -c 'i=0; while [ $i -lt 200 ]; do sleep 60 & i=$((i+1)); done; exit 5' ;;
    14) # Out of memory.
      ends 137 bocker run --rm --memory 8m "$img" sh -c 'x=x; while :; do x=$x$x; done' ;;
    15) # Subvolumes within, and a file that cannot be changed.
      ps=$(bocker run -d "$img" sh -c 'touch /made; sleep 60')
      eventually 5 test -e "$BOCKER_ROOT/$ps/rootfs/made"
      btrfs -q subvolume create "$BOCKER_ROOT/$ps/rootfs/sub" && touch "$BOCKER_ROOT/$ps/rootfs/sub/x"
      btrfs -q subvolume create "$BOCKER_ROOT/$ps/rootfs/sub/below"
      chattr +i "$BOCKER_ROOT/$ps/rootfs/made"
      bocker rm -f "$ps" >/dev/null ;;
    16) # Frozen, and in a group of its own below.
      ps=$(bocker run -d "$img" sleep 60)
      while read -r dir; do
        mkdir "$dir/below"
        case $dir in
          */freezer/*)
            head -1 "$dir/cgroup.procs" > "$dir/below/cgroup.procs"
            echo FROZEN > "$dir/below/freezer.state" ;;
        esac
      done < <(find /sys/fs/cgroup -type d -name "$ps")
      bocker rm -f "$ps" >/dev/null ;;
    17) ends 125 bocker run --rm -p 8080:80 "$img" true; like "$(cat err)" '^bocker-net: .*8080' ;;
    18) ends 125 bocker run --rm --network back --ip 10.77.0.9 "$img" true; like "$(cat err)" '^bocker-net: .*10\.77\.0\.9' ;;
    19) ends 125 bocker run --rm --network no-such "$img" true; like "$(cat err)" '^bocker-net: .*no-such' ;;
    20) ends 125 bocker run --rm -p 80:no-port "$img" true; like "$(cat err)" '^bocker-net: .*no-port' ;;
  esac
}

calm() { [ "$(pgrep -c bocker)" -le "$watchers" ] && [ "$(pgrep -xc sleep)" = 1 ]; }

test_a_soak_leaves_the_host_as_it_was() {
  local runs=${TEST_SOAK:-300} i ps watchers
  image
  bocker create --name taken "$img" true >/dev/null
  # Whose port and address the others ask for.
  bocker network create --subnet 10.77.0.0/24 back >/dev/null
  bocker run -d --name first --network back --ip 10.77.0.9 -p 8080:80 "$img" sleep 3600 >/dev/null
  # Who watches it, and who relays.
  watchers=$(pgrep -c bocker)
  # Once each before the first look: directories in /run that stay, as /run/netns does.
  for ((i = 0; i < 21; i++)); do fault $i; done
  # Of who was killed outright nobody is left to watch: then gc takes all.
  eventually 20 calm
  bocker gc >/dev/null
  sync -f "$BOCKER_ROOT"
  before=$(deeper)
  for ((i = 0; i < runs; i++)); do
    # Every status that there is, and then again.
    if ((i % 6 == 5)); then fault $((i / 6 % 21)); else ends $((i % 256)) bocker run --rm "$img" sh -c "exit $((i % 256))"; fi
  done
  eventually 20 calm
  bocker gc >/dev/null
  # What was detached is taken down by its supervisor.
  for ((i = 0; i < 50; i++)); do [ "$(deeper)" != "$before" ] || break; sleep 0.1; sync -f "$BOCKER_ROOT"; done
  is "$(deeper)" "$before"
  # The control: a look that sees nothing would not see this either.
  ps=$(bocker run -d "$img" sleep 60)
  [ "$(deeper)" != "$before" ] || fail "the census does not see a container"
  bocker rm -f "$ps" taken first >/dev/null
  bocker network rm back >/dev/null
}
