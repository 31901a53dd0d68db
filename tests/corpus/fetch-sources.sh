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
#   systemd/oracle/VERSION/oracle
#                        systemd-boot's own functions, asked by src/boot/tests/oracle.rs; needs gcc
set -eu
dir=${1:?usage: fetch-sources.sh DIR}
mirror=$("$(dirname "$0")/../support/mirror.sh")
suite=${DEBIAN_SUITE:-bookworm}
rm -rf "$dir"
mkdir -p "$dir/apt/state/lists/partial" "$dir/apt/cache/archives/partial" "$dir/apt/source"
dir=$(cd "$dir" && pwd)
work=$dir/apt
: >"$work/status"
signed="signed-by=/usr/share/keyrings/debian-archive-keyring.gpg"
echo "deb-src [$signed] $mirror $suite main" >"$work/sources.list"
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

# systemd-boot's functions, of every suite that serves its source; one that a mirror does not hold just now is left out.
# Its string functions are made for user space too, and need little else.
oracles=$(cd "$(dirname "$0")/oracle" && pwd)
flags="-w -O1 -std=gnu17 -fshort-wchar -I$oracles/stand-in"
for from in bookworm bookworm-backports trixie forky sid; do
    sources=$work/systemd/$from
    mkdir -p "$sources/unpacked"
    echo "deb-src [$signed] $mirror $from main" >"$work/sources.list"
    if ! (cd "$sources" && apt-get -q update && apt-get -q -o APT::Sandbox::User=root source --download-only --tar-only \
        -t "$from" systemd) >"$sources/log" 2>&1; then
        echo "fetch-sources.sh: no source of systemd from $from" >&2
        continue
    fi
    version=$(basename "$sources"/systemd_*.orig.tar.gz .orig.tar.gz | sed 's/^systemd_//')
    out=$dir/systemd/oracle/$version
    [ ! -e "$out" ] || continue
    tar -x -C "$sources/unpacked" --strip-components=1 -f "$sources"/systemd_*.orig.tar.gz \
        --wildcards '*/src/boot/*' '*/src/fundamental/*'
    mkdir -p "$out"
    strings=$(find "$sources/unpacked/src/boot" -name efi-string.c)
    boot=$(dirname "$strings")
    fundamental=$sources/unpacked/src/fundamental
    versions=$(find "$fundamental" -name 'string-util*.c')
    with="$flags -I$boot -I$fundamental -DRELATIVE_SOURCE_PATH=\".\" -include alloc-util.h"
    lines=
    if ! grep -q line_get_key_value "$strings"; then
        sed -n '/^static char \*line_get_key_value/,/^}/p' "$boot/boot.c" >"$out/lines.c"
        lines="-DLINES -I$out"
    fi
    gcc $with -c "$strings" -o "$out/strings.o"
    gcc $with -ffreestanding -DSD_BOOT=1 -c "$versions" -o "$out/versions.o"
    gcc $with $lines "$oracles/driver.c" "$oracles/assertions.c" "$out/strings.o" "$out/versions.o" -o "$out/oracle"
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
