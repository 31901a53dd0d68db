#!/bin/sh
# Lays ready the tools that make UKIs in the field, for tests/it/real_ukis.rs (BOOTSURGEON_MAKERS=DIR). Nothing is installed.
#
#   tests/makers/prepare.sh DIR
#
# fills DIR/SUITE/{ukify,systemd-measure}, which run, DIR/SUITE/{x64,aa64}.{stub,addon.stub,loader}, and
# DIR/kernels/{amd64,arm64}.{vmlinuz,uname}. What is there already is kept: remove DIR to look for newer versions.
#
# systemd-measure runs with the libraries of its own suite, fetched beside it; ukify with this machine's Python.
#
# Needs: apt, dpkg, python3.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mirror=$("$here/../support/mirror.sh")
mkdir -p "$1"
dir=$(cd "$1" && pwd)

# systemd 257, and what is newer: 262 when this was written.
suites="trixie forky"

. "$here/../support/private-apt.sh"

fetch_suite() { # SUITE
    suite=$1 root=$dir/apt/$1 to=$dir/$1
    open_suite "$suite"
    fetch_packages "$suite" systemd-ukify python3-pefile systemd-boot-efi:amd64 systemd-boot-efi:arm64
    # What systemd-measure is in, by suite, and all that it is linked with.
    tpm=
    [ -z "$(private_apt "$suite" apt-cache search --names-only '^systemd-tpm$')" ] || tpm=systemd-tpm
    # shellcheck disable=SC2086 # none or one
    private_apt "$suite" apt-get -qq -y --download-only --no-install-recommends -o Debug::NoLocking=1 install \
        systemd $tpm libtss2-esys-3.0.2-0t64 libtss2-mu-4.0.1-0t64 libtss2-rc0t64 >/dev/null
    mkdir -p "$to/unpacked"
    for deb in "$root"/cache/archives/*.deb "$root"/debs/*_all.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$to/unpacked" --wildcards \
            './usr/bin/ukify' './usr/lib/systemd/systemd-measure' './usr/lib/python3/*' './usr/lib/x86_64-linux-gnu/*.so*' \
            './usr/lib64/*' 2>/dev/null || true
    done
    for efi in x64:amd64 aa64:arm64; do
        rm -rf "$to/efi"
        dpkg-deb -x "$root"/debs/systemd-boot-efi_*_"${efi#*:}".deb "$to/efi"
        cp "$to/efi/usr/lib/systemd/boot/efi/linux${efi%:*}.efi.stub" "$to/${efi%:*}.stub"
        cp "$to/efi/usr/lib/systemd/boot/efi/addon${efi%:*}.efi.stub" "$to/${efi%:*}.addon.stub"
        cp "$to/efi/usr/lib/systemd/boot/efi/systemd-boot${efi%:*}.efi" "$to/${efi%:*}.loader"
    done
    wrap "$to/systemd-measure" "exec \"$to/unpacked/usr/lib64/ld-linux-x86-64.so.2\" --library-path \
\"$to/unpacked/usr/lib/x86_64-linux-gnu:$to/unpacked/usr/lib/x86_64-linux-gnu/systemd\" \"$to/unpacked/usr/lib/systemd/systemd-measure\""
    wrap "$to/ukify" "PYTHONPATH=\"$to/unpacked/usr/lib/python3/dist-packages\" exec python3 \"$to/unpacked/usr/bin/ukify\""
    "$to/systemd-measure" --version | head -n 1
    "$to/ukify" --version
}

wrap() { # FILE COMMAND
    printf '#!/bin/sh\n%s "$@"\n' "$2" >"$1"
    chmod +x "$1"
}

fetch_kernel() { # ARCHITECTURE
    arch=$1
    package=$(private_apt trixie apt-cache depends "linux-image-$arch:$arch" |
        sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    case $package in
    *:*) ;;
    *) package=$package:$arch ;;
    esac
    mkdir -p "$dir/kernels"
    fetch_packages trixie "$package"
    # A kernel package unpacked whole would be hundreds of megabytes of modules.
    deb=$(ls "$dir"/apt/trixie/debs/linux-image-*_"$arch".deb | head -n 1)
    name=$(dpkg-deb --fsys-tarfile "$deb" | tar -t | sed -n 's,^\./boot/vmlinuz-,,p')
    dpkg-deb --fsys-tarfile "$deb" | tar -x -O "./boot/vmlinuz-$name" >"$dir/kernels/$arch.vmlinuz"
    printf '%s' "$name" >"$dir/kernels/$arch.uname"
    rm "$deb"
}

[ ! -e "$dir/complete" ] || exit 0
for suite in $suites; do
    fetch_suite "$suite"
done
for arch in amd64 arm64; do
    fetch_kernel "$arch"
done
touch "$dir/complete"
