# Sourced by the scripts that install what they lack, and that build what is shipped.

# install_missing NAMES: the Debian packages that the function NAMES prints; afterwards it is to print none. All output goes to stderr. Where
# nothing can be installed, it says what to run and returns 1.
install_missing() {
    local packages
    packages="$("$1" | tr ' ' '\n' | sort -u | tr '\n' ' ')"
    [[ -n "${packages// /}" ]] || return 0
    if ! command -v apt-get >/dev/null; then
        printf '%s: missing, and there is no apt-get to install it with: %s\n' "$0" "$packages" >&2
        return 1
    fi
    if [[ "$(id -u)" != 0 ]]; then
        printf '%s: missing; as root, run: apt-get install --no-install-recommends %s\n' "$0" "$packages" >&2
        return 1
    fi
    printf '==> installing %s\n' "$packages" >&2
    # A word each, without quotes.
    # shellcheck disable=SC2086
    if ! apt-get update -q >&2 || ! DEBIAN_FRONTEND=noninteractive apt-get install -q --yes --no-install-recommends $packages >&2; then
        printf '%s: these cannot be installed: %s\n' "$0" "$packages" >&2
        return 1
    fi
    packages="$("$1" | tr '\n' ' ')"
    [[ -z "$packages" ]] || {
        printf '%s: installed, and still missing: %s\n' "$0" "$packages" >&2
        return 1
    }
}

# build_shipped FLAGS: builds the program as it is shipped, with these flags for rustc, and prints its path. The directory is a part of what
# symbols are called, so it is always the same: what is counted is found again, and the same source and profile give the same program.
build_shipped() {
    local host
    host="$(rustc --version --verbose | sed -n 's/^host: //p')"
    # With a target named, what runs while it is built has none of these flags.
    RUSTFLAGS="$1" cargo build --profile shipped --locked --target "$host" --target-dir target/shipped >&2 || return 1
    printf '%s\n' "$PWD/target/shipped/$host/shipped/tqserver"
}
