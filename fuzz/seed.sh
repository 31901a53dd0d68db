#!/bin/sh
# Puts seeds for every fuzz target into fuzz/corpus: from fixtures/ where they are small, else small ones of the same make.
#
# Needs zstd, xz, cpio, xorriso, dosfstools, mtools, gdisk, squashfs-tools, binutils.
set -eu
cd "$(dirname "$0")"
fixtures=../fixtures
corpus=$PWD/corpus
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export MTOOLS_SKIP_CHECK=1 SOURCE_DATE_EPOCH=1760000000
for target in authenticode config efivars fat fat_edit gpt image initrd iso members oci os_release packed pe record schematic squashfs variables; do
    mkdir -p "$corpus/$target"
done

u32() { # FILE OFFSET
    od -An -tu4 -j "$2" -N 4 "$1" | tr -d ' '
}

# UKIs without the stub's code, and their certificate tables by themselves.
for packed in "$fixtures"/uki/*.efi.zst; do
    name=$(basename "$packed" .efi.zst)
    zstd -qdf "$packed" -o "$work/uki.efi"
    pe=$(u32 "$work/uki.efi" 60)
    table=$(u32 "$work/uki.efi" $((pe + 24 + 144)))
    bytes=$(u32 "$work/uki.efi" $((pe + 24 + 148)))
    if [ "$bytes" -gt 0 ]; then
        tail -c +$((table + 1)) "$work/uki.efi" | head -c "$bytes" >"$corpus/authenticode/$name.table"
    fi
    objcopy -R .text -R .rodata -R .data -R .reloc -R .dynamic -R .rela -R .splash "$work/uki.efi" "$work/small.efi" 2>/dev/null || continue
    for target in authenticode pe image os_release; do
        cp "$work/small.efi" "$corpus/$target/$name.efi"
    done
    for section in .osrel .cmdline .sbat; do
        objcopy --dump-section "$section=$corpus/os_release/$name$section" "$work/uki.efi" "$work/copy.efi" 2>/dev/null
    done
    cp "$corpus/os_release/$name.sbat" "$corpus/efivars/$name.sbat"
done

# Variables without their four bytes of attributes, and what they are made from.
for file in "$fixtures"/efivars/*/*; do
    tail -c +5 "$file" >"$corpus/efivars/$(basename "$(dirname "$file")")-$(basename "$file" | cut -c 1-24)"
