#!/usr/bin/env bash
# Starts the Kubernetes of one node that prepare.sh has laid ready, says `ready`, and ends with its standard input.
#
#   tests/cluster/up.sh DIR            DIR is what prepare.sh has filled; Ctrl-D ends it
#   DIR/run/kubectl get nodes          kubectl for it, from outside
#   DIR/run/ctr images import FILE     an image for its node
#
# Everything lives in namespaces of its own (mounts, processes, network) and ends with them: the API server and the kubelet
# listen where nobody else can reach them, nothing is installed, and nothing of the machine's configuration changes. What
# containers share with the machine are the kernel, /dev with its loop devices, and control groups (one, which is removed).
#
# Real are: etcd, the API server with RBAC and its admission plugins, a kubelet, containerd, runc, control groups with their
# memory limits, and images. There are no scheduler, no controllers, no pod network and no TLS that is checked: pods are
# bound by name and use the node's network.
#
# Needs: root, unshare, nsenter, setpriv, ip, openssl; Linux with control groups.
set -euo pipefail

dir=$(realpath "${1:?usage: up.sh DIR}")
run=$dir/run
node=node-a
address=10.0.0.1
group=${3:-bootsurgeon-$$}
# Found on PATH, as everything that containerd starts.
export PATH=$dir/bin:$PATH

outside() {
  rm -rf "$run"
  mkdir -p "$run"/{etcd,containerd,kubelet,var-log,logs,keys,cni,sys}
  exec 3<&0
  trap 'end_groups; rm -rf "$run"' EXIT
  begin_groups
  # However this ends, the processes in there end with it.
  setpriv --pdeathsig KILL unshare --mount --pid --net --ipc --fork --kill-child --mount-proc \
    bash "$0" "$dir" inside "$group" <&3 &
  local namespaces=$! init=
  until [ -n "$init" ]; do
    kill -0 $namespaces
    sleep 0.1
    init=$(cat /proc/$namespaces/task/$namespaces/children 2>/dev/null || true)
  done
  local config="KUBECONFIG=\"\${KUBECONFIG:-$run/admin}\""
  wrap kubectl "nsenter --target ${init% } --net -- env $config \"\${REAL_KUBECTL:-$dir/bin/kubectl}\""
  wrap ctr "nsenter --target ${init% } --net --mount -- $dir/bin/ctr --namespace k8s.io"
  wait $namespaces
}

wrap() { # NAME COMMAND
  printf '#!/bin/sh\nexec %s "$@"\n' "$2" >"$run/$1.new"
  chmod +x "$run/$1.new"
  mv "$run/$1.new" "$run/$1"
}

# A control group of our own in every hierarchy, or in the one that there is.
begin_groups() {
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir "/sys/fs/cgroup/$group"
    return
  fi
  for hierarchy in /sys/fs/cgroup/*/; do
    mkdir "$hierarchy$group"
    for what in cpus mems; do
      if [ -e "$hierarchy/cpuset.$what" ]; then cat "$hierarchy/cpuset.$what" >"$hierarchy$group/cpuset.$what"; fi
    done
    # Pods would share what a single process of this machine gets; on a node nothing else is busy.
    if [ -e "$hierarchy/cpu.shares" ]; then echo 20000 >"$hierarchy$group/cpu.shares"; fi
  done
}

end_groups() {
  local left
  for _ in $(seq 50); do
    left=$(find /sys/fs/cgroup -depth -type d -path "*/$group*")
    if [ -z "$left" ]; then return; fi
    # shellcheck disable=SC2086 # no blanks in them
    rmdir $left 2>/dev/null || sleep 0.2
  done
}

