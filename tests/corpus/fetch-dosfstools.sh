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
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# shellcheck source=tests/support/private-apt.sh
. "$(dirname "$0")/../support/private-apt.sh"

open_suite "$suite" deb-src
work=$dir/apt/$suite/debs
(cd "$work" && private_apt "$suite" apt-get -qq source --download-only dosfstools >/dev/null)
for archive in "$work"/dosfstools_*.orig.tar.*z; do
    tar -x -C "$work" -f "$archive" --wildcards '*/tests/*'
done
for dump in "$work"/*/tests/*.xxd "$work"/*/tests/*.fsck; do
    xxd -r "$dump" "$dir/$(basename "$dump").img"
done
rm -rf "$dir/apt"
