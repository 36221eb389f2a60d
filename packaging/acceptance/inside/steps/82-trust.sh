# The trust table of docs/ARCHITECTURE.md: what each of those in it could do if it meant harm. Workers are in 80-isolation.sh.
# shellcheck shell=bash

# Does these calls inside a running process, in each of its threads: possess PID <ATTEMPTS. Keeps what it saw in $SEEN.
possess() {
    local attempts thread
    attempts="$(cat)"
    SEEN=''
    for thread in "/proc/$1/task"/*; do
        SEEN+="$(python3 /acceptance/possess.py "${thread##*/}" <<<"$attempts")"$'\n'
    done
    printf '%s\n' "$SEEN"
    has "$SEEN" '^(allowed|refused) '
    is "$(grep -vE '^(allowed its own |refused |$)' <<<"$SEEN" || true)" '' 'what can be done and must not'
}

# The part of a list of attempts that is about one process: what cannot be done to NAME PID
to_process() {
    printf '%s\n' "signalling $1|kill|$2|0" "tracing $1|ptrace|0x4206|$2|0|0" "reading the memory of $1|openat|-100|/proc/$2/mem|0" \
        "reading the environment of $1|openat|-100|/proc/$2/environ|0" "slowing $1 down|setpriority|0|$2|19" "reading the limits of $1|prlimit64|$2|7|0|0"
}

# What neither plane can do: for each of them a way into the kernel or over the machine.
to_machine() {
    cat <<'CALLS'
setting up io_uring|io_uring_setup|1|0
calling add_key|add_key|0|0|0|0|0
calling keyctl|keyctl|0|0
making a user name space|unshare|0x10000000
mounting|mount|/tmp|/mnt|0|0x1000|0
loading a program into the kernel|bpf|0|0|0
loading a module|init_module|0|0|0
naming the machine|sethostname|/x|2
setting the clock|settimeofday|0|0
mapping memory to write and execute|mmap|0|4096|7|0x22|-1|0
opening netlink for audit|socket|16|3|9
opening netlink for netfilter|socket|16|3|12
opening netlink for device events|socket|16|3|15
opening netlink for generic|socket|16|3|16
opening raw packets|socket|17|3|0x300
opening a raw socket|socket|2|3|1
writing to /etc|openat|-100|/etc/intruder|0x41|0x1b6
writing to /usr|openat|-100|/usr/intruder|0x41|0x1b6
writing to /run|openat|-100|/run/intruder|0x41|0x1b6
writing to control groups|openat|-100|/sys/fs/cgroup/tqserver.slice/cgroup.procs|1
writing to control groups of version 1|openat|-100|/sys/fs/cgroup/pids/tqserver.slice/cgroup.procs|1
writing to the kernel's settings|openat|-100|/proc/sys/kernel/core_pattern|1
writing to the deployed files of alpha|openat|-100|/srv/tqserver/workers/alpha/intruder|0x41|0x1b6
CALLS
}

