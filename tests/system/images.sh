# Whole images through `bocker pull`: what comes out, and what a bad registry leaves (nothing).
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

registry() {
  # shellcheck source=scripts/lib.sh
  (. "$repo/scripts/lib.sh"; mkdir registry; registry docker-registry "$PWD/registry" 5000)
}

copy() { skopeo copy -q --insecure-policy --dest-tls-verify=false "$@"; }
listing() { python3 "$repo/tests/listing.py" "$1"; }

# Three images: Debian as made by scripts/demo-image (its whiteouts included); the same with packages installed, files
# removed, owners, capabilities and attributes changed, its new layer made by umoci; ten layers in Docker's format.
test_pulled_images_are_what_umoci_unpacks() {
  registry
  cp -r "$TEST_IMAGES/debian" layout
  copy oci:layout:12 docker://localhost:5000/debian:12

  umoci unpack --image layout:12 bundle
  chroot bundle/rootfs sh -c 'dpkg -i /srv/*.deb && rm -r /usr/share/locale /var/lib/apt && mv /usr/share/perl5 /usr/share/moved &&
    chown -h 1234:5678 /etc/mtab /etc/hostname; chmod 2750 /var/local; ln /usr/bin/wget /usr/bin/wget2' >/dev/null 2>&1
  setcap cap_net_raw+ep bundle/rootfs/usr/bin/wget
  setfattr -n user.note -v kept bundle/rootfs/etc/passwd
  umoci repack --image layout:installed bundle
  copy oci:layout:installed docker://localhost:5000/a/b/installed:1.0

  umoci init --layout ten
  umoci new --image ten:latest
  a_tree tree
  umoci insert --image ten:latest tree /
  for n in 1 2 3 4 5 6 7; do
    mkdir -p "layer/dir$n" && echo "$n" | tee "layer/dir$n/file" > layer/all && touch -d "2020-01-0$n 01:02:03.456789" layer/all
    umoci insert --image ten:latest layer /data
  done
  umoci insert --image ten:latest --whiteout /data/dir3
  umoci insert --image ten:latest --opaque tree/etc /data/dir4
  umoci config --image ten:latest --config.cmd /bin/sh --architecture amd64
  copy --format v2s2 oci:ten:latest docker://localhost:5000/ten:latest

  for image in debian:12=layout:12 a/b/installed:1.0=layout:installed ten=ten:latest; do
    img=$(bocker pull "localhost:5000/${image%=*}" 2>err | sed 's/Created: //')
    like "$img" '^img_[0-9]+$' "the id ($(cat err))"
    rm -rf judge
    umoci raw unpack --image "${image#*=}" judge

    listing judge > judge.list
    listing "$BOCKER_ROOT/$img/rootfs" > ours.list
    [ "$(wc -l < judge.list)" -gt 50 ] || fail "the judge has too little"
    python3 - judge.list ours.list "$image" <<'EOF' || fail "${image%=*} is not what umoci unpacks"
import sys, time
theirs, ours = ([line.rstrip("\n").split("\t") for line in open(name)] for name in sys.argv[1:3])
wrong = [pair for pair in zip(theirs, ours) if pair[0] != pair[1]]
# Only times of directories that umoci touched itself, within the last minutes, may differ; said how many.
told = [pair for pair in wrong if pair[0][1] == "dir" and pair[0][:4] == pair[1][:4] and pair[0][5:] == pair[1][5:]
        and time.time() - int(pair[0][4]) / 1e9 < 600]
for pair in wrong:
    if pair not in told:
        print("\t".join(pair[0]), "\t".join(pair[1]), sep="\n")
print("%s: %d entries, %d times of directories that umoci changed itself" % (sys.argv[3], len(theirs), len(told)))
sys.exit(len(theirs) != len(ours) or len(told) != len(wrong) or len(told) > 12)
EOF
    bocker run "$img" true
  done
  # The second shares all its lower layers with the first.
  is "$(find "$BOCKER_ROOT/layers" -mindepth 1 -maxdepth 1 | wc -l)" $((3 + 1 + 10)) "layers in the store"
}

