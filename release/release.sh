#!/bin/sh
# Makes the whole release folder: binaries, OCI image, kubectl's plugin, manual pages, completions, SBOMs, licences, checksums.
#
#   release/release.sh [DIR]            (DIR: target/release-folder)
#
# The same commit, toolchain and packages make the same bytes; DIR/BUILD.txt says which they were. release/check.sh DIR
# checks the outcome, and with --twice that claim. RELEASE_URL is the folder that the files will be fetched from, for krew's manifest.
#
# Needs: what release/build.sh needs, and buildah, jq, ca-certificates, and `cargo install --locked cargo-cyclonedx@0.5.9`.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${1:-$root/target/release-folder}"
dir=$(cd "${1:-$root/target/release-folder}" && pwd)
cd "$root"
version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
SOURCE_DATE_EPOCH=$(release/epoch.sh)
export SOURCE_DATE_EPOCH LC_ALL=C
rm -rf "${dir:?}"/* # what an earlier release left must not get into the checksums

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
release/build.sh --out "$work"
install -m 755 "$work/bootsurgeon-x86_64" "$dir/bootsurgeon-$version-linux-amd64"
install -m 755 "$work/bootsurgeon-aarch64" "$dir/bootsurgeon-$version-linux-arm64"
cp "$work/toolchain.txt" "$dir/BUILD.txt"
case $(uname -m) in
aarch64) program=$dir/bootsurgeon-$version-linux-arm64 ;;
*) program=$dir/bootsurgeon-$version-linux-amd64 ;;
esac

mkdir "$dir/man" "$dir/completions"
"$program" man "$dir/man" >/dev/null
"$program" completions bash >"$dir/completions/bootsurgeon.bash"
"$program" completions elvish >"$dir/completions/bootsurgeon.elv"
"$program" completions fish >"$dir/completions/bootsurgeon.fish"
"$program" completions powershell >"$dir/completions/_bootsurgeon.ps1"
"$program" completions zsh >"$dir/completions/_bootsurgeon"

# The crates whose code is in a binary, a line "name version" each: not what only runs while it is built.
crates() { # TARGET
    cargo tree --locked --no-default-features --features cli --target "$1-unknown-linux-gnu" -e normal,no-proc-macro --prefix none --format '{p}' |
        sed 's/ (.*//; s/ v/ /' | sort -u
}

# cargo-cyclonedx writes beside Cargo.toml, and names the directory this was built in.
sbom() { # TARGET ARCH
    crates "$1" >"$work/crates"
    cargo cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --no-default-features --features cli --target "$1-unknown-linux-gnu" \
        --override-filename "sbom-$2"
    jq --sort-keys --rawfile crates "$work/crates" --rawfile toolchain "$dir/BUILD.txt" --arg root "$root" '
        ($crates | split("\n")) as $wanted
        | ($toolchain | split("\n") | map(capture("^(?<key>[^:]*): (?<value>.*)$")) | from_entries) as $build
        | def linked: [
            {type: "library", name: "rust-std", version: $build.rust, "bom-ref": "rust-std", licenses: [{expression: "MIT OR Apache-2.0"}]},
            {type: "library", name: "glibc", version: $build["'"$2"' libc"], "bom-ref": "glibc", licenses: [{expression: "LGPL-2.1-or-later"}]}];
        .components |= (map(select("\(.name) \(.version)" as $c | $wanted | index($c))) + linked | sort_by(."bom-ref"))
        | ([.components[]."bom-ref"] + [.metadata.component."bom-ref"]) as $kept
        | .dependencies |= (map(select(.ref as $r | $kept | index($r))
            | .dependsOn |= (. // [] | map(select(. as $r | $kept | index($r))) | sort)) | sort_by(.ref))
        | (.. | strings) |= (split($root) | join("/source"))
    ' "sbom-$2.json" >"$dir/bootsurgeon-$version-linux-$2.cdx.json"
    # It writes one for each package of the workspace.
    rm "sbom-$2.json" "benches/slow/medium/sbom-$2.json"
}
sbom x86_64 amd64
sbom aarch64 arm64

cp LICENSE-APACHE LICENSE-MIT "$dir"
# The licence texts of everything linked in, as the crates carry them.
{ crates x86_64 && crates aarch64; } | sort -u >"$work/crates"
cargo metadata --locked --no-default-features --features cli --format-version 1 --filter-platform x86_64-unknown-linux-gnu \
    --filter-platform aarch64-unknown-linux-gnu |
    jq -r '.packages[] | select(.source) | "\(.name) \(.version)\t\(.license // "see below")\t\(.manifest_path)"' | sort >"$work/licences"
while IFS="$(printf '\t')" read -r crate licence manifest; do
    grep -qxF "$crate" "$work/crates" || continue
    printf '=== %s: %s\n\n' "$crate" "$licence"
    find "$(dirname "$manifest")" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \) |
        sort | while read -r text; do
        printf -- '--- %s\n' "$(basename "$text")"
        cat "$text"
        echo
    done
done <"$work/licences" >"$dir/THIRD-PARTY-LICENSES.txt"

# The package's own files and not /etc/ssl/certs: that has whatever authorities were added to this machine.
cat /usr/share/ca-certificates/mozilla/*.crt >"$dir/ca-certificates.crt"
echo "ca-certificates: $(dpkg-query -W -f '${Version}' ca-certificates)" >>"$dir/BUILD.txt"
cp release/Dockerfile "$dir"
release/image.sh "$dir" "$version"
release/krew.sh "$dir" "$version" "${RELEASE_URL:-}"

(cd "$dir" && find . -type f ! -name SHA256SUMS -printf '%P\n' | sort | xargs sha256sum >"$work/sums" && mv "$work/sums" SHA256SUMS)
find "$dir" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
ls -l "$dir"
