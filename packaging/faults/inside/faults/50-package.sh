# The package: replaced by an older and a newer one, and taken away.
# shellcheck shell=bash

replace_package() {
    run apt-get install --allow-downgrades -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$1"
    is "$(dpkg-query --show --showformat='${Version}' tqserver)" "$(dpkg-deb --field "$1" Version)"
    eventually 60 systemctl is-active tqserver tqserver-proxy
}

fault_downgrade_and_upgrade() { #: old
    local number
    load
    for number in 1 2; do
        replace_package /acceptance/debs/old.deb
        load_goes_on 300
        replace_package /acceptance/debs/first.deb
        load_goes_on 300
    done
    # As for a restart.
    verdict 5
    all_is_well
}

fault_older_package_has_worked_and_is_upgraded() { #: old
    replace_package /acceptance/debs/old.deb
    live alpha "$(next_version)"
    load
    replace_package /acceptance/debs/first.deb
    verdict 5
    all_is_well
}

fault_restarted_again_and_again() {
    load
    local number
    for ((number = 0; number < 5; number++)); do
        run systemctl restart tqserver
        load_goes_on 60
        run systemctl restart tqserver-proxy
        load_goes_on 60
    done
    # A new connection may have to wait for the end of the streams in the old proxy, which take two seconds.
    verdict 5
    all_is_well
}

fault_purged_and_installed_again() { #: last
    load
    moment outage begin
    run apt-get purge tqserver
    port_is_closed 8080 || fail 'the port is open'
    no_worker_process || fail "still there: $(worker_pids)"
    is "$(ls -A /var/lib/tqserver/.snapshots /var/lib/tqserver/.public 2>/dev/null || true)" '' 'snapshots that are left'
    [[ -e "$SRV/alpha/main.py" ]] || fail 'the workers of the administrator are gone'
    run apt-get install /acceptance/debs/first.deb
    eventually 60 prints '^alpha' get /alpha
    moment outage end
    verdict 3
    all_is_well
}
