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
    has "$(tqserver status)" 'index.*serving'
    has "$(systemctl status --no-pager tqserver)" 'Status: '
    has "$(systemd-cgls --no-pager -u tqserver.slice 2>&1 || systemd-cgls --no-pager /tqserver.slice)" 'tqserver proxy'
}

claim_no_unit_is_said_to_be_wrong() {
    local unit output
    for unit in tqserver.service tqserver-proxy.service tqserver.slice; do
        output="$(systemd-analyze verify "/usr/lib/systemd/system/$unit" 2>&1 | grep -i tqserver || true)"
        is "$output" '' "systemd-analyze verify $unit"
    done
    is "$(journalctl -b -p warning -u tqserver -u tqserver-proxy -o cat --no-pager | grep -v '^-- ' || true)" '' 'warnings in the journal'
}

claim_the_exposure_of_all_units_is_low() {
    get / >/dev/null
    at_most "$(exposure tqserver.service)" 2.0 manager
    at_most "$(exposure tqserver-proxy.service)" 2.0 proxy
    at_most "$(exposure "tqserver-index@$(generation index).service")" 1.5 'default worker'
    # The same program without network.
    mkdir -p "$SRV"
    cp -a "$PACKAGED/index" "$SRV/lonely"
    [[ ! -e "$SRV/lonely/bin/index" ]] || mv "$SRV/lonely/bin/index" "$SRV/lonely/bin/lonely"
    mkdir -p "$SRV/lonely/config"
    { grep -v '^network:' "$PACKAGED/index/config/worker.yaml" 2>/dev/null || true; echo 'network: none'; } >"$SRV/lonely/config/worker.yaml"
    run systemctl reload tqserver
    get /lonely >/dev/null
    at_most "$(exposure "tqserver-lonely@$(generation lonely).service")" 0.6 'worker without network'
    run tqserver check
    has "$(tqserver check)" 'exposure'
    undeploy lonely
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
