#!/bin/sh
# Makes the plugin for kubectl out of a release folder: an archive for each architecture, and krew's manifest of both.
#
#   release/krew.sh DIR VERSION [URL]
#
# reads DIR/{bootsurgeon-VERSION-linux-{amd64,arm64},LICENSE-*,THIRD-PARTY-LICENSES.txt} and makes
# DIR/kubectl-bootsurgeon-VERSION-linux-{amd64,arm64}.tar.gz and DIR/krew.yaml. URL: the folder that the archives will be fetched
# from; without it the manifest names a host that does not exist, and serves for installing from local archives alone.
#
# The format: https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest/ (licences belong into the archive).
set -eu
dir=$(cd "${1:?usage: krew.sh DIR VERSION [URL]}" && pwd)
version=${2:?usage: krew.sh DIR VERSION [URL]}
url=${3:-https://release.invalid/bootsurgeon-$version}
here=$(cd "$(dirname "$0")" && pwd)
epoch=$("$here/epoch.sh")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$dir/LICENSE-APACHE" "$dir/LICENSE-MIT" "$dir/THIRD-PARTY-LICENSES.txt" "$work"

cat >"$dir/krew.yaml" <<END
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: bootsurgeon
spec:
  version: v$version
  homepage: ${url%/}/
  shortDescription: Swap the UKI of a Talos node, safe against power cuts
  description: |
    Puts another signed Unified Kernel Image on the EFI System Partition of a
    Talos node whose firmware cannot help, so that the board boots at every
    moment between; looks at the ESP, restores backups, finishes what was
    interrupted. Each command runs in a privileged pod on the node.
  caveats: |
    The node needs an image of the program (--image-ref), or a small image
    with a shell (--push-self). kubectl bootsurgeon --help says more.
  platforms:
END
for arch in amd64 arm64; do
    archive=kubectl-bootsurgeon-$version-linux-$arch.tar.gz
    install -m 755 "$dir/bootsurgeon-$version-linux-$arch" "$work/kubectl-bootsurgeon"
    tar -C "$work" --sort=name --format=ustar --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -cf - \
        kubectl-bootsurgeon LICENSE-APACHE LICENSE-MIT THIRD-PARTY-LICENSES.txt | gzip -n -9 >"$dir/$archive"
    cat >>"$dir/krew.yaml" <<END
  - selector:
      matchLabels:
        os: linux
        arch: $arch
    uri: ${url%/}/$archive
    sha256: $(sha256sum "$dir/$archive" | cut -d ' ' -f 1)
    bin: kubectl-bootsurgeon
END
done
