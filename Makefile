# Needs: Debian (or another Linux 6.x with apt), root for demo and test, rustup's cargo 1.95.
# Everything is built with one profile (dev), so that demo, test and lint share their work.

CARGO  ?= cargo
BIN    := $(CURDIR)/target/debug
# Tests of one file run side by side; each topology wants a few processes of its own.
TEST_THREADS ?= 4
# Arguments of `make bench`, such as "--seconds 5 --rounds 7".
BENCH ?=
# Runs of `make test-repeat`.
N ?= 30
# Options of `make cluster`, such as "--nodes 1 --kube-proxy iptables"; `tests/kubernetes/cluster/cluster help` has all.
CLUSTER ?=
# The mesh in `make cluster`; empty for a Kubernetes without it.
MESH ?= yes
# What `strake version` says was built; empty in an archive without history.
export STRAKE_COMMIT := $(shell git describe --always --dirty --abbrev=12 2>/dev/null)

.PHONY: all setup build demo test test-repeat lint netns cluster cluster-build cluster-demo cluster-down bench docs manifests clean help
.NOTPARALLEL:

all: build

## setup   install the Debian packages and the eBPF toolchain; quick when all is there
setup:
	@scripts/setup.sh

## build   kernel programs first (the loader embeds them), then every program and every test
build: setup
	@$(CARGO) xtask ebpf
	@$(CARGO) build --workspace --all-targets

## demo    two nodes on this machine, the story in nine proved steps (root)
demo: build
	@$(BIN)/strake lab demo

## lint    formatting, wording, links, dependencies and licences, clippy, documentation
lint: setup
	@$(CARGO) fmt --all --check
	@$(CARGO) xtask words
	@$(CARGO) xtask links
	@$(CARGO) xtask layers
	@$(CARGO) xtask deny
	@shellcheck scripts/setup.sh scripts/images.sh .ci/run $$(find tests/kubernetes/cluster -name '*.sh') tests/kubernetes/cluster/cluster tests/kubernetes/cluster/build
	@$(CARGO) xtask ebpf
	@$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	@# Readers of the sources follow links to private items too.
	@RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --workspace --no-deps --document-private-items --quiet

## netns   the end-to-end tests alone: real namespaces, real processes, real kernel programs (root)
netns: build
	@STRAKE_BIN_DIR=$(BIN) $(CARGO) test --workspace --test netns -- --test-threads=$(TEST_THREADS)

## cluster-build   build Kubernetes for `make cluster` and the tests; minutes the first time, quick when nothing changed
cluster-build:
	@scripts/setup.sh --cluster
	@tests/kubernetes/cluster/cluster build

## cluster   start Kubernetes on two nodes of this machine with the mesh installed, and print its kubectl (root); MESH= leaves the mesh out
cluster: cluster-build $(if $(MESH),build)
	@tests/kubernetes/cluster/cluster up $(CLUSTER)
ifneq ($(MESH),)
	@scripts/images.sh $(BIN) target/images
	@tests/kubernetes/cluster/cluster import target/images/*.tar
	@$(BIN)/strake install --hub localhost --kubeconfig /run/strake/cluster/strake/kubeconfig
	@echo "alias kubectl='$(CURDIR)/target/kubernetes/bin/kubectl --kubeconfig=/run/strake/cluster/strake/kubeconfig'"
endif

## cluster-demo   the story of the mesh on a Kubernetes of its own, each step proved from outside; some five minutes (root)
cluster-demo: build cluster-build
	@$(CARGO) test --quiet --workspace --test kubernetes -- --ignored --exact story::at_its_full_length --nocapture

## cluster-down   end it and remove everything (root)
cluster-down:
	@tests/kubernetes/cluster/cluster down

## test    set-up, lint and every test (root). One selection of packages throughout: another one would build anew
test: lint build cluster-build
	@STRAKE_BIN_DIR=$(BIN) $(CARGO) test --workspace --no-fail-fast -- --test-threads=$(TEST_THREADS)

## test-repeat   the kernel and netns suites N times (N=30) beside labs that start and stop; must print no failure (root)
test-repeat: build
	@$(CARGO) xtask test-repeat --runs $(N) --test-threads $(TEST_THREADS)

## docs    write the generated pages of docs/reference and the custom resources; `make test` fails when one is out of date
docs: build
	@$(CARGO) xtask docs

## manifests   write daemonset/manifests from the chart; `make test` fails when they are out of date
manifests: cluster-build
	@$(CARGO) xtask manifests

## bench   speed between two pods of a lab, outside of the mesh and in it; release builds, some minutes the first time (root)
bench: setup
	@$(CARGO) xtask ebpf
	@$(CARGO) build --release --workspace --bins --bench mesh
	@STRAKE_BIN_DIR=$(CURDIR)/target/release $(CARGO) bench --workspace --bench mesh -- $(BENCH)

## clean   what cargo and the kernel programs' build left
clean:
	@$(CARGO) clean
	@rm -rf ebpf/programs/target

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)
