#!/bin/sh
# Lays ready what tests/boots boots: real systemd-boot and stubs, and the test programs. Nothing is installed.
#
#   tests/boots/prepare.sh DIR
#
# fills DIR/systemd/VERSION/{x64,aa64}/{systemd-boot,stub}.efi, DIR/others/{x64,aa64}/{shim,grub}.efi,
# DIR/uboot/VERSION/u-boot.bin (for arm64) and DIR/programs/{payload,runner}-{x64,aa64}.bin. What is there already is kept:
# remove DIR/systemd, DIR/others and DIR/uboot to look for newer versions.
#
# The packages come from the Debian mirror that apt on this machine is set up for; other suites and architectures are read
# through an apt configuration of their own, so that the machine's lists stay as they are.
#
# Needs: apt, dpkg, gcc, and for arm64 aarch64-linux-gnu-gcc.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mirror=$("$here/../support/mirror.sh")
mkdir -p "$1"
dir=$(cd "$1" && pwd)

# Suites, oldest first: 252, 254, 257, and what is newer. One that the mirror does not have is left out.
suites="bookworm bookworm-backports trixie trixie-backports forky sid"

. "$here/../support/private-apt.sh"

fetch_suite() { # SUITE
    root=$dir/apt/$1
    if ! open_suite "$1" || ! fetch_packages "$1" systemd-boot-efi:amd64 systemd-boot-efi:arm64; then
        echo "prepare.sh: systemd-boot of $1 cannot be had from the mirror" >&2
        return 0
    fi
    for deb in "$root"/debs/*.deb; do
        version=$(dpkg-deb -f "$deb" Version)
        case $(dpkg-deb -f "$deb" Architecture) in
        amd64) efi=x64 ;;
        arm64) efi=aa64 ;;
        esac
        # 257.13-1~deb13u1 is 257.13.
        to=$dir/systemd/${version%%-*}/$efi
        rm -rf "$root/unpacked"
        dpkg-deb -x "$deb" "$root/unpacked"
        mkdir -p "$to"
        cp "$root/unpacked/usr/lib/systemd/boot/efi/systemd-boot$efi.efi" "$to/systemd-boot.efi"
        cp "$root/unpacked/usr/lib/systemd/boot/efi/linux$efi.efi.stub" "$to/stub.efi"
    done
}

build() { # PROGRAM EFI-NAME COMPILER FLAGS...
    program=$1 efi=$2 compiler=$3
    shift 3
    # One flat piece that runs wherever it is loaded: no relocations, no library.
    "$compiler" "$@" -Os -Wall -Wextra -std=gnu11 -ffreestanding -fno-stack-protector -fPIC -fvisibility=hidden \
        -fno-asynchronous-unwind-tables -fshort-wchar -nostdlib -static -Wl,-T,"$here/efi/flat.ld",--build-id=none,-n \
        -o "$dir/programs/$program-$efi.elf" "$here/efi/$program.c"
    case $compiler in
    *-gcc) objcopy=${compiler%gcc}objcopy ;;
    *) objcopy=objcopy ;;
    esac
    if "${objcopy%objcopy}readelf" -r "$dir/programs/$program-$efi.elf" | grep -q R_; then
        echo "prepare.sh: $program-$efi has relocations" >&2
        exit 1
    fi
    "$objcopy" -O binary "$dir/programs/$program-$efi.elf" "$dir/programs/$program-$efi.bin"
}

mkdir -p "$dir/programs"
for program in payload runner; do
    # 16-byte stack slots and no red zone: interrupts of the firmware use the same stack.
    build $program x64 gcc -mabi=ms -mno-red-zone -mgeneral-regs-only
    if command -v aarch64-linux-gnu-gcc >/dev/null; then
        build $program aa64 aarch64-linux-gnu-gcc -mgeneral-regs-only
    fi
done

if ! [ -e "$dir/systemd/complete" ]; then
    rm -rf "$dir/systemd"
    for suite in $suites; do
        fetch_suite "$suite"
    done
    touch "$dir/systemd/complete"
fi

if ! [ -e "$dir/others/complete" ]; then
    rm -rf "$dir/others"
    open_suite bookworm
    fetch_packages bookworm shim-unsigned:amd64 shim-unsigned:arm64 grub-efi-amd64-bin:amd64 grub-efi-arm64-bin:arm64
    for efi in x64:amd64:x86_64 aa64:arm64:arm64; do
        IFS=: read -r efi arch grub <<EOF
$efi
EOF
        mkdir -p "$dir/others/$efi"
        out() { # PACKAGE FILE
            dpkg-deb --fsys-tarfile "$dir"/apt/bookworm/debs/"$1"_*_"$arch".deb | tar -x -O -f - "$2"
        }
        out shim-unsigned "./usr/lib/shim/shim$efi.efi" >"$dir/others/$efi/shim.efi"
        out "grub-efi-$arch-bin" "./usr/lib/grub/$grub-efi/monolithic/grub$efi.efi" >"$dir/others/$efi/grub.efi"
    done
    touch "$dir/others/complete"
fi

if ! [ -e "$dir/uboot/complete" ]; then
    rm -rf "$dir/uboot"
    for suite in bookworm trixie; do
        open_suite "$suite"
        fetch_packages "$suite" u-boot-qemu
        deb=$(echo "$dir/apt/$suite"/debs/u-boot-qemu_*.deb)
        version=$(dpkg-deb -f "$deb" Version)
        # 2023.01+dfsg-2+deb12u3 is 2023.01.
        to=$dir/uboot/$(echo "$version" | sed 's/[-+].*//')
        mkdir -p "$to"
        dpkg-deb --fsys-tarfile "$deb" | tar -x -O -f - ./usr/lib/u-boot/qemu_arm64/u-boot.bin >"$to/u-boot.bin"
    done
    touch "$dir/uboot/complete"
fi
