#!/bin/sh
# Fetches EFI binaries that others signed, and writes down what sbverify and osslsigncode make of them, for
# tests/agreement_authenticode.rs (BOOTSURGEON_SIGNED_CORPUS=DIR).
#
#   tests/corpus/fetch-signed.sh DIR
#
# Nothing is installed and no root is needed: packages come through a private apt state and are only unpacked.
# Needs apt, dpkg-deb, gcc, binutils, openssl, sbsigntool (sbverify, sbsign) and osslsigncode; tests/agreement_trust.rs also efitools
# and systemd-measure (package systemd).
#
# DIR afterwards:
#   files/*          the binaries: signed by Debian and Microsoft, signed here with sbsign and osslsigncode, unsigned; among
#                    them the programs that sbsigntool and osslsigncode test themselves with
#   certs/*.pem      one certificate per file: all that are embedded in some binary, the own ones, an unrelated one
#   digests.tsv      file, Authenticode SHA-256 as computed by osslsigncode, or "none" when it gives none
#   verdicts.tsv     file, certificate, what sbverify says, whether that certificate is embedded in the file's signatures
set -eu
dir=${1:?usage: fetch-signed.sh DIR}
here=$(cd "$(dirname "$0")" && pwd)
mirror=$("$here/../support/mirror.sh")
suite=${DEBIAN_SUITE:-bookworm}
mkdir -p "$dir/files" "$dir/certs" "$dir/work"
dir=$(cd "$dir" && pwd)
work=$dir/work

# shellcheck source=tests/support/private-apt.sh
. "$here/../support/private-apt.sh"
open_suite "$suite"

