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

claim_the_proxy_serves_what_a_worker_stores_for_it_and_nothing_else_of_its_state() {
    local state path
    get '/alpha/write?kept-over-generations' >/dev/null
    YAML='files: {/media: media}' live alpha 'alpha 2'
    # What it had before is still its own, and so is what lies beside.
    is "$(get /alpha/write)" 'kept-over-generations'
    is "$(get '/alpha/store?a-picture')" stored
    is "$(get /alpha/media/sub/a.txt)" 'a-picture'
    has "$(curl -sSi localhost:8080/alpha/media/sub/a.txt)" '^x-content-type-options: nosniff'
    # By a link, by the directory above it, by a name that is none: that is for the worker.
    for path in own ../kept sub/ ''; do
        has_not "$(curl -sS --path-as-is "localhost:8080/alpha/media/$path")" 'kept-over|a-picture'
    done
    # The next generation, another process, finds it; and one that does not name it any more has its state as it was.
    YAML='files: {/media: media}' live alpha 'alpha 3'
    is "$(get /alpha/media/sub/a.txt)" 'a-picture'
    run systemctl restart tqserver-proxy
    is "$(get /alpha/media/sub/a.txt)" 'a-picture'
    state=/var/lib/private/tqserver
    is "$(stat -c '%a %U' "$state/.files/alpha/media" | cut -d' ' -f1)" 711 'mode of what it stores'
    is "$(stat -c %u "$state/.files/alpha/media")" "$(stat -c %u "$state/alpha/kept")" 'owner of what it stores'
    YAML='' live alpha 'alpha 2'
    is "$(get /alpha/write)" 'kept-over-generations'
    is "$(status_of /alpha/media/sub/a.txt)" 404
    is "$(stat -c %a "$state/alpha")" 700 'mode of its state'
}

claim_a_program_can_update_itself_where_it_is_told_to_persist() {
    local yaml='{persist: [plugins], files: {/icons: plugins/icons}}'
    YAML="$yaml" deploy alpha 'alpha 2'
    refused systemctl reload tqserver
    has "$(systemctl status --no-pager --full --lines=30 tqserver)" "'persist' names 'plugins', which is no directory"
    release() {
        YAML="$yaml" deploy alpha "$1"
        mkdir -p "$SRV/alpha/plugins/icons"
        printf '%s' "$2" >"$SRV/alpha/plugins/one"
        printf '%s' "$2" >"$SRV/alpha/plugins/icons/a.txt"
        chmod 444 "$SRV/alpha/plugins/one"
        run systemctl reload tqserver
        page_is /alpha "$1"
    }
    release 'alpha 3' shipped
    is "$(get '/alpha/update?updated')" shipped
    is "$(get /alpha/icons/a.txt)" shipped
    # A release does not take it back, whatever it ships; neither does going back to the one before.
    release 'alpha 4' 'shipped later'
    is "$(get '/alpha/update?again')" updated
    run tqserver rollback alpha
    page_is /alpha 'alpha 3'
    is "$(get /alpha/update)" again
    is "$(cat "$SRV/alpha/plugins/one")" 'shipped later'
    # Without the key it has what was deployed, read-only.
    YAML='' deploy alpha 'alpha 2'
    mkdir "$SRV/alpha/plugins"
    printf shipped >"$SRV/alpha/plugins/one"
    run systemctl reload tqserver
    page_is /alpha 'alpha 2'
    is "$(status_of '/alpha/update?x')" 500
    rm -r "$SRV/alpha/plugins"
    run systemctl reload tqserver
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