claim_a_manager_that_was_taken_over_has_no_network_and_no_powers() {
    local manager word mark="mark-$RANDOM$RANDOM" known="known-$RANDOM$RANDOM"
    [[ "$(uname -m)" == x86_64 ]] || return 0
    usual_workers 70
    YAML="env: {KNOWN: $known}" live alpha 'alpha 71'
    manager="$(main_pid tqserver)"
    for word in CapInh CapPrm CapEff CapBnd CapAmb; do
        is "$(awk -v key="$word:" '$1 == key { print $2 }' "/proc/$manager/status")" 0000000000000000 "$word of the manager"
    done
    is "$(awk '$1 == "NoNewPrivs:" { print $2 }' "/proc/$manager/status")" 1 NoNewPrivs
    [[ "$(readlink "/proc/$manager/ns/net")" != "$(readlink /proc/1/ns/net)" ]] || fail 'the manager is in the network of the machine'
    # A file of another's: root without capabilities is no more than root's and everybody's.
    install -o nobody -m 0600 /dev/null "$NOTES/nobodys"
    possess "$manager" < <(
        to_machine
        to_process 'the proxy' "$(main_pid tqserver-proxy)"
        cat <<CALLS
reading the memory of a worker|openat|-100|/proc/$(worker_pids alpha | tail -n 1)/mem|0
reading the environment of a worker|openat|-100|/proc/$(worker_pids alpha | tail -n 1)/environ|0
its own right to signal a worker, in a name space of root's|kill|$(worker_pids alpha | tail -n 1)|0
opening IPv4|socket|2|1|0
opening IPv6|socket|10|1|0
opening netlink for routes|socket|16|3|0
opening netlink for whose sockets are whose|socket|16|3|4
becoming the proxy|setuid|$(id -u tqserver)
reading a file of another's|openat|-100|$NOTES/nobodys|0
writing its own configuration|openat|-100|$SERVER_YAML|1
writing to the home of root|openat|-100|/root/intruder|0x41|0x1b6
its own unix sockets|socket|1|1|0
its own snapshots|openat|-100|/var/lib/tqserver/.snapshots/alpha|0
its own state|openat|-100|/var/lib/tqserver/.intruder|0x41|0x180
its own look at what was deployed|openat|-100|/srv/tqserver/workers/alpha/main.py|0
its own bus|connect|unix:/run/dbus/system_bus_socket
CALLS
    )
    has "$SEEN" '^allowed its own unix sockets'
    has "$SEEN" '^allowed its own bus'
    has "$SEEN" '^allowed its own snapshots'
    rm -f "$NOTES/nobodys" /var/lib/tqserver/.intruder
    # Nothing of what a client sends comes to it: wherever that could stand, it is looked for in all of the manager's memory.
    curl -sS -o /dev/null --max-time $((30 * FACTOR)) -H "X-Mark: $mark" -H "Cookie: $mark" -A "$mark" -d "$mark" "http://127.0.0.1:8080/alpha/$mark?$mark"
    curl -sS -o /dev/null --max-time $((30 * FACTOR)) -H "Host: $mark.example" "http://127.0.0.1:8080/$mark"
    # One that is refused for its framing.
    (
        exec 3<>/dev/tcp/127.0.0.1/8080
        printf 'GET /%s HTTP/1.1\r\nHost: %s\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n' "$mark" "$mark" >&3
        has "$(timeout 10 head -n 1 <&3)" ' 400 '
    )
    get "/alpha/log?$mark" >/dev/null
    get '/alpha/exit?3' >/dev/null || true
    eventually 30 prints '^alpha 71$' get /alpha
    run tqserver status alpha
    is "$(python3 /acceptance/memory.py "$manager" "$known")" found 'what the manager knows'
    is "$(python3 /acceptance/memory.py "$manager" "$mark")" 'not found' 'what a client has sent, in the memory of the manager'
    usual_workers 72
}

