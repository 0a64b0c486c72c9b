# Nodes: their disks, and their boots. Sourced by the supervisor.
# shellcheck shell=bash disable=SC2154

# Directories of a node that hide the machine's own. All but these and what a node changes elsewhere is the machine's.
readonly node_dirs=(etc/kubernetes etc/cni/net.d opt/cni/bin var/lib/cni var/lib/containerd var/lib/kubelet var/log)

# make_disk N: what an installer would have put there. It outlives reboots.
make_disk() {
    local n=$1 node dir root
    node=$(node_name "$n")
    root=$disk/$node
    mkdir -p "$root"/{upper,work}
    for dir in "${node_dirs[@]}"; do mkdir -p "$root/dirs/$dir"; done
    mkdir -p "$log/$node" "$root/dirs/etc/kubernetes/manifests"
    cp "$bin"/cni/* "$root/dirs/opt/cni/bin/"
    cp "$state/pki/ca.crt" "$root/dirs/etc/kubernetes/"
    cp "$state/pki/$node.crt" "$root/dirs/etc/kubernetes/kubelet.crt"
    cp "$state/pki/$node.key" "$root/dirs/etc/kubernetes/kubelet.key"
    make_kubeconfig "$node" "https://$control_address:6443" "$root/dirs/etc/kubernetes/kubelet.conf"
    make_kubeconfig kube-proxy "https://$control_address:6443" "$root/dirs/etc/kubernetes/kube-proxy.conf"
    cni_configuration "$n" >"$root/dirs/etc/cni/net.d/10-pods.conflist"
    kubelet_configuration >"$root/dirs/etc/kubernetes/kubelet.yaml"
    kube_proxy_configuration "$node" >"$root/dirs/etc/kubernetes/kube-proxy.yaml"
    cp "$here/node/containerd.toml" "$root/dirs/etc/kubernetes/"
}

# Pods are routed between nodes, without masquerade: a server sees its client's address. `bridge` connects the pods of a
# node by one bridge, `ptp` gives each its own link.
cni_configuration() {
    local options='"bridge": "cni0", "isGateway": true, "hairpinMode": true, '
    [[ $cni == bridge ]] || options=
    cat <<JSON
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "$cni", $options"ipMasq": false,
   "ipam": {"type": "host-local", "dataDir": "/run/cni",
            "ranges": [[{"subnet": "$(node_pods "$1")"}], [{"subnet": "$(node_pods6 "$1")"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
  {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}}]}
JSON
}

# Everything is quicker than the defaults: tests wait for it. Disks are in memory, and are never too full.
kubelet_configuration() {
    cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
staticPodPath: /etc/kubernetes/manifests
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: /etc/kubernetes/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: /etc/kubernetes/kubelet.crt
tlsPrivateKeyFile: /etc/kubernetes/kubelet.key
clusterDNS: [$dns_service]
clusterDomain: cluster.local
failSwapOn: false
evictionHard: {nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 4s
syncFrequency: 10s
serializeImagePulls: false
registryPullQPS: 0
eventRecordQPS: 0
YAML
}

# Limits of conntrack are the machine's, not a node's: kube-proxy leaves them alone.
kube_proxy_configuration() {
    cat <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: $kube_proxy
clientConnection: {kubeconfig: /etc/kubernetes/kube-proxy.conf}
clusterCIDR: "$pod_range,$pod_range6"
hostnameOverride: $1
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {minSyncPeriod: 100ms}
iptables: {minSyncPeriod: 100ms}
YAML
}

# run_node N: boots it again whenever its process 1 has ended, unless it is switched off.
run_node() {
    local n=$1 node
    node=$(node_name "$n")
    while :; do
        while [[ -e $state/off/$node ]]; do sleep 0.1; done
        kill_cgroup "$cgroup/$node"
        mkdir "$cgroup/$node"
        make_node_network "$n"
        nsenter --net="$state/netns/$node" \
            unshare --mount --uts --ipc --pid --fork --kill-child --propagation private \
            bash "$here/node/boot.sh" "$n" "$name" "$bin" "$images" </dev/null >>"$log/$node/boot.log" 2>&1 || true
        echo "supervisor: $node ended; booting it again" >>"$log/$node/boot.log"
        sleep 0.5
    done
}
