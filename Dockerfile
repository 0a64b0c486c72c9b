# Images of the programs, one target each: strake-agent (with the CNI plugin), ztunnel, strake-control, strake.
#
#   docker build --target ztunnel --tag HOST/PROJECT/ztunnel:0.1.0 .
#
# Each has the program, the shared libraries that it needs, and nothing else. For another base:
#   --build-arg RUNTIME_IMAGE=debian:trixie-slim --build-arg LIBRARIES=no
#
# Tests make their images without a container engine (scripts/images.sh); this file is not built by them.

ARG RUST_IMAGE=rust:1.95-slim-trixie
ARG RUNTIME_IMAGE=scratch

FROM ${RUST_IMAGE} AS build
WORKDIR /src
# By itself, so that the layer with Debian's packages, the compiler of the kernel programs and bpf-linker is made once.
COPY scripts/setup.sh scripts/
RUN scripts/setup.sh
COPY . .
ARG PROFILE=dist
ARG STRAKE_COMMIT
RUN cargo xtask ebpf \
    && cargo build --locked --profile "$PROFILE" --workspace --bins
# It runs on nodes, whose libraries may be older.
RUN cargo rustc --locked --profile "$PROFILE" --package strake-cni --bin strake-cni --target-dir target/static \
        -- -C target-feature=+crt-static
ARG LIBRARIES=yes
RUN set -e; for program in strake-agent ztunnel strake-control strake; do \
        root=/images/$program; \
        install -D "target/$PROFILE/$program" "$root/usr/local/bin/$program"; \
        [ "$LIBRARIES" = no ] || ldd "target/$PROFILE/$program" | grep -o '/[^ ]*' \
            | xargs cp --dereference --parents --target-directory="$root"; \
    done; \
    install "target/static/$PROFILE/strake-cni" /images/strake-agent/usr/local/bin/

# Enters the namespaces of pods and loads kernel programs: root, with NET_ADMIN, SYS_ADMIN, SYS_PTRACE and DAC_OVERRIDE.
FROM ${RUNTIME_IMAGE} AS strake-agent
COPY --from=build /images/strake-agent /
USER 0:0
ENTRYPOINT ["/usr/local/bin/strake-agent"]

# Enters the namespaces of pods and marks sockets: root, with SYS_ADMIN and NET_ADMIN.
FROM ${RUNTIME_IMAGE} AS ztunnel
COPY --from=build /images/ztunnel /
USER 0:0
ENTRYPOINT ["/usr/local/bin/ztunnel"]

# No capabilities.
FROM ${RUNTIME_IMAGE} AS strake-control
COPY --from=build /images/strake-control /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/strake-control"]

# The command line, for the Job with which the chart takes pods out of the mesh. No capabilities.
FROM ${RUNTIME_IMAGE} AS strake
COPY --from=build /images/strake /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/strake"]
