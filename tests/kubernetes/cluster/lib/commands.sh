# Commands for a cluster that runs. Sourced.
# shellcheck shell=bash disable=SC2154

require_running() {
    process_of control >/dev/null || die "cluster $name is not running; cluster --name $name up starts it"
}

require_node() {
    [[ -d $log/${1-} && ${1-} == node-* ]] || die "cluster $name has no node \"${1-}\""
}

command_down() {
    [[ -z ${1-} || $1 == --keep-logs ]] || die "unknown option $1; see cluster help"
    [[ -e $lock || -d $state || -d $cgroup ]] || die "there is no cluster $name"
    kill_cgroup "$cgroup"
    # A starter that was waiting notices, and removes what it made.
    wait_until 20 "the end of cluster $name" hold_lock
    remove_cluster "${1+${1#--}}"
}

command_status() {
    local other found=false
    for other in "$run_root"/*/; do
        [[ -e $other/options ]] || continue
        found=true
        (
            name_cluster "$(basename "$other")"
            # shellcheck source=/dev/null
            . "$state/options"
            if ! process_of control >/dev/null; then
                condition="dead: cluster --name $name down removes it"
            elif [[ -e $state/ready ]]; then
                condition=ready
            else
                condition=starting
            fi
            say "$name: $condition; $nodes nodes, kube-proxy $kube_proxy, CNI plugin $cni, logs $log"
        )
    done
    $found || say "no cluster is running"
}

import_image() {
    local n
    for ((n = 1; n <= nodes; n++)); do
        enter "$(node_name "$n")" ctr --namespace=k8s.io images import --local - <"$1" >>"$log/images.log" 2>&1 ||
            die "image $1 cannot be imported into $(node_name "$n"): $log/images.log"
    done
}

boot_id() { enter "$1" cat /proc/sys/kernel/random/boot_id; }

# is_back NODE BOOT_ID: succeeds once the kubelet of another boot than that has reported a ready node.
is_back() {
    local now reported
    now=$(boot_id "$1" 2>/dev/null) || { echo "$1 has not booted" >&2; return 1; }
    [[ $now != "$2" ]] || { echo "$1 has not gone down" >&2; return 1; }
    reported=$(kubectl get node "$1" \
        --output='jsonpath={.status.nodeInfo.bootID} {.status.conditions[?(@.type=="Ready")].status}')
    [[ $reported == "$now True" ]] || { echo "$1 reports \"$reported\", expected \"$now True\"" >&2; return 1; }
}

power() {
    local action=$1 node=$2 before
    require_node "$node"
    before=$(boot_id "$node" 2>/dev/null) || before=off
    case $action in
        on)
            [[ -e $state/off/$node ]] || return 0
            rm "$state/off/$node"
            ;;
        off)
            touch "$state/off/$node"
            # The supervisor removes the cgroup; the node is off when no process is left.
            if [[ -d $cgroup/$node ]]; then
                echo 1 >"$cgroup/$node/cgroup.kill"
                wait_until 20 "the end of $node" is_empty "$cgroup/$node"
            fi
            return
            ;;
        reboot) [[ ! -d $cgroup/$node ]] || echo 1 >"$cgroup/$node/cgroup.kill" ;;
    esac
    wait_until 60 "$node is ready again" is_back "$node" "$before"
}

# cut_api NODE...: drops packets from these nodes and their pods to the API server; without a node, from all of them.
cut_api() {
    local node n from='' from6=''
    for node in "$@"; do
        require_node "$node"
        n=${node#node-}
        from+="$(node_address "$n"), $(node_pods "$n"), "
        from6+="$(node_address6 "$n"), $(node_pods6 "$n"), "
    done
    mend_api
    enter control nft -f - <<NFT
table inet cut {
  chain input {
    type filter hook input priority filter
    iif lo accept
    ${from:+ip saddr { $from\} }tcp dport 6443 drop
    ${from6:+ip6 saddr { $from6\} }tcp dport 6443 drop
  }
}
NFT
}

mend_api() { enter control nft 'add table inet cut; delete table inet cut'; }

signal_api() { enter control bash -c "kill -$1 $(<"$state/pids/kube-apiserver")"; }

command_api() {
    local action=${1-}
    shift || true
    case $action in
        pause) signal_api STOP ;;
        resume) signal_api CONT ;;
        restart)
            signal_api KILL
            wait_until 60 "an API server that is ready again" kubectl get --raw=/readyz
            ;;
        cut) cut_api "$@" ;;
        mend) mend_api ;;
        *) die "api needs one of pause, resume, restart, cut [NODE...], mend" ;;
    esac
}
