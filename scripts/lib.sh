# Sourced by the scripts beside it.
# shellcheck shell=bash
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
RUST_MINIMUM=1.85
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

say() { echo "== $*" >&2; }
die() { echo "${0##*/}: $*" >&2; exit 1; }

need_root() { [ "$(id -u)" = 0 ] || die "needs root (try: sudo $0)"; }

# packages NAME...: installs what is missing. No service of theirs is started.
packages() {
  local missing=() name
  for name; do
    dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "not a Debian: install by hand: ${missing[*]}"
  say "installing ${missing[*]}"
  local policy=/usr/sbin/policy-rc.d ours=
  if [ ! -e "$policy" ]; then
    ours=1
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
  fi
  local status=0
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"; } \
    </dev/null >/dev/null || status=$?
  [ -z "$ours" ] || rm -f "$policy"
  [ "$status" = 0 ] || die "apt-get could not install ${missing[*]}"
}

# What a machine needs to build bocker and to run it.
BUILD_PACKAGES=(build-essential ca-certificates curl)
# shellcheck disable=SC2034 # for those that source this
RUN_PACKAGES=(btrfs-progs nftables iproute2)
# What it takes to stand beside the peers.
# shellcheck disable=SC2034 # for those that source this
PEER_PACKAGES=(docker.io podman runc iptables busybox-static python3 util-linux procps containernetworking-plugins)

# A cargo that is new enough: the one that is here, Debian's, or rustup's.
rust() {
  export PATH="$HOME/.cargo/bin:$PATH"
  rust_is_new_enough && return 0
  local candidate
  candidate=$(apt-cache policy cargo 2>/dev/null | sed -n 's/^ *Candidate: *//p')
  if dpkg --compare-versions "${candidate:-0}" ge "$RUST_MINIMUM" 2>/dev/null; then
    packages cargo rustc
  else
    packages curl ca-certificates
    say "installing Rust with rustup (Debian's is ${candidate:-not there}, $RUST_MINIMUM is needed)"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --no-modify-path >/dev/null
  fi
  rust_is_new_enough || die "no Rust $RUST_MINIMUM or newer"
}

rust_is_new_enough() {
  local have
  have=$(cargo --version 2>/dev/null | awk '{ print $2 }') || return 1
  [ -n "$have" ] && printf '%s\n%s\n' "$RUST_MINIMUM" "$have" | sort -V -C
}

# build: all six tools, for the tests
build() {
  packages "${BUILD_PACKAGES[@]}"
  rust
  (cd "$repo" && cargo build --quiet --locked --workspace)
}

# build_release: all six, for use, in target/release. Five of them with the C library in them: without a dynamic linker each starts
# 0.25 ms sooner, and a `bocker run` starts nine. Not bocker-pull: to find addresses the C library loads parts of itself.
build_release() {
  packages "${BUILD_PACKAGES[@]}"
  rust
  local target=${CARGO_TARGET_DIR:-$repo/target} host tool tools=(bocker bocker-store bocker-net bocker-cg bocker-exec)
  host=$(rustc -vV | sed -n 's/^host: //p')
  (
    cd "$repo"
    cargo build --quiet --locked --release -p bocker-pull
    # With a target named, the flags are the tools', and not those of macros, which rustc loads.
    RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" \
      cargo build --quiet --locked --release --target "$host" "${tools[@]/#/--package=}"
  )
  for tool in "${tools[@]}"; do ln -f "$target/$host/release/$tool" "$target/release/$tool"; done
}

# registry_program DIRECTORY: path of Debian's docker-registry, unpacked there unless it is installed.
# Not installed as a package: that would start a service on port 5000.
registry_program() {
  if command -v docker-registry; then return; fi
  if [ ! -x "$1/usr/bin/docker-registry" ]; then
    mkdir -p "$1"
    (cd "$1" && apt-get update -qq && apt-get download -qq -o APT::Sandbox::User=root docker-registry && dpkg-deb -x docker-registry_*.deb . && rm docker-registry_*.deb) >&2
  fi
  echo "$1/usr/bin/docker-registry"
}

# registry PROGRAM DIRECTORY PORT: starts it on loopback with its data in DIRECTORY; its pid is in $REGISTRY_PID
registry() {
  cat > "$2.yml" <<EOF
version: 0.1
log: { level: error, accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: $2 }, delete: { enabled: true } }
http: { addr: "127.0.0.1:$3" }
EOF
  "$1" serve "$2.yml" >"$2.log" 2>&1 </dev/null &
  REGISTRY_PID=$!
  for _ in $(seq 100); do
    curl -fsS -o /dev/null "http://127.0.0.1:$3/v2/" 2>/dev/null && return 0
    kill -0 "$REGISTRY_PID" 2>/dev/null || break
    sleep 0.1
  done
  die "the registry did not start on port $3: $(tail -n 3 "$2.log")"
}