# After a boot: systemd hides what is there when a unit starts, and the proxy is there before the first worker.
claim_a_proxy_that_was_taken_over_reaches_what_everybody_may_fetch() { #: reboot
    local proxy state word
    [[ "$(uname -m)" == x86_64 ]] || return 0
    eventually 60 port_is_open 8080
    usual_workers 72
    install -d -m 0700 /etc/tqserver/credentials/beta
    (umask 077 && printf 'x' >/etc/tqserver/credentials/beta/token)
    YAML='{credentials: [token], files: {/media: media}}' live beta 'beta 2'
    get '/beta/store?for-everybody' >/dev/null
    # A file for everybody, so that nothing but the wall is between.
    get '/beta/write?secret-of-beta' >/dev/null
    state=/var/lib/private/tqserver/beta
    chmod -R a+rwX "$state"
    chmod a+r "$SRV/beta/main.py"
    proxy="$(main_pid tqserver-proxy)"
    is "$(ps -o user= -p "$proxy" | tr -d ' ')" tqserver 'user of the proxy'
    is "$(awk '$1 == "CapBnd:" { print $2 }' "/proc/$proxy/status")" 0000000000000400 'CapBnd of the proxy'
    local beta snapshot
    beta="$(worker_pids beta | tail -n 1)"
    snapshot="/var/lib/tqserver/.snapshots/beta/$(generation beta)"
    [[ -e "$snapshot/main.py" && -e "$state/kept" && -e "/run/credentials/tqserver-beta@$(generation beta).service/token" ]] ||
        fail 'what it must not reach is elsewhere'
    possess "$proxy" < <(
        to_machine
        to_process 'PID 1' 1
        to_process 'the manager' "$(main_pid tqserver)"
        to_process 'a worker' "$beta"
        cat <<CALLS
opening netlink for routes|socket|16|3|0
becoming root|setuid|0
connecting to the bus|connect|unix:/run/dbus/system_bus_socket
connecting to systemd|connect|unix:/run/systemd/private
reading the configuration|openat|-100|$SERVER_YAML|0
reading the secrets|openat|-100|/etc/tqserver/credentials/beta/token|0
reading the secrets that a worker was given|openat|-100|/run/credentials/tqserver-beta@$(generation beta).service/token|0
reading what was deployed|openat|-100|$SRV/beta/main.py|0
listing what was deployed|openat|-100|$SRV|0x10000
reading what packages deployed|openat|-100|$PACKAGED/index/public/index.html|0
reading a snapshot|openat|-100|$snapshot/main.py|0
reading the state of a worker|openat|-100|$state/kept|0
writing the state of a worker|openat|-100|$state/kept|1
reading the state by its link|openat|-100|/var/lib/tqserver/beta/kept|0
reading the state beside what is served of it|openat|-100|/var/lib/tqserver/.files/beta/media/../../../beta/kept|0
writing what a worker stores|openat|-100|/var/lib/tqserver/.files/beta/media/sub/a.txt|1
adding to what a worker stores|openat|-100|/var/lib/tqserver/.files/beta/media/intruder|0x41|0x1b6
reading the server.yaml that was kept|openat|-100|/var/lib/tqserver/.server.yaml|0
reading what units are made of|openat|-100|/run/systemd/transient/tqserver-beta@$(generation beta).service|0
reading the journal|openat|-100|/var/log/journal/|0x10000
reading the passwords|openat|-100|/etc/shadow|0
reading the home of root|openat|-100|/root|0x10000
reading the homes|openat|-100|/home|0x10000
making a socket for workers|openat|-100|/run/tqserver/intruder|0x41|0x1b6
removing the link|unlink|/run/tqserver/link.sock
making a link where the sockets are|symlink|/tmp/x|/run/tqserver/intruder-link
removing a worker's socket|unlink|/run/tqserver/beta@$(generation beta).sock
opening a worker's socket to all|chmod|/run/tqserver/beta@$(generation beta).sock|0x1b6
writing to the public files|openat|-100|/var/lib/tqserver/.public/intruder|0x41|0x1b6
writing to /var|openat|-100|/var/intruder|0x41|0x1b6
writing to /var/lib|mkdir|/var/lib/tqserver/intruder|0x1ff
its own netlink, for whose sockets are whose|socket|16|3|4
its own network|socket|2|1|0
its own link|connect|unix:/run/tqserver/link.sock
its own way to a worker|connect|unix:/run/tqserver/beta@$(generation beta).sock
its own public files|openat|-100|/var/lib/tqserver/.public|0x10000
its own files of workers' state|openat|-100|/var/lib/tqserver/.files/beta/media/sub/a.txt|0
its own place for listeners|openat|-100|/run/tqserver-proxy/intruder|0x41|0x180
CALLS
    )
    for word in netlink link 'way to a worker' 'public files' "files of workers' state" 'place for listeners'; do
        has "$SEEN" "^allowed its own $word"
    done
    rm -f /run/tqserver-proxy/intruder
    # Nobody has come to harm, and what was taken over is still what serves.
    is "$(main_pid tqserver-proxy)" "$proxy" 'process of the proxy'
    page_is /beta 'beta 2'
    run tqserver reload
    chmod -R go-rwx "$state"
    rm -r /etc/tqserver/credentials/beta
    usual_workers 73
}

# --- a deployer: dora, who may write to one directory of workers and is nobody else

# Does something as dora, who stands nowhere in particular.
as_dora() {
    (cd / && exec runuser -u dora -- "$@")
}

# Has dora's worker say this of itself: dora_writes VERSION <worker.yaml
dora_writes() {
    # shellcheck disable=SC2016 # for the shell that runs as dora
    as_dora sh -c 'mkdir -p "$1/config" && cat >"$1/config/worker.yaml" && echo "$2" >"$1/version"' sh "$SRV/dora" "$1"
}

