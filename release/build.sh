#!/bin/sh
# Builds the static binaries: aarch64 and x86_64, glibc, stripped, the same bytes whatever directory this is built in.
#
#   release/build.sh [--target aarch64|x86_64]… [--out DIR]
#
# makes DIR/bootsurgeon-aarch64 and DIR/bootsurgeon-x86_64 (DIR: target/static) and prints size and SHA-256 of each.
# Without --target both. A binary above 6 MiB, or one that is not static, is a failure.
#
# The toolchain: the rustc on PATH, if it has the standard library of every wanted target (`rustup target add`); else
# Debian's in /usr/bin, for which the standard library of arm64 is fetched from the Debian mirror and unpacked under target/.
# RUSTC=… chooses another (and CARGO=… the cargo beside it). The same toolchain, C compiler and C library make the same
# bytes: DIR/toolchain.txt says which they were.
#
# Needs: libc6-dev (libc.a), gcc, binutils (strings, readelf); for aarch64 gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, and a rustup toolchain
# with that target or Debian's rustc-web, cargo-web. No network when the toolchain is complete and the crates are fetched.
set -eu

usage() {
    echo "usage: build.sh [--target aarch64|x86_64]… [--out DIR]" >&2
    exit 2
}

source=$(cd "$(dirname "$0")/.." && pwd)
cd "$source"
targets=
out=target/static
while [ $# -gt 0 ]; do
    case $1 in
    --target)
        case ${2:-} in aarch64 | x86_64) targets="$targets $2" ;; *) usage ;; esac
        shift 2
        ;;
    --out)
        [ -n "${2:-}" ] || usage
        out=$2
        shift 2
        ;;
    *) usage ;;
    esac
done
[ -n "$targets" ] || targets="aarch64 x86_64"
limit=$((6 * 1024 * 1024))

# A directory of its own for cargo: `cargo build` with another toolchain on the side would throw everything away each time.
work=$source/target/static-build
mkdir -p "$work" "$out"

has_std() { # RUSTC TARGET
    ls "$("$1" --print sysroot)/lib/rustlib/$2-unknown-linux-gnu/lib"/libstd-*.rlib >/dev/null 2>&1
}

has_all() { # RUSTC
    for t in $targets; do has_std "$1" "$t" || return 1; done
}

# Debian's standard library for arm64, of the very version of the installed compiler, in a sysroot beside that of the host.
debian_sysroot() {
    version=$(dpkg-query -W -f '${Version}' libstd-rust-web-dev)
    sysroot=$work/sysroot-$version
    [ -e "$sysroot/complete" ] || {
        rm -rf "$sysroot"
        mkdir -p "$sysroot/unpacked" "$sysroot/lib"
        release/debian-packages.sh arm64 "$work/debs" "libstd-rust-web-dev=$version"
        dpkg-deb -x "$work/debs/libstd-rust-web-dev.deb" "$sysroot/unpacked"
        mv "$sysroot/unpacked/usr/lib/rustlib" "$sysroot/lib/rustlib"
        ln -s /usr/lib/rustlib/x86_64-unknown-linux-gnu "$sysroot/lib/rustlib/"
        rm -r "$sysroot/unpacked"
        touch "$sysroot/complete"
    }
    sysroot="--sysroot $sysroot"
}

# Debian's C library for arm64 as it runs on arm64 machines: the cross package stays behind the security updates.
arm64_libc() {
    lib=$work/libc-arm64/usr/lib/aarch64-linux-gnu
    [ -e "$work/libc-arm64/complete" ] || {
        rm -rf "$work/libc-arm64"
        release/debian-packages.sh arm64 "$work/debs" libc6-dev
        dpkg-deb -x "$work/debs/libc6-dev.deb" "$work/libc-arm64"
        touch "$work/libc-arm64/complete"
    }
    cat >"$work/aarch64-cc" <<END
#!/bin/sh
exec aarch64-linux-gnu-gcc -B"$lib" -L"$lib" "\$@"
END
    chmod +x "$work/aarch64-cc"
}

sysroot=
if [ -n "${RUSTC:-}" ]; then
    cargo=${CARGO:-cargo}
elif command -v rustc >/dev/null && has_all rustc; then
    # The toolchain itself and not rustup's shim, which looks at the directory that it runs in.
    RUSTC=$(rustc --print sysroot)/bin/rustc
    cargo=$(rustc --print sysroot)/bin/cargo
    [ -x "$cargo" ] || cargo=cargo
elif [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] && dpkg-query -W libstd-rust-web-dev >/dev/null 2>&1; then
    RUSTC=/usr/bin/rustc
    cargo=/usr/bin/cargo
    has_all /usr/bin/rustc || debian_sysroot
else
    echo "build.sh: no toolchain has the standard library for:$targets. Run: rustup target add aarch64-unknown-linux-gnu" \
        "(or on Debian: apt-get install rustc-web cargo-web)" >&2
    exit 1
fi

# Paths of this machine stay out of the binary. A wrapper and not RUSTFLAGS: cargo hashes the flags into symbol names, and
# with them the directory would change the order of functions.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
cat >"$work/rustc" <<END
#!/bin/sh
set -- "\$@" --remap-path-prefix "$source=/source" --remap-path-prefix "$work=/build" \\
    --remap-path-prefix "$cargo_home=/cargo" --remap-path-prefix "$("$RUSTC" --print sysroot)=/toolchain"
