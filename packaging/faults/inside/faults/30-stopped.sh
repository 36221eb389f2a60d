# Processes that are there and do nothing.
# shellcheck shell=bash

fault_manager_stopped_and_continued() {
    load
    local manager
    manager="$(main_pid tqserver)"
    moment freeze "$manager" 5
    verdict 2
    is "$(main_pid tqserver)" "$manager" 'a pause of five seconds is no reason to replace it'
    all_is_well
}

fault_manager_left_stopped() {
    load
    local manager
    manager="$(main_pid tqserver)"
    has "$(run moment freeze "$manager" 60)" '^died'
    eventually 10 new_main_pid tqserver "$manager"
    verdict 2
    all_is_well
}

fault_proxy_stopped_and_continued() {
    load
    local proxy
    proxy="$(main_pid tqserver-proxy)"
    for _ in 1 2 3; do
        moment freeze "$proxy" 0.8
        load_goes_on 60
    done
    verdict 2
    is "$(main_pid tqserver-proxy)" "$proxy" 'a pause of less than a second is no reason to replace it'
    all_is_well
}

fault_proxy_left_stopped() {
    load
    local proxy
    proxy="$(main_pid tqserver-proxy)"
    has "$(run moment freeze "$proxy" 60)" '^died'
    eventually 10 new_main_pid tqserver-proxy "$proxy"
    verdict 3
    all_is_well
}

fault_worker_stopped_and_continued() {
    load
    moment freeze "$(worker_pids alpha | head -n 1)" 3
    verdict 4
    all_is_well
}
