# Processes of the control plane. Sourced by the supervisor.
# shellcheck shell=bash disable=SC2154

# keep NAME COMMAND...: runs a command in the control plane's network, again when it ends. Its process id is in a file.
keep() {
    local program=$1
    shift
    while :; do
        # Not in_netns: the process id must be the program's, not a shell's.
        nsenter --net="$state/netns/control" "$@" </dev/null >>"$log/$program.log" 2>&1 &
        echo $! >"$state/pids/$program"
        wait $! || true
        echo "supervisor: $program ended; starting it again" >>"$log/$program.log"
        sleep 0.5
    done &
}

start_etcd() {
    keep etcd "$bin/etcd" --name=etcd --data-dir="$disk/etcd" --unsafe-no-fsync --log-level=warn \
        --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
        --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 \
        --initial-cluster=etcd=http://127.0.0.1:2380
}

start_api_server() {
    local pki=$state/pki audit_flags=()
    if [[ $audit == true ]]; then
        printf 'apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n' \
            >"$state/audit-policy.yaml"
        audit_flags=(--audit-policy-file="$state/audit-policy.yaml" --audit-log-path="$log/audit.log")
    fi
    keep kube-apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
        --advertise-address="$control_address" --secure-port=6443 --cert-dir="$state/pki" \
        --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
        --kubelet-client-certificate="$pki/apiserver-to-kubelet.crt" --kubelet-client-key="$pki/apiserver-to-kubelet.key" \
        --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
        --requestheader-client-ca-file="$pki/ca.crt" --requestheader-allowed-names=front-proxy \
        --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
        --requestheader-extra-headers-prefix=X-Remote-Extra- --enable-aggregator-routing=true \
        --proxy-client-cert-file="$pki/front-proxy.crt" --proxy-client-key-file="$pki/front-proxy.key" \
        --service-account-key-file="$pki/service-accounts.key" --service-account-signing-key-file="$pki/service-accounts.key" \
        --service-account-issuer=https://kubernetes.default.svc.cluster.local \
        --service-cluster-ip-range="$service_range,$service_range6" --authorization-mode=Node,RBAC \
        --enable-admission-plugins=NodeRestriction --allow-privileged=true "${audit_flags[@]}"
}

# The machine's loopback leads to the API server, so that kubectl and every other client works as it is. The first relay
# is in the machine's network namespace, the second one in the control plane's.
start_relays() {
    "$bin/relay" tcp:127.0.0.1:0 "unix:$state/api.sock" "$state/api.address" </dev/null >>"$log/relay.log" 2>&1 &
    keep relay "$bin/relay" "unix:$state/api.sock" "tcp:$control_address:6443"
    wait_until 10 "the relay of the API server" test -e "$state/api.address"
    make_kubeconfig admin "https://$(<"$state/api.address")" "$state/kubeconfig"
}

# One replica each: no leader election, which would cost a write every 2 s.
start_controllers() {
    local pki=$state/pki config
    for config in controller-manager scheduler; do
        make_kubeconfig $config "https://$control_address:6443" "$state/pki/$config.kubeconfig"
    done
    config=$pki/controller-manager.kubeconfig
    keep kube-controller-manager "$bin/kube-controller-manager" --kubeconfig="$config" \
        --authentication-kubeconfig="$config" --authorization-kubeconfig="$config" --cert-dir="$pki" --leader-elect=false \
        --use-service-account-credentials=true --service-account-private-key-file="$pki/service-accounts.key" \
        --root-ca-file="$pki/ca.crt" --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
        --flex-volume-plugin-dir="$disk/flexvolume"
    config=$pki/scheduler.kubeconfig
    keep kube-scheduler "$bin/kube-scheduler" --kubeconfig="$config" --authentication-kubeconfig="$config" \
        --authorization-kubeconfig="$config" --cert-dir="$pki" --leader-elect=false
}

# Nodes exist before their kubelets register: so each has the pod ranges that its CNI configuration has.
node_objects() {
    local n
    for ((n = 1; n <= nodes; n++)); do
        cat <<YAML
---
apiVersion: v1
kind: Node
metadata: {name: $(node_name "$n")}
spec:
  podCIDR: $(node_pods "$n")
  podCIDRs: ["$(node_pods "$n")", "$(node_pods6 "$n")"]
YAML
    done
}
