# A clock that is set.
# shellcheck shell=bash

# To a time that is so far from now, and requests, a reload and a kill of each plane then: at_another_time OFFSET
at_another_time() {
    run date --set "$1"
    load_goes_on 100
    live alpha "$(next_version)"
    kill_and_wait tqserver.service
    kill_and_wait tqserver-proxy.service
}

fault_clock_a_day_forward_and_back() { #: vm
    # What Debian does once a day would otherwise begin with each day that is set, and take the processor for minutes.
    run systemctl stop '*.timer'
    load
    at_another_time '+1 day'
    at_another_time '-2 days'
    at_another_time '+1 day'
    verdict 3
    all_is_well
}
