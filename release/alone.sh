#!/bin/sh
# Tries a static binary where there is nothing else: a directory with the binary and the images alone as its root.
#
#   release/alone.sh BINARY
#
# No /etc, /proc, /sys, /dev, /tmp, no shell. First the work on image files, then names, TLS and proxies, each with exactly
# the file or variable that it needs. Servers run on loopback. A binary of another architecture runs under qemu-user.
#
# Needs: root (chroot), zstd, openssl, python3; for another architecture qemu-user-static. Run in the source tree.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
fixtures=$here/../fixtures
work=$(mktemp -d)
servers=
chroot=$(command -v chroot) # found here, for it starts without PATH
trap '[ -z "$servers" ] || kill "$servers"; rm -rf "$work"' EXIT
top=$work/root
mkdir "$top"
install -m 755 "${1:?usage: alone.sh BINARY}" "$top/bootsurgeon"

runner=
machine=$(LC_ALL=C readelf -hW "$top/bootsurgeon" | sed -n 's/^ *Machine: *//p')
case $machine,$(uname -m) in
AArch64,aarch64 | *X86-64,x86_64) ;;
AArch64,*) runner=qemu-aarch64-static ;;
*X86-64,*) runner=qemu-x86_64-static ;;
*)
    echo "alone.sh: $1 is for $machine" >&2
    exit 1
    ;;
esac
if [ -n "$runner" ]; then
    install -m 755 "$(command -v $runner)" "$top/qemu"
    runner=/qemu
fi

fail() {
    echo "alone.sh: $*" >&2
    cat "$work/out" "$work/err" >&2
    exit 1
}

# run CODE WHAT [VARIABLE=VALUE…] -- ARGUMENTS…: must end with CODE.
run() {
    code=$1 what=$2
    shift 2
    variables=
    while [ "$1" != -- ]; do
        variables="$variables $1"
        shift
    done
    shift
    got=0
    # shellcheck disable=SC2086 # lists of words
    env -i $variables "$chroot" "$top" $runner /bootsurgeon "$@" >"$work/out" 2>"$work/err" </dev/null || got=$?
    [ "$got" = "$code" ] || fail "$what: exit code $got, not $code"
    printf 'alone: %s\n' "$what"
}

said() { # TEXT
    grep -q -- "$1" "$work/out" "$work/err" || fail "does not say: $1"
}

fixture() { # FROM TO
    zstd -qdf "$fixtures/$1.zst" -o "$top/$2"
}

fixture disk/disk-512.img disk.img
fixture uki/talos-v1.12.4-arm64-installer.efi new.efi
cp "$fixtures/keys/test-signing.crt" "$top/signer.crt"
hash=$(sha256sum "$top/new.efi" | cut -d ' ' -f 1)

# Images, in an empty world.
run 0 "version" -- --version
run 0 "inspect" -- inspect /new.efi
run 0 "verify" -- verify /new.efi --cert /signer.crt --efivars none
run 3 "verify refuses another signer" -- verify /new.efi --efivars none
run 0 "status" -- status /disk.img --efivars none
run 4 "swap asks first" -- swap /disk.img /new.efi --cert /signer.crt --efivars none
run 0 "swap" -- swap /disk.img /new.efi --cert /signer.crt --efivars none --yes --json
said "\"sha256\": *\"$hash\""
run 0 "recover" -- recover /disk.img --yes
run 0 "status after" -- status /disk.img --efivars none --json
said "$hash"
run 0 "restore" -- restore /disk.img --cert /signer.crt --efivars none --yes
run 0 "prune" -- prune /disk.img --efivars none --yes --delete --keep-backups 0
run 0 "doctor" -- doctor /disk.img --efivars none
if [ "$(find "$top" -mindepth 1 ! -name qemu | wc -l)" -ne 4 ]; then
    find "$top" >"$work/out"
    fail "left something behind"
fi

# Names, TLS, proxies.
tls() {
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/ca.key" -out "$top/ca.pem" -subj /CN=Own -days 30
    openssl req -new -newkey rsa:2048 -nodes -keyout "$work/leaf.key" -out "$work/leaf.csr" -subj /CN=factory
    echo "subjectAltName=DNS:by-hosts.example,DNS:by-dns.example,DNS:by-proxy.example" >"$work/leaf.ext"
    openssl x509 -req -in "$work/leaf.csr" -CA "$top/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -out "$work/leaf.pem" \
        -days 30 -extfile "$work/leaf.ext"
}
tls >"$work/out" 2>"$work/err" || fail "openssl"
mkdir "$work/served"
cp "$top/new.efi" "$work/served/"
nameserver=127.0.0.77
mkfifo "$work/ports"
python3 "$here/servers.py" "$work/served" "$work/leaf.pem" "$work/leaf.key" $nameserver >"$work/ports" 2>"$work/servers" &
servers=$!
read -r https proxy <"$work/ports"

fetched() {
    [ "$(sha256sum "$top/got.efi" | cut -d ' ' -f 1)" = "$hash" ] || fail "other bytes arrived"
    rm "$top/got.efi"
}

# Each name is found by what follows and by nothing else.
run 1 "no name service" BOOTSURGEON_CA=/ca.pem -- \
    extract "https://by-dns.example:$https/new.efi" --out /got.efi --timeout 3
mkdir "$top/etc"
echo "127.0.0.1 by-hosts.example" >"$top/etc/hosts"
run 0 "a name of /etc/hosts" BOOTSURGEON_CA=/ca.pem -- extract "https://by-hosts.example:$https/new.efi" --out /got.efi
fetched
run 1 "the built-in roots do not hold for an authority of one's own" -- \
    extract "https://by-hosts.example:$https/new.efi" --out /got.efi
said "certificate"
grep -q "ISRG Root X1" "$top/bootsurgeon" || fail "the usual roots are not built in"
rm "$top/etc/hosts"
echo "nameserver $nameserver" >"$top/etc/resolv.conf"
run 0 "a name of DNS, by /etc/resolv.conf alone" -- \
    extract "https://by-dns.example:$https/new.efi" --out /got.efi --ca /ca.pem
fetched
run 1 "a name that DNS does not know" BOOTSURGEON_CA=/ca.pem -- \
    extract "https://by-proxy.example:$https/new.efi" --out /got.efi --timeout 3
rm -r "${top:?}/etc"
for variable in HTTPS_PROXY https_proxy ALL_PROXY; do
    run 0 "$variable" "$variable=http://127.0.0.1:$proxy" BOOTSURGEON_CA=/ca.pem -- \
        extract "https://by-proxy.example:$https/new.efi" --out /got.efi
    fetched
done
# The roots of the image, with one more: what a company does.
cat /usr/share/ca-certificates/mozilla/*.crt "$top/ca.pem" >"$top/roots.pem"
run 0 "Debian's roots and one more" "HTTPS_PROXY=http://127.0.0.1:$proxy" BOOTSURGEON_CA=/roots.pem -- \
    extract "https://by-proxy.example:$https/new.efi" --out /got.efi
fetched
