# A deployer who may write worker.yaml, and tries what it does not allow. Section 5 of what has to be shown.
# shellcheck shell=bash

# Deploys alpha with this worker.yaml, which has to be refused with words that match: bad_yaml PATTERN
bad_yaml() {
    export -n YAML
    deploy alpha 'alpha bad'
    printf '%s\n' "${YAML:0:300}"
    refused tqserver reload
    has "$OUTPUT" 'worker\.yaml'
    has "$OUTPUT" "$1"
    (($(wc -l <<<"$OUTPUT") < 300)) || fail 'nobody reads so many lines'
    refused systemctl reload tqserver
    refused tqserver check
    page_is /alpha "$GOOD"
    page_is /beta 'beta 1'
}

claim_a_deployer_can_not_reach_beyond_the_worker() {
    local before word GOOD
    GOOD="$(get /alpha)"
    before="$(worker_pids beta)"
    for word in 'user: root' 'group: root' 'dynamic_user: false' 'exec_start_pre: /bin/true' 'slice: system.slice' \
        'capabilities: all' 'log_file: /etc/passwd'; do
        YAML="$word" bad_yaml "${word%%:*}"
    done
    for word in 'command: ["../../../../bin/sh"]' 'command: ["../beta/main.py"]' 'path: /../etc' 'credentials: ["../beta/token"]' \
        'credentials: ["/etc/shadow"]'; do
        YAML="$word" bad_yaml '\.\.|/etc/shadow'
    done
    for word in 'gomemlimit: 1GiB' 'tasks_max: 100000' 'gomaxprocs: 64'; do
        YAML="$word" bad_yaml "${word%%:*}"
    done
    is "$(worker_pids beta)" "$before" 'processes of beta'
}

claim_ten_thousand_lines_and_garbage_are_refused() {
    local GOOD garbage
    GOOD="$(get /alpha)"
    YAML="$(for number in {1..10000}; do echo "key$number: value"; done)" bad_yaml 'key|long|lines|large'
    YAML="$(for number in {1..400}; do printf '['; done)" bad_yaml 'worker\.yaml'
    # No shell variable holds this.
    YAML='x: 1' deploy alpha 'alpha bad'
    head -c 4096 /dev/urandom >"$SRV/alpha/config/worker.yaml"
    refused tqserver reload
    has "$OUTPUT" 'worker\.yaml'
    garbage="$(tr -d '\t\n -~\200-\377' <<<"$OUTPUT" | wc -c)"
    is "$garbage" 0 'control characters on the terminal'
    head -c 50000000 /dev/zero >"$SRV/alpha/config/worker.yaml"
    refused tqserver reload
    rm "$SRV/alpha/config/worker.yaml"
    mkfifo "$SRV/alpha/config/worker.yaml"
    refused timeout $((30 * FACTOR)) tqserver reload
    ((STATUS != 124)) || fail 'reload waits for a pipe'
    rm "$SRV/alpha/config/worker.yaml"
    ln -s /etc/shadow "$SRV/alpha/config/worker.yaml"
    refused tqserver reload
    has_not "$OUTPUT" 'root:'
    page_is /alpha "$GOOD"
    page_is /beta 'beta 1'
    live alpha 'alpha 9'
}

claim_a_link_out_of_the_directory_reaches_nothing() {
    deploy alpha 'alpha 9'
    mkdir "$SRV/alpha/public"
    ln -s /etc/shadow "$SRV/alpha/public/shadow.txt"
    ln -s /etc/tqserver "$SRV/alpha/public/etc"
    # Refused or left out: both are well.
    run tqserver reload || true
    has_not "$(get /alpha/shadow.txt || true)" 'root:'
    has_not "$(get /alpha/etc/server.yaml || true)" 'workers:'
    live alpha 'alpha 10'
}

claim_a_wrong_server_yaml_changes_nothing() {
    local before
    before="$(worker_pids)"
    printf 'server: {prot: 8081}\n' >"$SERVER_YAML"
    refused tqserver reload
    is "$STATUS" 78 'exit status of tqserver reload'
    has "$OUTPUT" "prot"
    has "$OUTPUT" "port"
    refused systemctl reload tqserver
    page_is /alpha 'alpha 10'
    is "$(worker_pids)" "$before" 'processes of workers'
    configure 'max={gomemlimit: 256MiB, tasks_max: 512, gomaxprocs: 2}'
    run systemctl reload tqserver
}
