#!/bin/sh
# Fetches the test volumes of dosfstools, for tests/it/fat_health.rs (BOOTSURGEON_DOSFSTOOLS=DIR): sound ones, and ones with one
# fault each.
#
#   tests/corpus/fetch-dosfstools.sh DIR
#
# Nothing is installed and no root is needed: the source package comes through a private apt state. Needs apt, tar and xxd.
set -eu
dir=${1:?usage: fetch-dosfstools.sh DIR}
mirror=$("$(dirname "$0")/../support/mirror.sh")
suite=${DEBIAN_SUITE:-bookworm}
mkdir -p "$dir/apt/state/lists/partial" "$dir/apt/cache/archives/partial" "$dir/apt/source"
dir=$(cd "$dir" && pwd)
work=$dir/apt
: >"$work/status"
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/sources.list"
cat >"$work/apt.conf" <<CONF
Dir::State "$work/state";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "-";
Acquire::Languages "none";
CONF
export APT_CONFIG="$work/apt.conf"
apt-get -q update >/dev/null
(cd "$work/source" && apt-get -q -o APT::Sandbox::User=root source --download-only dosfstools >/dev/null)
for archive in "$work"/source/dosfstools_*.orig.tar.*z; do
    tar -x -C "$work/source" -f "$archive" --wildcards '*/tests/*'
done
for dump in "$work"/source/*/tests/*.xxd "$work"/source/*/tests/*.fsck; do
    xxd -r "$dump" "$dir/$(basename "$dump").img"
done
rm -rf "$work"