a_deployer() {
    getent passwd dora >/dev/null || useradd --create-home dora
    YAML='' deploy dora 'dora 1'
    chown -R dora: "$SRV/dora"
}

no_deployer() {
    undeploy dora
    userdel --remove dora 2>/dev/null
    configure "$MAX"
    run systemctl reload tqserver
}

# What dora has written is refused in these words, and changes nothing: dora_is_refused PATTERN <worker.yaml
dora_is_refused() {
    dora_writes 'dora bad'
    refused tqserver reload
    has "$OUTPUT" dora
    has "$OUTPUT" "$1"
    page_is /dora 'dora 1'
    page_is /alpha "$GOOD"
    page_is /beta 'beta 1'
    is "$(worker_pids beta)" "$BETA" 'process of beta'
}

# A server.yaml with these lines about workers.
leave_to_dora() {
    printf 'server: {port: 8080}\nworkers:\n    directory: [%s, %s]\n' "$SRV" "$PACKAGED" >"$SERVER_YAML"
    sed 's/^/    /' >>"$SERVER_YAML"
}

claim_a_deployers_shell_is_nobodys_but_the_deployers() {
    local seen sockets pids before
    usual_workers 74
    a_deployer
    run systemctl reload tqserver
    page_is /dora 'dora 1'
    get '/beta/write?secret-of-beta' >/dev/null
    get '/beta/log?of-beta' >/dev/null
    install -d -m 0700 /etc/tqserver/credentials/dora
    (umask 077 && printf 'x' >/etc/tqserver/credentials/dora/token)
    before="$(worker_pids)"
    sockets="$(find /run/tqserver -type s | tr '\n' ' ')"
    has "$sockets" link.sock
    pids="1 $(main_pid tqserver) $(main_pid tqserver-proxy) $(worker_pids beta | tail -n 1) $(worker_pids dora | tail -n 1)"
    seen="$(as_dora env LOOK_SOCKETS="$sockets" LOOK_PIDS="$pids" bash /acceptance/look-from-deployer)"
    printf '%s\n' "$seen"
    is "$(grep -vE '^(allowed .* its own |refused )' <<<"$seen" || true)" '' 'what can be done and must not'
    has "$seen" '^allowed writing to its own worker'
    has "$seen" '^allowed replacing a part of its own worker'
    # Refused, that is, and not for want of a program.
    has "$(tqserver logs beta)" of-beta
    is "$(worker_pids)" "$before" 'processes of workers'
    run systemctl reload tqserver
    # What dora deploys is not dora, either.
    has "$(get /dora/user)" ' tqw-dora$'
    has_not "$(get /dora/user)" "^($(id -u dora)|0) "
    rm -r /etc/tqserver/credentials/dora
    no_deployer
}

