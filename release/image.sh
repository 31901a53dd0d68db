#!/bin/sh
# Makes the OCI image of both architectures out of a release folder, without a container engine or root's namespaces.
#
#   release/image.sh DIR VERSION
#
# reads DIR/{Dockerfile,ca-certificates.crt,bootsurgeon-VERSION-linux-{amd64,arm64}} and makes DIR/bootsurgeon-VERSION-oci.tar:
# an OCI layout whose index names one manifest for each architecture. The same inputs and the same buildah make the same bytes.
#
# Needs: buildah, and root (or user namespaces). Nothing is pulled, nothing of the image is run.
set -eu
dir=$(cd "${1:?usage: image.sh DIR VERSION}" && pwd)
version=${2:?usage: image.sh DIR VERSION}
here=$(cd "$(dirname "$0")" && pwd)
epoch=$("$here/epoch.sh")
revision=${REVISION:-$(git -C "$here" rev-parse HEAD 2>/dev/null || echo unknown)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/context"
cp "$dir/Dockerfile" "$dir/ca-certificates.crt" "$dir/bootsurgeon-$version-linux-amd64" "$dir/bootsurgeon-$version-linux-arm64" \
    "$work/context"

# A store of its own, without overlay mounts: works in a plain container.
own_buildah() {
    STORAGE_DRIVER=vfs buildah --root "$work/root" --runroot "$work/runroot" "$@"
}
# One after the other: told to build both, buildah lists them in the order in which they happen to be finished.
for arch in amd64 arm64; do
    own_buildah build --quiet --isolation chroot --format oci --timestamp "$epoch" --platform "linux/$arch" \
        --build-arg VERSION="$version" --build-arg REVISION="$revision" --identity-label=false \
        --manifest bootsurgeon "$work/context" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
done
own_buildah manifest push --quiet --all bootsurgeon "oci:$work/layout:$version" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
# buildah can write the archive as well, with today's date in it.
tar -C "$work/layout" --sort=name --format=ustar --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
    -cf "$dir/bootsurgeon-$version-oci.tar" oci-layout index.json blobs