fetch() { # architecture, packages…
    arch=$1
    shift
    out=$work/$arch
    mkdir -p "$out"
    rm -f "$dir/apt/$suite/debs"/*.deb
    for package in "$@"; do
        if [ "$package" = KERNEL ]; then
            # The signed kernel is what the metapackage depends on.
            package=$(private_apt "$suite" apt-cache depends "linux-image-$arch:$arch" |
                sed -n 's/.*Depends: \(linux-image-[0-9][^:]*\).*/\1/p' | head -n 1)
        fi
        fetch_packages "$suite" "$package:$arch" >/dev/null
    done
    for deb in "$dir/apt/$suite/debs"/*.deb; do
        # Only what is signed: a kernel package unpacked whole would be hundreds of megabytes of modules.
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$out" --wildcards --ignore-case \
            '*.efi' '*.signed' './boot/vmlinuz*' '*.efi.stub' 2>/dev/null || true
    done
    find "$out" -type f | sort | while read -r file; do
        cp "$file" "$dir/files/$arch-$(basename "$file")"
    done
}

fetch amd64 shim-signed shim-helpers-amd64-signed grub-efi-amd64-signed fwupd-amd64-signed systemd-boot-efi KERNEL
fetch arm64 shim-signed shim-helpers-arm64-signed grub-efi-arm64-signed fwupd-arm64-signed systemd-boot-efi KERNEL

# Own signatures: RSA-2048 self-signed, RSA-4096 self-signed, a leaf under a CA (which comes along or not), two signatures on one file.
cd "$work"
own() { # name, bits
    openssl req -new -x509 -newkey "rsa:$2" -nodes -days 3650 -subj "/CN=bootsurgeon corpus $1/" \
        -keyout "$1.key" -out "$dir/certs/own-$1.pem" 2>/dev/null
}
own rsa2048 2048
own rsa4096 4096
own ca 2048
own unrelated 2048
openssl req -new -newkey rsa:2048 -nodes -subj "/CN=bootsurgeon corpus leaf/" -keyout leaf.key -out leaf.csr 2>/dev/null
openssl x509 -req -in leaf.csr -CA "$dir/certs/own-ca.pem" -CAkey ca.key -CAserial ca.srl -CAcreateserial -days 3650 \
    -out "$dir/certs/own-leaf.pem" 2>/dev/null
plain=$dir/files/amd64-systemd-bootx64.efi
sbsign --key rsa2048.key --cert "$dir/certs/own-rsa2048.pem" --output "$dir/files/own-rsa2048.efi" "$plain" 2>/dev/null
sbsign --key rsa4096.key --cert "$dir/certs/own-rsa4096.pem" --output "$dir/files/own-rsa4096.efi" "$plain" 2>/dev/null
sbsign --key leaf.key --cert "$dir/certs/own-leaf.pem" --output "$dir/files/own-leaf.efi" "$plain" 2>/dev/null
sbsign --key leaf.key --cert "$dir/certs/own-leaf.pem" --addcert "$dir/certs/own-ca.pem" \
    --output "$dir/files/own-leaf-with-ca.efi" "$plain" 2>/dev/null
sbsign --key rsa2048.key --cert "$dir/certs/own-rsa2048.pem" --output "$dir/files/own-double.efi" \
    "$dir/files/own-rsa4096.efi" 2>/dev/null
sbsign --key rsa2048.key --cert "$dir/certs/own-rsa2048.pem" --output "$dir/files/own-arm64.efi" \
    "$dir/files/arm64-systemd-bootaa64.efi" 2>/dev/null

# The programs that osslsigncode and sbsigntool test themselves with, signed in the ways they can.
mkdir -p source
(
    dir=$work/apt-sources
    open_suite "$suite" deb-src
    cd source
    private_apt "$suite" apt-get -q source --download-only --tar-only osslsigncode sbsigntool >/dev/null
)
tar -x -C source -f source/osslsigncode_*.orig.tar.*z --wildcards '*/unsigned.exe' --strip-components=3
tar -x -C source -f source/sbsigntool_*.orig.tar.*z --wildcards '*/tests/test.c' --strip-components=2
fetch_packages "$suite" gnu-efi >/dev/null
dpkg-deb -x "$dir/apt/$suite/debs"/gnu-efi_*.deb gnu-efi
# As its Makefile.am does.
gcc -fpic -ffreestanding -fshort-wchar -fno-stack-protector -mno-red-zone -Ignu-efi/usr/include/efi \
    -Ignu-efi/usr/include/efi/x86_64 -c source/test.c -o test.o
ld -nostdlib -shared -Bsymbolic -L gnu-efi/usr/lib gnu-efi/usr/lib/crt0-efi-x86_64.o -T gnu-efi/usr/lib/elf_x86_64_efi.lds \
    test.o -o test.elf -lefi -lgnuefi
objcopy -j .text -j .sdata -j .data -j .dynamic -j .dynsym -j .rel -j .rela -j .reloc --target=efi-app-x86_64 \
    test.elf "$dir/files/sbsigntool-test.efi"
cp source/unsigned.exe "$dir/files/osslsigncode-unsigned.exe"
for name in osslsigncode-unsigned.exe sbsigntool-test.efi; do
    to=$dir/files/${name%.*}
    sbsign --key rsa2048.key --cert "$dir/certs/own-rsa2048.pem" --output "$to-sbsign.efi" "$dir/files/$name" 2>/dev/null
    sbsign --detached --key rsa4096.key --cert "$dir/certs/own-rsa4096.pem" --output detached.p7 "$dir/files/$name" 2>/dev/null
    cp "$dir/files/$name" "$to-attached.efi"
    sbattach --attach detached.p7 "$to-attached.efi" >/dev/null 2>&1
    osslsigncode sign -h sha256 -key rsa2048.key -certs "$dir/certs/own-rsa2048.pem" -in "$dir/files/$name" \
        -out "$to-osslsigncode.efi" >/dev/null
    osslsigncode sign -h sha256 -ph -key leaf.key -certs "$dir/certs/own-leaf.pem" -in "$dir/files/$name" \
        -out "$to-pages.efi" >/dev/null
    # Changed after it was signed: a byte of the DOS header.
    cp "$to-sbsign.efi" "$to-changed.efi"
    printf 'X' | dd of="$to-changed.efi" bs=1 seek=30 conv=notrunc status=none
done

u32() { # file, offset
    od -An -tu4 -j "$2" -N 4 "$1" | tr -d ' '
}

fingerprint() {
    openssl x509 -in "$1" -noout -fingerprint -sha256 | sed 's/.*=//; s/://g' | cut -c 1-12
}

# Every certificate that is embedded in some signature, once, named by the start of its fingerprint. The certificate
# table is walked here because sbattach takes out only the first signature and osslsigncode refuses shim's table.
: >embedded.tsv
for file in "$dir"/files/*; do
    name=$(basename "$file")
    pe=$(u32 "$file" 60)
    at=$(u32 "$file" $((pe + 24 + 112 + 32)))
    end=$((at + $(u32 "$file" $((pe + 24 + 112 + 36)))))
    while [ "$at" -lt "$end" ]; do
        length=$(u32 "$file" "$at")
        tail -c +$((at + 9)) "$file" | head -c $((length - 8)) >one.p7
        at=$((at + (length + 7) / 8 * 8))
        rm -f part-*.pem
        openssl pkcs7 -inform DER -in one.p7 -print_certs 2>/dev/null |
            awk '/BEGIN CERT/ { file = sprintf("part-%02d.pem", ++n) } file { print >file } /END CERT/ { close(file); file = "" }'
        for part in part-*.pem; do
            [ -f "$part" ] || continue
            openssl x509 -in "$part" -out clean.pem 2>/dev/null || continue
            id=$(fingerprint clean.pem)
            known=
            for cert in "$dir"/certs/own-*.pem; do
                [ "$(fingerprint "$cert")" != "$id" ] || known=$(basename "$cert")
            done
            [ -n "$known" ] || { known=embedded-$id.pem; cp clean.pem "$dir/certs/$known"; }
            printf '%s\t%s\n' "$name" "$known" >>embedded.tsv
        done
    done
done
sort -u -o embedded.tsv embedded.tsv

: >"$dir/digests.tsv"
: >"$dir/verdicts.tsv"
for file in "$dir"/files/*; do
    name=$(basename "$file")
    # osslsigncode takes no notice of gaps between sections, which firmware and sbverify leave out: it then says
    # MISMATCH of a good file, and its digest is of no use here.
    digest=$(osslsigncode verify -in "$file" 2>/dev/null | grep -iv mismatch |
        sed -n 's/^Calculated message digest *: *\([0-9A-Fa-f]*\).*/\1/p' | head -n 1 | tr 'A-F' 'a-f')
    printf '%s\t%s\n' "$name" "${digest:-none}" >>"$dir/digests.tsv"
    for cert in "$dir"/certs/*.pem; do
        id=$(basename "$cert")
        said=fail
        sbverify --cert "$cert" "$file" >/dev/null 2>&1 && said=ok
        embedded=no
        grep -qxF "$(printf '%s\t%s' "$name" "$id")" embedded.tsv && embedded=yes
        printf '%s\t%s\t%s\t%s\n' "$name" "$id" "$said" "$embedded" >>"$dir/verdicts.tsv"
    done
done
echo "$(wc -l <"$dir/digests.tsv") files, $(wc -l <"$dir/verdicts.tsv") pairs in $dir"
