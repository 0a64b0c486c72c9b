# Names, paths and addresses of a cluster. Sourced by every other script.
# shellcheck shell=bash disable=SC2034

# name_cluster NAME: sets what depends on the name. Everything outside the cluster's own namespaces carries it.
name_cluster() {
    name=$1
    # A unix socket's path has at most 107 bytes.
    [[ $name =~ ^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$ ]] ||
        die "cluster name \"$name\" is not valid: letters a-z, digits and hyphens, at most 32"
    state=$run_root/$name
    lock=$run_root/$name.lock
    cgroup=$(cgroup2_mount)/strake-cluster-$name
}

readonly run_root=/run/strake/cluster

# Addresses. They exist only inside the cluster's network namespaces, so that all clusters have the same.
readonly control_address=10.90.0.1 control_address6=fd90::1
readonly service_range=10.92.0.0/16 service_range6=fd92::/112
readonly kubernetes_service=10.92.0.1
readonly dns_service=10.92.0.10 dns_service6=fd92::a
readonly pod_range=10.91.0.0/16 pod_range6=fd91::/48
readonly most_nodes=9
node_name() { echo "node-$1"; }
node_address() { echo "10.90.0.1$1"; }
node_address6() { echo "fd90::1$1"; }
node_pods() { echo "10.91.$1.0/24"; }
node_pods6() { echo "fd91:0:0:$1::/64"; }

say() { printf 'cluster: %s\n' "$*"; }
die() {
    printf 'cluster: %s\n' "$*" >&2
    exit 1
}

# Mount point of cgroup v2, alone or beside v1.
cgroup2_mount() {
    findmnt --noheadings --first-only --types cgroup2 --output TARGET || die "cgroup v2 is not mounted"
}

# wait_until SECONDS WHAT COMMAND...: fails with WHAT and the command's own message after SECONDS.
wait_until() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= deadline)); then
            printf 'cluster: not in time: %s: ' "$what" >&2
            "$@" >/dev/null || true
            return 1
        fi
        sleep 0.1
    done
}
