#!/bin/sh
# Lays ready what tests/arm64 puts around the program to make it a whole system: Debian's kernel for arm64, the modules that a
# virtio disk needs, and an init that loads them. Nothing is installed.
#
#   tests/arm64/prepare.sh DIR
#
# fills DIR/kernel/{vmlinuz,config,version}, DIR/kernel/*.ko and DIR/init. What is there already is kept: remove DIR/kernel to
# look for a newer one.
#
# Needs: apt, dpkg, debian-archive-keyring, xz, aarch64-linux-gnu-gcc, libc6-dev-arm64-cross.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mirror=$("$here/../support/mirror.sh")
mkdir -p "$1"
dir=$(cd "$1" && pwd)
. "$here/../support/private-apt.sh"

# In the cloud flavour NVMe and virtio's PCI transport are built in. virtio-blk is a module everywhere, from 6.1 to 7.2.
suite=trixie
modules="virtio_blk efivarfs nls_ascii nls_cp437 fat vfat"

if ! [ -e "$dir/kernel/complete" ]; then
    rm -rf "$dir/kernel"
    open_suite "$suite"
    # What the metapackage depends on.
    package=$(private_apt "$suite" apt-cache depends linux-image-cloud-arm64:arm64 |
        sed -n 's/.*Depends: \(linux-image-[0-9][^: ]*\).*/\1/p' | head -n 1)
    rm -f "$dir/apt/$suite"/debs/*.deb
    fetch_packages "$suite" "$package:arm64"
    rm -rf "$dir/unpacked"
    dpkg-deb -x "$dir/apt/$suite"/debs/linux-image-*.deb "$dir/unpacked"
    mkdir -p "$dir/kernel"
    cp "$dir"/unpacked/boot/vmlinuz-* "$dir/kernel/vmlinuz"
    cp "$dir"/unpacked/boot/config-* "$dir/kernel/config"
    echo "$package" >"$dir/kernel/version"
    for module in $modules; do
        file=$(find "$dir/unpacked" -name "$module.ko*")
        case $file in
        *.xz) xz -dc "$file" >"$dir/kernel/$module.ko" ;;
        *.ko) cp "$file" "$dir/kernel/" ;;
        *) echo "prepare.sh: no module $module in $package" >&2 && exit 1 ;;
        esac
    done
    rm -rf "$dir/unpacked"
    touch "$dir/kernel/complete"
fi

aarch64-linux-gnu-gcc -std=gnu11 -Os -Wall -Wextra -Werror -static -s -o "$dir/init" "$here/init.c"
