#!/usr/bin/env bash
# images.sh BIN_DIR OUT_DIR: makes an image of each program that runs in a cluster, without container engine or registry. The
# archives are for `tests/kubernetes/cluster/cluster import`, `ctr images import`, or any other that reads OCI archives.
set -euo pipefail

(($# == 2)) || { echo "usage: images.sh BIN_DIR OUT_DIR" >&2; exit 2; }
bin=$1 out=$2
cd "$(dirname "$0")/.."
mkimage=target/kubernetes/bin/mkimage
[[ -x $mkimage ]] || { echo "images.sh: $mkimage is missing; make cluster-build makes it" >&2; exit 1; }
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)

mkdir -p "$out"
stripped=$(mktemp -d)
trap 'rm -rf "$stripped"' EXIT

# image USER PROGRAM...: an image with the name of the first program, which containers run.
image() {
    local user=$1 name=$2 program files=()
    shift
    for program in "$@"; do
        # Debug information is most of a development build, and nodes keep images in memory in tests.
        strip --strip-debug -o "$stripped/$program" "$bin/$program"
        files+=("$stripped/$program=/usr/local/bin/$program")
    done
    "$mkimage" --name "localhost/$name:$version" --user "$user" --libraries --out "$out/$name.tar" "${files[@]}"
    echo "$out/$name.tar"
}

# The agent and ztunnel enter the namespaces of pods, which takes root. The agent installs the CNI plugin on its node.
image 0 strake-agent strake-cni
image 0 ztunnel
image 65532 strake-control
# The command line, for the Job that takes pods out of the mesh when the chart is removed.
image 65532 strake
