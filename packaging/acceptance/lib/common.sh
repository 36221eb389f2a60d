# What all the scripts here share: where things are, how they speak, and how they wait. To be sourced.
# shellcheck shell=bash

# Everything this suite writes is below this directory: bases/ (root file systems, made once) and machines/ (copies, thrown away).
acceptance_directory() {
    local here
    here="$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)"
    printf '%s\n' "${TQ_ACCEPTANCE:-$here/target/acceptance}"
}

say() {
    printf '%s\n' "$*"
}

warn() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
    warn "$*"
    exit 1
}

# Runs a command again and again until it succeeds, at most this many seconds: eventually SECONDS COMMAND...
eventually() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

# Installs the Debian packages of the programs that are missing: need_programs PROGRAM=PACKAGE...
need_programs() {
    local pair missing=()
    for pair; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    ((${#missing[@]} > 0)) || return 0
    command -v apt-get >/dev/null || die "missing, and there is no apt-get to install it with: ${missing[*]}"
    {
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends "${missing[@]}"
    } >&2
}

need_root() {
    [[ "$(id -u)" == 0 ]] || die "boots machines of its own, so it has to run as root"
}

# Whether a process is there and is no zombie.
alive() {
    local state
    state="$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null)" || return 1
    [[ -n "$state" && "$state" != Z ]]
}

# Sends TERM to this shell when another process ends, however it ends; goes with this shell.
tell_end_of() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    setpriv --pdeathsig KILL bash -c '
        setpriv --pdeathsig KILL tail --pid="$1" --sleep-interval=0.5 -f /dev/null
        kill -TERM "$2"
    ' watch "$1" "$$" </dev/null &
}
