# Whatever is killed, stopped, rebooted or full: what was live stays live, and nothing else comes to life.
# shellcheck shell=bash

claim_restart_leaves_the_workers_alone() {
    usual_workers 20
    local before manager
    before="$(worker_pids)"
    manager="$(main_pid tqserver)"
    run systemctl restart tqserver
    new_main_pid tqserver "$manager" || fail 'the same manager'
    is "$(worker_pids)" "$before" 'processes of workers'
    page_is /alpha 'alpha 20'
}

claim_a_killed_manager_comes_back_unnoticed() {
    local before manager
    before="$(worker_pids)"
    manager="$(main_pid tqserver)"
    kill -KILL "$manager"
    page_is /alpha 'alpha 20'
    eventually 60 new_main_pid tqserver "$manager"
    is "$(worker_pids)" "$before" 'processes of workers'
    run tqserver status
    run systemctl reload tqserver
    is "$(worker_pids)" "$before" 'processes of workers after a reload'
}

claim_files_that_were_not_accepted_are_not_run_by_a_restart() {
    # Deployed, and not reloaded.
    deploy alpha 'alpha 21'
    local manager
    manager="$(main_pid tqserver)"
    kill -KILL "$manager"
    eventually 60 new_main_pid tqserver "$manager"
    page_is /alpha 'alpha 20'
    run systemctl restart tqserver
    page_is /alpha 'alpha 20'
    # A crash of the worker starts what was accepted.
    get '/alpha/exit?3' || true
    eventually 30 prints '^alpha 20$' get /alpha
}

claim_a_proxy_that_hangs_is_replaced_within_seconds() {
    local proxy began
    proxy="$(main_pid tqserver-proxy)"
    began="$(date +%s)"
    kill -STOP "$proxy"
    page_is /alpha 'alpha 20'
    new_main_pid tqserver-proxy "$proxy" || fail 'the same proxy'
    (($(date +%s) - began <= 4)) || fail "it took $(($(date +%s) - began)) s"
}

claim_a_proxy_that_ignores_sigterm_and_extends_its_stop_is_ended() {
    local directory=/run/systemd/system/tqserver-proxy.service.d began
    mkdir -p "$directory"
    cat >"$directory/intruder.conf" <<'UNIT'
[Service]
NotifyAccess=all
ExecStart=
ExecStart=/bin/sh -c "trap '' TERM; setsid -f sleep 86400; systemd-notify --ready; while :; do systemd-notify WATCHDOG=1 EXTEND_TIMEOUT_USEC=600000000; sleep 0.2; done"
UNIT
    run systemctl daemon-reload
    run systemctl restart tqserver-proxy
    eventually 20 pgrep -u tqserver -x sleep
    began="$(date +%s)"
    run systemctl stop tqserver
    # Twice the grace of 30 s, and 5 s.
    (($(date +%s) - began <= 75)) || fail "it took $(($(date +%s) - began)) s"
    is "$(systemctl show --value --property=MainPID tqserver-proxy)" 0 'process of the proxy'
    # Nor does what it has begun, in a session of its own.
    is "$(pgrep -u tqserver | wc -l)" 0 'processes of the user tqserver'
    rm -r "$directory"
    run systemctl daemon-reload
    run systemctl reset-failed tqserver-proxy
    run systemctl start tqserver
    eventually 30 port_is_open 8080
    page_is /alpha 'alpha 20'
}

claim_a_port_that_is_taken_is_named_and_served_once_it_is_free() {
    local other
    run systemctl stop tqserver
    python3 -m http.server 8080 >/dev/null 2>&1 &
    other="$!"
    eventually 30 port_is_open 8080
    refused tqserver check
    has "$OUTPUT" "PID $other"
    run systemctl start tqserver
    eventually 30 prints '^NOT LISTENING on 0.0.0.0:8080' systemctl show --value --property=StatusText tqserver
    eventually 30 prints '^NOT LISTENING on 0.0.0.0:8080' systemctl show --value --property=StatusText tqserver-proxy
    prints "PID $other" tqserver status || fail 'status does not name it'
    refused systemctl reload tqserver
    kill "$other"
    wait "$other" || true
    # That reload has failed for the port, and has taken over the workers.
    eventually 30 prints '^alpha 21$' get /alpha
    deploy alpha 'alpha 20'
    run systemctl reload tqserver
    deploy alpha 'alpha 21'
}

