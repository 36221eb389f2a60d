# Install, the first page, and what systemd thinks of the units.
# shellcheck shell=bash

claim_apt_install_starts_the_server() { #: needed
    run apt-get install /acceptance/debs/first.deb
    is "$(systemctl is-active tqserver)" active
    is "$(systemctl is-active tqserver-proxy)" active
    is "$(systemctl is-enabled tqserver)" enabled
    eventually 30 port_is_open 8080
    local page
    page="$(get /)"
    has "$page" 'TQServer'
    run tqserver status
    has "$(tqserver status)" 'index +/ '
    # What runs is told a moment after it does.
    eventually 30 prints 'Status: ' systemctl status --no-pager tqserver
    has "$(systemd-cgls --no-pager -u tqserver.slice 2>&1 || systemd-cgls --no-pager /tqserver.slice)" 'tqserver proxy'
}

claim_no_unit_is_said_to_be_wrong() {
    local unit output
    for unit in tqserver.service tqserver-proxy.service tqserver-state.service tqserver.slice; do
        output="$(systemd-analyze verify "/usr/lib/systemd/system/$unit" 2>&1 | grep -i tqserver | grep -v "Command 'man " || true)"
        is "$output" '' "systemd-analyze verify $unit"
    done
    is "$(journalctl -b -p warning -u tqserver -u tqserver-proxy -o cat --no-pager | grep -v '^-- ' || true)" '' 'warnings in the journal'
}

claim_the_exposure_of_all_units_is_low() {
    # A program like any other, once with network and once without.
    YAML='command: [/usr/bin/python3, main.py]' deploy plain 'plain 1'
    YAML=$'command: [/usr/bin/python3, main.py]\nnetwork: none' deploy lonely 'lonely 1'
    run systemctl reload tqserver
    page_is /plain 'plain 1'
    page_is /lonely 'lonely 1'
    at_most "$(exposure tqserver.service)" 2.0 manager
    at_most "$(exposure tqserver-proxy.service)" 2.0 proxy
    at_most "$(exposure tqserver-state.service)" 2.0 'what measures the state'
    at_most "$(exposure "tqserver-plain@$(generation plain).service")" 1.5 'default worker'
    at_most "$(exposure "tqserver-lonely@$(generation lonely).service")" 0.6 'worker without network'
    run tqserver check
    has "$(tqserver check 2>&1)" 'exposure'
    undeploy plain lonely
    run systemctl reload tqserver
}

claim_manuals_and_completions_are_there() {
    local file
    for file in /usr/share/man/man7 /usr/share/man/man5/tqserver.yaml.5.gz /usr/share/bash-completion/completions/tqserver \
        /usr/share/zsh/vendor-completions/_tqserver /usr/share/fish/vendor_completions.d/tqserver.fish; do
        [[ -e "$file" ]] || fail "not in the package: $file"
    done
    has "$(tqserver --version)" 'tqserver [0-9]'
}
