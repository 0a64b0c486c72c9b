#!/usr/bin/env bash
# Boots a node: gives it a root of its own, then becomes its process 1, init.sh.
#
#   boot.sh N CLUSTER BIN IMAGES        as process 1 of new mount, pid, uts and ipc namespaces, in the node's network
#
# The root is an overlay of the machine's root, so that a node needs no image, and what it or a pod writes stays in it.
# shellcheck disable=SC2154
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=/dev/null
. "$here/../lib/names.sh"
# shellcheck source=/dev/null
. "$here/../lib/nodes.sh"
name_cluster "$2"
n=$1 bin=$3 images=$4
node=$(node_name "$n")
# shellcheck source=/dev/null
. "$state/options" # log
disk=$state/disk/$node
root=$disk/root
# The lock is the supervisor's; a container that leaks would hold it as well.
exec 9>&-

hostname "$node"
mkdir -p "$root"
mount -t overlay -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"

# bind SOURCE TARGET: TARGET is a path of the node.
bind() {
    if [[ -d $1 ]]; then mkdir -p "$root$2"; fi
    mount --bind "$1" "$root$2"
}
for dir in "${node_dirs[@]}"; do bind "$disk/dirs/$dir" "/$dir"; done
bind "$bin" /opt/kubernetes/bin
bind "$images" /opt/kubernetes/images
bind "$here" /opt/kubernetes/node
bind "$log/$node" /opt/kubernetes/log

# The kubelet would write these for the whole machine. A value that is what it wants already, it leaves alone.
mkdir -p "$root/run/kernel"
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000 "kernel/random/boot_id=$(</proc/sys/kernel/random/uuid)"; do
    file=$root/run/kernel/$(basename "${setting%%=*}")
    echo "${setting#*=}" >"$file"
    mount --bind "$file" "$root/proc/sys/${setting%%=*}"
done

# The root of a cgroup namespace is the cgroup that its first process is in.
echo 0 >"$cgroup/$node/cgroup.procs"
mkdir -p "$root/run/old-root"
cd "$root"
pivot_root . run/old-root
exec unshare --cgroup chroot . /bin/bash /opt/kubernetes/node/init.sh "$node" "$(node_address "$n")" "$(node_address6 "$n")"
