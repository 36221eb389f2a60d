//! Why a key that is none may have been expected to be one: systemd's words, and what is the administrator's.

/// Why a worker does not set what systemd has a property for.
const OURS: &str = "systemd's properties are written by TQServer";
/// Why a worker does not set what would let who deploys it reach beyond it.
const OWN: &str = "it runs as its own user, in its own sandbox";
/// Why a key that means something elsewhere is none here.
const NAMED: &str = "it has another name here";
/// What to do where no key comes near.
const REMOVE: &str = "remove it; a worker.yaml says what runs ('command') and within which limits";

/// Keys without '_' and '-' (those that end in '*': beginnings of keys), why a worker can not set them, and what to do instead. The
/// first row that fits counts.
const ROWS: [(&[&str], &str, &str); 23] = [
    (
        &[
            "logfile",
            "standardoutput",
            "standarderror",
            "syslog*",
            "logsdirectory*",
        ],
        "where files are written is the administrator's choice",
        "remove it; server.yaml sets 'log_file' in 'workers.default' or 'workers.paths'",
    ),
    (
        &["cpuquota*", "cpus", "cpulimit", "cores"],
        OURS,
        "the key for it is 'gomaxprocs', a number of cores",
    ),
    (
        &["memorymax*", "memorylimit", "memoryswapmax", "memory"],
        OURS,
        "the key for it is 'gomemlimit', as in \"512MiB\"",
    ),
    (
        &["maxconnections*", "maxconn", "maxconns"],
        "connections to a worker are the proxy's",
        "the key for requests at a time is 'max_concurrency'",
    ),
    (
        &["limitnproc", "pidsmax"],
        OURS,
        "the key for it is 'tasks_max', a number of processes and threads",
    ),
    (
        &["replicas", "processes", "numprocs", "scale"],
        "TQServer starts, replaces and stops it",
        "the key for it is 'instances', a number of processes",
    ),
    (
        &[
            "privatenetwork",
            "ipaddress*",
            "restrictaddressfamilies",
            "networknamespace*",
        ],
        OURS,
        "the key for it is 'network': none, loopback or full",
    ),
    (
        &[
            "loadcredential*",
            "setcredential*",
            "importcredential*",
            "secret",
            "secrets",
        ],
        "which secret is whose is the administrator's choice",
        "name those it needs in 'credentials', as in [db_password]; they lie in the server's credentials/WORKER/NAME",
    ),
    (
        &["statedirectory*", "runtimedirectory*"],
        OURS,
        "remove it; the environment variable STATE_DIRECTORY names a directory that each worker has",
    ),
    (
        &["cachedirectory*"],
        OURS,
        "write 'cache: true'; the environment variable CACHE_DIRECTORY then names it",
    ),
    (
        &["memorydenywriteexecute"],
        OURS,
        "write 'jit: true' for a program that makes machine code while it runs",
    ),
    (
        &["systemcall*", "keyring*", "iouring*", "seccomp*"],
        OURS,
        "io_uring and the kernel's keyrings are opened by 'kernel', as in [io_uring]; nothing opens other calls",
    ),
    (
        &["environmentfile*", "envfiles", "dotenv*"],
        OURS,
        "the key for it is 'env_file', as in [.env]",
    ),
    (
        &["environment", "passenvironment", "unsetenvironment"],
        OURS,
        "the key for it is 'env', with names and values below it",
    ),
    (
        &["exec", "execstart", "start", "run"],
        OWN,
        "the key for what runs is 'command'",
    ),
    (
        &["gzip*", "brotli*", "zstd*", "compress", "encode", "deflate"],
        "how answers are compressed follows from what a client takes",
        "the key for whether they are is 'compression': true or false",
    ),
    (
        &[
            "domain*",
            "servername*",
            "serveralias*",
            "virtualhost*",
            "vhost*",
        ],
        NAMED,
        "the key for it is 'hosts', as in [example.org, \"*.example.org\"]",
    ),
    (
        &["rewrite*"],
        NAMED,
        "the key for it is 'redirects', or 'strip_prefix: true' for a worker that does not know its route",
    ),
    (
        &["errordocument*"],
        NAMED,
        "the key for it is 'error_pages', as in {404: errors/404.html}",
    ),
    (
        &["wantedby", "requiredby", "onboot"],
        OURS,
        "write 'autostart: true' to have it started with the server",
    ),
    (
        &[
            "restart*",
            "timeoutstartsec",
            "timeoutstopsec",
            "timeoutsec",
            "watchdog*",
            "killmode",
            "killsignal",
            "startlimit*",
        ],
        "TQServer starts, replaces and stops it",
        "remove it; 'health' says when it is well",
    ),
    (
        &[
            "user",
            "group",
            "dynamicuser",
            "supplementarygroups",
            "uid",
            "gid",
            "exec*",
            "ambientcapabilities",
            "capabilit*",
            "nonewprivileges",
            "securebits",
            "umask",
            "rootdirectory*",
            "rootimage*",
            "workingdirectory",
            "bind*",
            "mount*",
            "joinsnamespaceof",
            "temporaryfilesystem",
            "inaccessiblepaths",
            "readonlypaths",
            "readwritepaths",
            "noexecpaths",
            "execpaths",
            "sandbox",
            "security",
            "private*",
            "protect*",
            "restrict*",
            "procsubset",
            "lockpersonality",
            "removeipc",
            "delegate*",
            "device*",
            "pamname",
            "selinuxcontext",
            "apparmorprofile",
            "smackprocesslabel",
        ],
        OWN,
        REMOVE,
    ),
    (
        &[
            "systemd",
            "unit",
            "service",
            "socket",
            "slice",
            "properties",
            "after",
            "before",
            "requires",
            "wants",
            "partof",
            "bindsto",
            "conflicts",
            "nice",
            "oomscoreadjust",
            "oompolicy",
            "cpuscheduling*",
            "cpuaffinity",
            "numa*",
            "ioscheduling*",
            "ioreadbandwidth*",
            "iowritebandwidth*",
            "iodevice*",
            "limitas",
            "limitcore",
            "limitcpu",
            "limitfsize",
            "limitmemlock",
            "limitnofile",
            "memorylow",
            "memorymin",
            "allowedcpus",
            "allowedmemorynodes",
            "configurationdirectory*",
        ],
        OURS,
        REMOVE,
    ),
];

/// A message and help for `key`, which is no key of worker.yaml.
pub(super) fn explain(key: &str) -> Option<(String, String)> {
    let plain = key.to_lowercase().replace(['_', '-'], "");
    let row = ROWS
        .iter()
        .find(|(names, ..)| names.iter().any(|name| fits(&plain, name)));
    if let Some((_, why, help)) = row {
        let message = format!("a worker can not set '{key}': {why}");
        return Some((message, (*help).to_owned()));
    }
    let health = [
        "timeout_seconds",
        "interval_seconds",
        "start_timeout_seconds",
        "failures",
    ];
    health.contains(&key).then(|| {
        let message = format!("'{key}' is a key of 'health', not of the whole file");
        (message, "move it below 'health:', indented".to_owned())
    })
}

/// Whether `key` is `name`, or begins with it if it ends in '*'.
fn fits(key: &str, name: &str) -> bool {
    match name.strip_suffix('*') {
        Some(beginning) => key.starts_with(beginning),
        None => key == name,
    }
}
