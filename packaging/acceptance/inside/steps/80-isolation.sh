# From inside a worker, and from inside the proxy's sandbox. Section 3 of what has to be shown.
# shellcheck shell=bash

# What must not be reached was reached: the lines of look.py without "own".
only_own() {
    printf '%s\n' "$1"
    has "$1" '^refused '
    is "$(grep '^allowed ' <<<"$1" | grep -v ' its own ' || true)" '' 'what can be reached and must not'
}

claim_a_worker_reaches_only_what_is_its_own() {
    local sockets
    usual_workers 60
    get '/beta/write?secret-of-beta' >/dev/null
    install -d -m 0700 /etc/tqserver/credentials/beta
    (umask 077 && printf 'x' >/etc/tqserver/credentials/beta/token)
    sockets="$(find /run/tqserver -type s | tr '\n' ' ')"
    has "$sockets" 'beta@'
    YAML="env: {LOOK_SOCKETS: \"$sockets\"}" deploy alpha 'alpha 61'
    run systemctl reload tqserver
    local seen
    seen="$(get /alpha/see)"
    only_own "$seen"
    has "$seen" '^allowed reading its own program'
    has "$seen" '^allowed writing its own state'
    rm -r /etc/tqserver/credentials/beta
    usual_workers 62
}

claim_no_network_is_no_network() {
    YAML='network: none' deploy lonely 'lonely 1'
    YAML='' deploy social 'social 1'
    sed -i '/^def do_exit/i\
def do_connect(port):\
    import socket\
    with socket.create_connection(("127.0.0.1", int(port)), 5):\
        return "connected"\
\
' "$SRV/lonely/main.py" "$SRV/social/main.py"
    run systemctl reload tqserver
    is "$(get '/social/connect?8080')" connected
    has "$(get '/lonely/connect?8080' 2>&1 || true)" 'Error'
    page_is /lonely 'lonely 1'
    undeploy lonely social
    run systemctl reload tqserver
}

# A one-shot service with all the properties of the proxy's unit, and a command of ours in it.
claim_the_proxys_sandbox_opens_nothing() {
    local unit=/run/systemd/system/acceptance-look.service
    usual_workers 62
    # Root's own way works, or the refusal below would say nothing.
    run busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager GetDefaultTarget
    run systemd-run --quiet --wait true
    systemctl cat tqserver-proxy.service |
        grep -vE '^(ExecStart|ExecStartPre|ExecStop|ExecReload|Type|Restart|RestartSec|WatchdogSec|FileDescriptorStore[A-Za-z]*|NotifyAccess|Sockets|RuntimeDirectory[A-Za-z]*|StandardOutput|After|Wants|Requires|BindsTo|PartOf|WantedBy|\[Install\])=?' \
            >"$unit"
    sed -i "/^\[Service\]/a Type=oneshot\nStandardOutput=truncate:$NOTES/seen\nStandardError=inherit\nExecStart=/bin/bash /acceptance/look-from-proxy" "$unit"
    systemctl daemon-reload
    run systemctl start acceptance-look.service || {
        systemctl status --no-pager --lines=50 acceptance-look.service || true
        fail 'the proxy'\''s sandbox with another command did not start'
    }
    local seen
    seen="$(<"$NOTES/seen")"
    rm "$unit"
    systemctl daemon-reload
    printf '%s\n' "$seen"
    has "$seen" '^user tqserver$'
    is "$(grep '^allowed ' <<<"$seen" || true)" '' 'what can be reached and must not'
    has "$seen" 'refused StartTransientUnit'
    has "$seen" 'refused reading the configuration'
    has "$seen" 'refused reading the workers'
    is "$(sed -n 's/^public: //p' <<<"$seen")" readable
}
