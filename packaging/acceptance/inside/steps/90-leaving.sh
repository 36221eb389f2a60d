# Remove, and purge.
# shellcheck shell=bash

claim_remove_stops_and_keeps_what_is_the_administrators() {
    as_shipped
    run apt-get remove tqserver
    no_worker_process || fail "still there: $(worker_pids)"
    is "$(systemctl list-units --plain --no-legend --state=active 'tqserver*' | wc -l)" 0 'active units'
    is "$(pgrep -c tqserver || true)" 0 'processes'
    port_is_closed 8080 || fail 'the port is open'
    [[ -e "$SERVER_YAML" ]] || fail 'a remove keeps the configuration'
    [[ -e "$SRV/alpha/main.py" ]] || fail 'the workers of the administrator are gone'
}

claim_install_after_remove_brings_all_back() {
    run apt-get install /acceptance/debs/second.deb
    eventually 60 port_is_open 8080
    page_is /alpha 'alpha 62'
    page_is /beta 'beta 1'
}

claim_purge_keeps_what_workers_have_written_and_says_where() {
    local kept='/var/lib/private/tqserver /var/lib/tqserver /etc/tqserver/credentials'
    mkdir -p /etc/tqserver/credentials
    touch /etc/tqserver/credentials/secret /var/lib/private/tqserver/alpha/written
    has "$(apt-get purge tqserver 2>&1)" "To delete them: rm -r $kept"
    [[ -e /var/lib/private/tqserver/alpha/written && -e /etc/tqserver/credentials/secret ]] || fail 'it is gone'
    # shellcheck disable=SC2086
    rm -r $kept
}

claim_purge_leaves_nothing_else() {
    rmdir /etc/tqserver
    local left
    left="$(find / -xdev \( -path /proc -o -path /sys -o -path /acceptance -o -path "$NOTES" -o -path /srv/tqserver \
        -o -path /var/log/journal -o -path /var/cache/apt -o -path /var/log/apt \) -prune -o \( -name '*tqserver*' -o -name '*tqw-*' \) -print)"
    # systemd's own notes on units that were are not ours.
    left+="$(find /run /tmp -xdev -path /run/systemd/units -prune -o \( -name '*tqserver*' -o -name '*tqw-*' \) -print)"
    is "$left" '' 'files left'
    is "$(systemctl list-unit-files --no-legend 'tqserver*' | wc -l)" 0 'unit files'
    is "$(systemctl list-units --all --plain --no-legend 'tqserver*' | grep -v ' not-found ' || true)" '' 'units'
    [[ -e "$SRV/alpha/main.py" ]] || fail 'the workers of the administrator are gone'
    port_is_closed 8080 || fail 'the port is open'
}