claim_a_deployer_has_the_urls_and_limits_that_are_left_and_loses_those_that_are_not() {
    local GOOD BETA pid unit line
    usual_workers 75
    configure 'max={gomemlimit: 256MiB, tasks_max: 512, gomaxprocs: 2, memory_high: 256MiB, cpu_weight: 100, io_weight: 100, instances: 2, max_body_size: 1MiB, max_concurrency: 10, queue_size: 10}'
    a_deployer
    run systemctl reload tqserver
    page_is /dora 'dora 1'
    GOOD='alpha 75'
    BETA="$(worker_pids beta)"
    # URLs of another, of nobody and of everybody, and those that only look like its own.
    for line in /alpha /alpha/login / /free /dorado /dora/../alpha /dora/%2e%2e/alpha //alpha '"/dora/\u002e./alpha"'; do
        dora_is_refused 'path|route' <<<"path: $line"
    done
    # Names that are not left to it, in any form.
    for line in site.example '"*"' '"*.example"' localhost 127.0.0.1 '[a.example, site.example]'; do
        dora_is_refused hosts <<<"hosts: $line"
    done
    for line in 'gomemlimit: 257MiB' 'tasks_max: 513' 'gomaxprocs: 3' 'memory_high: 1GiB' 'cpu_weight: 101' 'io_weight: 10000' 'instances: 3' \
        'max_body_size: 2MiB' 'max_concurrency: 11' 'max_concurrency: 0' 'queue_size: 11'; do
        dora_is_refused "${line%%:*}" <<<"$line"
    done
    # The administrator's word is what only the administrator can write: not a link to it, not a file of root's that dora can move.
    mkdir -p /srv/word
    printf 'path: /free\n' >/srv/word/worker.yaml
    as_dora ln -sf /srv/word/worker.yaml "$SRV/dora/config/worker.yaml"
    refused tqserver reload
    has "$OUTPUT" dora
    as_dora rm -r "$SRV/dora/config"
    as_dora ln -s /srv/word "$SRV/dora/config"
    refused tqserver reload
    has "$OUTPUT" dora
    as_dora rm "$SRV/dora/config"
    install -D -m 0644 /srv/word/worker.yaml "$SRV/dora/config/worker.yaml"
    refused tqserver reload
    has "$OUTPUT" 'dora.*(path|route)|(path|route).*dora'
    [[ "$(status_of /free)" != 200 ]] || fail 'a place that is not left to dora answers'
    rm -r "$SRV/dora/config" /srv/word

    # What root leaves to dora, dora has.
    leave_to_dora <<<'routes: {dora: ["/free/*"]}'
    dora_writes 'dora 2' <<<$'path: /free/now\ntasks_max: 300\ngomemlimit: 200MiB\ngomaxprocs: 2\ncpu_weight: 90'
    run systemctl reload tqserver
    page_is /free/now 'dora 2'
    unit="tqserver-dora@$(generation dora).service"
    pid="$(main_pid "$unit")"
    is "$(systemctl show --value --property=TasksMax "$unit")" 300 TasksMax

    # What root takes back is gone from what runs: limits at once, and from the same process.
    leave_to_dora <<<$'routes: {dora: ["/free/*"]}\nmax: {gomemlimit: 64MiB, tasks_max: 20, gomaxprocs: 1, cpu_weight: 10}'
    refused tqserver reload
    has "$OUTPUT" dora
    has "$OUTPUT" tasks_max
    is "$(systemctl show --value --property=TasksMax "$unit")" 20 TasksMax
    is "$(systemctl show --value --property=MemoryMax "$unit")" $((64 << 20)) MemoryMax
    is "$(systemctl show --value --property=CPUQuotaPerSecUSec "$unit")" 1s CPUQuota
    is "$(systemctl show --value --property=CPUWeight "$unit")" 10 CPUWeight
    is "$(main_pid "$unit")" "$pid" 'process of dora'
    page_is /free/now 'dora 2'
    # And the URL, with its name and why. It comes back neither with the next manager, nor the next proxy, nor by going back.
    configure "$MAX"
    refused tqserver reload
    has "$OUTPUT" 'dora.*/free/now|/free/now.*dora'
    is "$(status_of /free/now)" 404 'a URL that was taken back'
    has "$(tqserver status)" 'dora .* forbidden'
    run systemctl restart tqserver
    is "$(status_of /free/now)" 404 'a URL that was taken back, after a restart of the manager'
    run systemctl restart tqserver-proxy
    eventually 30 port_is_open 8080
    is "$(status_of /free/now)" 404 'a URL that was taken back, after a restart of the proxy'
    (run tqserver rollback dora) || true
    is "$(status_of /free/now)" 404 'a URL that was taken back, after a rollback'
    page_is /alpha "$GOOD"

    # The same with a name.
    leave_to_dora <<<'hosts: {dora: [dora.example]}'
    dora_writes 'dora 3' <<<'hosts: dora.example'
    run systemctl reload tqserver
    is "$(curl -sS -H 'Host: dora.example' http://127.0.0.1:8080/dora)" 'dora 3'
    configure "$MAX"
    refused tqserver reload
    has "$OUTPUT" 'dora.*dora\.example|dora\.example.*dora'
    [[ "$(curl -sS -H 'Host: dora.example' http://127.0.0.1:8080/dora)" != 'dora 3' ]] || fail 'a host that was taken back answers'
    no_deployer
    page_is /alpha "$GOOD"
    # As the steps after this expect it.
    usual_workers 62
}
