# Sourced by the scripts that install what they lack, and that build what is shipped.

# The committed sources decide, not flags that happen to be set where this runs.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR CARGO_BUILD_TARGET
# Where rustup puts its programs, for shells that do not read a profile.
PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:/usr/local/cargo/bin"

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

# build_by COUNTS: builds the program as it is shipped, by these counts of its instructions, and prints its path. It has its symbols, and
# the relocations by which its code can be laid out anew.
build_by() {
    local used="$PWD/target/shipped/counts.profdata"
    # Cargo does not look into files that flags name. Whoever builds by the same ones again takes what is there.
    if ! cmp --quiet "$1" "$used"; then
        rm -rf target/shipped
        mkdir -p target/shipped
        cp "$1" "$used"
    fi
    build_shipped "-Cprofile-use=$used -Clink-arg=-Wl,--emit-relocs -Cstrip=none"
}

# The release of LLVM that this Rust has inside. An older one does not understand its counters.
llvm_release() {
    rustc --version --verbose | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p'
}
