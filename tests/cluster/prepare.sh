#!/bin/sh
# Lays ready a Kubernetes of one node, for tests/cluster (BOOTSURGEON_CLUSTER=DIR). Nothing is installed.
#
#   tests/cluster/prepare.sh DIR
#
# fills DIR/bin: kube-apiserver and kubelet, built of Debian's source package `kubernetes` (1.20) with Debian's Go; etcd,
# containerd with runc, kubectl, and busybox out of Debian's packages. DIR/images/pause.tar is the image that holds a pod's namespaces,
# made here. What is there already is kept: remove DIR to look for newer versions.
#
# Needs: apt, dpkg, gcc, jq; 1.5 GB, of which 300 MB stay; 6 minutes of CPU time.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)
[ ! -e "$dir/complete" ] || exit 0
suite=bookworm
mirror=$("$here/../support/mirror.sh")
. "$here/../support/private-apt.sh"

unpacked=$dir/unpacked go=$dir/unpacked/usr/lib/go-1.19
# The generator of the API's schema, and nothing else, wants the folder where Go looked before there were modules.
source=$dir/go/src/k8s.io/kubernetes
mkdir -p "$dir/bin" "$dir/images"

fetch() {
    open_suite $suite deb-src
    (cd "$dir/apt/$suite/debs" && private_apt $suite apt-get -qq source --download-only kubernetes >/dev/null)
    open_suite $suite
    fetch_packages $suite golang-1.19-go:amd64 golang-1.19-src etcd-server:amd64 containerd:amd64 runc:amd64 kubernetes-client:amd64 \
        busybox-static:amd64
    for deb in "$dir/apt/$suite"/debs/*.deb; do
        dpkg-deb -x "$deb" "$unpacked"
    done
    # Debian's patches are for kubectl alone, and that is in a package.
    mkdir -p "$source"
    tar -xzf "$dir/apt/$suite"/debs/kubernetes_*.orig.tar.gz -C "$source" --strip-components=1
}

# go COMMAND…: in the source, as it was built in its day: with the libraries that it brings along.
go() (
    cd "$source"
    GOROOT=$go GOPATH=$dir/go GOCACHE=$dir/go/cache GO111MODULE=off CGO_ENABLED=0 "$go/bin/go" "$@"
)

# What is generated in a release and in no source package: the schema of the API, of which `kubectl create` asks.
generate() {
    go build -o "$dir/go/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
    packages=$(cd "$source" && grep -rl --include=*.go '^// *+k8s:openapi-gen=' pkg vendor/k8s.io/*/ |
        grep -v -e '^vendor/k8s.io/code-generator/' -e '^vendor/k8s.io/sample-apiserver/' | xargs -n 1 dirname | sort -u |
        sed 's,^,k8s.io/kubernetes/,' | paste -s -d,)
    (cd "$source" && GOROOT=$go GOPATH=$dir/go GOCACHE=$dir/go/cache GO111MODULE=off CGO_ENABLED=0 PATH=$go/bin:$PATH \
        "$dir/go/openapi-gen" --logtostderr -i "$packages" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
        -h hack/boilerplate/boilerplate.generatego.txt -r "$dir/go/violations" --output-base "$dir/go/src")
}

# Without the clouds and without Docker, which are half of it.
build() {
    version=k8s.io/kubernetes/vendor/k8s.io/component-base/version
    stamp="-X $version.gitVersion=v1.20.2 -X $version.gitMajor=1 -X $version.gitMinor=20"
    for program in kube-apiserver kubelet; do
        go build -tags providerless,dockerless -ldflags "-s -w $stamp" -o "$dir/bin/$program" "./cmd/$program"
    done
}

# A program that does nothing until a signal comes, as the only file of an image.
pause() {
    printf '#include <unistd.h>\nint main(void) { for (;;) pause(); }\n' | gcc -xc -static -Os -s -o "$dir/pause" -
    "$here/image.sh" localhost/pause:1 "$dir/images/pause.tar" "$dir/pause=/pause"
}

fetch
for program in etcd containerd containerd-shim-runc-v2 ctr kubectl; do
    ln -sf "../unpacked/usr/bin/$program" "$dir/bin/$program"
done
ln -sf ../unpacked/usr/sbin/runc "$dir/bin/runc"
ln -sf ../unpacked/bin/busybox "$dir/bin/busybox" # for images
pause
generate
build
# Sources and intermediate files: a gigabyte that nobody needs any more.
rm -rf "$dir/go" "$dir/apt" "$unpacked/usr/lib/go-1.19" "$unpacked/usr/share"
touch "$dir/complete"
