#!/bin/sh
# container.sh MANIFEST ROOT PROGRAM: runs the container of a pod's manifest (JSON) in an empty directory ROOT.
#
# What a container runtime would make of it, as far as the program can tell: a root directory of its own, read-only, with the
# program and the mounts of the manifest; /proc and a sysfs of its own; the manifest's arguments and variables, and no others. The
# network is the machine's (hostNetwork). Run it in a mount namespace of its own (unshare -m), as root. Needs jq.
set -eu
manifest=$1 root=$2 program=$3
container='.spec.containers[0]'
mount --make-rprivate /
mount -t tmpfs tmpfs "$root"
mkdir "$root/proc" "$root/sys"
cp "$program" "$root/bootsurgeon"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
# The release's program is linked statically; one that was built for tests needs its libraries.
for lib in /lib /lib64; do
    [ ! -d "$lib" ] || { mkdir "$root$lib"; mount --bind "$lib" "$root$lib"; }
done
jq -r "$container.volumeMounts[] | [.name, .mountPath] | @tsv" "$manifest" | while read -r name at; do
    mkdir -p "$root$at"
    source=$(jq -r --arg name "$name" '.spec.volumes[] | select(.name == $name) | .hostPath.path // empty' "$manifest")
    if [ -n "$source" ]; then mount --rbind "$source" "$root$at"; else mount -t tmpfs tmpfs "$root$at"; fi
done
mount -o remount,ro,bind "$root"
args=$(jq -r "[$container.args[] | @sh] | join(\" \")" "$manifest")
# The variables, and what the downward API says.
variables=$(jq -r '.spec.nodeName as $node | .spec.containers[0].env[]
    | "\(.name)=\(.value // {"spec.nodeName": $node, "status.hostIP": "192.0.2.7"}[.valueFrom.fieldRef.fieldPath // ""] // "")"
    | @sh' "$manifest" | tr '\n' ' ')
chroot=$(PATH=$PATH:/usr/sbin:/sbin command -v chroot)
eval "set -- $variables \"\$chroot\" \"\$root\" /bootsurgeon $args"
exec env -i "$@"
