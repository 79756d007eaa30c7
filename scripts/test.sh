#!/bin/bash
# Installs what the tests need, then runs all of them, for root and for a user who may sudo.
#
# As root, tests also act as an ordinary user that they make for themselves. Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

install_packages build-essential pkg-config curl ca-certificates uidmap mmdebstrap busybox-static btrfs-progs e2fsprogs \
    openssl skopeo umoci runc docker-registry attr acl libcap2-bin jq make python3-minimal apparmor \
    squashfs-tools erofs-utils graphviz chromium qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross
ensure_cargo
ensure_subordinate_ids

say "cargo test --locked --no-fail-fast $*"
# One test that fails hides no others.
cargo test --locked --no-fail-fast "$@"
say "all tests passed"
