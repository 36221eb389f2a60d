# Under 16 keep-alive and 16 connection-per-request clients. Section 2 of what has to be shown.
# shellcheck shell=bash

claim_twenty_reloads_lose_no_request() {
    usual_workers 50
    load_start /alpha '^alpha '
    local number
    for number in {1..20}; do
        YAML='' deploy alpha "alpha 50-$number"
        systemctl reload tqserver
    done
    no_request_failed
    page_is /alpha 'alpha 50-20'
    has "$(<"$LOAD_FILES/summary")" 'alpha 50-19'
}

claim_a_restart_of_the_server_loses_no_request() {
    load_start /alpha '^alpha '
    local number
    for number in 1 2 3; do
        run systemctl restart tqserver
        load_goes_on 300
    done
    no_request_failed
}

claim_a_killed_manager_loses_no_request() {
    load_start /alpha '^alpha '
    local number manager
    for number in 1 2 3; do
        manager="$(main_pid tqserver)"
        run kill -KILL "$manager"
        eventually 60 new_main_pid tqserver "$manager"
        load_goes_on 300
    done
    # And one that dies in the middle of a reload: the next ends in the same state.
    YAML='' deploy alpha 'alpha 51'
    manager="$(main_pid tqserver)"
    systemctl reload tqserver --no-block
    kill -KILL "$manager"
    eventually 60 new_main_pid tqserver "$manager"
    run systemctl reload tqserver
    no_request_failed
    page_is /alpha 'alpha 51'
}

claim_a_restart_of_the_proxy_loses_no_request() {
    load_start /alpha '^alpha '
    local number proxy
    for number in 1 2 3; do
        proxy="$(main_pid tqserver-proxy)"
        run systemctl restart tqserver-proxy
        new_main_pid tqserver-proxy "$proxy" || fail 'the same proxy'
        load_goes_on 300
    done
    no_request_failed
}

claim_a_killed_proxy_refuses_no_connection() {
    load_start /alpha '^alpha '
    local proxy
    proxy="$(main_pid tqserver-proxy)"
    run kill -KILL "$proxy"
    eventually 60 new_main_pid tqserver-proxy "$proxy"
    load_stop
    is "$(load_saw failures.refused)" 0 'refused connections'
    is "$(load_saw failures.status)" 0 'errors as answers'
    is "$(load_saw failures.body)" 0 'wrong answers'
    is "$(load_saw failures.timeout)" 0 'requests without an end'
    # One request of each client can be in it.
    (($(load_saw failed) <= 32)) || fail "$(load_saw failed) requests were lost, and 32 could be in flight"
}

claim_an_upgrade_of_the_package_loses_no_request() {
    local manager proxy before
    manager="$(main_pid tqserver)"
    proxy="$(main_pid tqserver-proxy)"
    before="$(worker_pids alpha)"
    load_start /alpha '^alpha '
    run apt-get install /acceptance/debs/second.deb
    no_request_failed
    is "$(dpkg-query --show --showformat='${Version}' tqserver)" "$(dpkg-deb --field /acceptance/debs/second.deb Version)"
    new_main_pid tqserver "$manager" || fail 'the manager was not restarted'
    new_main_pid tqserver-proxy "$proxy" || fail 'the proxy was not restarted'
    is "$(worker_pids alpha)" "$before" 'processes of alpha'
    run systemctl reload tqserver
    page_is /alpha 'alpha 51'
}
