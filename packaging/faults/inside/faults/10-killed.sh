# Processes that are killed: the planes, the workers, and those that all of them need.
# shellcheck shell=bash

fault_manager_killed_again_and_again() {
    load
    local number
    for ((number = 0; number < TIMES; number++)); do kill_and_wait tqserver.service; done
    verdict 2
    all_is_well
}

fault_proxy_killed_again_and_again() {
    load
    local number
    for ((number = 0; number < TIMES; number++)); do kill_and_wait tqserver-proxy.service; done
    verdict 3
    all_is_well
}

fault_worker_killed_again_and_again() {
    load
    local number since
    for ((number = 0; number < TIMES; number++)); do
        since=$SECONDS
        kill_and_wait "tqserver-alpha@$(generation alpha).service"
        # More often than five times in ten seconds is a worker that is broken, and systemd starts it no longer.
        eventually 10 clock_is_past $((since + 3))
    done
    verdict 2
    all_is_well
}

clock_is_past() {
    ((SECONDS >= $1))
}

fault_manager_killed_within_each_reload() {
    load
    local number manager
    for ((number = 0; number < TIMES; number++)); do
        manager="$(main_pid tqserver)"
        YAML='' deploy alpha "$(next_version)"
        systemctl reload --no-block tqserver
        # At another place of the reload each time: it takes some hundred milliseconds.
        sleep "0.$((number * 4 / 10))$((number * 4 % 10))"
        moment kill "$manager"
        eventually 60 new_main_pid tqserver "$manager"
        load_goes_on 60
    done
    verdict 2
    all_is_well
}

fault_proxy_killed_within_each_reload() {
    load
    local number proxy
    for ((number = 0; number < TIMES; number++)); do
        proxy="$(main_pid tqserver-proxy)"
        YAML='' deploy alpha "$(next_version)"
        systemctl reload --no-block tqserver
        sleep "0.$((number * 4 / 10))$((number * 4 % 10))"
        moment kill "$proxy"
        eventually 60 new_main_pid tqserver-proxy "$proxy"
        load_goes_on 60
    done
    verdict 3
    all_is_well
}

fault_manager_and_proxy_killed_together() {
    load
    local number manager proxy
    for ((number = 0; number < 5; number++)); do
        manager="$(main_pid tqserver)"
        proxy="$(main_pid tqserver-proxy)"
        moment kill "$manager" &
        moment kill "$proxy"
        eventually 60 new_main_pid tqserver "$manager"
        eventually 60 new_main_pid tqserver-proxy "$proxy"
        load_goes_on 60
    done
    verdict 3
    all_is_well
}

fault_bus_killed_and_restarted() {
    load
    local bus
    bus="$(main_pid dbus)"
    run kill -KILL "$bus"
    eventually 60 new_main_pid dbus "$bus"
    load_goes_on 200
    run systemctl restart dbus
    load_goes_on 200
    verdict 2
    eventually 60 systemctl is-active tqserver
    all_is_well
}

fault_journald_killed_again_and_again() {
    load
    local number journald
    for ((number = 0; number < 5; number++)); do
        journald="$(main_pid systemd-journald)"
        run kill -KILL "$journald"
        eventually 60 new_main_pid systemd-journald "$journald"
        load_goes_on 60
    done
    verdict 2
    all_is_well
}
