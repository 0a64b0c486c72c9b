#!/usr/bin/env bash
# Makes a Debian machine able to build and test Strake. Installs only what is missing: a second run
# changes nothing and takes less than a second.
#
#   scripts/setup.sh            install what is missing (apt as root, or through sudo)
#   scripts/setup.sh --check    install nothing; list what is missing and fail if there is anything
#   scripts/setup.sh --cluster  also what the Kubernetes cluster of tests/kubernetes needs; --check may follow
#
# Kernel programs need a compiler with the sources of `core`, and bpf-linker. A compiler of rustup's
# with the component rust-src is taken where there is one; else Debian's rustc-web, which lies in
# /usr/bin, behind rustup's on PATH. `cargo xtask ebpf` searches in the same order.
set -euo pipefail

readonly linker_version=0.10.3
readonly oldest_rustc=87 # minor version: what aya-ebpf needs
readonly compiler_packages=(rustc-web cargo-web rust-web-src)
readonly oldest_go=25 # minor version: what containerd 2.2 and runc 1.4 need

check_only=false for_cluster=false
for option in "$@"; do
    case $option in
        --check) check_only=true ;;
        --cluster) for_cluster=true ;;
        *) sed -n '2,11p' "$0" && exit 2 ;;
    esac
done

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2 && exit 1; }
have() { command -v "$1" >/dev/null; }
as_root() { if [[ $EUID == 0 ]]; then "$@"; else sudo "$@"; fi; }

# Where `cargo install` and rustup put programs, should the shell not know.
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin

# A compiler that is recent enough and has the library sources beside it.
can_build_core() {
    local rustc=$1 minor sysroot
    minor=$(env -u RUSTUP_TOOLCHAIN "$rustc" --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\).*/\1/p')
    [[ ${minor:-0} -ge $oldest_rustc ]] || return 1
    sysroot=$(env -u RUSTUP_TOOLCHAIN "$rustc" --print sysroot)
    [[ -f $sysroot/lib/rustlib/src/rust/library/core/src/lib.rs ]]
}

have_ebpf_compiler() {
    if [[ -n ${STRAKE_EBPF_RUSTC-} ]]; then
        can_build_core "$STRAKE_EBPF_RUSTC" || die "STRAKE_EBPF_RUSTC=$STRAKE_EBPF_RUSTC is too old or has no library sources"
        return
    fi
    local toolchain rustc
    for toolchain in nightly stable; do
        rustc=$(RUSTUP_AUTO_INSTALL=0 env -u RUSTUP_TOOLCHAIN rustup which --toolchain $toolchain rustc 2>/dev/null) || continue
        if can_build_core "$rustc"; then return; fi
    done
    [[ -x /usr/bin/rustc ]] && can_build_core /usr/bin/rustc
}

# The Debian packages that are missing, told by a file or program of each.
missing_packages() {
    have ip || echo iproute2
    have nft || echo nftables
    have curl || echo curl
    have python3 || echo python3
    have gcc || echo gcc
    have make || echo make
    [[ -e /usr/include/stdlib.h ]] || echo libc6-dev
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
    have shellcheck || echo shellcheck
    have_ebpf_compiler || printf '%s\n' "${compiler_packages[@]}"
}

# The same for the cluster: what runc links, what nodes run, and what the scripts call.
missing_cluster_packages() {
    [[ -e /usr/include/seccomp.h ]] || echo libseccomp-dev
    have pkg-config || echo pkg-config
    have patch || echo patch
    have openssl || echo openssl
    have iptables || echo iptables
    # The other package of this program is not static, and would not run in an image without libraries.
    dpkg-query --show busybox-static >/dev/null 2>&1 || echo busybox-static
    # Elsewhere Debian's Go is too old, and have_go says so.
    if ! have go && [[ $(apt-cache policy golang-go 2>/dev/null | go_minor) -ge $oldest_go ]]; then echo golang-go; fi
}

# Minor version of a Go that is named in the input.
go_minor() { sed -n 's/^go version go1\.\([0-9]*\).*/\1/p; s/^ *Candidate: 2:1\.\([0-9]*\).*/\1/p'; }

have_go() { have go && [[ $(go version | go_minor) -ge $oldest_go ]]; }

# Prometheus for the test of the metrics' formats: unpacked, not installed, because its package starts a service.
prometheus_dir=$(dirname "${BASH_SOURCE[0]}")/../target/prometheus

have_prometheus() { { have prometheus && have promtool; } || [[ -x $prometheus_dir/usr/bin/promtool ]]; }

unpack_prometheus() {
    have apt-get || die "missing: prometheus and promtool (and there is no apt-get to get them with)"
    say "unpacking prometheus"
    local download
    download=$(mktemp --directory)
    (
        cd "$download"
        # The user whom apt downloads as must be allowed to write here.
        chmod a+rwx .
        apt-get download --quiet=2 prometheus 2>/dev/null || { as_root apt-get update --quiet=2 && apt-get download --quiet=2 prometheus; }
    ) || die "apt-get cannot download the package prometheus"
    # promtool last: it is what have_prometheus looks for.
    mkdir -p "$prometheus_dir"
    dpkg-deb --fsys-tarfile "$download"/prometheus_*.deb | tar --extract --directory "$prometheus_dir" ./usr/bin/prometheus ./usr/bin/promtool
    rm -r "$download"
}

install_packages() {
    have apt-get || die "missing: $* (and there is no apt-get to install them with)"
    say "installing $*"
    # The lists of a fresh machine are empty or old.
    apt-get install --simulate --no-remove --no-install-recommends "$@" >/dev/null 2>&1 || as_root apt-get update --quiet=2
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install --quiet=2 --assume-yes --no-remove --no-install-recommends "$@" >/dev/null ||
        die "apt-get cannot install $*. Debian's own rustc, cargo and rustup packages exclude rustc-web: with them, run
  rustup toolchain install nightly --component rust-src"
}

# Asked first: without cargo nothing else is of use.
have cargo || die "no cargo: install Rust 1.95 or newer, for example
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile default"

packages=$({ missing_packages; if $for_cluster; then missing_cluster_packages; fi; } | xargs)
linker_missing=false
have bpf-linker || linker_missing=true

if $check_only; then
    missing=$packages
    $linker_missing && missing+=" bpf-linker"
    have_prometheus || missing+=" prometheus"
    if $for_cluster && ! have_go; then missing+=" Go 1.$oldest_go"; fi
    [[ -z $missing ]] || die "missing: ${missing# }"
    exit 0
fi

if [[ -n $packages ]]; then
    # shellcheck disable=SC2086 # one word per package
    install_packages $packages
    have_ebpf_compiler || die "the installed compiler cannot build kernel programs"
fi
if $for_cluster && ! have_go; then
    die "the Kubernetes cluster needs Go 1.$oldest_go or newer on PATH; there is $(go version 2>/dev/null || echo none)"
fi
have_prometheus || unpack_prometheus
if $linker_missing; then
    say "building bpf-linker $linker_version, about a minute"
    # It looks for LLVM when it runs, not when it is built; a foreign library path would mislead its build.
    (cd / && env -u LD_LIBRARY_PATH cargo install --quiet --locked bpf-linker --version "$linker_version")
fi
