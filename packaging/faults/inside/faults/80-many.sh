# A thousand workers, and a manager that is killed while it starts, replaces, removes or stops them. After each: what runs is what
# `tqserver status` says, and it is what was asked for.
# shellcheck shell=bash

readonly MANY="${TQ_FAULT_WORKERS:-1000}"

# Writes the workers whose numbers are between two others: many FIRST LAST VERSION
many() {
    local number name
    for ((number = $1; number <= $2; number++)); do
        name="$(printf 'w%04d' "$number")"
        mkdir -p "$SRV/$name/bin" "$SRV/$name/config"
        install -m 755 /faults/small.pl "$SRV/$name/bin/$name"
        printf '%s\n' "$3" >"$SRV/$name/version"
        # Idle workers of a large machine are asked less often than every 10 seconds.
        printf '%s\n' 'type: exec' 'health: {interval_seconds: 60}' >"$SRV/$name/config/worker.yaml"
    done
}

many_names() {
    seq -f 'w%04.0f' "$1" "$2"
}

# All processes in the slice, as `UNIT PID`: the kernel's word.
what_runs() {
    local unit pid group
    group="$(systemctl show --property=ControlGroup --value tqserver.slice)"
    [[ -n "$group" ]] || return 0
    # With one hierarchy, or with systemd's own.
    for root in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
        [[ -d "$root$group" ]] && break
    done
    find "$root$group" -name cgroup.procs -path '*.service/*' | while read -r file; do
        unit="$(basename "$(dirname "$file")")"
        [[ "$unit" == tqserver-w[0-9]* ]] || continue
        while read -r pid; do printf '%s %s\n' "$unit" "$pid"; done <"$file"
    done | sort
}

# The same as the server tells it.
what_is_said() {
    tqserver status --json | python3 -c '
import json, sys
for worker in json.load(sys.stdin):
    for generation in worker["generations"]:
        for instance in generation["instances"]:
            if worker["name"].startswith("w") and instance["pid"]:
                print(instance["unit"], instance["pid"])
' | sort
}

# What runs is what is said, and these workers serve this version: as_told FIRST LAST VERSION
as_told() {
    local wrong
    eventually 120 is_as_told
    what_runs >"$RECORDS/runs"
    is "$(wc -l <"$RECORDS/runs")" $(($2 - $1 + 1)) 'processes of small workers'
    is "$(sed 's/^tqserver-\(w[0-9]*\)@.*/\1/' "$RECORDS/runs" | sort -u)" "$(many_names "$1" "$2")" 'workers'
    many_names "$1" "$2" | sed 's|.*|url = "http://127.0.0.1:8080/&/"|' |
        curl -sS --fail-with-body --parallel --parallel-max 8 --max-time 60 --config - >"$RECORDS/answers" 2>"$RECORDS/errors" || cat "$RECORDS/errors"
    wrong="$(grep -vx "$3" "$RECORDS/answers" || true)"
    is "$wrong" '' 'responses of another version'
    is "$(wc -l <"$RECORDS/answers")" $(($2 - $1 + 1)) 'responses'
    # One socket and one service each, and no more of them.
    is "$(systemctl list-units --plain --no-legend --state=active 'tqserver-w*@*.socket' | wc -l)" $(($2 - $1 + 1)) sockets
}

is_as_told() {
    local runs
    runs="$(what_runs)"
    [[ "$runs" == "$(what_is_said)" && "$runs" == "$(what_runs)" ]]
}

# Begins something, kills the manager when it is well under way, and waits for its end: killed_once CONDITION PATTERN NUMBER COMMAND...
killed_once() {
    local pid condition=("$1" "$2" "$3") begun
    shift 3
    pid="$(main_pid tqserver)"
    "$@" >"$RECORDS/begun" 2>&1 &
    begun=$!
    HELPERS+=("$begun")
    eventually 900 "${condition[@]}"
    # Of what is removed the reload does not wait for the end.
    kill -0 "$begun" 2>/dev/null || echo "over, and not all has been stopped: $*"
    moment kill "$pid" || echo "the manager had ended: $*"
    wait "$begun" || echo "ended with status $?: $*"
    HELPERS=()
}

# How many small services of these generations have a process: running PATTERN
running() {
    what_runs | grep -cE "$1" || true
}

more_run() {
    (($(running "$1") > $2))
}

fewer_run() {
    (($(running "$1") < $2))
}

# Reloads, and tells how long that took and what it cost.
reload_all() {
    local cpu begun
    eventually 60 systemctl is-active --quiet tqserver
    begun=$EPOCHREALTIME
    cpu="$(systemctl show --property=CPUUsageNSec --value tqserver)"
    run timeout $((900 * FACTOR)) systemctl reload tqserver
    awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN { printf "reload: %.1f s", b - a }'
    awk -v a="$cpu" -v b="$(systemctl show --property=CPUUsageNSec --value tqserver)" \
        'BEGIN { printf ", %.1f s of processor by the manager\n", (b - a) / 1e9 }'
    sed 's/ .*//; s/^/load average /' /proc/loadavg
}

is_inactive() {
    [[ "$(systemctl is-active "$1")" =~ ^(inactive|failed)$ ]]
}

fault_a_thousand_workers_and_a_manager_that_is_killed() { #: long last
    # A thousand starts take the better part of the hour that this fault has.
    load --seconds 3600
    many 1 "$MANY" first
    echo "--- accepted by one reload"
    killed_once more_run . $((MANY / 4)) systemctl reload tqserver
    reload_all
    as_told 1 "$MANY" first
    local begun=$EPOCHREALTIME
    has "$(tqserver status w0007)" '^w0007 on /w0007: serving'
    awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN { printf "status of one worker: %d ms\n", (b - a) * 1000 }'
    begun=$EPOCHREALTIME
    tqserver status >/dev/null
    awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN { printf "status of all: %d ms\n", (b - a) * 1000 }'
    systemctl show --property=MemoryCurrent,CPUUsageNSec tqserver tqserver-proxy

    echo "--- all replaced by one reload"
    many 1 "$MANY" second
    killed_once more_run @2 $((MANY / 4)) systemctl reload tqserver
    reload_all
    as_told 1 "$MANY" second

    echo "--- half of them removed"
    # shellcheck disable=SC2046 # a word each
    undeploy $(many_names $((MANY / 2 + 1)) "$MANY")
    killed_once fewer_run . $((MANY * 9 / 10)) systemctl reload tqserver
    reload_all
    as_told 1 $((MANY / 2)) second
    verdict 10

    echo "--- all stopped"
    killed_once fewer_run . $((MANY / 2)) systemctl stop tqserver
    eventually 120 is_inactive tqserver
    eventually 120 prints '^$' what_runs
    is "$(what_runs)" '' 'what runs after the stop'
    echo "stopped: $(systemctl show --property=Result,ActiveState tqserver | tr '\n' ' ')"

    echo "--- started again"
    run systemctl start tqserver
    eventually 60 port_is_open 8080
    eventually 120 prints '^second$' get /w0001/
    all_is_well
}
