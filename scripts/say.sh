# shellcheck shell=bash
# How the scripts talk: to stderr, so that stdout stays data. Sourced, never run.

# say TEXT: one line of progress.
say() { printf '==> %s\n' "$*" >&2; }

# fail TEXT [WHAT TO DO NEXT…]: says why and ends the script.
fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    if [ $# -gt 0 ]; then printf '       %s\n' "$@" >&2; fi
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

in_ci() { [ "${CI:-}" = true ] || [ "${CI:-}" = 1 ]; }

# step NAME COMMAND…: runs it, and says how long it took whatever its end. A function runs in a
# subshell of its own, where `set -e` holds: behind `||` bash would ignore it.
step() {
    local name=$1 from=$SECONDS status
    shift
    say "$name"
    set +e
    (
        set -e
        "$@" </dev/null
    )
    status=$?
    set -e
    if [ "$status" -ne 0 ]; then
        say "$name: FAILED with status $status after $((SECONDS - from)) s"
        exit "$status"
    fi
    say "$name: ok, $((SECONDS - from)) s"
}

# apt_install PACKAGE…: installs on a machine where that is ours to do (root, Debian).
apt_install() {
    [ "$(id -u)" -eq 0 ] && have apt-get || return 1
    say "installing with apt-get: $*"
    export DEBIAN_FRONTEND=noninteractive
    # A fresh image has no package lists yet.
    apt_get install "$@" 2>/dev/null || { apt_get update && apt_get install "$@"; }
}

apt_get() {
    apt-get -qq -y -o Dpkg::Use-Pty=0 -o APT::Install-Recommends=false "$@" </dev/null >/dev/null
}

# python_tool NAME VERSION DIR: installs a PyPI package at that version into DIR, once.
python_tool() {
    local name=$1 version=$2 dir=$3
    [ "$(cat "$dir/.version" 2>/dev/null)" != "$version" ] || return 0
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3 python3-pip || return 1
    say "installing $name $version with pip into ${dir#"$PWD"/}"
    rm -rf "$dir"
    # --target keeps out of the system's Python, so no virtual environment is needed.
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
        --target "$dir" "$name==$version" >&2 || return 1
    printf '%s\n' "$version" >"$dir/.version"
}
