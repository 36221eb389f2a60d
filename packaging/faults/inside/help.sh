# What the faults share. Sourced by `fault`, after the acceptance suite's help.sh; runs as root inside a machine.
# shellcheck shell=bash

# Records of the load. Not below /var or /run, which some faults fill.
readonly RECORDS=/root/faults
readonly MOMENTS="$RECORDS/moments"
# How often something is killed.
# shellcheck disable=SC2034 # in the faults
readonly TIMES="${TQ_FAULT_TIMES:-20}"
mkdir -p "$RECORDS"

# The worker of this suite in place of that of the acceptance suite.
write_worker() {
    mkdir -p "$1"
    cp /faults/worker.py "$1/main.py"
    printf '%s\n' "$2" >"$1/version"
    [[ -z "${YAML:-}" ]] || {
        mkdir -p "$1/config"
        printf '%s\n' "$YAML" >"$1/config/worker.yaml"
    }
}

# The server is installed, and alpha is live.
prepare() {
    run apt-get install /acceptance/debs/first.deb
    eventually 30 port_is_open 8080
    live alpha "$(next_version)"
}

# A version that alpha never had.
next_version() {
    local number=0
    [[ ! -e "$RECORDS/number" ]] || number="$(<"$RECORDS/number")"
    printf '%s\n' $((number + 1)) >"$RECORDS/number"
    printf 'alpha %s\n' $((number + 1))
}

# --- the load

# Starts the clients: load [OPTION...]
load() {
    rm -f "$RECORDS"/{progress,records} "$MOMENTS"
    : >"$MOMENTS"
    rm -f /var/lib/private/tqserver/alpha/posts
    # shellcheck disable=SC2034 # for load_goes_on
    LOAD_FILES="$RECORDS"
    python3 /faults/client.py --records "$RECORDS/records" --progress "$RECORDS/progress" \
        --slower $((FACTOR > 4 ? 4 : FACTOR)) "$@" &
    LOAD_PID=$!
    load_goes_on 200
}

# Ends the load and judges it: verdict SECONDS, the longest that a request may have waited beyond what it takes of itself.
verdict() {
    load_goes_on 200
    end_load
    cat /var/lib/private/tqserver/alpha/posts >"$RECORDS/posts" 2>/dev/null || : >"$RECORDS/posts"
    python3 /faults/verdict.py "$RECORDS/records" "$MOMENTS" "$RECORDS/posts" --worst $(($1 * FACTOR))
}

# The server can do all it could before: replace a worker, and tell how it is.
all_is_well() {
    local version
    version="$(next_version)"
    live alpha "$version"
    run systemctl is-active tqserver tqserver-proxy
    has "$(tqserver status)" 'alpha +/alpha +serving'
    eventually 60 one_generation alpha
}

end_load() {
    [[ -n "${LOAD_PID:-}" ]] || return 0
    kill -TERM "$LOAD_PID" 2>/dev/null || true
    wait "$LOAD_PID" 2>/dev/null || true
    LOAD_PID=
}

# --- harm

moment() {
    python3 /faults/moment.py "$MOMENTS" "$@"
}

# Notes all deaths of the main process of a unit, until the fault is over.
watch_deaths() {
    python3 /faults/moment.py "$MOMENTS" watch "$1" &
    HELPERS+=("$!")
}

# Kills the main process of a unit, waits for the next one and for requests after it: kill_and_wait UNIT
kill_and_wait() {
    local unit="$1" pid
    pid="$(main_pid "$unit")"
    [[ "$pid" != 0 ]] || fail "$unit has no process"
    moment kill "$pid"
    eventually 60 new_main_pid "$unit" "$pid"
    load_goes_on 60
}

# The end of what a fault did, whether it passed or not: UNDO are commands, the last first.
HELPERS=()
UNDO=()
undo() {
    UNDO=("$*" "${UNDO[@]}")
}

undo_all() {
    local command
    for command in "${UNDO[@]}"; do
        eval "$command" || true
    done
    UNDO=()
}

end_fault() {
    local status=$?
    trap - EXIT ERR
    set +e
    end_load
    undo_all
    ((${#HELPERS[@]} == 0)) || kill -TERM "${HELPERS[@]}" 2>/dev/null
    exit "$status"
}
