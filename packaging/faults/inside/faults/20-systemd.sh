# systemd itself: executed again, its units read again.
# shellcheck shell=bash

fault_systemd_executed_again_and_again() {
    load
    local number before
    before="$(main_pid tqserver) $(main_pid tqserver-proxy) $(worker_pids)"
    for ((number = 0; number < 10; number++)); do
        run systemctl daemon-reexec
        load_goes_on 60
    done
    verdict 2
    is "$(main_pid tqserver) $(main_pid tqserver-proxy) $(worker_pids)" "$before" 'processes'
    all_is_well
}

fault_units_read_again_in_a_loop_while_workers_are_replaced() {
    load
    (while :; do systemctl daemon-reload; done) &
    HELPERS+=("$!")
    local number
    for number in 1 2 3; do live alpha "$(next_version)"; done
    kill -TERM "${HELPERS[0]}"
    HELPERS=()
    verdict 3
    all_is_well
}
