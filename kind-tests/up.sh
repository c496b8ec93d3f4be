#!/bin/bash
# Eagle's life in a cluster: installed, applied, three images pulled and prefetched, removed, seen through the API alone.
#
#   kind-tests/up.sh                     a new cluster of kind, with Eagle's image built here
#   KUBECONFIG=… EAGLE_IMAGE=… kind-tests/up.sh
#                                        any cluster without Eagle, whose nodes can pull EAGLE_IMAGE
#
# EAGLE_TEST_IMAGES   three images that the nodes can pull and do not have, separated by commas; each runs until stopped
#                     [default: three of Kubernetes' own test images]
# EAGLE_CLUSTER_SPEC  more of the EagleCluster's spec, as JSON
# EAGLE_KEEP=1        the cluster of kind stays: `kind delete cluster --name eagle` removes it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The name of the cluster of kind, and of the image that is loaded into it.
NAME=eagle
BUILT=eagle.invalid/eagle:built

explain() {
    printf '%s\n' "up.sh: $1" >&2
    exit 69
}

needs() {
    command -v "$1" >/dev/null || explain "there is no $1: $2"
}

of_kind() {
    needs kind "install it (https://kind.sigs.k8s.io), or set KUBECONFIG and EAGLE_IMAGE for a cluster that is there"
    local engine
    engine=$(command -v docker || command -v podman || command -v nerdctl) ||
        explain "kind needs Docker, Podman or nerdctl, or set KUBECONFIG and EAGLE_IMAGE for a cluster that is there"
    "$engine" info >/dev/null 2>&1 || explain "$engine does not answer: start it, or say who may use it"
    if kind get clusters 2>/dev/null | grep -qx "$NAME"; then
        explain "there is a cluster of kind called $NAME: kind delete cluster --name $NAME"
    fi
    needs skopeo "it hands the image to kind"

    directory=$(mktemp -d)
    trap 'cleanup' EXIT
    cargo xtask image --to "$directory/image"
    skopeo copy --quiet "oci:$directory/image:latest" "docker-archive:$directory/eagle.tar:$BUILT"
    # Three nodes: one alone has nobody to get anything from. Since 0.27, kind's nodes look for hosts.toml files where the
    # agent writes them; with older ones the EagleCluster says what is missing.
    cat >"$directory/kind.yaml" <<'EOF'
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes: [{role: control-plane}, {role: worker}, {role: worker}]
EOF
    export KUBECONFIG="$directory/kubeconfig" EAGLE_IMAGE=$BUILT
    kind create cluster --name "$NAME" --config "$directory/kind.yaml" --kubeconfig "$KUBECONFIG" --wait 3m
    kind load image-archive "$directory/eagle.tar" --name "$NAME"
}

cleanup() {
    [ -n "${EAGLE_KEEP:-}" ] || kind delete cluster --name "$NAME" || true
    [ -n "${EAGLE_KEEP:-}" ] || rm -rf "$directory"
}

for tool in kubectl helm; do
    # Those that the tests build for themselves do as well.
    [ -x "${EAGLE_CACHE:-$HOME/.cache/eagle}/tools/bin/$tool" ] || needs "$tool" "or run cargo xtask test --only install"
done
if [ -z "${KUBECONFIG:-}" ]; then
    of_kind
elif [ -z "${EAGLE_IMAGE:-}" ]; then
    explain "KUBECONFIG is set, but not EAGLE_IMAGE: push one (cargo xtask image --push …) where its nodes can pull it"
fi
export EAGLE_KUBECONFIG="$KUBECONFIG"
cargo test --package eagle-kind-tests --test kubernetes -- --ignored --exact --nocapture \
    given::a_given_cluster_from_installation_to_removal
