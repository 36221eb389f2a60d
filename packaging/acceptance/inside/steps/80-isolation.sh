# From inside a worker, and from inside the proxy's sandbox. Section 3 of what has to be shown.
# shellcheck shell=bash

# What must not be reached was reached: the lines of look.py without "own".
only_own() {
    printf '%s\n' "$1"
    has "$1" '^refused '
    is "$(grep '^allowed ' <<<"$1" | grep -v ' its own ' || true)" '' 'what can be reached and must not'
}

claim_a_worker_reaches_only_what_is_its_own() {
    local sockets pids
    usual_workers 60
    get '/beta/write?secret-of-beta' >/dev/null
    install -d -m 0700 /etc/tqserver/credentials/beta
    (umask 077 && printf 'x' >/etc/tqserver/credentials/beta/token)
    # What beta was given is there to be found: it is a unit with a secret.
    YAML='credentials: [token]' deploy beta 'beta 1'
    run systemctl reload tqserver
    page_is '/beta/secret?token' x
    page_is '/beta/leave?77005' left
    pids="1 $(main_pid tqserver) $(main_pid tqserver-proxy) $(worker_pids beta | tail -n 1)"
    sockets="$(find /run/tqserver /run/tqserver-proxy -type s | tr '\n' ' ')"
    has "$sockets" 'beta@'
    YAML="env: {LOOK_SOCKETS: \"$sockets\", LOOK_PIDS: \"$pids\", LOOK_KEY: \"77005\"}" deploy alpha 'alpha 61'
    run systemctl reload tqserver
    local seen
    seen="$(get /alpha/see)"
    only_own "$seen"
    has "$seen" '^allowed reading its own program'
    has "$seen" '^allowed writing its own state'
    has "$seen" '^allowed writing at its own home'
    has "$seen" '^allowed setting the policy of its own threads'
    has "$seen" '^refused becoming realtime'
    has "$seen" '^allowed asking netlink'
    rm -r /etc/tqserver/credentials/beta
    usual_workers 62
}

claim_what_of_the_kernel_a_worker_names_is_open_to_it() {
    usual_workers 60
    YAML='kernel: [io_uring, keyrings]' deploy alpha 'alpha 62'
    run systemctl reload tqserver
    local seen
    seen="$(get /alpha/see)"
    has "$seen" '^allowed calling keyctl'
    has "$seen" '^allowed calling add_key'
    # A kernel may be without io_uring, but that is then its own word and not a wall's.
    is "$(grep 'io_uring.*Operation not permitted' <<<"$seen" || true)" '' 'io_uring, which was named'
    has "$seen" '^refused opening netlink for audit'
    YAML='' deploy alpha 'alpha 63'
    run systemctl reload tqserver
    usual_workers 64
}

# systemd 252 reads its transient units otherwise than it has written them: `;` became `\;`, and `$` a variable.
claim_arguments_arrive_as_they_are_written_also_after_a_daemon_reload() {
    mkdir -p "$SRV/words/config"
    cat >"$SRV/words/main.py" <<'END'
import http.server, json, os, socket, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.endswith("/die"):
            os._exit(1)
        body = json.dumps(sys.argv[1:]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "proxy"

server = http.server.HTTPServer(("", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.serve_forever()
END
    cat >"$SRV/words/config/worker.yaml" <<'END'
type: python
command: [/usr/bin/python3, main.py, ";", "\\;", "$$HOME $${PATH} $$$$", "%n", "", "two\nlines", "a  'b' \"c\""]
END
    run systemctl reload tqserver
    local before
    before="$(get /words)"
    is "$before" '[";", "\\;", "$HOME ${PATH} $$", "%n", "", "two\nlines", "a  '\''b'\'' \"c\""]'
    systemctl daemon-reload
    get /words/die || true
    eventually 30 prints '^\[' get /words
    is "$(get /words)" "$before"
    undeploy words
    run systemctl reload tqserver
}

# A worker that listens on its port itself, on the address $2, and tells which cookie it was sent.
on_a_port() {
    mkdir -p "$SRV/$1/config"
    cat >"$SRV/$1/main.py" <<END
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ("port of $1, " + os.environ["HOST"]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.HTTPServer(($2, int(os.environ["PORT"])), Handler).serve_forever()
END
    printf 'type: python\nlisten: port\nhealth: {start_timeout_seconds: 5}\n' >"$SRV/$1/config/worker.yaml"
}

claim_no_worker_takes_anothers_port() {
    YAML='' deploy thief 'thief 1'
    sed -i '/^def do_exit/i\
HELD = []\
\
def do_take(_):\
    import socket\
    for port in range(9000, 10000):\
        one = socket.socket()\
        try:\
            one.bind(("127.0.0.1", port))\
            one.listen()\
            HELD.append(one)\
        except OSError:\
            one.close()\
    return len(HELD)\
\
' "$SRV/thief/main.py"
    run systemctl reload tqserver
    local taken
    taken="$(get /thief/take)"
    echo "ports that another worker could take: $taken"
    on_a_port porty 'os.environ["HOST"]'
    if [[ "$taken" == 0 ]]; then
        run tqserver reload porty
    else
        refused tqserver reload porty
        has "$OUTPUT" 'porty: failed: port 90.. is held by another user'
        undeploy thief
        run systemctl reload tqserver
        run tqserver reload porty
    fi
    is "$(get /porty)" 'port of porty, 127.0.0.1'
    undeploy thief porty
    run systemctl reload tqserver
}

claim_a_port_that_is_open_to_the_world_is_told() {
    on_a_port lan '""'
    has "$(tqserver reload lan 2>&1)" "'lan' listens on all addresses of the machine"
    has "$(tqserver status lan)" 'listens on all addresses of the machine'
    undeploy lan
    run systemctl reload tqserver
}

# Listens there as a daemon does that anybody may ask; its process is $RESOLVER.
resolver() {
    python3 -c 'import os, signal, socket, sys
one = socket.socket(socket.AF_UNIX)
one.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
one.listen()
signal.pause()' "$1" &
    RESOLVER=$!
    eventually 20 test -S "$1"
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
def do_resolve(path):\
    import socket\
    socket.socket(socket.AF_UNIX).connect(path)\
    return "connected"\
\
' "$SRV/lonely/main.py" "$SRV/social/main.py"
    run systemctl reload tqserver
    is "$(get '/social/connect?8080')" connected
    has "$(get '/lonely/connect?8080' 2>&1 || true)" 'Error'
    page_is /lonely 'lonely 1'
    # Resolvers are a way out, also those that begin after the worker.
    local path
    for path in /run/systemd/resolve/io.systemd.Resolve /run/nscd/socket /run/avahi-daemon/socket; do
        mkdir -p "${path%/*}"
        resolver "$path"
        is "$(get "/social/resolve?$path")" connected
        has "$(get "/lonely/resolve?$path" 2>&1 || true)" Error
        kill "$RESOLVER"
        rm "$path"
    done
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
