#!/bin/sh
# image.sh NAME:TAG ARCHIVE SOURCE=PATH…: makes an image of one layer, with these files and nothing else, of which the first is the
# entry point; `ctr images import` takes the archive. Needs jq.
set -eu
name=$1 archive=$2
shift 2
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
mkdir "$parts/layer" "$parts/image"
for file in "$@"; do
    install -D -m 755 "${file%%=*}" "$parts/layer/${file#*=}"
done
tar -C "$parts/layer" --owner=0 --group=0 -cf "$parts/image/layer.tar" .
digest=sha256:$(sha256sum <"$parts/image/layer.tar" | cut -d ' ' -f 1)
jq -n --arg program "${1#*=}" --arg digest "$digest" --arg arch "$(dpkg --print-architecture)" \
    '{architecture: $arch, os: "linux", config: {Entrypoint: [$program]}, rootfs: {type: "layers", diff_ids: [$digest]}}' \
    >"$parts/image/config.json"
jq -n --arg name "$name" '[{Config: "config.json", RepoTags: [$name], Layers: ["layer.tar"]}]' >"$parts/image/manifest.json"
tar -C "$parts/image" -cf "$archive" .
