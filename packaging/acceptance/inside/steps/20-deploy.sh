# What a deployer does all day: new workers, new versions, broken ones, removed ones, back again.
# shellcheck shell=bash

claim_a_new_directory_is_a_route_after_reload() { #: needed
    # The server's own caps, for the steps on worker.yaml; and none of the other defaults.
    configure 'max={gomemlimit: 256MiB, tasks_max: 512, gomaxprocs: 2}'
    usual_workers 1
    has "$(tqserver status)" 'alpha .*serving'
    has "$(systemctl status --no-pager "tqserver-alpha@$(generation alpha).service")" '/tqserver\.slice/tqserver-alpha\.slice/'
    has "$(get /alpha/user)" ' tqw-alpha$'
}

claim_a_new_version_replaces_the_old_one() {
    local before user state
    before="$(generation alpha)"
    user="$(get /alpha/user)"
    get '/alpha/write?kept-over-generations' >/dev/null
    live alpha 'alpha 2'
    (($(generation alpha) > before)) || fail "still generation $before"
    is "$(get /alpha/user)" "$user" 'user of the new generation'
    state="$(get /alpha/write)"
    is "$state" 'kept-over-generations'
    eventually 60 one_generation alpha
}

claim_a_reload_touches_nothing_that_did_not_change() {
    local before
    get /alpha >/dev/null
    get /beta >/dev/null
    before="$(worker_pids)"
    run systemctl reload tqserver
    is "$(worker_pids)" "$before" 'processes of workers'
}

claim_reload_of_a_broken_worker_keeps_the_old_one() {
    local before
    before="$(generation alpha)"
    deploy alpha 'alpha 3' crash
    refused systemctl reload tqserver
    page_is /alpha 'alpha 2'
    page_is /beta 'beta 1'
    is "$(generation alpha)" "$before" 'generation'
    has "$(systemctl status --no-pager --full --lines=30 tqserver)" 'alpha: failed: .*exit code 7'
    has "$(systemctl status --no-pager --full --lines=30 tqserver)" 'broke this worker on purpose'
    is "$(systemctl is-active tqserver)" active
    refused tqserver reload
    is "$STATUS" 1 'exit status of tqserver reload'
    has "$OUTPUT" 'alpha: failed: .*exit code 7'
    has "$OUTPUT" 'broke this worker on purpose'
    page_is /alpha 'alpha 2'
    has "$(tqserver status)" 'alpha: last failure'
}

claim_a_sick_or_silent_worker_is_told_apart() {
    YAML='health: {start_timeout_seconds: 3}' deploy alpha 'alpha 3' hang
    refused tqserver reload
    has "$OUTPUT" 'alpha: failed: .*(time|answer|ready)'
    page_is /alpha 'alpha 2'
    YAML='health: {start_timeout_seconds: 10}' deploy alpha 'alpha 3' sick
    refused tqserver reload
    has "$OUTPUT" 'alpha: failed: .*500'
    page_is /alpha 'alpha 2'
    live alpha 'alpha 4'
}

claim_reload_says_what_it_would_do() {
    deploy alpha 'alpha 5'
    run tqserver reload --dry-run
    page_is /alpha 'alpha 4'
    run tqserver reload beta
    page_is /alpha 'alpha 4'
    run tqserver reload alpha
    page_is /alpha 'alpha 5'
}

claim_a_removed_worker_has_no_route() {
    live gone 'gone 1'
    undeploy gone
    run systemctl reload tqserver
    [[ "$(status_of /gone)" != 200 ]] || fail 'still answers'
    eventually 60 no_worker_process gone
    eventually 60 no_generation gone
}

claim_rollback_goes_back_and_history_tells() {
    local good
    live alpha 'alpha 6'
    good="$(generation alpha)"
    live alpha 'alpha 7'
    run tqserver rollback alpha
    page_is /alpha 'alpha 6'
    # The files that were deployed last stay as they are, and wait for a reload that finds a change.
    is "$(<"$SRV/alpha/version")" 'alpha 7'
    local history
    history="$(tqserver history alpha)"
    printf '%s\n' "$history"
    has "$history" "$good"
    has "$history" 'rollback|rolled back'
    has "$history" 'exit code 7|failed'
    # What it was rolled back from can be rolled back to, and is marked; what failed is not.
    has "$history" "alpha +$((good + 1)) \\* +serves"
    has "$history" "\\* alpha can be rolled back to $((good + 1))"
    has_not "$history" '\* +failed'
    has "$(tqserver history -n 500)" ' beta +[0-9]'
    refused tqserver rollback alpha 999999
    refused tqserver rollback nobody
    page_is /alpha 'alpha 6'
    live alpha 'alpha 8'
}

claim_logs_shows_a_worker_and_only_that() {
    local mark="mark-$RANDOM$RANDOM"
    get "/alpha/log?$mark-alpha" >/dev/null
    get "/beta/log?$mark-beta" >/dev/null
    eventually 30 prints "$mark-alpha" tqserver logs alpha -n 200
    eventually 30 prints "$mark-beta" tqserver logs -n 500
    has_not "$(tqserver logs alpha -n 500)" "$mark-beta"
    has "$(journalctl --no-pager -u 'tqserver-alpha@*' -n 500)" "$mark-alpha"
    # The manager's decisions stand beside the worker's own lines.
    has "$(journalctl --no-pager -u 'tqserver-alpha@*' -n 500)" 'tqserver\[.*(serves|took over)'
    has "$(journalctl -x --no-pager -u tqserver -n 200)" 'Defined-By: TQServer'
}

claim_a_worker_can_not_forge_a_line() {
    local mark="forged-$RANDOM$RANDOM"
    get "/alpha/log?$mark%0aTQ_WORKER=beta%0a_SYSTEMD_UNIT=tqserver.service%0aMESSAGE=$mark" >/dev/null
    eventually 30 prints "$mark" journalctl --no-pager -u 'tqserver-alpha@*' -n 500
    has_not "$(tqserver logs beta -n 1000)" "$mark"
    has_not "$(journalctl --no-pager -u tqserver.service _SYSTEMD_UNIT=tqserver.service -n 1000)" "$mark"
}
