#!/bin/bash
# From nothing to a running program: installs what is needed, builds stacker and then the example monorepo's images,
# runs one of them, and shows what further builds do after edits. For root and for a user who may sudo.
#
# All that it makes lies in target/quick-start (the images: target/quick-start/oci), besides the Debian root filesystem
# examples/monorepo/base/debian.tar. The user's own cache is not touched.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

root=$PWD
work=$root/target/quick-start

install_packages build-essential pkg-config curl ca-certificates uidmap mmdebstrap umoci runc jq
ensure_cargo
ensure_subordinate_ids

say "Building stacker: cargo build --release --locked"
cargo build --release --locked
stacker=$(realpath "${CARGO_TARGET_DIR:-target}/release/stacker")

if [ ! -e examples/monorepo/base/debian.tar ]; then
    say "Making the Debian root filesystem: examples/monorepo/base.sh"
    examples/monorepo/base.sh
fi

# What an earlier quick start left. Layers hold files of subordinate ids: `stacker clean` can remove those, rm cannot.
mkdir -p "$work"
cd "$work"
"$stacker" clean --work-dir .
rm -rf "$work"
mkdir -p "$work"
cd "$work"
cp -a --reflink=auto "$root/examples/monorepo" monorepo

# build NAME: builds all; NAME.json says what happened.
build() {
    echo "$ stacker build --all monorepo"
    "$stacker" build --all monorepo --work-dir . --oci-dir oci --metadata-file "$1.json"
    jq -r '.layers[] | select(.status == "built") | "   built  \(.name)" + (if .reason then "  (\(.reason))" else "" end)' "$1.json"
    jq -r '.totals | "   \(.layers) layers: \(.hits) hits, \(.built) built"' "$1.json"
}

# expect NAME LAYER...: just these were built.
expect() {
    local name=$1 found wanted
    shift
    found=$(jq -r '[.layers[] | select(.status == "built") | .name] | sort | join(" ")' "$name.json")
    wanted=$(printf '%s\n' "$@" | sort | paste -sd ' ')
    [ "$found" = "$wanted" ] || fail "expected these layers to be built: ${wanted:-none}; found: ${found:-none}"
}

# The digest of an image as a build wrote it.
digest() { jq -r --arg tag "$2" '.images[] | select(.tag == $tag) | .digest' "$1.json"; }

# run IMAGE: its program, in a container.
run() {
    local bundle=bundle-$1 options=() user='.'
    rm -rf "$bundle"
    # Without root a container has one user, so the image's own must give way to it.
    [ "$(id -u)" = 0 ] || { options=(--rootless) user='.process.user = {uid: 0, gid: 0}'; }
    umoci unpack "${options[@]}" --image "oci:$1" "$bundle" > umoci.log 2>&1 || fail "umoci: $(cat umoci.log)"
    jq ".process.terminal = false | $user" "$bundle/config.json" > config.json
    mv config.json "$bundle/config.json"
    echo "$ runc run $1"
    if runc --root "$work/runc" run --bundle "$bundle" "quick-start-$1-$$" < /dev/null 2> runc.log; then
        return
    fi
    # Inside other containers runc may lack a right (a cgroup of its own, say); the program needs none of them.
    echo "   runc cannot run here ($(tail -n 1 runc.log)); a plain chroot instead"
    local arguments
    mapfile -t arguments < <(jq -r '.process.args[]' "$bundle/config.json")
    unshare --user --map-root-user chroot "$bundle/rootfs" "${arguments[@]}"
}

say "1. The first build: every layer is built"
build first
[ "$(jq .totals.hits first.json)" = 0 ] || fail "a first build cannot have hits"
run greeter

say "2. The same again: nothing is built"
build again
expect again

say "3. A comment in services/greeter/src/greeting.c: it compiles again, to the same program, so nothing above does"
sed -i 's|/\* The greeting is .* \*/|/* Everybody is greeted alike. */|' monorepo/services/greeter/src/greeting.c
build comment
expect comment greeter-compile
[ "$(digest comment greeter)" = "$(digest again greeter)" ] || fail "the image of greeter changed"

say "4. A label of greeter: nothing is built, and the image has the label"
sed -i 's|com.example.team: hello|com.example.team: greetings|' monorepo/services/greeter/stacker.yaml
build label
expect label
echo "   manifest before  $(digest comment greeter)"
echo "   manifest after   $(digest label greeter)"
[ "$(digest label greeter)" != "$(digest comment greeter)" ] || fail "the image of greeter did not change"

say "5. The text of the greeting: just what follows from it"
sed -i 's|Hello, |Good day, |' monorepo/services/greeter/src/greeting.c
build text
expect text greeter greeter-compile
run greeter

say "Done. The images are in target/quick-start/oci: $(jq -r '[.images[].tag] | join(", ")' text.json)"
