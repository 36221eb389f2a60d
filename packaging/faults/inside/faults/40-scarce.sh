# What runs out: descriptors, memory, space.
# shellcheck shell=bash

# Lets a service run with other limits until the fault is over: with_setting UNIT SETTING
with_setting() {
    local drop="/etc/systemd/system/$1.d"
    mkdir -p "$drop"
    printf '[Service]\n%s\n' "$2" >"$drop/90-fault.conf"
    undo "rm -rf $drop && systemctl daemon-reload && systemctl restart $1"
    run systemctl daemon-reload
    run systemctl restart "$1"
}

fault_proxy_at_its_limit_of_descriptors_by_connections() {
    with_setting tqserver-proxy.service LimitNOFILE=256
    load
    # Each asks once, and then keeps its connection: far more than the proxy can have. Not all in one moment: of those that come
    # faster than they can be asked what they want, some are turned away, as "server.max_connections" says.
    python3 /faults/crowd.py --connections 1000 --seconds $((15 * FACTOR)) --rate $((100 / FACTOR))
    verdict 3
    undo_all
    all_is_well
}

# A container may not change the limits of a process.
fault_running_proxy_left_without_descriptors() { #: vm
    load
    local proxy used limit
    proxy="$(main_pid tqserver-proxy)"
    limit="$(prlimit --pid "$proxy" --nofile --noheadings --output SOFT,HARD | tr -s ' ' : | sed 's/^://; s/:$//')"
    undo "prlimit --pid $proxy --nofile=$limit"
    used="$(find "/proc/$proxy/fd" -mindepth 1 | wc -l)"
    run prlimit --pid "$proxy" --nofile="$used"
    python3 /faults/crowd.py --connections 200 --seconds 5
    undo_all
    load_goes_on 200
    verdict 8
    is "$(main_pid tqserver-proxy)" "$proxy" 'the same proxy'
    has_not "$(tqserver status)" 'alpha: .*last failure'
    all_is_well
}

fault_worker_at_its_memory_max() {
    YAML='gomemlimit: 128MiB' live alpha "$(next_version)"
    load
    watch_deaths "tqserver-alpha@$(generation alpha).service"
    local since
    for _ in 1 2 3; do
        since=$SECONDS
        # It can not be answered. It is sent again, as a GET whose connection broke may be, and each time a process ends; five
        # of them in ten seconds are a worker that is broken.
        get '/alpha/eat?400' || true
        load_goes_on 100
        eventually 15 clock_is_past $((since + 10))
    done
    # Three processes, one after another, each with a restart.
    verdict 6
    # Of the older hierarchies systemd does not hear why the process was killed.
    [[ ! -e /sys/fs/cgroup/cgroup.controllers ]] || eventually 10 prints oom-kill tqserver history alpha
    all_is_well
}

# The memory that a service uses may grow by so many MiB, until the fault is over: lid_on UNIT MIB
lid_on() {
    local now
    now="$(systemctl show --property=MemoryCurrent --value "$1")"
    undo "systemctl set-property --runtime $1 MemoryMax=infinity; systemctl revert $1; systemctl restart $1"
    run systemctl set-property --runtime "$1" "MemoryMax=$((now + ($2 << 20)))"
}

fault_proxy_at_its_memory_max() {
    load
    watch_deaths tqserver-proxy.service
    local proxy
    proxy="$(main_pid tqserver-proxy)"
    lid_on tqserver-proxy.service 2
    python3 /faults/crowd.py --connections 4000 --seconds 5
    new_main_pid tqserver-proxy "$proxy" || echo 'it could do with the memory it had'
    undo_all
    # Its successors have no more memory than it had, as long as the crowd is there.
    verdict 10
    all_is_well
}

fault_manager_at_its_memory_max() {
    load
    local manager
    manager="$(main_pid tqserver)"
    lid_on tqserver.service 2
    local number
    for number in {1..20}; do
        mkdir -p "$SRV/big$number/config"
        cp "$SRV/alpha/main.py" "$SRV/alpha/version" "$SRV/big$number/"
        {
            printf 'env:\n'
            seq -f '    V%.0f: "a value that takes some room in the memory of who reads it"' 4000
        } >"$SRV/big$number/config/worker.yaml"
    done
    undo "rm -rf $SRV/big*"
    timeout $((60 * FACTOR)) systemctl reload tqserver || true
    new_main_pid tqserver "$manager" || echo 'it could do with the memory it had'
    undo_all
    verdict 2
    eventually 60 systemctl is-active tqserver
    all_is_well
}

