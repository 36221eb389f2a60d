# What the steps share. Sourced by `step`; runs as root inside a machine.
# shellcheck shell=bash

readonly SRV=/srv/tqserver/workers
readonly PACKAGED=/usr/lib/tqserver/workers
readonly SERVER_YAML=/etc/tqserver/server.yaml
# Files of the steps themselves, kept over a reboot.
readonly NOTES=/var/lib/acceptance
# How much slower than a container this machine is.
readonly FACTOR="${TQ_FACTOR:-1}"
export LC_ALL=C.UTF-8
umask 022
mkdir -p "$NOTES"

fail() {
    printf '!! %s\n' "$*" >&2
    exit 1
}

# Runs a command until it succeeds, at most so many seconds (times the factor of this machine).
eventually() {
    local end=$((SECONDS + $1 * FACTOR))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "did not come true in time: $*"
        sleep 0.1
    done
}

# Prints what it does, as the log of a step is all that is seen when it fails.
run() {
    printf '# %s\n' "$*"
    "$@"
}

# Runs a command that has to fail, and keeps what it printed in $OUTPUT and its status in $STATUS.
refused() {
    printf '# %s\n' "$*"
    STATUS=0
    OUTPUT="$("$@" 2>&1)" || STATUS=$?
    sed -n 1,60p <<<"$OUTPUT"
    ((STATUS != 0)) || fail "exit status 0, and it had to fail: $*"
}

# Whether a command prints this: prints PATTERN COMMAND... It is read to its end, as a closed pipe would be its failure.
prints() {
    local pattern="$1"
    shift
    grep -qE -- "$pattern" <<<"$("$@" 2>&1)"
}

# has TEXT PATTERN: an extended regular expression, in any case of letters.
has() {
    grep -qiE -- "$2" <<<"$1" || fail "not found: /$2/ in: $1"
}

has_not() {
    ! grep -qiE -- "$2" <<<"$1" || fail "must not be there: /$2/ in: $1"
}

is() {
    [[ "$1" == "$2" ]] || fail "is '$1', not '$2'${3:+ ($3)}"
}

# --- requests

# The body of a page: get PATH
get() {
    curl -sS --fail-with-body --max-time $((30 * FACTOR)) "http://127.0.0.1:${PORT:-8080}$1"
}

status_of() {
    curl -sS -o /dev/null -w '%{http_code}' --max-time $((30 * FACTOR)) "http://127.0.0.1:${PORT:-8080}$1"
}

page_is() {
    is "$(get "$1")" "$2" "GET $1"
}

port_is_open() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

port_is_closed() {
    ! port_is_open "$1"
}

# --- workers

# Writes a worker into the administrator's directory: deploy NAME VERSION [BEHAVIOUR]; worker.yaml comes from standard input, if
# there is any. Each version is a new directory put in place of the old, as a deployer's tool does it.
deploy() {
    local name="$1" new
    # Given before a function's name it is in the environment of all programs, which take no such size.
    export -n YAML
    mkdir -p "$SRV"
    new="$SRV/.$name.new"
    rm -rf "$new"
    write_worker "$new" "$2" "${3:-}"
    rm -rf "${SRV:?}/$name"
    mv "$new" "$SRV/$name"
}

write_worker() {
    local directory="$1"
    mkdir -p "$directory/config"
    cp /acceptance/worker.py "$directory/main.py"
    cp /acceptance/look.py "$directory/look.py"
    printf '%s\n' "$2" >"$directory/version"
    [[ -z "${3:-}" ]] || printf '%s\n' "$3" >"$directory/behaviour"
    if [[ -n "${YAML:-}" ]]; then printf '%s\n' "$YAML" >"$directory/config/worker.yaml"; else rmdir "$directory/config"; fi
}

undeploy() {
    local name
    for name; do rm -rf "${SRV:?}/$name"; done
}

# Deploys and reloads, which has to work: live NAME VERSION
live() {
    deploy "$@"
    run systemctl reload tqserver
    page_is "/$1" "$2"
}

# alpha and beta as all the steps expect to find them.
usual_workers() {
    YAML='' deploy alpha "alpha ${1:-1}"
    YAML='' deploy beta 'beta 1'
    run systemctl reload tqserver
    page_is /alpha "alpha ${1:-1}"
    page_is /beta 'beta 1'
}

# The pids of the processes of workers: worker_pids [NAME]
worker_pids() {
    systemctl show --property=MainPID --value "tqserver-${1:-*}@*.service" | grep '^[1-9]' | sort || true
}

