#!/bin/sh
# Fetches test files that other projects keep for their own tools, out of Debian's source packages, and writes down what
# the tools make of them, for tests/it/corpora.rs (BOOTSURGEON_CORPORA=DIR).
#
#   tests/corpus/fetch-sources.sh DIR
#
# Nothing is installed and no root is needed: the sources come through a private apt state. Needs apt, tar, xz, zstd and
# libarchive-tools (bsdcat, bsdtar).
#
# DIR afterwards:
#   xz/*, zstd/*         packed files
#   iso/*                ISO images
#   verdicts.tsv         file, "ok" or "fail" (xz -t, zstd -t, bsdtar -tf), SHA-256 of what comes out, or "-"
#   iso-files.tsv        image, path, bytes, SHA-256 of each regular file that bsdtar takes out of it
#   systemd/*.c          its tests of version order and of patterns
set -eu
dir=${1:?usage: fetch-sources.sh DIR}
mirror=$("$(dirname "$0")/../support/mirror.sh")
suite=${DEBIAN_SUITE:-bookworm}
rm -rf "$dir"
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
(cd "$work/source" && apt-get -q -o APT::Sandbox::User=root source --download-only --tar-only \
    xz-utils libzstd libarchive systemd >/dev/null)

unpack() { # PACKAGE PATTERN…
    package=$1
    shift
    mkdir -p "$work/unpacked/$package"
    tar -x -C "$work/unpacked/$package" --strip-components=1 -f "$work/source/$package"_*.orig.tar.*z --wildcards "$@"
}
unpack xz-utils '*/tests/files/*'
unpack libzstd '*/tests/golden-*'
unpack libarchive '*/libarchive/test/*iso*.uu'
unpack systemd '*/test-string-util.c' '*/test-efi-string.c'

mkdir -p "$dir/xz" "$dir/zstd" "$dir/iso" "$dir/systemd"
cp "$work"/unpacked/xz-utils/tests/files/*.* "$dir/xz/"
find "$work/unpacked/libzstd" -name '*.zst' -exec cp {} "$dir/zstd/" \;
find "$work/unpacked/systemd" -name '*.c' -exec cp {} "$dir/systemd/" \;
for text in "$work"/unpacked/libarchive/libarchive/test/*.uu; do
    bsdcat "$text" >"$dir/iso/$(basename "$text" .Z.uu)"
done

sum() {
    sha256sum | cut -d ' ' -f 1
}
judge() { # FILE TOOL
    if "$2" -t -q "$1" 2>/dev/null; then
        printf '%s/%s\tok\t%s\n' "$(basename "$(dirname "$1")")" "$(basename "$1")" "$("$2" -d -c -q <"$1" | sum)"
    else
        printf '%s/%s\tfail\t-\n' "$(basename "$(dirname "$1")")" "$(basename "$1")"
    fi
}
{
    for file in "$dir"/xz/*.xz "$dir"/xz/*.lzma "$dir"/xz/*.lz; do
        judge "$file" xz
    done
    for file in "$dir"/zstd/*; do
        judge "$file" zstd
    done
    for file in "$dir"/iso/*; do
        verdict=fail
        bsdtar -tf "$file" >/dev/null 2>&1 && verdict=ok
        printf 'iso/%s\t%s\t-\n' "$(basename "$file")" "$verdict"
    done
} >"$dir/verdicts.tsv"
for file in "$dir"/iso/*; do
    out=$work/out
    rm -rf "$out"
    mkdir -p "$out"
    bsdtar -x -f "$file" -C "$out" 2>/dev/null || true
    (cd "$out" && find . -type f | sort | while read -r path; do
        printf '%s\t%s\t%s\t%s\n' "$(basename "$file")" "${path#./}" "$(wc -c <"$path")" "$(sum <"$path")"
    done)
done >"$dir/iso-files.tsv"
rm -rf "$work"
echo "$(wc -l <"$dir/verdicts.tsv") files, $(wc -l <"$dir/iso-files.tsv") files in ISO images in $dir"
