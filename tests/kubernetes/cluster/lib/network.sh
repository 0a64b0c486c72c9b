# Network namespaces: one for the control plane, with a bridge, and one for each node. The machine's own gets nothing but
# a listening socket on loopback. Sourced by the supervisor.
# shellcheck shell=bash disable=SC2154

# make_netns NAME: kept alive by a mount, in the supervisor's mount namespace alone.
make_netns() {
    : >"$state/netns/$1"
    unshare --net="$state/netns/$1" ip link set lo up
}

# in_netns NAME COMMAND...
in_netns() { nsenter --net="$state/netns/$1" "${@:2}"; }

make_control_network() {
    mkdir "$state/netns"
    # A mount of its own, private: the namespaces are mounted below it.
    mount --bind "$state/netns" "$state/netns"
    mount --make-private "$state/netns"
    make_netns control
    in_netns control ip -batch - <<IP
link add br0 type bridge
address add $control_address/24 dev br0
address add $control_address6/64 dev br0 nodad
link set br0 up
IP
    forward control
}

# forward NETNS: lets it route both families.
forward() {
    in_netns "$1" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward && echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
}

# make_node_network N: also after a reboot, when the old namespace may still be there.
make_node_network() {
    local n=$1 node m
    node=$(node_name "$n")
    in_netns control ip link delete "$node" 2>/dev/null || true
    if mountpoint --quiet "$state/netns/$node"; then umount "$state/netns/$node"; fi
    make_netns "$node"
    in_netns control ip -batch - <<IP
link add $node type veth peer name eth0 netns $state/netns/$node
link set $node master br0 up
route replace $(node_pods "$n") via $(node_address "$n")
route replace $(node_pods6 "$n") via $(node_address6 "$n")
IP
    {
        echo "address add $(node_address "$n")/24 dev eth0"
        echo "address add $(node_address6 "$n")/64 dev eth0 nodad"
        echo "link set eth0 up"
        echo "route add default via $control_address"
        echo "route add default via $control_address6"
        for ((m = 1; m <= nodes; m++)); do
            ((m != n)) || continue
            echo "route add $(node_pods "$m") via $(node_address "$m")"
            echo "route add $(node_pods6 "$m") via $(node_address6 "$m")"
        done
    } | in_netns "$node" ip -batch -
    forward "$node"
}
