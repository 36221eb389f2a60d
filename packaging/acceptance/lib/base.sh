# Root file systems of a Debian: made once with debootstrap, copied for each machine. To be sourced after common.sh.
# shellcheck shell=bash

# What the package depends on (a machine has no network, apt could not fetch it) and what the steps use.
BASE_PACKAGES=systemd,systemd-sysv,dbus,libnss-systemd,polkitd,libpam-systemd,curl,openssl,python3,procps,iproute2,adduser
# What the types of workers are built, run and tested with. Rust is not among them: that of Debian 12 is too old.
TYPES_PACKAGES=(golang-go nodejs python3 php-fpm php-cli gcc libc6-dev)
# A kernel for the emulated computer, and what puts together its first root.
KERNEL_PACKAGES=(linux-image-cloud-amd64 initramfs-tools zstd)

# The mirror that this machine's own apt uses, so that a local one is used here too.
mirror() {
    local found=
    if [[ -z "${TQ_MIRROR:-}" ]]; then
        # apt's own words in braces. Read to the end, or the writer would die of the closed pipe.
        # shellcheck disable=SC2016
        found="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null |
            sed -n 1p)" || found=
    fi
    found="${TQ_MIRROR:-${found:-http://deb.debian.org/debian}}"
    printf '%s\n' "${found%/}"
}

# Makes the base of SUITE unless it is there, and prints its path: base SUITE [vm | types]
base() {
    local suite="$1" kind="${2:-}" directory root stamp wanted added
    directory="$(acceptance_directory)/bases"
    mkdir -p "$directory"
    root="$directory/$suite${kind:+-$kind}"
    stamp="$root.stamp"
    # A base is made again when what belongs in it has changed.
    case "$kind" in
    vm) added=("${KERNEL_PACKAGES[@]}") ;;
    types) added=("${TYPES_PACKAGES[@]}") ;;
    *) added=() ;;
    esac
    wanted="$BASE_PACKAGES ${added[*]} 1"
    (
        # One at a time, when two runs start at once.
        flock 9
        [[ -e "$stamp" && "$(<"$stamp")" == "$wanted" ]] && exit 0
        rm -rf "$root" "$stamp"
        [[ -n "$kind" ]] || bootstrap "$suite" "$root"
        [[ -z "$kind" ]] || cp -a --reflink=auto "$(base "$suite")" "$root"
        [[ "$kind" != vm ]] || configure_kernel "$root"
        [[ -z "$kind" ]] || add_packages "$root" "${added[@]}"
        printf '%s\n' "$wanted" >"$stamp"
    ) 9>"$root.lock" >&2
    printf '%s\n' "$root"
}

bootstrap() {
    local suite="$1" root="$2"
    need_programs debootstrap=debootstrap
    warn "making a root file system of $suite"
    debootstrap --variant=minbase --include="$BASE_PACKAGES" "$suite" "$root" "$(mirror)" >"$root.log" 2>&1 || {
        tail -n 20 "$root.log" >&2
        die "debootstrap of $suite failed; all it said: $root.log"
    }
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    # Asks the first boot for a locale and a root password.
    ln -sf /dev/null "$root/etc/systemd/system/systemd-firstboot.service"
    # Nothing to ask a person: this is the yes that an administrator types.
    printf '%s\n' 'APT::Get::Assume-Yes "true";' >"$root/etc/apt/apt.conf.d/90acceptance"
    # The journal outlives a reboot.
    mkdir -p "$root/var/log/journal"
    rm -f "$root/etc/machine-id" "$root/var/lib/dbus/machine-id"
}

# What a kernel's package makes its first root file system of: no more than knows the devices of our emulated computer.
configure_kernel() {
    local conf="$1/etc/initramfs-tools"
    mkdir -p "$conf/conf.d"
    printf 'MODULES=list\n' >"$conf/conf.d/acceptance"
    printf '%s\n' virtio_pci virtio_blk virtio_console ext4 >"$conf/modules"
}

# Installs packages of Debian into a root file system: add_packages ROOT PACKAGE...
add_packages() {
    local root="$1"
    warn "adding to ${root##*/}: ${*:2}"
    (
        cp --remove-destination /etc/resolv.conf "$root/etc/resolv.conf"
        [[ ! -e /etc/hosts ]] || cp /etc/hosts "$root/etc/hosts"
        # In a mount name space of its own: whatever happens, nothing stays mounted.
        # shellcheck disable=SC2016 # expanded by the inner shell
        unshare --mount --propagation private bash -euc '
            mount -t proc proc "$1/proc"
            chroot "$1" apt-get update -qq
            shift_root="$1"; shift
            chroot "$shift_root" apt-get install --yes -qq --no-install-recommends "$@"
            chroot "$shift_root" apt-get clean
        ' packages "$@"
    ) >"$root.log" 2>&1 || {
        tail -n 20 "$root.log" >&2
        die "installing packages failed; all it said: $root.log"
    }
    rm -rf "$root"/var/lib/apt/lists/*
    # The conffile is asked about by an upgrade otherwise; and the machine itself has no network.
    rm -f "$root/etc/resolv.conf"
}
