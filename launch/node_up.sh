#!/usr/bin/env bash
# One worker of a TPU VM: install this checkout and check its versions, run a command, stop it.
#
#   node_up.sh up [EXTRAS]             build .venv from constraints.txt; refuse any version that differs from it
#   node_up.sh run SECONDS COMMAND...  run COMMAND in .venv, SIGTERM after SECONDS; ends an earlier run first
#   node_up.sh stop                    SIGTERM to the running command, SIGKILL after a grace of NODE_GRACE seconds
#
# The last line says what became of it, for launch/tpu_vm.py: `node_up: ok ...` or `node_up: exit=CODE ...`.
# Exit codes: up 0 or 2 (one line says why); run: the command's own, 124 when its time was over.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

GRACE=${NODE_GRACE:-100} # more than the minute that launch.sweep gives its trials
RUNNING=.node_run.pid
NEEDED="jax jaxlib libtpu flax optax orbax-checkpoint numpy"
FITS='import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))'

refuse() {
    echo "node_up: refused on $(hostname): $*" >&2
    exit 2
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.12 python3}; do
        if "$candidate" -c "$FITS" >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
}

# name==version, one a line; names as pip compares them: lower case, "-" for "_" and "."
canonical() {
    sed -e 's/[[:space:]]*#.*//' -e '/==/!d' |
        awk -F== '{ name = tolower($1); gsub(/[-_.]+/, "-", name); print name "==" $2 }' | sort -u
}

up() {
    local extras=${1:-} python found pinned name differs install
    python=$(find_python)
    if [ -z "$python" ] && [ -z "${PYTHON:-}" ] && command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then
        sudo apt-get -qq update && sudo apt-get -qq install -y python3.11 python3.11-venv || true
        python=$(find_python)
    fi
    [ -n "$python" ] || refuse "no Python 3.11 or 3.12 with venv; name one: PYTHON=python3.11"
    "$python" -m venv .venv || refuse "$python cannot build .venv"
    install=(.venv/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt)
    "${install[@]}" setuptools || refuse "pip install failed"
    "${install[@]}" --no-build-isolation -e ".${extras:+[$extras]}" || refuse "pip install failed"

    found=$(.venv/bin/python -m pip list --format=freeze --disable-pip-version-check --exclude pip | canonical)
    pinned=$(canonical <constraints.txt)
    for name in $NEEDED; do
        grep -q "^$name==" <<<"$found" || refuse "$name is not installed"
        grep -q "^$name==" <<<"$pinned" || refuse "constraints.txt does not pin $name"
    done
    differs=$(awk -F== 'NR == FNR { pinned[$1] = $2; next }
        ($1 in pinned) && pinned[$1] != $2 { printf "%s is %s, constraints.txt says %s; ", $1, $2, pinned[$1] }' \
        <(echo "$pinned") <(echo "$found"))
    [ -z "$differs" ] || refuse "${differs%; }"
    echo "node_up: ok host=$(hostname) python=$(.venv/bin/python -c 'import sys; print(sys.version.split()[0])')" \
        "jax=$(sed -n 's/^jax==//p' <<<"$found") packages=$(sha256sum <<<"$found" | cut -c1-12)"
}

stop() {
    local pid waited=0
    [ -f "$RUNNING" ] || return 0
    pid=$(<"$RUNNING")
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null && [ "$waited" -lt $((GRACE * 10)) ]; do
        sleep 0.1
        waited=$((waited + 1))
    done
    kill -KILL "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true
    rm -f "$RUNNING"
}

run() {
    local seconds=$1 child="" told="" code=0
    shift
    [ -x .venv/bin/python ] || refuse "no .venv; node_up.sh up comes first"
    stop
    PATH=$PWD/.venv/bin:$PATH
    # With a TPU platform named, jax fails where the chips are missing instead of going on slowly without them.
    export PATH JAX_PLATFORMS=${NODE_PLATFORMS:-tpu,cpu}
    # Set before the command starts: a signal in between must not leave the command behind.
    trap 'told=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM INT HUP
    timeout --signal=TERM --kill-after="$GRACE" "$seconds" "$@" </dev/null &
    child=$!
    [ -z "$told" ] || kill -TERM "$child" 2>/dev/null || true
    echo "$child" >"$RUNNING"
    while true; do
        wait "$child" && code=0 || code=$?
        kill -0 "$child" 2>/dev/null || break # else a signal only interrupted the wait
    done
    [ "$(cat "$RUNNING" 2>/dev/null)" != "$child" ] || rm -f "$RUNNING"
    echo "node_up: exit=$code host=$(hostname)"
    return "$code"
}

case "${1:-}" in
up) up "${2:-}" ;;
run)
    [ $# -ge 3 ] || refuse "say run SECONDS COMMAND..."
    shift
    run "$@"
    ;;
stop) stop ;;
*) refuse "say up, run or stop" ;;
esac
