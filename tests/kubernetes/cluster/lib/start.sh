# The start of a cluster, in the background or for as long as somebody wants it. Sourced.
# shellcheck shell=bash disable=SC2154

# parse_options OPTION...: sets what the supervisor reads.
parse_options() {
    nodes=2 kube_proxy=nftables cni=bridge dns=true audit=false log='' extra_images=()
    while (($# > 0)); do
        case $1 in
            --no-dns) dns=false ;;
            --audit) audit=true ;;
            --nodes | --kube-proxy | --cni | --logs | --image)
                (($# > 1)) || die "$1 needs a value"
                case $1 in
                    --nodes) nodes=$2 ;;
                    --kube-proxy) kube_proxy=$2 ;;
                    --cni) cni=$2 ;;
                    --logs) log=$(mkdir -p "$2" && cd "$2" && pwd) ;;
                    --image) extra_images+=("$2") ;;
                esac
                shift
                ;;
            *) die "unknown option $1; see cluster help" ;;
        esac
        shift
    done
    [[ $nodes =~ ^[0-9]$ ]] || die "--nodes $nodes: 0 to $most_nodes are possible"
    [[ $kube_proxy == nftables || $kube_proxy == iptables ]] || die "--kube-proxy $kube_proxy: nftables or iptables"
    [[ $cni == bridge || $cni == ptp ]] || die "--cni $cni: bridge or ptp"
    local file
    for file in "${extra_images[@]}"; do
        [[ -r $file ]] || die "image $file cannot be read"
    done
    # Nodes are what runs DNS.
    ((nodes > 0)) || dns=false
}

# start_cluster WITH...: starts it and waits until it is ready. WITH is a command that runs the supervisor. If this
# process ends, for whatever reason, everything but the logs is removed, unless the caller takes the trap away.
start_cluster() {
    [[ $EUID == 0 ]] || die "needs root: namespaces, mounts and cgroups"
    [[ -x $bin/kube && -e $cache/stamp ]] || die "nothing is built in $cache: run cluster build"
    # Not at once: another start may hold the lock for a moment, to see whether this cluster is dead.
    hold_lock 2 || die "cluster $name is running already; cluster --name $name down ends it"
    # A start that fails leaves its logs, one that somebody ends leaves nothing.
    logs_stay=keep-logs
    trap 'logs_stay= && exit 130' INT
    trap 'logs_stay= && exit 143' TERM
    trap 'remove_cluster "$logs_stay"' EXIT
    # Whoever held the lock before is dead.
    kill_cgroup "$cgroup"
    rm -rf --one-file-system "$state"
    sweep_dead
    mkdir -m 700 "$state"
    log=${log:-$state/log}
    mkdir -p "$log"
    : >"$state/progress"
    declare -p log nodes kube_proxy cni dns audit | sed 's/^declare -- //' >"$state/options"
    mkdir "$cgroup" "$cgroup/supervisor"
    (
        echo 0 >"$cgroup/supervisor/cgroup.procs"
        exec "$@" unshare --mount --pid --fork --kill-child --propagation private \
            bash "$here/supervisor.sh" "$name" "$bin" "$images"
    ) </dev/null >"$state/progress" 2>"$log/supervisor.log" &
    supervisor=$!
    # Else bash reports in its own words that it was killed.
    disown "$supervisor"
    await_ready
    local file
    for file in "${extra_images[@]}"; do import_image "$file"; done
}

# await_ready: shows progress until the cluster is ready.
await_ready() {
    local shown=0 line
    while :; do
        while IFS= read -r line; do
            say "$line"
            shown=$((shown + 1))
        done < <(tail -n "+$((shown + 1))" "$state/progress")
        [[ ! -e $state/ready ]] || break
        if ! kill -0 "$supervisor" 2>/dev/null; then
            tail -n 5 "$log/supervisor.log" >&2
            die "cluster $name did not start; logs are in $log"
        fi
        sleep 0.1
    done
}

command_up() {
    parse_options "$@"
    start_cluster setsid
    trap - EXIT
    say "$name is ready; cluster --name $name down ends it; this is its kubectl:"
    printf "alias kubectl='%s --kubeconfig=%s'\n" "$bin/kubectl" "$state/kubeconfig"
}

# The supervisor dies with this process even if that is killed.
command_run() {
    parse_options "$@"
    exec 3<&0
    start_cluster setsid setpriv --pdeathsig KILL
    logs_stay=
    # Its starter waits for this line.
    echo ready
    local input end
    cat <&3 >/dev/null 9>&- &
    input=$!
    # Not to its own output: tail ends when nobody reads that.
    tail --pid="$supervisor" --follow /dev/null >/dev/null 9>&- &
    end=$!
    wait -n $input $end || true
    kill -0 "$supervisor" 2>/dev/null || die "cluster $name was ended from outside"
}
