# The outer life of a cluster: it is made, found, and removed without a trace. Sourced.
# shellcheck shell=bash disable=SC2154,SC2119,SC2120
#
# Every process of a cluster is below its cgroup, and holds the lock through a descriptor that it inherited. Mounts and
# network namespaces belong to a mount namespace of those processes. So one write to cgroup.kill ends everything, at any
# time, and a lock that is free means that only files and empty cgroups can be left.

# hold_lock [SECONDS]: holds the cluster's lock in descriptor 9, or fails, if nothing else is said at once.
hold_lock() {
    mkdir -p "$run_root"
    chmod 700 "$run_root"
    while :; do
        exec 9>"$lock"
        flock --timeout "${1:-0}" 9 || return 1
        # Its former holder may have removed the file since it was opened: then this lock is nobody's.
        [[ $(stat --format=%i "$lock" 2>/dev/null) != "$(stat --dereference --format=%i /proc/self/fd/9)" ]] || return 0
    done
}

is_populated() { grep -qs '^populated 1' "$cgroup/cgroup.events"; }

# kill_cgroup DIR: ends every process below it and removes it.
kill_cgroup() {
    [[ -d $1 ]] || return 0
    # Somebody else may be removing it at the same time.
    { echo 1 >"$1/cgroup.kill"; } 2>/dev/null || true
    wait_until 20 "the end of the processes in $1" is_empty "$1"
    # Depth first; the kernel may need a moment to release a cgroup whose last process has just been reaped.
    wait_until 10 "the removal of $1" remove_cgroup "$1"
}

is_empty() {
    [[ -d $1 ]] || return 0
    grep -qs '^populated 0' "$1/cgroup.events" || { echo "still running: $(find "$1" -name cgroup.procs -exec cat {} +)" >&2; false; }
}

remove_cgroup() {
    [[ -d $1 ]] || return 0
    find "$1" -depth -type d -exec rmdir {} +
}

# remove_cluster: with the lock held, removes everything. With `keep-logs`, all but the logs.
remove_cluster() {
    kill_cgroup "$cgroup"
    if [[ ${1-} == keep-logs && -d $state/log ]]; then
        find "$state" -mindepth 1 -maxdepth 1 ! -name log -exec rm -rf --one-file-system {} +
    else
        rm -rf --one-file-system "$state"
    fi
    rm -f "$lock"
    exec 9>&-
}

# sweep_dead: removes the cgroups and files of clusters that were killed together with their starters.
sweep_dead() {
    local other
    for other in "$run_root"/*.lock; do
        [[ -e $other ]] || continue
        (
            name_cluster "$(basename "$other" .lock)"
            if hold_lock; then remove_cluster; fi
        )
    done
}

# process_of PLACE: process 1 of the cluster (control) or of a node, as this process sees it.
process_of() {
    local place=$1 depth=3 dir=supervisor statuses=()
    [[ $place == control ]] || depth=4 dir=$place/init
    mapfile -t statuses < <(sed 's|.*|/proc/&/status|' "$cgroup/$dir/cgroup.procs" 2>/dev/null)
    ((${#statuses[@]} > 0)) || return 1
    # A process in a pid namespace below has a number for each: the last of process 1 is 1.
    awk -v depth=$depth '/^Pid:/ {pid = $2} /^NSpid:/ && NF == depth && $NF == 1 {print pid; found = 1; exit} END {exit !found}' \
        "${statuses[@]}" 2>/dev/null
}

# enter PLACE COMMAND...: runs a command in the namespaces of the control plane or of a node.
enter() {
    local place=$1 pid
    shift
    pid=$(process_of "$place") || die "$place of cluster $name is not running"
    if [[ $place == control ]]; then
        nsenter --target="$pid" --mount --pid nsenter --net="$state/netns/control" "$@"
    else
        # In the node's cgroup: kernel programs of the node see the command as one of the node's own.
        (
            echo 0 >"$cgroup/$place/init/cgroup.procs"
            exec nsenter --target="$pid" --all env PATH=/opt/kubernetes/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
        )
    fi
}

kubectl() {
    "$bin/kubectl" --kubeconfig="$state/kubeconfig" --cache-dir="$state/kubectl-cache" "$@"
}
