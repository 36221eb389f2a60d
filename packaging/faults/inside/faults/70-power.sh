# Power that is cut. A load does not outlive it; what is asked is that all that was accepted is back after the boot, and nothing else.
# shellcheck shell=bash

# Notes what the machine has to serve after the boot: whichever of two versions.
remember() {
    printf '%s\n%s\n' "$1" "$2" >"$RECORDS/versions"
    # The records are ours to keep; what the server wrote is its own affair.
    sync -f "$RECORDS/versions" "$RECORDS/number"
}

# One of the two versions is served, whole; the reload that was cut off can be repeated; nothing half is left.
back_after_the_cut() {
    local old new begin=$SECONDS
    { read -r old && read -r new; } <"$RECORDS/versions"
    eventually 90 port_is_open 8080
    eventually 60 prints '^alpha' get /alpha
    has "$(get /alpha)" "^($old|$new)\$"
    echo "served $((SECONDS - begin)) s after the boot: $(get /alpha)"
    run systemctl reload tqserver
    page_is /alpha "$new"
    eventually 60 one_generation alpha
    eventually 60 whole_snapshots
    load
    verdict 2
    all_is_well
}

# No more than are kept, each of them with its program.
whole_snapshots() {
    local snapshot count=0
    for snapshot in /var/lib/tqserver/.snapshots/alpha/*/; do
        [[ -n "$(find "$snapshot" -name main.py -size +0)" ]] || return 1
        count=$((count + 1))
    done
    ((count >= 1 && count <= 3))
}

fault_power_cut_during_a_reload() { #: power
    local old new
    old="$(get /alpha)"
    new="$(next_version)"
    YAML='' deploy alpha "$new"
    # The generation has been started, and is asked for its health.
    printf '5\n' >"$SRV/alpha/slow"
    sync
    remember "$old" "$new"
    systemctl reload --no-block tqserver
    eventually 60 second_generation_runs
}

second_generation_runs() {
    (($(worker_pids alpha | wc -l) == 2))
}

after_power_cut_during_a_reload() {
    rm -f "$SRV/alpha/slow"
    back_after_the_cut
}

fault_power_cut_during_a_snapshot() { #: power
    local old new
    old="$(get /alpha)"
    new="$(next_version)"
    YAML='' deploy alpha "$new"
    # Some seconds of copying.
    head -c $((FACTOR > 1 ? 100 << 20 : 400 << 20)) /dev/urandom >"$SRV/alpha/weight"
    sync
    remember "$old" "$new"
    find /var/lib/tqserver/.snapshots/alpha | sort >"$RECORDS/before"
    systemctl reload --no-block tqserver
    eventually 60 snapshot_grows
}

snapshot_grows() {
    ! find /var/lib/tqserver/.snapshots/alpha | sort | cmp -s "$RECORDS/before"
}

after_power_cut_during_a_snapshot() {
    back_after_the_cut
    rm -f "$SRV/alpha/weight"
}
