# A machine that has too much to do. Nothing is wrong with a server that has to wait for the processor.
# shellcheck shell=bash

# Seconds that the hogs stay.
readonly BUSY="${TQ_FAULT_BUSY:-600}"

fault_sixty_four_hogs_for_ten_minutes() { #: long
    local manager proxy number
    manager="$(main_pid tqserver)"
    proxy="$(main_pid tqserver-proxy)"
    load
    for ((number = 0; number < 64; number++)); do
        # Each in a session of its own: where the kernel shares time by session they would be one.
        setsid timeout $((BUSY + 60)) sh -c 'while :; do :; done' &
        HELPERS+=("$!")
    done
    sleep "$BUSY"
    echo "load average: $(</proc/loadavg)"
    # Each with its child.
    kill -KILL -- "${HELPERS[@]/#/-}"
    HELPERS=()
    is "$(main_pid tqserver)" "$manager" 'the manager was replaced'
    is "$(main_pid tqserver-proxy)" "$proxy" 'the proxy was replaced'
    is "$(systemctl show --property=NRestarts --value tqserver tqserver-proxy | tr -d '\n')" 00 'restarts'
    has_not "$(journalctl --no-pager --quiet -b -u tqserver -u tqserver-proxy -u init.scope)" 'watchdog timeout|hangs'
    # With 32 of them to a core a request takes what it takes; that it is answered is what counts.
    verdict 60
    all_is_well
}