done
cp "$fixtures"/keys-auto/* "$fixtures"/keys/*.crt "$corpus/efivars/"

# Stores of variables: what stands in them, behind the byte that says what is put around it. A boot option, an entry of U-Boot's.
for file in "$fixtures"/efivars/*/Boot0* "$fixtures"/efivars/*/LoaderEntry*; do
    [ -f "$file" ] || continue
    name=$(basename "$(dirname "$file")")-$(basename "$file" | cut -c 1-24)
    { printf '\0'; tail -c +5 "$file"; } >"$corpus/variables/$name"
done
{ printf '\1\4\0\0\0\7\0\0\0\0\0\0\0\0\0\0\0\141\337\344\213\312\223\322\021\252\015\0\340\230\003\053\214'
  printf 'B\0o\0o\0t\0O\0r\0d\0e\0r\0\0\0\1\0\2\0'; } >"$corpus/variables/uboot"
{ printf '\2\252\125\077\0\7\0\0\0'; head -c 28 /dev/zero; printf '\4\0\0\0\2\0\0\0'
  printf '\141\337\344\213\312\223\322\021\252\015\0\340\230\003\053\214A\0\0\0\1\0'; } >"$corpus/variables/edk2"

# A node's configuration.
printf 'machine:\n  type: worker\n  install: {image: "factory.talos.dev/installer/x:v1.12.4"}\n---\napiVersion: v1alpha1\nkind: ExtensionServiceConfig\nname: tailscale\nenvironment:\n  - TS_AUTHKEY=k\n' \
    >"$corpus/config/machine"
printf 'clusterName: home\nnodes:\n  - talosImageURL: x\n    patches:\n      - "@./a"\n      - |-\n        machine: {}\n' \
    >"$corpus/config/talconfig"

# Records of operations.
printf '\1{"operation":{"command":"prune","time":1,"install":null,"after":[{"remove":"Talos-v1.12.4~1.efi"}]},"files":{},"staged":""}' \
    >"$corpus/record/prune"
printf '\1{"bootsurgeon":1}' >"$corpus/record/first"
printf '\0not a record' >"$corpus/record/foreign"

# Marks of arrays: length of the disk in sectors, bytes of the beginning, sector of the rest; the beginning; the rest.
{ printf '\100\0\0\0\060\0\374\116\053\251\1\0\0\0'; head -c 136 /dev/zero; printf '\060'; head -c 111 /dev/zero; } >"$corpus/members/md-1.0"
{ printf '\100\0\0\4\0\0\374\116\053\251\1\0\0\0'; head -c 64 /dev/zero; printf '\1'; head -c 183 /dev/zero; } >"$corpus/members/md-1.1"
{ printf '\0\1\0\0\200\0\374\116\053\251\0\0\0\0\132\0\0\0'; head -c 64 /dev/zero; } >"$corpus/members/md-0.90"
{ printf '\100\0\0\4\0\0LABELONE'; head -c 16 /dev/zero; printf 'LVM2 001'; } >"$corpus/members/lvm"
{ printf '\100\0\0\0\076\0Intel Raid ISM Cfg Sig. 1.0.00'; } >"$corpus/members/intel"

# An OCI image: the text of an index and a layer with a file in it.
mkdir -p "$work/layer/usr/install/arm64"
echo MZ >"$work/layer/usr/install/arm64/vmlinuz.efi.signed"
tar -C "$work/layer" --owner 0 --group 0 --mtime @0 -b 1 -cf "$work/layer.tar" usr/install/arm64/vmlinuz.efi.signed
{ printf '\376\377'; cat "$work/layer.tar"; } >"$corpus/oci/layer"
{ printf '\376\377'; zstd -qc "$work/layer.tar"; } >"$corpus/oci/zstd"
printf '\376{"schemaVersion":2,"manifests":[{"digest":"sha256:%064d"}]}\377' 0 >"$corpus/oci/index"
cp "$work/layer.tar" "$corpus/oci/tar"

# Schematics.
printf 'customization: {}\n' >"$corpus/schematic/empty"
cat >"$corpus/schematic/all" <<'YAML'
overlay:
    image: siderolabs/sbc-raspberrypi
    name: rpi_generic
    options: {a: b}
customization:
    extraKernelArgs: [-talos.halt_if_installed, vga=791]
    meta:
        - key: 10
          value: 'x: y'
    systemExtensions:
        officialExtensions:
            - siderolabs/tailscale
    bootloader: sd-boot
    secureboot:
        includeWellKnownCertificates: true
YAML
printf 'default Talos-*.efi\ntimeout 10\n\377title A\nefi /EFI/Linux/a.efi\n\377T\0a\0\0\0\377' >"$corpus/os_release/parts"

# A squashfs image with a service, and initrds with it.
mkdir -p "$work/ext/usr/local/etc/containers" "$work/cpio"
printf 'name: tailscale\ndepends:\n  - service: cri\n  - configuration: true\n' \
    >"$work/ext/usr/local/etc/containers/tailscale.yaml"
for coding in zstd xz gzip; do
    mksquashfs "$work/ext" "$corpus/squashfs/$coding" -comp "$coding" -noappend -no-xattrs -all-root -quiet -no-progress -nopad >/dev/null
done
cp "$corpus/squashfs/zstd" "$work/cpio/0.sqsh"
cat >"$work/cpio/extensions.yaml" <<'YAML'
layers:
  - image: 0.sqsh
    metadata: {name: tailscale, version: 1.90.6, compatibility: {talos: {version: '>= v1.0.0'}}}
  - image: 1.sqsh
    metadata:
      name: schematic
      version: 376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba
      extraInfo: |
        customization: {}
YAML
cp "$work/cpio/extensions.yaml" "$corpus/initrd/extensions.yaml"
(cd "$work/cpio" && find . -mindepth 1 | sort | cpio --quiet -o -H newc) >"$corpus/initrd/plain"
zstd -q19 <"$corpus/initrd/plain" >"$corpus/initrd/zstd"
xz --check=crc32 <"$corpus/initrd/plain" >"$corpus/initrd/xz"
cat "$corpus/initrd/plain" "$corpus/initrd/zstd" "$corpus/initrd/xz" >"$corpus/initrd/three"

# Packed images: one piece, several, none that fills a block.
head -c 9000 /dev/zero >"$work/zeros"
for seed in "$corpus/schematic/all" "$work/zeros"; do
    name=$(basename "$seed")
    zstd -qc "$seed" >"$corpus/packed/$name.zst"
    zstd -qc --no-check "$seed" "$seed" >"$corpus/packed/$name-twice.zst"
    xz -c "$seed" >"$corpus/packed/$name.xz"
    cat "$corpus/packed/$name.xz" "$corpus/packed/$name.xz" >"$corpus/packed/$name-twice.xz"
done

# File systems.
mkdir -p "$work/esp/EFI/Linux" "$work/esp/EFI/BOOT" "$work/esp/loader"
head -c 700 "$work/small.efi" >"$work/esp/EFI/Linux/Talos-v1.12.4.efi"
cp "$work/esp/EFI/Linux/Talos-v1.12.4.efi" "$work/esp/EFI/Linux/Talos-v1.12.4~1.efi"
cp "$work/esp/EFI/Linux/Talos-v1.12.4.efi" "$work/esp/EFI/BOOT/BOOTAA64.EFI"
echo 'timeout 10' >"$work/esp/loader/loader.conf"
for width in 12 32; do
    image=$corpus/fat/fat$width
    rm -f "$image"
    mkfs.fat -C "$image" -F $width -s 1 -S 512 60 >/dev/null 2>&1
    # mtools takes FAT32 with so few clusters for FAT12: that seed stays empty.
    [ $width = 32 ] || mcopy -s -i "$image" "$work/esp/EFI" "$work/esp/loader" ::/
    cp "$image" "$corpus/image/fat$width"
done
# Smaller ones with files, made by the project's own editor (`volume` of fuzz/src/lib.rs) and shortened: a twentieth of the time.
for packed in seeds/fat/*.zst; do
    zstd -qdf "$packed" -o "$corpus/fat/$(basename "$packed" .zst)"
done
truncate -s 65536 "$work/disk"
sgdisk -Z "$work/disk" >/dev/null 2>&1 || true
sgdisk -a 1 -n 1:34:60 -t 1:ef00 -c 1:EFI -n 3:61:80 -c 3:META "$work/disk" >/dev/null
cp "$work/disk" "$corpus/gpt/two"
cp "$work/disk" "$corpus/image/gpt"
xorriso -as mkisofs -quiet -R -no-pad -o "$corpus/iso/plain" "$work/esp" 2>/dev/null
xorriso -as mkisofs -quiet -R -no-pad -partition_offset 16 -append_partition 2 0xef "$corpus/fat/fat12" \
    -e --interval:appended_partition_2:all:: -no-emul-boot -o "$corpus/iso/secureboot" "$work/esp" 2>/dev/null
cp "$corpus/iso/plain" "$corpus/image/iso"
du -sh "$corpus" | cut -f 1
