# Credentials, access log, ports: what an administrator changes by reload.
# shellcheck shell=bash

readonly MAX='max={gomemlimit: 256MiB, tasks_max: 512, gomaxprocs: 2}'

claim_credentials_reach_their_worker_alone() {
    install -d -m 0700 /etc/tqserver/credentials/alpha
    (umask 077 && printf 'plain-secret' >/etc/tqserver/credentials/alpha/token)
    printf 'sealed-secret' | systemd-creds encrypt --with-key=host --name=sealed - /etc/tqserver/credentials/alpha/sealed.cred
    YAML=$'credentials: [token, sealed]\nenv_from_credentials: {SEALED: sealed}' deploy alpha 'alpha 11'
    run systemctl reload tqserver
    is "$(get '/alpha/secret?token')" plain-secret
    is "$(get '/alpha/secret?sealed')" sealed-secret
    is "$(get '/alpha/env?SEALED')" sealed-secret
    has_not "$(systemctl show "tqserver-alpha@$(generation alpha).service")" '(plain|sealed)-secret'
    YAML='credentials: [token]' deploy beta 'beta bad'
    refused tqserver reload
    has "$OUTPUT" 'beta: failed|beta.*token'
    page_is /beta 'beta 1'
    rm -r /etc/tqserver/credentials/alpha
    usual_workers 11
}

# Lines of the proxy that hold this word.
access_lines() {
    journalctl --no-pager -o json _SYSTEMD_UNIT=tqserver-proxy.service | grep -c -- "$1" || true
}

claim_the_access_log_is_switched_for_one_worker() {
    get /alpha/before-the-switch >/dev/null || true
    configure "$MAX" 'paths={"/alpha": {access_log: true}}'
    run systemctl reload tqserver
    get /beta/not-in-the-log >/dev/null || true
    get /alpha/in-the-log >/dev/null || true
    eventually 30 prints '/in-the-log' journalctl --no-pager -o json _SYSTEMD_UNIT=tqserver-proxy.service
    is "$(access_lines /not-in-the-log)" 0
    is "$(access_lines /before-the-switch)" 0
    has "$(journalctl --no-pager -o json _SYSTEMD_UNIT=tqserver-proxy.service | grep '/in-the-log')" '"TQ_WORKER":"alpha"'
    configure "$MAX"
    run systemctl reload tqserver
    get /alpha/after-the-switch >/dev/null || true
    get /alpha >/dev/null
    run journalctl --sync
    is "$(access_lines /after-the-switch)" 0
}

claim_a_changed_port_is_taken_over_by_reload() {
    local proxy
    proxy="$(main_pid tqserver-proxy)"
    configure "$MAX" port=8081
    run systemctl reload tqserver
    PORT=8081 page_is /alpha 'alpha 11'
    eventually 30 port_is_closed 8080
    configure "$MAX" port=80
    run systemctl reload tqserver
    PORT=80 page_is /alpha 'alpha 11'
    eventually 30 port_is_closed 8081
    is "$(main_pid tqserver-proxy)" "$proxy" 'process of the proxy'
    # A port that is taken: the reload fails, the old one stays.
    python3 -c 'import socket, time
s = socket.create_server(("0.0.0.0", 8099)); time.sleep(60)' &
    local other=$!
    eventually 20 port_is_open 8099
    configure "$MAX" port=8099
    refused tqserver reload
    has "$OUTPUT" '8099'
    kill "$other"
    PORT=80 page_is /alpha 'alpha 11'
    configure "$MAX"
    run systemctl reload tqserver
    page_is /alpha 'alpha 11'
}

claim_a_command_runs_as_its_worker() {
    is "$(tqserver exec alpha -- sh -c 'id -un; echo kept >"$STATE_DIRECTORY/by-exec"; pwd; ls /etc/tqserver 2>&1 | wc -l')" \
        "$(printf 'tqw-alpha\n%s\n1' "/var/lib/tqserver/.snapshots/alpha/$(generation alpha)")"
    is "$(cat /var/lib/private/tqserver/alpha/by-exec)" kept
    is "$(stat -c %u /var/lib/private/tqserver/alpha/by-exec)" "$(stat -c %u /var/lib/private/tqserver/alpha)"
    rm /var/lib/private/tqserver/alpha/by-exec
    STATUS=0
    tqserver exec alpha -- sh -c 'exit 7' || STATUS=$?
    is "$STATUS" 7 'exit status of the command'
    has "$(journalctl --no-pager -u tqserver.service)" "user 0 runs in worker 'alpha'"
    is "$(echo word | tqserver exec alpha -- cat)" word
}

claim_only_root_and_polkit_may_reload() {
    getent passwd olga >/dev/null || useradd --create-home --groups tqserver-admin olga
    getent passwd victor >/dev/null || useradd --create-home victor
    has "$(runuser -u olga -- tqserver status)" 'LISTENER'
    run runuser -u olga -- tqserver status alpha
    refused runuser -u olga -- tqserver reload
    is "$STATUS" 77 "exit status of the olga's reload"
    has "$OUTPUT" 'permission denied: only root and administrators may do that: polkit'
    refused runuser -u olga -- tqserver rollback alpha
    is "$STATUS" 77 "exit status of the olga's rollback"
    refused runuser -u olga -- tqserver pause alpha
    is "$STATUS" 77 "exit status of the olga's pause"
    refused runuser -u olga -- tqserver maintenance alpha
    is "$STATUS" 77 "exit status of the olga's maintenance"
    refused runuser -u olga -- tqserver exec alpha -- true
    is "$STATUS" 77 "exit status of the olga's exec"
    refused runuser -u victor -- tqserver status
    is "$STATUS" 77 "exit status of the victor's status"
    has "$OUTPUT" 'sudo adduser .USER tqserver-admin'
    has_not "$OUTPUT" AccessDenied
    refused runuser -u victor -- tqserver reload
    is "$STATUS" 77 "exit status of the victor's reload"
    page_is /alpha 'alpha 11'
    # What an administrator allows, polkit grants.
    cat >/etc/polkit-1/rules.d/50-acceptance.rules <<'END'
polkit.addRule(function (action, subject) {
    if (action.id.indexOf("org.tqserver.") === 0 && subject.user === "olga")
        return polkit.Result.YES;
});
END
    systemctl try-restart polkit
    run runuser -u olga -- tqserver reload
    rm /etc/polkit-1/rules.d/50-acceptance.rules
    systemctl try-restart polkit
    userdel --remove olga 2>/dev/null
    userdel --remove victor 2>/dev/null
}
