#!/usr/bin/env bash
# Process 1 of a cluster: starts everything, then owns it. When it ends, the kernel ends every process below it.
#
#   supervisor.sh NAME BIN IMAGES        with NAME's options in its state directory; descriptor 9 is the cluster's lock
#
# Each line that it prints is progress that the starter shows. It succeeds never; it fails when the start does.
# shellcheck disable=SC2034,SC2154
set -eEuo pipefail
trap 'printf "supervisor: failed: %s\n" "$BASH_COMMAND" >&2' ERR

here=$(cd "$(dirname "$0")" && pwd)
for part in names life pki network control-plane nodes; do
    # shellcheck source=/dev/null
    . "$here/lib/$part.sh"
done
name_cluster "$1"
bin=$2 images=$3
# shellcheck source=/dev/null
. "$state/options" # log, nodes, kube_proxy, cni, dns, audit
disk=$state/disk
# For process ids of this namespace.
mount -t proc proc /proc

begin=$EPOCHREALTIME
done_with() { awk -v a="$begin" -v b="$EPOCHREALTIME" -v what="$*" 'BEGIN {printf "%5.1f s  %s\n", b - a, what}'; }

# Nothing of it outlives the cluster, however that ends.
mkdir "$disk" "$state/pids" "$state/off"
mount -t tmpfs -o mode=755 tmpfs "$disk"
make_pki 2>>"$log/pki.log"
make_control_network
for controller in cpuset cpu io memory pids; do
    # Absent where a v1 hierarchy has them.
    if grep -qw $controller "$cgroup/cgroup.controllers"; then echo "+$controller" >"$cgroup/cgroup.subtree_control"; fi
done
start_etcd
start_api_server
start_relays
for ((n = 1; n <= nodes; n++)); do
    make_disk "$n"
    run_node "$n" &
done

wait_until 90 "an API server that is ready" kubectl get --raw=/readyz
done_with "API server ready"
start_controllers
if ((nodes > 0)); then
    {
        node_objects
        if [[ $dns == true ]]; then
            echo ---
            sed "s/DNS_SERVICE6/$dns_service6/; s/DNS_SERVICE/$dns_service/" "$here/manifests/coredns.yaml"
        fi
    } | kubectl apply --filename=- >>"$log/supervisor.log"
    for ((n = 1; n <= nodes; n++)); do touch "$disk/$(node_name "$n")/dirs/etc/kubernetes/start"; done
fi
wait_until 60 "the service account of namespace default" kubectl get serviceaccount default
if ((nodes > 0)); then
    kubectl wait --for=condition=Ready node --all --timeout=120s >>"$log/supervisor.log"
    done_with "nodes ready"
    if [[ $dns == true ]]; then
        kubectl --namespace=kube-system rollout status deployment/coredns --timeout=120s >>"$log/supervisor.log"
        done_with "DNS ready"
    fi
fi
touch "$state/ready"
# As process 1 it reaps whatever is left without a parent.
while :; do wait -n || sleep 0.1; done
