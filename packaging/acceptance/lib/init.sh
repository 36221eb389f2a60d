#!/bin/bash
# The first process of a container, before it becomes systemd: makes ROOT the root, with the kernel's file systems mounted.
# Runs in new pid, mount, cgroup, uts, ipc and network name spaces: init.sh ROOT NAME [COMMAND...]
# With a COMMAND it becomes that instead of systemd, with its environment.
# What is mounted here is seen by no other process of the host, and goes with the machine.
set -euo pipefail
root="$1"
name="$2"

mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
# Kernel settings are the host's too, but those of the network are this machine's own.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,bind,ro "$root/proc/sys"
if [[ -e "$root/proc/sysrq-trigger" ]]; then
    mount --bind "$root/proc/sysrq-trigger" "$root/proc/sysrq-trigger"
    mount -o remount,bind,ro "$root/proc/sysrq-trigger"
fi
mount -t sysfs -o nosuid,nodev,noexec sysfs "$root/sys"

# The hierarchies of control groups as the host has them: what one mounts in a cgroup name space begins at the own group.
if [[ "$(stat -fc %T /sys/fs/cgroup)" == cgroup2fs ]]; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
else
    mount -t tmpfs -o nosuid,nodev,noexec,mode=755 tmpfs "$root/sys/fs/cgroup"
    while read -r place options; do
        group="$root/sys/fs/cgroup/${place##*/}"
        case "$options" in
        unified) mkdir "$group" && mount -t cgroup2 cgroup2 "$group" ;;
        name=*) mkdir "$group" && mount -t cgroup -o "none,$options" cgroup "$group" ;;
        *)
            mkdir "$group"
            mount -t cgroup -o "$options" cgroup "$group"
            # Two controllers in one: each has a name of its own as well.
            [[ "$options" != *,* ]] || for one in ${options//,/ }; do ln -s "${place##*/}" "$root/sys/fs/cgroup/$one"; done
            ;;
        esac
    done < <("$(dirname "$0")/hierarchies")
fi
mount -o remount,bind,ro "$root/sys"

mount -t tmpfs -o nosuid,mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs "$root/run"
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$root/tmp"

hostname "$name"
cd "$root"
# The old root lies over the new one for a moment, and is then taken away.
pivot_root . .
umount -l .
cd /
(($# == 2)) || exec "${@:3}"
# In a container systemd leaves this to who made it; without it, what it mounts for a service's credentials does not reach the service.
mount --make-rshared /
# Newer systemd refuses the older hierarchies unless it is told twice; where the host has the unified one, both say nothing.
legacy=SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1
exec env -i container=acceptance "$legacy" "SYSTEMD_PROC_CMDLINE=$legacy" PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --log-target=journal </dev/null
