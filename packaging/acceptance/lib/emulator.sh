# A machine as an emulated computer: QEMU without hardware help, Debian's own kernel, the unified hierarchy of control groups. To be
# sourced after common.sh.
# shellcheck shell=bash
#
# There is no network, so commands go through a serial port of its own to an agent in the machine (agent.py, channel.py).

# Puts the agent into the root, and makes an image of it: prepare_emulator DIRECTORY SUITE
prepare_emulator() {
    local directory="$1" root="$1/root" boot
    need_programs qemu-system-x86_64=qemu-system-x86 mke2fs=e2fsprogs
    boot="$(acceptance_directory)/bases/$2-vm/boot"
    # The name of a kernel has its version; there is one in a base.
    cp "$boot"/vmlinuz-* "$directory/kernel"
    cp "$boot"/initrd.img-* "$directory/initrd"
    rm -rf "${root:?}"/boot/*
    install -D -m 0755 "$LIB/agent.py" "$root/usr/local/lib/acceptance/agent.py"
    install -D -m 0644 "$LIB/agent.service" "$root/etc/systemd/system/acceptance-agent.service"
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    ln -sf ../acceptance-agent.service "$root/etc/systemd/system/multi-user.target.wants/"
    printf '/dev/vda / ext4 rw 0 1\n' >"$root/etc/fstab"
    mke2fs -q -t ext4 -L root -d "$root" "$directory/image" 3G
    rm -rf "$root"
}

# The keeper's life: keep_emulator DIRECTORY OWNER-PID (0: nobody)
keep_emulator() {
    local directory="$1" owner="$2"
    # Relative names from here on: the path of a unix socket has a limit.
    cd "$directory" || exit
    trap clear_emulator EXIT
    trap 'exit 143' TERM INT HUP
    ((owner == 0)) || tell_end_of "$owner"
    # mitigations=off: there is nobody here to guard against, and with them Debian 13's kernel (6.12) ends in double faults after some
    # minutes in QEMU 7.2. Without page table isolation it runs to the end.
    setpriv --pdeathsig KILL qemu-system-x86_64 \
        -accel tcg,thread=multi -cpu max -machine q35 -m 2G -smp 2 -nodefaults -no-user-config -display none -nic none \
        -kernel kernel -initrd initrd \
        -append 'root=/dev/vda rw console=ttyS0 loglevel=3 panic=-1 mitigations=off systemd.show_status=0 net.ifnames=0' \
        -drive file=image,if=virtio,format=raw,cache=unsafe \
        -device virtio-rng-pci \
        -serial file:console.log \
        -device virtio-serial-pci -chardev socket,id=channel,path=channel,server=on,wait=off \
        -device virtserialport,chardev=channel,name=acceptance </dev/null >qemu.log 2>&1 &
    printf '%s\n' "$!" >pid
    # A signal interrupts this and ends all.
    wait "$!" || true
}

clear_emulator() {
    local jobs
    trap '' TERM INT HUP
    mapfile -t jobs < <(jobs -p)
    ((${#jobs[@]} == 0)) || kill -KILL "${jobs[@]}" 2>/dev/null || true
    wait
    rm -f pid keeper channel
}

enter_emulator() {
    local directory="$1"
    shift
    [[ -e "$directory/pid" ]] || die "the machine is not up: $directory"
    python3 "$LIB/channel.py" "$directory" env -i "${MACHINE_ENVIRONMENT[@]}" "$@"
}

boot_of_emulator() {
    enter_emulator "$1" cat /proc/sys/kernel/random/boot_id 2>/dev/null </dev/null
}