# Each of them: one line, status 1, and the store, the network and the processes as before. The honest one works.
test_bad_registries_leave_nothing() {
  bocker setup 2>/dev/null
  # A process of its own listing: the registry's.
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 5001 requests >ready &
  eventually 10 grep -qs ready ready
  img=$(bocker pull 127.0.0.1:5001/good | sed 's/Created: //')
  bocker rm "$img" >/dev/null
  export BOCKER_PULL_TIMEOUT=2
  before=$(census)
  for name in 401 403 404 500 html lying-header endless announced-endless slow-body redirect-private wrong-config wrong-digest too-long \
    too-short announced-long announced-short endless-blob truncated blob-404; do
    fails 1 '^bocker-(pull|store): ' bocker pull "127.0.0.1:5001/$name"
    # Layers that were right, and what had come of others, stay for another try, until gc.
    bocker gc >removed
    unlike "$(grep -v "^$BOCKER_ROOT.cache/" removed)" '^[^l]' "what gc removed after $name"
    [ ! -e "$BOCKER_ROOT.cache" ] || fail "left after $name: $(ls -A "$BOCKER_ROOT.cache")"
    is "$(census)" "$before" "after $name"
  done
  BOCKER_PULL_TIMEOUT=20 fails 1 "No image named '127.0.0.1:5001/good:none' exists" bocker pull 127.0.0.1:5001/good none
  fails 1 '^bocker-pull: .*(refused|connect)' bocker pull 127.0.0.1:5009/nobody
  fails 1 '^bocker-pull: .*registry\.invalid' bocker pull registry.invalid/x
  long=$(printf 'x%.0s' $(seq 10000))
  for name in '' .. -x UPPER a//b 'a b' a:b:c "$long" 'a%2fb' "$(printf 'a\nb')" localhost:5001/; do
    status=0
    bocker pull "$name" >out 2>err </dev/null || status=$?
    like "$status" '^[12]$' "status of '${name:0:20}'"
    is "$(wc -l <err)" 1 "lines: $(cat err)"
    is "$(cat out)" ""
  done
  # Told to stop in the middle of a download.
  BOCKER_PULL_TIMEOUT=60 bocker pull 127.0.0.1:5001/drip >out 2>err &
  eventually 20 sh -c 'ls "$BOCKER_ROOT.cache"/*.partial >/dev/null 2>&1'
  kill -TERM "$!"
  wait "$!" && fail "0" || is $? 143
  bocker gc >/dev/null
  is "$(census)" "$before" "after SIGTERM"
}