# Fills a file system to the last byte: fill PATH
fill() {
    undo "rm -f $1/faults-fill"
    # Its end is the error that is wanted.
    dd if=/dev/zero of="$1/faults-fill" bs=64k 2>/dev/null || true
    dd if=/dev/zero of="$1/faults-fill" bs=1 count=65536 oflag=append conv=notrunc 2>/dev/null || true
    run df "$1"
}

fault_run_full() {
    local size manager proxy
    size="$(findmnt --noheadings --bytes --output SIZE /run | tr -d ' ')"
    undo "mount -o remount,size=$size /run"
    # Else filling it would take all the memory of the machine.
    run mount -o "remount,size=$(($(df --output=used -k /run | tail -n 1) + 2048))k" /run
    load
    fill /run
    load_goes_on 200
    YAML='' deploy alpha "$(next_version)"
    # Whether systemd can start one more unit then is its own affair. That it ends, in time, is ours.
    local status=0
    timeout $((90 * FACTOR)) systemctl reload tqserver || status=$?
    ((status != 124)) || fail 'the reload did not end'
    manager="$(main_pid tqserver)"
    moment kill "$manager"
    eventually 60 new_main_pid tqserver "$manager"
    proxy="$(main_pid tqserver-proxy)"
    moment kill "$proxy"
    eventually 60 new_main_pid tqserver-proxy "$proxy"
    load_goes_on 200
    undo_all
    load_goes_on 200
    verdict 3
    all_is_well
}

# Puts /var into a file system of its own, with so much room, until the fault is over: small_var MIB
small_var() {
    local journal='systemctl restart systemd-journald'
    run systemctl stop tqserver
    undo "systemctl stop tqserver; umount -l /var; $journal; systemctl start tqserver"
    mkdir -p /mnt/var
    mount -t tmpfs -o "mode=0755,size=$(($(du -sm /var | cut -f1) + $1))m" tmpfs /mnt/var
    cp -a /var/. /mnt/var/
    mount --move /mnt/var /var 2>/dev/null || {
        # A mount below one that is shared can not be moved.
        mount --bind /mnt/var /var
        umount -l /mnt/var
    }
    $journal
    run systemctl start tqserver
    eventually 30 port_is_open 8080
    eventually 30 prints '^alpha' get /alpha
}

# What a server with a disk that takes nothing does: reload fails, with a reason; all else goes on. without_disk PATTERN
without_disk() {
    local manager proxy before
    before="$(get /alpha)"
    load_goes_on 200
    YAML='' deploy alpha "$(next_version)"
    refused timeout $((120 * FACTOR)) tqserver reload
    has "$OUTPUT" "$1"
    page_is /alpha "$before"
    manager="$(main_pid tqserver)"
    moment kill "$manager"
    eventually 60 new_main_pid tqserver "$manager"
    proxy="$(main_pid tqserver-proxy)"
    moment kill "$proxy"
    eventually 60 new_main_pid tqserver-proxy "$proxy"
    load_goes_on 200
    page_is /alpha "$before"
}

fault_var_full() {
    small_var 24
    load
    fill /var
    without_disk 'space left|full'
    rm /var/faults-fill
    load_goes_on 200
    verdict 3
    all_is_well
    undo_all
    all_is_well
}

fault_var_read_only() {
    small_var 64
    load
    # Refused as long as a file is open for writing, as the journal is.
    eventually 30 read_only_var
    without_disk 'read-only'
    run mount -o remount,rw /var
    load_goes_on 200
    verdict 3
    all_is_well
    undo_all
    all_is_well
}

read_only_var() {
    systemctl kill --kill-whom=main --signal=USR2 systemd-journald || true
    journalctl --relinquish-var >/dev/null 2>&1 || true
    mount -o remount,ro /var || return 1
    # The file system is to be read-only, as the kernel makes one after an error of its disk, and not this mount of it: services that are
    # started now would inherit that, and keep it for as long as they run.
    mount -o remount,bind,rw /var
}