no_worker_process() {
    [[ -z "$(worker_pids "${1:-*}")" ]]
}

# The generations of a worker that have a socket.
generations() {
    systemctl list-units --plain --no-legend --state=active "tqserver-$1@*.socket" |
        sed -n 's/^tqserver-.*@\([0-9]*\)\.socket.*/\1/p' | sort -n
}

generation() {
    generations "$1" | tail -n 1
}

no_generation() {
    [[ -z "$(generations "$1")" ]]
}

one_generation() {
    [[ "$(generations "$1" | wc -l)" == 1 ]]
}

main_pid() {
    systemctl show --property=MainPID --value "$1"
}

new_main_pid() {
    local now
    now="$(main_pid "$1")"
    [[ "$now" != 0 && "$now" != "$2" ]] && systemctl is-active --quiet "$1"
}

# --- the server

# Writes server.yaml: configure [port=N] [default=YAML] [paths=YAML] [max=YAML]; what is not said is as shipped.
configure() {
    local port=8080 default='{}' paths='{}' max='{}' "$@"
    # Kept away from /etc, where a purge would have to know of it.
    [[ -e "$NOTES/server.yaml" ]] || cp "$SERVER_YAML" "$NOTES/server.yaml"
    cat >"$SERVER_YAML" <<END
server: {port: $port}
workers:
    directory: [$SRV, $PACKAGED]
    default: $default
    paths: $paths
    max: $max
END
}

as_shipped() {
    [[ ! -e "$NOTES/server.yaml" ]] || cp "$NOTES/server.yaml" "$SERVER_YAML"
}

# The number that `systemd-analyze security` gives a unit.
exposure() {
    systemd-analyze security --no-pager "$1" | sed -n 's/.*Overall exposure level for .*: \([0-9.]*\) .*/\1/p'
}

at_most() {
    [[ -n "$1" ]] || fail "there is no number for $3"
    awk -v is="$1" -v most="$2" 'BEGIN { exit !(is <= most) }' || fail "$3 is $1, over $2"
    echo "$3: $1 (at most $2)"
}

# --- load

# Starts 16 keep-alive and 16 connection-per-request clients: load_start PATH PATTERN [OPTION...]
load_start() {
    LOAD_FILES="$(mktemp -d "$NOTES/load.XXXXXX")"
    python3 /acceptance/load.py --path "$1" --expect "$2" "${@:3}" --pause "0.0$((2 * (FACTOR > 4 ? 4 : FACTOR)))" \
        --deadline $((30 * FACTOR)) --summary "$LOAD_FILES/summary" --progress "$LOAD_FILES/progress" &
    LOAD_PID=$!
    load_goes_on 200
}

load_answers() {
    local answers=0 _
    [[ ! -e "$LOAD_FILES/progress" ]] || read -r answers _ <"$LOAD_FILES/progress"
    echo "$answers"
}

load_is_past() {
    kill -0 "$LOAD_PID" 2>/dev/null && (($(load_answers) > $1))
}

# Waits until the clients have got so many more answers: what was done is then behind them all.
load_goes_on() {
    eventually 60 load_is_past $(($(load_answers) + $1))
}

# Stops the clients and prints what they saw.
load_stop() {
    load_goes_on 200
    kill -TERM "$LOAD_PID"
    # Its status says whether a request failed; the caller looks at the summary.
    wait "$LOAD_PID" || true
    LOAD_PID=
    cat "$LOAD_FILES/summary"
}

# One number of the summary: load_saw failed | load_saw failures.refused
load_saw() {
    python3 -c 'import functools, json, sys
print(functools.reduce(lambda d, k: d.get(k, 0), sys.argv[2].split("."), json.load(open(sys.argv[1]))))' "$LOAD_FILES/summary" "$1"
}

no_request_failed() {
    load_stop
    is "$(load_saw failed)" 0 'failed requests'
}

# --- the end of a step

end_step() {
    local status=$?
    trap - EXIT ERR
    # What a failed step left would fail those after it, in a run that goes on.
    ((status == 0)) || [[ ! -d "$SRV" ]] || find "$SRV" -mindepth 1 -maxdepth 1 ! -name alpha ! -name beta -exec rm -rf {} +
    [[ -z "${LOAD_PID:-}" ]] || {
        kill -TERM "$LOAD_PID" 2>/dev/null || true
        wait "$LOAD_PID" 2>/dev/null || true
        [[ ! -e "$LOAD_FILES/summary" ]] || cat "$LOAD_FILES/summary"
    }
    exit "$status"
}
