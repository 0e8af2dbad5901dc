#!/usr/bin/env bash
# The steps that make an image, as plain commands; they run on any Debian, without Docker.
#
#   install.sh packages ENGINE                   Debian packages that the engine needs while it runs (as root)
#   install.sh dependencies PREFIX ENGINE        a virtual environment with everything but polyvec itself
#   install.sh dependencies PREFIX ENGINE --dry-run    only says what that would be
#   install.sh polyvec PREFIX                    polyvec's wheel, built here, into that environment
#
# ENGINE is cpu or gpu. Needs uv, and the Python that the environment is to be made of: python3, or $PYTHON.
set -euo pipefail
# pyproject.toml lies here, whose overrides uv reads in the current directory alone.
cd "$(dirname "$0")/../.."

fail() {
    echo "install.sh: $1" >&2
    exit 2
}

constraints() {
    case "$1" in
        cpu) echo constraints.txt ;;
        gpu) echo constraints-gpu.txt ;;
        *) fail "ENGINE is cpu or gpu, and not '$1'." ;;
    esac
}

packages() {
    # libnuma: vLLM's kernels for CPUs. A compiler with headers: Triton compiles each kernel's launcher when it
    # first runs, and vLLM's kernels for GPUs are started by such launchers.
    local wanted
    case "$1" in
        cpu) wanted=(libnuma1) ;;
        gpu) wanted=(libnuma1 gcc libc6-dev) ;;
        *) fail "ENGINE is cpu or gpu, and not '$1'." ;;
    esac
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}"
    rm -rf /var/lib/apt/lists/*
}

dependencies() {
    local prefix="$1" engine="$2" pins
    pins="$(constraints "$engine")"
    shift 2
    [ -x "$prefix/bin/python" ] || uv venv --quiet --python "${PYTHON:-python3}" "$prefix"
    uv pip install --python "$prefix/bin/python" --constraint "$pins" \
        --requirements pyproject.toml --extra "$engine" --extra ray "$@"
}

polyvec() {
    local prefix="$1" wheels
    wheels="$(mktemp -d)"
    uv build --quiet --wheel --out-dir "$wheels"
    uv pip install --quiet --python "$prefix/bin/python" --no-deps "$wheels"/polyvec-*.whl
    rm -r "$wheels"
    "$prefix/bin/polyvec" --version
}

step="${1:-}"
shift || fail "Name a step: packages, dependencies or polyvec."
case "$step" in
    packages) [ $# -eq 1 ] || fail "packages takes ENGINE." ;;
    dependencies) [ $# -ge 2 ] || fail "dependencies takes PREFIX and ENGINE." ;;
    polyvec) [ $# -eq 1 ] || fail "polyvec takes PREFIX." ;;
    *) fail "There is no step '$step': packages, dependencies and polyvec." ;;
esac
"$step" "$@"