inside() {
  own_folders
  machine_settings
  ip link set lo up
  ip address add $address/32 dev lo
  # The names of other machines are looked up, and nothing leaves this one.
  ip route add default dev lo
  configure
  start etcd --data-dir "$run/etcd" --unsafe-no-fsync --listen-peer-urls http://127.0.0.1:2380 \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
  start containerd --config "$run/containerd.toml"
  start kube-apiserver --etcd-servers http://127.0.0.1:2379 --bind-address 127.0.0.1 --secure-port 6443 \
    --advertise-address $address --cert-dir "$run/keys" --service-cluster-ip-range 10.1.0.0/24 \
    --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$run/keys/accounts" \
    --service-account-signing-key-file "$run/keys/accounts" --token-auth-file "$run/keys/tokens" \
    --authorization-mode RBAC --allow-privileged --kubelet-preferred-address-types InternalIP
  becomes_true "containerd answers" ctr --namespace k8s.io images list
  for image in "$dir"/images/*.tar; do
    ctr --namespace k8s.io images import "$image" >/dev/null
  done
  becomes_true "the API server is ready" kubectl get --raw /readyz
  # What a controller would make.
  becomes_true "kube-system has an account" kubectl --namespace kube-system create serviceaccount default
  kubectl create --filename - <<<"$RIGHTS_OF_THE_DESK" >/dev/null
  start kubelet --kubeconfig "$KUBECONFIG" --hostname-override $node --node-ip $address --address $address \
    --container-runtime remote --container-runtime-endpoint unix:///run/containerd/containerd.sock \
    --cert-dir "$run/keys/kubelet" --volume-plugin-dir "$run/plugins" --resolv-conf /etc/resolv.conf \
    --cgroup-driver cgroupfs --cgroup-root "/$group" --fail-swap-on=false --protect-kernel-defaults \
    --make-iptables-util-chains=false --eviction-hard= --image-gc-high-threshold 100
  becomes_true "the node is ready" node_is_ready
  echo ready
  cat >/dev/null
}

# The places that are fixed in the programs, and the sockets.
own_folders() {
  mount --make-rshared /
  mount -t tmpfs tmpfs /run
  mkdir -p /var/lib/kubelet
  mount --bind "$run/kubelet" /var/lib/kubelet
  mount --bind "$run/var-log" /var/log
}

# What a kubelet sets for the whole machine, this one finds set.
machine_settings() {
  while read -r name value; do
    echo "$value" >"$run/sys/${name////.}"
    mount --bind "$run/sys/${name////.}" "/proc/sys/$name"
  done <<'SETTINGS'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
SETTINGS
}

configure() {
  openssl genrsa -out "$run/keys/accounts" 2048 2>/dev/null
  printf 'admin-token,admin,admin,system:masters\ndesk-token,desk,desk\n' >"$run/keys/tokens"
  for user in admin desk; do
    cat >"$run/$user" <<KUBECONFIG
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:6443", insecure-skip-tls-verify: true}}]
users: [{name: $user, user: {token: $user-token}}]
contexts: [{name: test, context: {cluster: test, user: $user}}]
current-context: test
KUBECONFIG
  done
  export KUBECONFIG=$run/admin
  # Without a network's configuration a node is not ready; no pod of the tests uses it.
  echo '{"cniVersion": "0.4.0", "name": "none", "plugins": [{"type": "loopback"}]}' >"$run/cni/none.conflist"
  cat >"$run/containerd.toml" <<CONTAINERD
version = 2
root = "$run/containerd"
state = "/run/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true # root may lack CAP_SYS_RESOURCE in a virtual machine
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "$(snapshotter)"
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "$run/cni"
CONTAINERD
}

# Layers one over the other, where the file system lets itself be used so; copies elsewhere.
snapshotter() {
  mkdir -p "$run"/try/{lower,upper,work,all}
  local layers="lowerdir=$run/try/lower,upperdir=$run/try/upper,workdir=$run/try/work"
  if mount -t overlay overlay -o "$layers" "$run/try/all" 2>/dev/null; then
    umount "$run/try/all"
    echo overlayfs
  else
    echo native
  fi
}

# All that `pod run` needs, and no node may be read.
RIGHTS_OF_THE_DESK='
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: desk, namespace: kube-system}
rules:
- {apiGroups: [""], resources: [pods], verbs: [create, get, list, watch, delete]}
- {apiGroups: [""], resources: [pods/log, events], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [pods/attach], verbs: [create, get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: desk, namespace: kube-system}
subjects: [{kind: User, name: desk, apiGroup: rbac.authorization.k8s.io}]
roleRef: {kind: Role, name: desk, apiGroup: rbac.authorization.k8s.io}
'

start() { # PROGRAM ARGUMENT…
  "$@" >"$run/logs/$1" 2>&1 &
}

becomes_true() { # WHAT COMMAND…
  local what=$1
  shift
  for _ in $(seq 240); do
    if "$@" >/dev/null 2>"$run/logs/last"; then return; fi
    sleep 0.5
  done
  echo "up.sh: not within two minutes: $what" >&2
  tail -n 5 "$run"/logs/* >&2
  exit 1
}

node_is_ready() {
  kubectl get node $node -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' | grep -q True
}

case ${2:-outside} in
outside | inside) "${2:-outside}" ;;
*) echo "usage: up.sh DIR" >&2 && exit 2 ;;
esac
