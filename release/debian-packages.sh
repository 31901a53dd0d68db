#!/bin/sh
# Fetches Debian packages of any architecture, of the release that runs here, without installing anything.
#
#   release/debian-packages.sh ARCH DIR PACKAGE[=VERSION]…
#
# leaves DIR/PACKAGE.deb. The machine's own lists stay as they are: apt runs on a state of its own in DIR/apt.
#
# Needs: apt, dpkg, debian-archive-keyring; the Debian mirrors that apt on this machine is set up for.
set -eu
arch=${1:?usage: debian-packages.sh ARCH DIR PACKAGE…}
mkdir -p "${2:?usage: debian-packages.sh ARCH DIR PACKAGE…}"
dir=$(cd "$2" && pwd)
shift 2
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck disable=SC1091 # a file of the system
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")

private_apt() { # ARGUMENTS…
    apt-get -qq -o Dir::State="$dir/apt/state" -o Dir::State::status="$dir/apt/status" -o Dir::Cache="$dir/apt/cache" \
        -o Dir::Etc::sourcelist="$dir/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferencesparts=/dev/null -o APT::Architecture="$arch" -o APT::Architectures="$arch" \
        -o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}

mkdir -p "$dir/apt/state/lists/partial" "$dir/apt/cache/archives/partial"
: >"$dir/apt/status"
signed='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
{
    echo "deb $signed $("$here/../tests/support/mirror.sh") $codename main"
    echo "deb $signed $("$here/../tests/support/mirror.sh" Debian-Security) $codename-security main"
} >"$dir/apt/sources.list"
private_apt update
for package in "$@"; do
    name=${package%%=*}
    rm -f "$dir/$name"_*.deb
    (cd "$dir" && private_apt download "$package")
    mv "$dir/$name"_*.deb "$dir/$name.deb"
done
