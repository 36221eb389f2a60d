# A machine as a container: the root file system's real systemd as PID 1 of name spaces. To be sourced after common.sh.
# shellcheck shell=bash
#
# Its keeper is one process that starts it, starts it again when it reboots, and clears up when it is gone: control groups are all that
# outlives it, as mounts and processes end with their name spaces. The keeper ends the machine when its owner dies, even of kill -9; and
# when the keeper is killed itself, the kernel ends the machine.

# The keeper's life: keep_container DIRECTORY OWNER-PID (0: nobody)
keep_container() {
    local directory="$1" owner="$2" name machine status
    name="tqserver-acceptance-$$"
    # shellcheck disable=SC2064 # the name as it is now
    trap "clear_container '$directory' '$name'" EXIT
    trap 'exit 143' TERM INT HUP
    remove_stale_groups
    ((owner == 0)) || tell_end_of "$owner"
    while :; do
        start_container "$directory" "$name" &
        machine=$!
        publish_pid "$directory" "$machine"
        status=0
        # A signal, as of the end of the owner, interrupts this and ends all.
        wait "$machine" || status=$?
        rm -f "$directory/pid"
        # What PID 1 of a name space asks of the kernel arrives as its signal: HUP for a reboot, INT for a power-off.
        ((status == 129)) || exit 0
    done
}

# Becomes the first process of the machine, in control groups of its own.
start_container() {
    local directory="$1" name="$2"
    # bash, and not this subshell's inherited traps.
    trap - EXIT TERM INT HUP
    join_groups "$name"
    exec setpriv --pdeathsig KILL \
        unshare --pid --fork --kill-child --mount --propagation private --cgroup --uts --ipc --net \
        bash "$LIB/init.sh" "$directory/root" "$(basename "$directory")" </dev/null
}

# Runs a command in DIRECTORY/root instead of a machine, as the first process there, in control groups called NAME and with the host's
# network: run_in_root DIRECTORY NAME COMMAND... Nothing it started outlives it; the groups are the caller's to remove.
run_in_root() (
    directory="$1" name="$2"
    shift 2
    trap - EXIT TERM INT HUP
    join_groups "$name"
    exec setpriv --pdeathsig KILL \
        unshare --pid --fork --kill-child --mount --propagation private --cgroup --uts --ipc \
        bash "$LIB/init.sh" "$directory/root" "$(basename "$directory")" "$@" </dev/null
)

# Puts this process into groups of this name in all hierarchies.
join_groups() {
    local name="$1" place options file
    while read -r place options; do
        mkdir -p "$place/$name"
        [[ "$options" != unified ]] || delegate "$place"
        # A new group of this controller is empty, and takes no process then.
        [[ ! -e "$place/$name/cpuset.cpus" || "$options" == unified ]] || for file in cpuset.cpus cpuset.mems; do
            cat "$place/$file" >"$place/$name/$file"
        done
        printf '%s\n' "$BASHPID" >"$place/$name/cgroup.procs"
    done < <("$LIB/hierarchies")
}

# Lets a group of the unified hierarchy use the controllers that its parent can give. On hybrid hosts there are none to give.
delegate() {
    local parent="$1" controller
    for controller in cpu memory pids io; do
        grep -qw "$controller" "$parent/cgroup.controllers" || continue
        # Refused where the parent holds processes itself; then the machine runs without this limit.
        printf '+%s\n' "$controller" >"$parent/cgroup.subtree_control" 2>/dev/null ||
            warn "the controller '$controller' can not be given to the machine"
    done
}

# Writes the pid of the machine's PID 1, as the host sees it, once it is there.
publish_pid() {
    local directory="$1" starter="$2" pid
    for _ in {1..100}; do
        # Before it becomes unshare(1), it has children of its own.
        pid=
        [[ "$(cat "/proc/$starter/comm" 2>/dev/null)" != unshare ]] || pid="$(pgrep --parent "$starter")" || pid=
        if [[ -n "$pid" ]]; then
            printf '%s\n' "$pid" >"$directory/pid.new"
            mv "$directory/pid.new" "$directory/pid"
            return 0
        fi
        alive "$starter" || return 0
        sleep 0.05
    done
}

clear_container() {
    local directory="$1" name="$2" jobs
    trap '' TERM INT HUP
    mapfile -t jobs < <(jobs -p)
    ((${#jobs[@]} == 0)) || kill -KILL "${jobs[@]}" 2>/dev/null || true
    wait
    eventually 10 remove_groups "$name" || warn "control groups are left: $name"
    rm -f "$directory"/{pid,keeper}
}

# Removes the groups of one name in all hierarchies; a group whose processes are still going can not be removed yet.
remove_groups() {
    local place _ left=0
    while read -r place _; do
        [[ -d "$place/$1" ]] || continue
        find "$place/$1" -depth -type d -exec rmdir {} + 2>/dev/null || left=1
    done < <("$LIB/hierarchies")
    ((left == 0))
}

# What keepers left that were killed with kill -9: groups named after a process that is no more.
remove_stale_groups() {
    local place _ group
    while read -r place _; do
        for group in "$place"/tqserver-acceptance-*; do
            [[ -d "$group" ]] || continue
            alive "${group##*-}" || remove_groups "${group##*/}" || true
        done
    done < <("$LIB/hierarchies")
}

# Runs a command in the machine; input, output and status are the command's.
enter_container() {
    local directory="$1" pid
    shift
    pid="$(cat "$directory/pid" 2>/dev/null)" || die "the machine is not up: $directory"
    nsenter --target "$pid" --all --wdns=/ env -i "${MACHINE_ENVIRONMENT[@]}" "$@"
}

# What tells one boot from the next.
boot_of_container() {
    cat "$1/pid" 2>/dev/null
}
