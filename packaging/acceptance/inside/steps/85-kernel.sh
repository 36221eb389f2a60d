# What needs a kernel of its own: limits as the unified hierarchy enforces them, and a boot to measure. Section 4.
# shellcheck shell=bash

claim_too_much_memory_is_told_as_oom_kill() { #: vm
    YAML='gomemlimit: 64MiB' live hungry 'hungry 1'
    get '/hungry/eat?300' || true
    eventually 60 prints oom-kill tqserver status
    eventually 60 prints oom-kill tqserver history hungry
    eventually 60 prints '^hungry 1$' get /hungry
    page_is /beta 'beta 1'
    # A deploy that takes too much before it answers.
    YAML='gomemlimit: 32MiB' deploy hungry 'hungry 2'
    sed -i 's/^def main():/def main():\n    taken = bytearray(os.urandom(4096) * 25600)/' "$SRV/hungry/main.py"
    refused tqserver reload
    has "$OUTPUT" 'hungry: failed: .*oom-kill'
    page_is /hungry 'hungry 1'
    undeploy hungry
    run systemctl reload tqserver
}

claim_gomaxprocs_holds_a_busy_worker_at_one_core() { #: vm
    YAML='gomaxprocs: 1' live busy 'busy 1'
    local used
    used="$(get '/busy/burn?10')"
    at_most "$used" 11.5 'processor seconds of two busy processes in 10 s'
    YAML='gomaxprocs: 2' live busy 'busy 2'
    used="$(get '/busy/burn?10')"
    echo "with two cores: $used"
    undeploy busy
    run systemctl reload tqserver
}

claim_network_loopback_holds() { #: vm
    ip address replace 10.9.8.7/32 dev lo
    YAML='network: loopback' deploy near 'near 1'
    YAML='' deploy far 'far 1'
    sed -i '/^def do_exit/i\
def do_connect(address):\
    import socket\
    host, _, port = address.partition(":")\
    with socket.create_connection((host, int(port)), 5):\
        return "connected"\
\
' "$SRV/near/main.py" "$SRV/far/main.py"
    run systemctl reload tqserver
    is "$(get '/far/connect?10.9.8.7:8080')" connected
    is "$(get '/near/connect?127.0.0.1:8080')" connected
    has "$(get '/near/connect?10.9.8.7:8080' 2>&1 || true)" 'Error'
    ip address del 10.9.8.7/32 dev lo
    undeploy near far
    run systemctl reload tqserver
}

# Milliseconds from the start of user space to the server being ready.
ready_after() {
    local start ready
    start="$(systemctl show --property=UserspaceTimestampMonotonic --value)"
    ready="$(systemctl show --property=ActiveEnterTimestampMonotonic --value tqserver-proxy.service)"
    [[ "$(systemctl is-active tqserver)" == active ]] || fail 'tqserver is not active after the boot'
    local manager
    manager="$(systemctl show --property=ActiveEnterTimestampMonotonic --value tqserver.service)"
    ((ready > manager)) || ready="$manager"
    echo $(((ready - start) / 1000))
}

claim_a_boot_with_few_workers_is_measured() { #: vm reboot
    eventually 60 port_is_open 8080
    page_is /beta 'beta 1'
    ready_after | tee "$NOTES/few"
}

claim_three_hundred_workers_are_registered() { #: vm
    local number
    for number in {1..300}; do
        mkdir -p "$SRV/many$number/bin" "$SRV/many$number/config"
        printf '#!/bin/sh\nexec /usr/bin/python3 -S -E /acceptance/small.py\n' >"$SRV/many$number/bin/many$number"
        chmod +x "$SRV/many$number/bin/many$number"
        printf 'type: exec\nhealth: {start_timeout_seconds: 300}\n' >"$SRV/many$number/config/worker.yaml"
    done
    run tqserver reload --quiet
    page_is /many300 small
}

sockets_are() {
    [[ "$(systemctl list-units --plain --no-legend --state=active 'tqserver-many*@*.socket' | wc -l)" == "$1" ]]
}

claim_three_hundred_workers_cost_no_process_and_no_boot() { #: vm reboot
    eventually 120 port_is_open 8080
    is "$(worker_pids 'many*' | wc -l)" 0 'processes of workers nobody asked'
    eventually 60 sockets_are 300
    local few many
    few="$(<"$NOTES/few")"
    many="$(ready_after)"
    at_most $((many - few)) 10000 'milliseconds that 300 workers add to a boot'
    page_is /many7 small
    is "$(worker_pids 'many*' | wc -l)" 1 'processes of workers, one asked'
    rm -rf "$SRV"/many*
    run systemctl reload tqserver
}
