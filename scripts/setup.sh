# shellcheck shell=bash
# What the quick start, the tests and CI need on a machine. To be sourced from the project's root directory; every
# function does nothing where its work is done already, so that nothing asks for a password without need.

say() { printf '\n== %s\n' "$*"; }
fail() { printf '\nerror: %s\n' "$*" >&2; exit 1; }

# As root, or through sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo > /dev/null; then
        sudo "$@"
    else
        fail "this needs root, and there is no sudo here: $*"
    fi
}

# install_packages NAME...: Debian packages.
install_packages() {
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || missing+=("$package")
    done
    if [ ${#missing[@]} = 0 ]; then
        say "Debian packages: all of them are installed"
        return
    fi
    say "Debian packages: installing ${missing[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# The version of cargo as it is called here; empty where there is none.
cargo_version() { cargo --version 2> /dev/null | sed -n 's/^cargo \([0-9.]*\).*/\1/p'; }

# Whether cargo is there and as new as Cargo.toml wants it.
cargo_is_enough() {
    local found
    found=$(cargo_version)
    [ -n "$found" ] && printf '%s\n' "$1" "$found" | sort --version-sort --check=quiet
}

# Cargo, at least of the version that Cargo.toml asks for; by rustup where there is no such one.
ensure_cargo() {
    local wanted
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    # rustup's own place, for shells that were started before it was installed.
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    if ! cargo_is_enough "$wanted" && command -v rustup > /dev/null; then
        say "Rust: ${wanted} or newer is needed; installing the stable toolchain by rustup"
        # Said by this variable, the default toolchain stays what it was.
        export RUSTUP_TOOLCHAIN=stable
        cargo_is_enough "$wanted" || rustup toolchain install stable --profile minimal
    elif ! cargo_is_enough "$wanted"; then
        say "Rust: ${wanted} or newer is needed; installing it by rustup into ${CARGO_HOME:-$HOME/.cargo}"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
        # Before an older cargo of the system.
        PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
        hash -r
    fi
    cargo_is_enough "$wanted" || fail "cargo is $(cargo_version), and ${wanted} is needed"
    say "Rust: cargo $(cargo_version)"
}

# ensure_component NAME PROGRAM: a part of the toolchain that the minimal profile leaves out.
ensure_component() {
    "$2" --version > /dev/null 2>&1 || rustup component add "$1"
}

# Whether a file gives subordinate ids to whoever runs this.
has_ids() { grep -q -E "^($(id -un)|$(id -u)):" "$1" 2> /dev/null; }

# The first of 65,536 ids behind all that a file gives away.
free_ids() { awk -F: 'BEGIN { free = 100000 } $2 + $3 > free { free = $2 + $3 } END { print free }' "$1"; }

# Ids for what is inside an image, for ordinary users. Root needs none.
ensure_subordinate_ids() {
    local file option first
    [ "$(id -u)" != 0 ] || return 0
    for file in /etc/subuid /etc/subgid; do
        has_ids "$file" && continue
        [ -e "$file" ] || as_root touch "$file"
        first=$(free_ids "$file")
        option=--add-${file#/etc/}s
        say "Subordinate ids: $file gives none to $(id -un); adding $first to $((first + 65535))"
        as_root usermod "$option" "$first-$((first + 65535))" "$(id -un)"
    done
    unshare --user true 2> /dev/null ||
        fail "this kernel lets ordinary users make no user namespaces (see sysctl kernel.unprivileged_userns_clone, \
user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)"
}
