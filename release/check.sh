#!/bin/sh
# Checks a release folder with the tools that its parts are for.
#
#   release/check.sh [--twice] DIR
#
# Checksums; binaries (static, stripped, no larger than 6 MiB, no path of this machine inside, at work with nothing around
# them: release/alone.sh); the image (read by skopeo, unpacked by umoci, run); kubectl's plugin and its manifest; SBOMs against cargo's own tree; manual pages,
# completions. --twice builds the binaries once more, from another directory with another CARGO_HOME, and compares.
#
# Needs: the source of the release around it, root (chroot), binutils, jq, skopeo, umoci, man-db, bash, zstd, openssl, python3-yaml,
# qemu-user-static; for --twice what release/build.sh needs.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
twice=
[ "${1:-}" != --twice ] || { twice=yes; shift; }
dir=$(cd "${1:?usage: check.sh [--twice] DIR}" && pwd)
cd "$root"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LC_ALL=C
version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
limit=$((6 * 1024 * 1024))

fail() {
    echo "check.sh: $*" >&2
    exit 1
}

ok() {
    printf 'check: %s\n' "$*"
}

(cd "$dir" && sha256sum --quiet -c SHA256SUMS) || fail "a checksum differs"
(cd "$dir" && find . -type f ! -name SHA256SUMS -printf '%P\n' | sort) >"$work/files"
sed 's/^[0-9a-f]*  //' "$dir/SHA256SUMS" | sort | cmp -s - "$work/files" || fail "SHA256SUMS does not list every file once"
ok "checksums of $(wc -l <"$work/files") files"

binary() { # ARCH MACHINE
    file=$dir/bootsurgeon-$version-linux-$1
    readelf -hW "$file" | grep -q "Machine: *$2" || fail "$file is not for $2"
    ! readelf -lW "$file" | grep -q INTERP || fail "$file wants a dynamic linker"
    ! readelf -dW "$file" | grep -q NEEDED || fail "$file wants libraries"
    ! readelf -SW "$file" | grep -qE '\.symtab|\.debug' || fail "$file is not stripped"
    bytes=$(wc -c <"$file")
    [ "$bytes" -le $limit ] || fail "$file has $bytes bytes, more than $limit"
    for path in "$root" "${CARGO_HOME:-$HOME/.cargo}" "$HOME/"; do
        [ "$path" = / ] || ! grep -qaF "$path" "$file" || fail "$file names $path"
    done
    release/alone.sh "$file" >"$work/alone" || { cat "$work/alone"; fail "$file does not work alone"; }
    ok "linux/$1: static, $bytes bytes, $(wc -l <"$work/alone") cases alone"
}
binary amd64 "Advanced Micro Devices X86-64"
binary arm64 AArch64

image=oci-archive:$dir/bootsurgeon-$version-oci.tar
skopeo inspect --raw "$image" | jq -e '.manifests | map(.platform | "\(.os)/\(.architecture)") | sort == ["linux/amd64", "linux/arm64"]' \
    >/dev/null || fail "the image's index does not name linux/amd64 and linux/arm64, each once"
for arch in amd64 arm64; do
    skopeo inspect --override-os linux --override-arch $arch "$image" |
        jq -e --arg arch $arch --arg version "$version" '.Architecture == $arch and .Os == "linux"
            and .Labels["org.opencontainers.image.version"] == $version' >/dev/null || fail "labels of the image for $arch"
    skopeo inspect --config --override-os linux --override-arch $arch "$image" |
        jq -e '.config | .Entrypoint == ["/bootsurgeon"] and (.User // "") == "" and
            any(.Env[]; . == "BOOTSURGEON_CA=/etc/ssl/certs/ca-certificates.crt")' >/dev/null || fail "configuration of the image for $arch"
    skopeo copy --quiet --override-os linux --override-arch $arch "$image" "oci:$work/$arch:image"
    umoci --log error unpack --image "$work/$arch:image" "$work/unpacked-$arch"
    top=$work/unpacked-$arch/rootfs
    (cd "$top" && find . ! -type d -printf '%P %m %U:%G\n' | sort) >"$work/contents"
    printf '%s\n' "bootsurgeon 755 0:0" "etc/ssl/certs/ca-certificates.crt 644 0:0" | cmp - "$work/contents" ||
        fail "the image for $arch holds something else than the binary and the roots"
    cmp "$top/bootsurgeon" "$dir/bootsurgeon-$version-linux-$arch"
    runner=
    case $arch,$(uname -m) in
    amd64,x86_64 | arm64,aarch64) ;;
    amd64,*) runner=qemu-x86_64-static ;;
    arm64,*) runner=qemu-aarch64-static ;;
    esac
    if [ -n "$runner" ]; then
        install -m 755 "$(command -v $runner)" "$top/runner"
        runner=/runner
    fi
    # shellcheck disable=SC2086 # empty, or a word
    [ "$(chroot "$top" $runner /bootsurgeon -V)" = "bootsurgeon $version" ] || fail "the image for $arch does not run"
    roots=$(grep -c 'BEGIN CERTIFICATE' "$top/etc/ssl/certs/ca-certificates.crt")
    [ "$roots" -gt 100 ] || fail "$roots roots in the image"
done
ok "image: linux/amd64 and linux/arm64, the binary and $roots roots each"

