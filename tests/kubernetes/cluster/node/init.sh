#!/usr/bin/env bash
# Process 1 of a node: containerd, kubelet and kube-proxy, as a service manager would run them.
#
#   init.sh NODE ADDRESS ADDRESS6
set -euo pipefail

node=$1 address=$2 address6=$3
export PATH=/opt/kubernetes/bin:/usr/sbin:/usr/bin:/sbin:/bin
readonly log=/opt/kubernetes/log

umount --lazy /run/old-root
mount --make-rshared /
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf

# A cgroup that hands controllers down must not have processes itself.
mkdir /sys/fs/cgroup/init
echo 0 >/sys/fs/cgroup/init/cgroup.procs
for controller in $(</sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control || true
done

# Replaced, not written: on the machine it may be a link to somewhere that a node does not have.
rm -f /etc/resolv.conf /etc/hosts
: >/etc/resolv.conf
printf '127.0.0.1 localhost\n::1 localhost\n%s %s\n%s %s\n' "$address" "$node" "$address6" "$node" >/etc/hosts
md5sum <<<"$node" | cut -c1-32 >/etc/machine-id
mkdir -p /run/containerd

# keep PROGRAM ARGUMENT...: runs it, again when it ends.
keep() {
    while :; do
        "$@" >>"$log/$1.log" 2>&1 || true
        echo "init: $1 ended; starting it again" >>"$log/$1.log"
        sleep 0.5
    done &
}

import_images() {
    local file name imported
    until ctr version >/dev/null 2>&1; do sleep 0.1; done
    imported=$(ctr --namespace=k8s.io images list --quiet)
    for file in /opt/kubernetes/images/*.tar; do
        name=$(tar --extract --to-stdout --file="$file" manifest.json | sed 's/.*"RepoTags":\["\([^"]*\)".*/\1/')
        grep -qxF "$name" <<<"$imported" || ctr --namespace=k8s.io images import --local "$file" >>"$log/images.log" 2>&1
    done
}

keep containerd --config /etc/kubernetes/containerd.toml
import_images
# The supervisor creates it when the API server is ready; it is there already when the node boots again.
until [[ -e /etc/kubernetes/start ]]; do sleep 0.1; done
keep kubelet --config=/etc/kubernetes/kubelet.yaml --kubeconfig=/etc/kubernetes/kubelet.conf --cert-dir=/var/lib/kubelet/pki \
    --hostname-override="$node" --node-ip="$address,$address6"
keep kube-proxy --config=/etc/kubernetes/kube-proxy.yaml
# As process 1 it reaps whatever is left without a parent.
while :; do wait -n || sleep 0.1; done