# Ended in the middle, by TERM or by KILL, a pull leaves beside the store what it had of a layer: the next asks for the rest.
test_an_interrupted_pull_goes_on() {
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 5001 requests >ready &
  eventually 10 grep -qs ready ready
  bocker setup 2>/dev/null
  # The lower layer has been made, and nothing but a part of the other is waiting.
  has() { [ "$(stat -c %s "$BOCKER_ROOT.cache"/*.partial 2>/dev/null)" = 100000 ] && [ -n "$(find "$BOCKER_ROOT/layers" -name 'sha256:*')" ]; }
  # ended GROUP: what was killed has gone, with its locks
  ended() { wait "$1" || true; eventually 20 sh -c "! ps -o pid= -g $1 | grep -q ."; }
  interrupted() {
    setsid bocker pull "127.0.0.1:5001/$2" >out 2>err &
    group=$!
    eventually 20 has
    kill "-$1" -- "-$group"
    ended "$group"
    is "$(cat out)" ""
  }
  interrupted TERM half
  big=$(basename "$BOCKER_ROOT.cache"/*.partial .partial)
  : >requests
  img=$(bocker pull 127.0.0.1:5001/half | sed 's/Created: //')
  is "$(grep -c "/blobs/" requests)" 2 "the configuration, and the rest of the layer: $(cat requests)"
  like "$(cat requests)" "/blobs/$big .*range=bytes=100000-[0-9]+$"
  is "$(ls -A "$BOCKER_ROOT.cache")" ""
  is "$(stat -c %a "$BOCKER_ROOT.cache")" 700
  bocker rm "$img" >/dev/null
  before=$(census)
  # No room there is no reason to fail.
  mount -t tmpfs -o size=64k,mode=700 small "$BOCKER_ROOT.cache"
  img=$(bocker pull 127.0.0.1:5001/good | sed 's/Created: //')
  is "$(ls -A "$BOCKER_ROOT.cache")" ""
  umount "$BOCKER_ROOT.cache"
  bocker rm "$img" >/dev/null
  # Nobody goes on with it: gc takes it, but not while somebody is at it; and so does the undo.
  setsid bocker pull 127.0.0.1:5001/half-again >out 2>err &
  group=$!
  eventually 20 has
  is "$(bocker gc)" ""
  has || fail "gc took what a pull was writing"
  kill -KILL -- "-$group"
  ended "$group"
  eventually 5 sh -c "bocker gc | grep -qx '$BOCKER_ROOT.cache/$big.partial'"
  [ ! -e "$BOCKER_ROOT.cache" ] || fail "the directory is still there"
  is "$(census)" "$before" "after gc"
  interrupted KILL half-more
  bocker setup --undo
  is "$(ls -d "$BOCKER_ROOT"* 2>/dev/null)" "" "what the undo left"
}

test_dry_run_of_pull_is_the_same() {
  registry
  "$repo/scripts/demo-image" "$TEST_IMAGES/debian" --push localhost:5000/debian 12
  one=$(bocker pull localhost:5000/debian 12 2>/dev/null | sed 's/Created: //')
  # Of an image that is there it does the same, too: nothing.
  is "$(bocker --dry-run pull localhost:5000/debian 12 | sh 2>/dev/null)" "Created: $one"
  cp -r "$BOCKER_ROOT/$one"/{source,config,layers,manifest} .
  listing "$BOCKER_ROOT/$one/rootfs" >listed
  bocker rm "$one" >/dev/null
  is "$(find "$BOCKER_ROOT/layers" -mindepth 1 | wc -l)" 0 "layers left"
  two=$(bocker --dry-run pull localhost:5000/debian 12 | sh | sed 's/Created: //')
  listing "$BOCKER_ROOT/$two/rootfs" | diff - listed
  for file in source config layers manifest; do is "$(cat "$BOCKER_ROOT/$two/$file")" "$(cat $file)" "$file"; done
  # By digest, and with the reference as one word.
  digest=$(bocker-pull manifest localhost:5000/debian:12 | sed -nE 's/^image\t.*@(sha256:.*)/\1/p')
  three=$(bocker pull "localhost:5000/debian@$digest" | sed 's/Created: //')
  like "$(bocker images)" "$three.*@$digest"
  # To a file and into another store it has its name; by its digest none.
  bocker-pull manifest localhost:5000/debian 12 | bocker-pull fetch >file.tar
  is "$(BOCKER_ROOT=$HOST_DIR/other bocker load -i file.tar 2>/dev/null)" "Loaded image: localhost:5000/debian:12"
  is "$(listing "$(BOCKER_ROOT=$HOST_DIR/other bocker-store path localhost:5000/debian:12)/rootfs" | diff - listed)" ""
  bocker-pull manifest "localhost:5000/debian@$digest" | bocker-pull fetch >file.tar
  like "$(BOCKER_ROOT=$HOST_DIR/other bocker load -i file.tar 2>/dev/null)" '^Loaded image ID: img_'
  BOCKER_ROOT=$HOST_DIR/other bocker setup --undo
}

# What the store has is not fetched: of the same image nothing but the manifest, of another one its own layers.
test_only_what_is_missing_is_fetched() {
  listed() { sort requests | sed 's/ auth=.*//'; }
  python3 "$repo/tests/evil-registry.py" 127.0.0.1 5001 requests >ready &
  eventually 10 grep -qs ready ready
  img=$(bocker pull 127.0.0.1:5001/good 2>/dev/null | sed 's/Created: //')
  is "$(grep -c /blobs/ requests)" 3 "blobs of the first pull: $(cat requests)"
  : >requests
  is "$(bocker pull 127.0.0.1:5001/good 2>err)" "Created: $img"
  like "$(cat err)" "^bocker-store: $img is 127.0.0.1:5001/good:latest already$"
  is "$(grep -c /blobs/ requests || true)" 0 "blobs of the second pull: $(cat requests)"
  is "$(grep -c /manifests/ requests)" 1 "manifests of the second pull: $(cat requests)"
  # Another image on the same first layer: only its second one, and its configuration. (good/2 has its one layer twice.)
  : >requests
  two=$(bocker pull 127.0.0.1:5001/good/2 2>/dev/null | sed 's/Created: //')
  [ "$two" != "$img" ] || fail "one image for two"
  is "$(bocker images | wc -l)" 3
  # Committed to, it is no longer that image, and the next pull makes it again.
  bocker run "$img" /one >/dev/null 2>&1 || true
  ps=$(bocker-store snapshot "$img")
  touch "$BOCKER_ROOT/$ps/rootfs/changed"
  bocker commit "$ps" "$img" >/dev/null
  again=$(bocker pull 127.0.0.1:5001/good 2>/dev/null | sed 's/Created: //')
  [ "$again" != "$img" ] || fail "the committed image passes for the pulled one"
  [ ! -e "$BOCKER_ROOT/$again/rootfs/changed" ] || fail "the change came along"
  # Without records, or cut off, the filter adds nothing and says nothing: who reads on does.
  is "$(bocker-store have </dev/null)" ""
  is "$(printf 'image\tx\n' | bocker-store have)" "$(printf 'image\tx')"
}

# zstd: made by skopeo; and the layers of both kinds are the same ones.
test_zstd_layers() {
  registry
  cp -r "$TEST_IMAGES/debian" layout
  copy --dest-decompress oci:layout:12 dir:plain
  copy --dest-compress-format zstd dir:plain docker://localhost:5000/debian:zstd
  like "$(bocker-pull manifest --raw localhost:5000/debian:zstd)" 'tar\+zstd'
  copy oci:layout:12 docker://localhost:5000/debian:gzip
  zstd=$(bocker pull localhost:5000/debian:zstd | sed 's/Created: //')
  before=$(find "$BOCKER_ROOT/layers" -mindepth 1 -maxdepth 1 | sort)
  gzip=$(bocker pull localhost:5000/debian:gzip | sed 's/Created: //')
  is "$(find "$BOCKER_ROOT/layers" -mindepth 1 -maxdepth 1 | sort)" "$before" "layers"
  is "$(listing "$BOCKER_ROOT/$zstd/rootfs" | sha256sum)" "$(listing "$BOCKER_ROOT/$gzip/rootfs" | sha256sum)"
}