# krew's manifest, as krew would use it: what is fetched from each URI has the sum, and holds the program under the name of its
# bin, at which kubectl finds it.
python3 - "$dir/krew.yaml" >"$work/plugins" <<'END' || fail "krew.yaml is not what krew takes"
import json, re, sys, yaml
plugin = yaml.safe_load(open(sys.argv[1]))
assert plugin["apiVersion"] == "krew.googlecontainertools.github.com/v1alpha2" and plugin["kind"] == "Plugin", plugin
assert plugin["metadata"] == {"name": "bootsurgeon"}, plugin["metadata"]
spec = plugin["spec"]
assert re.fullmatch(r"v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", spec["version"]), spec["version"]
assert 0 < len(spec["shortDescription"]) <= 60 and spec["description"].strip() and spec["homepage"].startswith("https://"), spec
assert set(spec) <= {"version", "shortDescription", "description", "homepage", "caveats", "platforms"}, spec
for platform in spec["platforms"]:
    assert set(platform) == {"selector", "uri", "sha256", "bin"}, platform
    labels = platform["selector"]["matchLabels"]
    assert labels["os"] == "linux" and re.fullmatch(r"[0-9a-f]{64}", platform["sha256"]), platform
    assert platform["uri"].startswith(spec["homepage"]) and platform["uri"].endswith(".tar.gz"), platform
    print(spec["version"], labels["arch"], platform["uri"], platform["sha256"], platform["bin"])
END
[ "$(cut -d ' ' -f 1,2 "$work/plugins" | tr '\n' ' ')" = "v$version amd64 v$version arm64 " ] || fail "krew.yaml: versions and architectures"
while read -r _ arch uri sum bin; do
    archive=$dir/${uri##*/}
    echo "$sum  $archive" | sha256sum --quiet -c || fail "krew.yaml: the sum of ${uri##*/}"
    mkdir "$work/plugin-$arch"
    tar -C "$work/plugin-$arch" -xzf "$archive"
    [ "$bin" = kubectl-bootsurgeon ] && cmp "$work/plugin-$arch/$bin" "$dir/bootsurgeon-$version-linux-$arch" || fail "${uri##*/}: $bin"
    [ -x "$work/plugin-$arch/$bin" ] && [ -s "$work/plugin-$arch/LICENSE-MIT" ] || fail "${uri##*/} lacks a mode or a licence"
done <"$work/plugins"
ok "kubectl plugin: krew.yaml fits both archives"

for pair in x86_64:amd64 aarch64:arm64; do
    bom=$dir/bootsurgeon-$version-linux-${pair#*:}.cdx.json
    jq -e '.bomFormat == "CycloneDX" and (.metadata.component.name == "bootsurgeon") and (.components | length > 50)
        and ((.dependencies | map(.ref)) as $refs | all(.dependencies[].dependsOn[]?; . as $d | $refs | index($d)))' "$bom" >/dev/null || fail "$bom"
    jq -r '.components[] | select(.purl // "" | startswith("pkg:cargo/")) | "\(.name) \(.version)"' "$bom" | sort >"$work/listed"
    cargo tree --locked --no-default-features --features cli --target "${pair%:*}-unknown-linux-gnu" -e normal,no-proc-macro --prefix none --format '{p}' |
        sed 's/ (.*//; s/ v/ /' | sort -u | grep -v '^bootsurgeon ' >"$work/wanted"
    cmp "$work/listed" "$work/wanted" || fail "$bom is not what cargo links"
    ! grep -F "$root" "$bom" || fail "$bom names $root"
done
ok "SBOMs: $(wc -l <"$work/listed") crates for arm64, as cargo's tree has them"
while read -r name _; do
    grep -q "^=== $name " "$dir/THIRD-PARTY-LICENSES.txt" || fail "no licence of $name"
done <"$work/listed"

pages=0
for page in "$dir"/man/*.1; do
    MANWIDTH=80 man --warnings -E UTF-8 -l "$page" >"$work/page" 2>"$work/warnings" || fail "$page"
    if [ -s "$work/warnings" ] || ! grep -q NAME "$work/page"; then
        cat "$work/warnings"
        fail "$page does not render"
    fi
    pages=$((pages + 1))
done
[ $pages -gt 10 ] || fail "$pages manual pages"
bash -c '. "$1" && complete -p bootsurgeon' bash "$dir/completions/bootsurgeon.bash" >/dev/null || fail "bash completions"
bash -c '. "$1" && COMP_WORDS=(bootsurgeon sw) && COMP_CWORD=1 && _bootsurgeon bootsurgeon sw bootsurgeon && [ "${COMPREPLY[*]}" = swap ]' \
    bash "$dir/completions/bootsurgeon.bash" || fail "bash does not complete sw to swap"
for shell in zsh fish; do
    ! command -v $shell >/dev/null || case $shell in
    zsh) zsh -n "$dir/completions/_bootsurgeon" ;;
    fish) fish -n "$dir/completions/bootsurgeon.fish" ;;
    esac || fail "completions for $shell"
done
ok "$pages manual pages, $(find "$dir/completions" -type f | wc -l) completions"

if [ -n "$twice" ]; then
    mkdir -p "$work/elsewhere/deeper" "$work/home"
    git ls-files -z | xargs -0 tar -cf - | tar -C "$work/elsewhere/deeper" -xf -
    ln -s "${CARGO_HOME:-$HOME/.cargo}/registry" "$work/home/registry"
    # rustup's own programs are found through PATH and RUSTUP_HOME as before.
    commit=$(git describe --always --abbrev=12 --exclude='*' --dirty)
    CARGO_HOME="$work/home" SOURCE_DATE_EPOCH=$(release/epoch.sh) BOOTSURGEON_COMMIT=$commit "$work/elsewhere/deeper/release/build.sh" --out "$work/again"
    cmp "$work/again/bootsurgeon-x86_64" "$dir/bootsurgeon-$version-linux-amd64" || fail "another directory, another amd64 binary"
    cmp "$work/again/bootsurgeon-aarch64" "$dir/bootsurgeon-$version-linux-arm64" || fail "another directory, another arm64 binary"
    ok "built twice, the same bytes"
fi
