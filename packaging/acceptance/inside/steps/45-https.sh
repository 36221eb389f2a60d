# HTTPS as an administrator has it: keys of root's alone, certificates that are renewed, sockets, credentials.
# shellcheck shell=bash

readonly TLS=/etc/tqserver/tls

# A certificate for site.example with this word in it, and its key, put where server.yaml names them: certificate WORD
certificate() {
    install -d -m 0700 "$TLS"
    (
        umask 077
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -subj "/CN=site.example/O=$1" \
            -addext 'subjectAltName=DNS:site.example' -keyout "$TLS/site.key" -out "$TLS/site.crt" 2>/dev/null
    )
    is "$(stat -c '%U %a' "$TLS/site.key")" 'root 600'
}

# Listens at 8080, and with TLS at 8443: secure_site MORE_LISTENERS [KEY [MORE_TLS]]
secure_site() {
    cat >"$SERVER_YAML" <<END
server:
    listen: ["0.0.0.0:8080", {address: "[::]:8443", tls: true}$1]
    tls: {certificates: [{certificate: tls/site.crt, key: ${2:-tls/site.key}}]${3:-}}
workers: {directory: [$SRV, $PACKAGED]}
END
}

secure_curl() {
    curl -sS --insecure --fail-with-body --max-time $((30 * FACTOR)) --resolve site.example:8443:127.0.0.1 "$@"
}

secure_page_is() {
    is "$(secure_curl "https://site.example:8443$1")" "$2" "GET https $1"
}

# The certificate with this word is the one that clients see: shows WORD
shows() {
    has "$(secure_curl --verbose --output /dev/null https://site.example:8443/alpha 2>&1)" "subject:.*O ?= ?$1"
}

plain_again() {
    configure "$MAX"
    run systemctl reload tqserver
    eventually 30 port_is_closed 8443
    rm -rf "$TLS"
}

claim_https_with_a_key_that_only_root_can_read() {
    YAML='' deploy alpha 'alpha 11'
    certificate first
    secure_site '' '' ', redirect_http: true'
    run tqserver check
    run systemctl reload tqserver
    is "$(secure_curl --http2 -w 'HTTP/%{http_version}' https://site.example:8443/alpha)" $'alpha 11\nHTTP/2'
    is "$(secure_curl --http1.1 -w 'HTTP/%{http_version}' https://site.example:8443/alpha)" $'alpha 11\nHTTP/1.1'
    shows first
    is "$(curl -sS -o /dev/null -w '%{http_code} %{redirect_url}' -H 'Host: site.example' http://127.0.0.1:8080/alpha?x=1)" \
        '308 https://site.example:8443/alpha?x=1'
    # As docs/configuration.md has it for certbot: the answer to a challenge is a file of a worker, and no TLS is asked of it.
    mkdir -p "$SRV/acme/config" "$SRV/acme/public"
    printf '%s\n' 'type: static' 'path: /.well-known/acme-challenge' >"$SRV/acme/config/worker.yaml"
    printf 'token.thumbprint' >"$SRV/acme/public/token"
    run tqserver reload
    is "$(curl -sS -H 'Host: site.example' http://127.0.0.1:8080/.well-known/acme-challenge/token)" token.thumbprint
    undeploy acme
    chmod 755 "$TLS"
    chmod 644 "$TLS/site.key"
    has "$(tqserver check 2>&1)" 'warning: .*site.key can be read by every user'
    plain_again
}

claim_certificates_are_renewed_under_load_and_broken_ones_refused() {
    certificate first
    secure_site ''
    run systemctl reload tqserver
    load_start /alpha '^alpha ' --tls --port 8443
    local number
    for number in 1 2 3 4 5; do
        certificate "renewed-$number"
        run systemctl reload tqserver
        shows "renewed-$number"
        load_goes_on 100
    done
    # The key of another one.
    openssl ecparam -name prime256v1 -genkey -noout -out "$TLS/site.key" 2>/dev/null
    refused systemctl reload tqserver
    refused tqserver reload
    is "$STATUS" 78 'exit status of the reload'
    has "$OUTPUT" 'key is not that of the certificate'
    refused tqserver check
    is "$STATUS" 78 'exit status of the check'
    has "$OUTPUT" 'key is not that of the certificate'
    shows renewed-5
    # Not even a manager that starts with them, and one that starts with good ones takes them over.
    run systemctl restart tqserver
    shows renewed-5
    load_goes_on 100
    certificate mended
    run systemctl restart tqserver
    shows mended
    no_request_failed
    plain_again
}

claim_https_is_served_while_no_manager_answers() {
    certificate first
    secure_site ''
    run systemctl reload tqserver
    secure_page_is /alpha 'alpha 11'
    local manager proxy
    manager="$(main_pid tqserver)"
    proxy="$(main_pid tqserver-proxy)"
    # Until its watchdog ends it; before that nobody tells the proxy anything.
    run kill -STOP "$manager"
    # What it has of the certificate is what systemd has kept.
    mv "$TLS" "$TLS.away"
    load_start /alpha '^alpha ' --tls --port 8443
    run systemctl restart tqserver-proxy
    new_main_pid tqserver-proxy "$proxy" || fail 'the same proxy'
    is "$(ps -o state= -p "$manager")" T 'state of the manager'
    secure_page_is /alpha 'alpha 11'
    shows first
    mv "$TLS.away" "$TLS"
    run kill -CONT "$manager"
    no_request_failed
    plain_again
}

claim_the_proxy_listens_on_a_unix_socket() {
    local socket=/run/tqserver-proxy/web.sock number
    certificate first
    secure_site ", \"unix:$socket\""
    run systemctl reload tqserver
    for number in 1 2 3; do
        is "$(setpriv --reuid=nobody --regid=tqserver-web --clear-groups -- curl -sS --unix-socket "$socket" http://site.example/alpha)" 'alpha 11'
        ((number == 3)) || run systemctl restart tqserver-proxy
    done
    # It is out of reach for everybody else.
    refused runuser -u nobody -- curl -sS --unix-socket "$socket" http://site.example/alpha
    is "$(stat -c '%a %G' "$socket")" '660 tqserver-web' 'mode and group of the socket'
    # Whatever else is below /run is not its to write to.
    secure_site ', "unix:/run/web.sock"'
    refused tqserver reload
    has "$OUTPUT" '/run/web.sock'
    plain_again
    [[ ! -e "$socket" ]] || fail "still there: $socket"
}

claim_a_key_can_be_a_credential_of_the_proxy() {
    local edit=/etc/systemd/system/tqserver-proxy.service.d
    certificate sealed
    systemd-creds encrypt --with-key=host --name=site.key "$TLS/site.key" "$TLS/site.key.cred"
    rm "$TLS/site.key"
    mkdir -p "$edit"
    printf '[Service]\nLoadCredentialEncrypted=site.key:%s\n' "$TLS/site.key.cred" >"$edit/override.conf"
    run systemctl daemon-reload
    secure_site '' '"credential:site.key"'
    # The proxy that runs was started without it.
    refused tqserver reload
    has "$OUTPUT" 'site.key'
    run systemctl restart tqserver-proxy
    run systemctl reload tqserver
    secure_page_is /alpha 'alpha 11'
    shows sealed
    run systemctl restart tqserver-proxy
    secure_page_is /alpha 'alpha 11'
    rm -r "$edit"
    run systemctl daemon-reload
    plain_again
    run systemctl restart tqserver-proxy
}