# A crate's name and version say where a panic was; which registry it came from is 50 bytes for each of its files.
for registry in "$cargo_home"/registry/src/*; do
    set -- "\$@" --remap-path-prefix "\$registry=/crates"
done
exec "$RUSTC" $sysroot "\$@"
END
chmod +x "$work/rustc"

export RUSTC="$work/rustc" CARGO_TARGET_DIR="$work" LC_ALL=C TZ=UTC0
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CFLAGS CPPFLAGS RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER CARGO_BUILD_RUSTFLAGS
SOURCE_DATE_EPOCH=$(release/epoch.sh)
export SOURCE_DATE_EPOCH
# What `--version` says.
BOOTSURGEON_COMMIT=${BOOTSURGEON_COMMIT:-$(git describe --always --abbrev=12 --exclude='*' --dirty 2>/dev/null || echo unknown)}
export BOOTSURGEON_COMMIT
# A static glibc program finds no functions by name at run time, where getrandom looks for its system call; without this it
# would fall back to /dev/urandom, which an empty root does not have.
# The linker script by a relative path: an absolute one among the flags would bring the directory into symbol names.
static="-C target-feature=+crt-static -C force-unwind-tables=no -C link-arg=-Wl,--build-id=none,--no-eh-frame-hdr,-T,release/no-unwind-tables.ld --cfg getrandom_backend=\"linux_getrandom\""
# arm64 programs are linked to a fixed address by default; on amd64 that saves 200 kB of relocations.
# Images are packed with zstd's level 3: what the higher ones search with stays out.
without=
for strategy in GREEDY LAZY LAZY2 BTLAZY2 BTOPT BTULTRA; do
    without="$without -DZSTD_EXCLUDE_${strategy}_BLOCK_COMPRESSOR"
done
# amd64 has the least room: of zstd's decoders, of which each comes in several variants, one is kept (zstd's lib/README.md),
# and none for BMI2 beside it (20 kB): 480 MB are unpacked in half a second of processor time with them and without.
small="-DDYNAMIC_BMI2=0 -DHUF_FORCE_DECOMPRESS_X1 -DZSTD_FORCE_DECOMPRESS_SEQUENCES_SHORT"
prefixes="-fno-asynchronous-unwind-tables -fno-unwind-tables -ffile-prefix-map=$source=/source -ffile-prefix-map=$work=/build -ffile-prefix-map=$cargo_home=/cargo"
# Functions that came out the same are kept once, where the linker can do that (lld, which Rust brings for amd64): 60 kB.
folding() { # TARGET
    printf 'fn main() {}\n' >"$work/empty.rs"
    if "$RUSTC" --target "$1-unknown-linux-gnu" -C link-arg=-Wl,--icf=all -o "$work/empty" "$work/empty.rs" 2>/dev/null; then
        echo " -C link-arg=-Wl,--icf=all"
    fi
    rm -f "$work"/empty*
}
# Sequences of instructions that occur more than once become functions: LLVM's machine outliner, which arm64 has anyhow.
outlining=" -C llvm-args=-enable-machine-outliner=always"
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="$static -C relocation-model=static$(folding x86_64)$outlining" CFLAGS_x86_64_unknown_linux_gnu="$prefixes$without $small"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="$static" CFLAGS_aarch64_unknown_linux_gnu="$prefixes$without"
cc_aarch64=gcc cc_x86_64=gcc
case $(uname -m),$targets in
aarch64,*) ;;
*aarch64*)
    cc_aarch64=aarch64-linux-gnu-gcc
    if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
        arm64_libc
        cc_aarch64=$work/aarch64-cc
    fi
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER="$cc_aarch64"
    ;;
esac
if [ "$(uname -m)" != x86_64 ]; then
    cc_x86_64=x86_64-linux-gnu-gcc
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc
fi

{
    echo "rust: $("$RUSTC" --version)"
    for target in $targets; do
        case $target in
        aarch64) arch=arm64 cc=$cc_aarch64 ;;
        x86_64) arch=amd64 cc=$cc_x86_64 ;;
        esac
        echo "$arch C compiler: $("$cc" --version | head -n 1)"
        echo "$arch linker: $("$("$cc" -print-prog-name=ld)" --version | head -n 1)"
        # The C library says its own version in a string.
        echo "$arch libc: $(strings -a "$("$cc" -print-file-name=libc.a)" | sed -n 's/^GNU C Library (\(.*\)) .*release version \(.*\)\.$/\2 (\1)/p' | head -n 1)"
    done
} >"$out/toolchain.txt"

# Both in one go: linking is one thread for each.
set --
for target in $targets; do
    set -- "$@" --target "$target-unknown-linux-gnu"
done
"$cargo" build --locked --profile dist --no-default-features --features cli --bin bootsurgeon "$@"

for target in $targets; do
    built=$work/$target-unknown-linux-gnu/dist/bootsurgeon
    if LC_ALL=C readelf -lW "$built" | grep -q INTERP || LC_ALL=C readelf -dW "$built" | grep -q NEEDED; then
        echo "build.sh: $built is not static" >&2
        exit 1
    fi
    bytes=$(wc -c <"$built")
    if [ "$bytes" -gt $limit ]; then
        echo "build.sh: $built is $bytes bytes long, more than $limit" >&2
        exit 1
    fi
    install -m 755 "$built" "$out/bootsurgeon-$target"
    echo "$bytes bytes, $(sha256sum "$out/bootsurgeon-$target")"
done
