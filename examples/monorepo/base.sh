#!/bin/sh
# Makes base/debian.tar, the root filesystem that every image with a Debian in it starts from.
#
#   ./base.sh           make it
#   ./base.sh FILE      make it somewhere else
#
# Works as root and as an ordinary user with subordinate ids (mmdebstrap chooses the way). The release and the mirrors
# are those of this machine's apt, so nothing here names a host and a company's own mirror is used where there is one.
# As long as the archive stays the same, so does every byte of the file.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
target=${1:-$here/base/debian.tar}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
# mmdebstrap leaves the caller's identity behind, and must still be able to read what is prepared here.
chmod 755 "$work"

# mmdebstrap takes no time later than this one into the tar.
export SOURCE_DATE_EPOCH=1700000000

# What apt knows of the archive, whatever format its sources have. Only Debian's own part: what else is installed on
# this machine has no place in an image. The origin is known only after an `apt-get update`; before, the component
# has to do.
. /etc/os-release
sources() {
    apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' 'Component: main' "$@" |
        awk -v suite="$VERSION_CODENAME" '$0 ~ " " suite "(-updates|-security)? main$"' |
        sort -u
}
sources 'Origin: Debian' > "$work/sources.list"
[ -s "$work/sources.list" ] || sources > "$work/sources.list"
if [ ! -s "$work/sources.list" ]; then
    echo "base.sh: apt knows no source of $PRETTY_NAME with the component main" >&2
    exit 1
fi

# How to reach it: proxies, certificates and what is said about validity. Credentials (auth.conf) stay out of images.
apt-config dump |
    grep -E '^Acquire::(https?::(Proxy|CAInfo|Verify)|Check-Valid-Until|Check-Date|Retries)' > "$work/90host" || true

# Archives behind https need certificates inside as well, those of the company included.
include=
if grep -q ' https:' "$work/sources.list"; then
    include=--include=ca-certificates
    mkdir "$work/certificates"
    find /usr/local/share/ca-certificates -name '*.crt' -exec cp -L {} "$work/certificates/" \; 2>/dev/null || true
fi

# Runs inside mmdebstrap after everything is installed; "$1" is the root filesystem.
cat > "$work/customize" <<HOOK
#!/bin/sh
set -eu
cp "$work/90host" "\$1/etc/apt/apt.conf.d/90host"
if [ -d "$work/certificates" ]; then
    find "$work/certificates" -type f -exec cp {} "\$1/usr/local/share/ca-certificates/" \;
    chroot "\$1" update-ca-certificates
fi
# What differs from run to run, and what belongs to a machine rather than to an image.
find "\$1/var/log" "\$1/var/cache" -type f -delete
rm -f "\$1/var/lib/dbus/machine-id" "\$1/etc/hostname" "\$1/etc/resolv.conf"
: > "\$1/etc/machine-id"
rm -f "\$1"/etc/*- "\$1"/var/lib/dpkg/*-old
HOOK
chmod 755 "$work/customize"

# Manuals and translations are not for containers; the option stays in the image, so that later installations
# leave them out too. /dev is the container runtime's.
mkdir -p "$(dirname "$target")"
mmdebstrap --variant=minbase --format=tar --skip=output/dev \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --aptopt='APT::Install-Recommends "false"' \
    --aptopt='Acquire::Languages "none"' \
    $include \
    --customize-hook="$work/customize" \
    "$VERSION_CODENAME" - "$work/sources.list" > "$target.new"
mv "$target.new" "$target"
ls -l "$target"