# peers: in a disposable host, dockerd with everything of its own; how they are called: ${docker[@]}, ${podman[@]}.
# peers_end, by who called this, takes down what they leave.
peers() {
  # Docker's runc wants systemd's hierarchy where the host has one, else `exec` fails.
  if grep -q :name=systemd: /proc/self/cgroup && [ ! -e /sys/fs/cgroup/systemd ]; then
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
  fi
  dockerd --data-root "$PWD/docker" --exec-root "$PWD/docker.run" --pidfile "$PWD/docker.pid" -H "unix://$PWD/docker.sock" >docker.log 2>&1 </dev/null &
  DOCKERD_PID=$!
  docker=(docker -H "unix://$PWD/docker.sock")
  # shellcheck disable=SC2034 # for those that source this
  podman=(podman --root "$PWD/podman" --runroot "$PWD/podman.run" --runtime runc --cgroup-manager cgroupfs)
  # More than these defaults nobody may have here; only `run` and `create` know them.
  # shellcheck disable=SC2034
  podman_run=(--ulimit nofile=1024:1024 --ulimit nproc=1024:1024)
  for _ in $(seq 600); do
    "${docker[@]}" info >/dev/null 2>&1 && return 0
    kill -0 "$DOCKERD_PID" 2>/dev/null || break
    sleep 0.1
  done
  die "dockerd did not start: $(tail -n 3 docker.log)"
}
peers_end() {
  [ -z "${DOCKERD_PID:-}" ] || { kill "$DOCKERD_PID" && wait "$DOCKERD_PID"; } 2>/dev/null || true
  # What was in their control groups; these are empty a moment later.
  local groups=(-mindepth 2 -depth -type d \( -path '*/docker*' -o -path '*/libpod*' \)) _
  for _ in $(seq 30); do
    find /sys/fs/cgroup "${groups[@]}" -exec cat {}/cgroup.procs \; 2>/dev/null | sort -u | grep -vx 0 | xargs -r kill -s KILL 2>/dev/null || true
    find /sys/fs/cgroup "${groups[@]}" -exec rmdir {} + 2>/dev/null && break
    sleep 0.1
  done
  umount -R "$HOST_DIR/podman/overlay" "$HOST_DIR/docker" 2>/dev/null || true
}

# busybox_everywhere TREE: as the image `busybox` of bocker (its id is in $img), docker and podman
busybox_everywhere() {
  img=$(bocker init "$1" 2>/dev/null | sed 's/Created: //')
  bocker tag "$img" busybox 2>/dev/null
  bocker setup 2>/dev/null
  tar -C "$1" -c . | "${docker[@]}" import - busybox >/dev/null
  tar -C "$1" -c . | "${podman[@]}" import - busybox >/dev/null 2>&1
}

# oci_image LAYOUT TAG CONFIG LAYER.tar...: an OCI layout with one image, made with tar's files, gzip and sha256sum only
oci_image() {
  local layout=$1 tag=$2 config=$3 blobs=$1/blobs/sha256 diff_ids='' layers='' layer digest size
  shift 3
  mkdir -p "$blobs"
  blob() { # FILE: moves it to its name; prints "digest size"
    digest=$(sha256sum "$1" | cut -d ' ' -f 1)
    size=$(stat -c %s "$1")
    mv "$1" "$blobs/$digest"
    echo "sha256:$digest $size"
  }
  for layer; do
    diff_ids+="${diff_ids:+,}\"sha256:$(sha256sum "$layer" | cut -d ' ' -f 1)\""
    gzip -n "-${OCI_GZIP:-1}" "$layer"
    read -r digest size < <(blob "$layer.gz")
    layers+="${layers:+,}{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"$digest\",\"size\":$size}"
  done
  printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":[%s]}}' \
    "$(dpkg --print-architecture)" "$config" "$diff_ids" > "$layout/config"
  read -r digest size < <(blob "$layout/config")
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%s},"layers":[%s]}' \
    "$digest" "$size" "$layers" > "$layout/manifest"
  read -r digest size < <(blob "$layout/manifest")
  echo '{"imageLayoutVersion":"1.0.0"}' > "$layout/oci-layout"
  # Last: a layout with an index is a complete one.
  printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"%s"}}]}\n' \
    "$digest" "$size" "$tag" > "$layout/index.json"
}
