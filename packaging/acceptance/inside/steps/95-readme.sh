# The README's install section, word by word, in a machine that has seen nothing. Section 6 of what has to be shown.
# shellcheck shell=bash

# The commands of the section "Install on a server": all its fenced blocks that begin with ```sh, in their order. Other blocks show
# what is printed, or files.
readme_commands() {
    awk '/^## / { inside = ($0 == "## Install on a server"); next }
         inside && !fenced && /^```/ { fenced = 1; shell = ($0 == "```sh"); next }
         fenced && /^```/ { fenced = 0; next }
         fenced && shell' /acceptance/README.md
}

claim_the_readme_installs_a_server() { #: fresh
    local commands
    commands="$(readme_commands)"
    [[ -n "$commands" ]] || fail 'README.md has no section "## Install on a server" with a block ```sh'
    # Where a person would have downloaded it, under the name it has there.
    mkdir -p /root/download
    cp /acceptance/debs/first.deb "/root/download/$(</acceptance/debs/first.name)"
    cd /root/download || fail 'no directory'
    # As typed: each command is shown, and the first that fails ends it.
    bash -euxo pipefail -c "$commands" </dev/null
    is "$(systemctl is-active tqserver)" active
    has "$(get /)" TQServer
}