claim_stop_ends_the_workers_and_start_brings_them_back() {
    run systemctl stop tqserver
    no_worker_process || fail "still there: $(worker_pids)"
    is "$(systemctl list-units --plain --no-legend --state=active 'tqserver-*@*' | wc -l)" 0 'units of workers'
    is "$(systemctl is-active tqserver-proxy || true)" inactive
    port_is_closed 8080 || fail 'the port is open'
    run systemctl start tqserver
    eventually 30 port_is_open 8080
    no_worker_process alpha || fail 'a start does not start workers'
    page_is /alpha 'alpha 20'
    page_is /beta 'beta 1'
    has "$(get /)" TQServer
    run systemctl reload tqserver
    page_is /alpha 'alpha 21'
}

claim_before_a_reboot() { #: needed
    YAML='autostart: true' deploy early 'early 1'
    usual_workers 30
    page_is /early 'early 1'
    deploy alpha 'alpha 31'
    deploy alpha2 'alpha2 1'
}

claim_a_reboot_brings_back_what_was_accepted() { #: reboot
    is "$(systemctl is-active tqserver)" active
    eventually 60 port_is_open 8080
    no_worker_process alpha || fail 'alpha runs before its first request'
    no_worker_process beta || fail 'beta runs before its first request'
    eventually 60 prints '^[0-9]+$' worker_pids early
    page_is /alpha 'alpha 30'
    page_is /beta 'beta 1'
    page_is /early 'early 1'
    [[ "$(get /alpha2 || true)" != 'alpha2 1' ]] || fail 'a worker that was never accepted'
    is "$(get /alpha/write)" 'kept-over-generations'
    has "$(tqserver history alpha -n 500)" 'rollback|rolled back'
    run systemctl reload tqserver
    page_is /alpha 'alpha 31'
    page_is /alpha2 'alpha2 1'
    undeploy early alpha2
    run systemctl reload tqserver
}

claim_a_full_disk_fails_one_reload_and_nothing_else() {
    local state=/var/lib/tqserver copy=/var/lib/acceptance/state
    usual_workers 40
    run systemctl stop tqserver
    rm -rf "$copy"
    cp -a "$state" "$copy"
    mount -t tmpfs -o size=$(($(du -sm "$copy" | cut -f1) + 16))m,mode=0755 tmpfs "$state"
    cp -a "$copy/." "$state/"
    run systemctl start tqserver
    page_is /alpha 'alpha 40'
    page_is /beta 'beta 1'
    deploy alpha 'alpha 41'
    head -c 60000000 /dev/zero >"$SRV/alpha/weight"
    YAML='' deploy beta 'beta 2'
    refused tqserver reload
    has "$OUTPUT" 'alpha: failed: .*(no space|full|space left)'
    has_not "$OUTPUT" 'beta: failed'
    page_is /alpha 'alpha 40'
    page_is /beta 'beta 2'
    # Half a snapshot is no snapshot, and does not fill the disk for the next.
    deploy alpha 'alpha 42'
    run systemctl reload tqserver
    page_is /alpha 'alpha 42'
    run systemctl stop tqserver
    umount "$state"
    run systemctl start tqserver
    # The disk of before: what was accepted there.
    page_is /alpha 'alpha 40'
    rm -rf "$copy"
    run systemctl reload tqserver
    page_is /alpha 'alpha 42'
    usual_workers 43
}

claim_old_snapshots_are_pruned() {
    local version
    for version in 1 2 3 4 5; do live alpha "alpha 44-$version"; done
    eventually 60 one_generation alpha
    # Nobody waits for old ones to be cleared away, so neither does the reload.
    eventually 60 few_snapshots alpha
}

few_snapshots() {
    local kept
    kept="$(find "/var/lib/tqserver/.snapshots/$1" -mindepth 1 -maxdepth 1 -type d | wc -l)"
    ((kept >= 2 && kept <= 3))
}
