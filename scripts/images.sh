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
# PROGRAM[=USER]: the agent and ztunnel need root, to enter the namespaces of pods.
for program in strake-agent ztunnel strake-control=65532; do
    name=${program%%=*} user=${program#*=}
    # Debug information is most of a development build, and nodes keep images in memory in tests.
    strip --strip-debug -o "$stripped/$name" "$bin/$name"
    arguments=(--name "localhost/$name:$version" --libraries --out "$out/$name.tar")
    [[ $user == "$program" ]] || arguments+=(--user "$user")
    "$mkimage" "${arguments[@]}" "$stripped/$name=/usr/local/bin/$name"
    echo "$out/$name.tar"
done
