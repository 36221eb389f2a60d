//! What stands around a worker of the machine's systemd: a user of its own, its own files, and nothing it does not need
//! (systemd.exec(5), "Sandboxing").

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::directive::{Directive, directive, quote, switch, words};
use super::state::State;
use crate::config::{KernelPart, Network};
use crate::route::Address;
use crate::systemd::netlink;

/// Sockets of the machine that no worker needs. What is there of the bus would answer a worker too; the journal takes its output
/// without, and from its socket lines that look like another's.
const MACHINE: [&str; 9] = [
    "/run/dbus",
    "/run/systemd/private",
    "/run/systemd/notify",
    "/run/systemd/journal",
    // What other workers are made of: environments, records, where their secrets lie.
    "/run/systemd/transient",
    "/run/systemd/units",
    // Each answers anybody, and is started by who asks.
    "/run/systemd/io.systemd.Credentials",
    "/run/systemd/io.systemd.Hostname",
    "/run/systemd/io.system.ManagedOOM",
];
/// The machine's shared memory is shared by all its users; each worker gets its own.
const SHARED_MEMORY: (&str, &str) = ("/dev/shm", "mode=1777,nosuid,nodev");
/// Daemons that look up names in the network for whoever asks by a unix socket: a way out of `network: none`.
const RESOLVERS: [&str; 3] = ["/run/systemd/resolve", "/run/nscd", "/run/avahi-daemon"];
/// Calls that services usually need. What asks for privileges or changes the share of the machine is taken out again.
const CALLS: &str = "@system-service";
const NO_CALLS: [&str; 2] = ["@privileged", "@resources"];
/// Of these, what libraries call for threads of their own, often to set what is set already: ZeroMQ, OpenMP and language runtimes abort or
/// complain if they may not. What it can reach by them is bounded elsewhere: by `RestrictRealtime=`, by having no capability and no
/// limit above its own (RLIMIT_NICE, RLIMIT_RTPRIO), and by its control group's share of the processors.
const OWN_THREADS: [&str; 5] = [
    "sched_setaffinity",
    "sched_setattr",
    "sched_setparam",
    "sched_setscheduler",
    "setpriority",
];
/// For the filter that is laid over systemd's, which can only close more (see [`netlink`]). Newer versions have it among the usual ones.
const OWN_FILTER: &str = "seccomp";
/// What is closed unless a worker names it: for most a way into the kernel and nothing else.
const PARTS: [(KernelPart, &[&str]); 2] = [
    // It makes sockets and opens files without the calls that are filtered.
    (
        KernelPart::IoUring,
        &["io_uring_setup", "io_uring_enter", "io_uring_register"],
    ),
    (KernelPart::Keyrings, &["@keyring"]),
];
/// Whatever is in here is the same program at any place in a sandbox.
const INSTALLED: &str = "/usr/";
/// Where a sandbox has this program, if it lies where a worker cannot see it: beside the snapshots, all but one of which it does not see.
const STARTER: &str = ".start";
/// `errno` of EPERM. A call that is refused is reported by the program; one that kills it is hard to understand.
const EPERM: i32 = 1;
/// A bind mount takes what is mounted below with it, as `BindReadOnlyPaths=` does unless told otherwise: MS_REC (mount(2)).
const RECURSIVE: u64 = 0x4000;
/// Address families (socket(2)) for `IPAddressAllow`.
const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;

/// What the machine's systemd can put around a worker: a user of its own, and a view of the machine that ends at what it needs.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Whom it runs as: a user that no other worker has.
    pub user: String,
    /// What of the network it can reach.
    pub network: Network,
    /// Whether its memory may be writable and executable.
    pub jit: bool,
    /// What of the kernel is open to it that is closed otherwise.
    pub kernel: Vec<KernelPart>,
    /// Whether it has a cache directory.
    pub cache: bool,
    /// The ports of workers, of which it has its own alone.
    pub ports: RangeInclusive<u16>,
    /// The directory of all workers' snapshots: of all that is below it the worker sees [`UnitPair::directory`] alone.
    pub snapshots: PathBuf,
    /// What else is ours and no business of a worker: configuration, sockets, other workers.
    pub hidden: Vec<PathBuf>,
}

/// A secret that systemd hands to a worker as a file (systemd.exec(5), `LoadCredential=`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The name of the file in `CREDENTIALS_DIRECTORY`.
    pub name: String,
    /// Where the administrator has put it.
    pub path: PathBuf,
    /// Whether it is encrypted with systemd-creds(1).
    pub encrypted: bool,
}

impl Sandbox {
    /// The walls around a worker, which sees these files: its own, and this program.
    pub(super) fn directives(
        &self,
        state: State<'_>,
        files: (&Path, &Path),
        address: &Address,
    ) -> Vec<Directive> {
        let (directory, starter) = files;
        let mut lines = self.identity(state);
        lines.extend(self.files(directory, starter));
        lines.extend(self.kernel());
        lines.extend(self.network());
        lines.extend(self.ports(address));
        lines
    }

    /// Where the worker finds this program, which is at `program`. An upgrade replaces it there.
    pub(super) fn starter(&self, program: &Path) -> PathBuf {
        match program.starts_with(INSTALLED) {
            true => program.to_owned(),
            false => self.snapshots.join(STARTER),
        }
    }

    /// Whether it has netlink, of which all but one protocol is to be closed.
    pub(super) fn closes_netlink(&self) -> bool {
        self.network != Network::None && netlink::can_be_closed()
    }

    /// A user that exists while one of its processes does, with directories that are its own whenever it comes back.
    ///
    /// What the proxy serves of its state lies apart, in the one place of it that the proxy sees, and is bound to where the worker looks for
    /// it. The proxy is a stranger there: it may pass the directories, and read what anybody may. Nobody else gets past `/var/lib/private`.
    fn identity(&self, state: State<'_>) -> Vec<Directive> {
        let (user, own) = (self.user.clone(), format!("tqserver/{}", state.worker));
        let private = |key| directive("Service", key, "0700", 0o700_u32);
        let (state_mode, umask) = match state.stored.is_empty() {
            true => (0o700_u32, 0o077_u32),
            false => (0o711, 0o022),
        };
        let octal = |key, mode: u32| directive("Service", key, format!("{mode:04o}"), mode);
        let mut lines = vec![
            switch("DynamicUser", true),
            // The same for all generations: with a name of its own each would take the directory away from the one before.
            directive("Service", "User", user.clone(), user),
            words("StateDirectory", state.directories()),
            octal("StateDirectoryMode", state_mode),
        ];
        if self.cache {
            lines.push(words("CacheDirectory", vec![own]));
            lines.push(private("CacheDirectoryMode"));
        }
        lines.extend([
            octal("UMask", umask),
            directive("Service", "KeyringMode", "private", "private"),
            switch("RemoveIPC", true),
            switch("NoNewPrivileges", true),
            switch("RestrictSUIDSGID", true),
            directive("Service", "CapabilityBoundingSet", "", 0_u64),
        ]);
        lines
    }

    /// What it sees of the file system, of devices and of other processes.
    fn files(&self, directory: &Path, starter: &Path) -> Vec<Directive> {
        let snapshots = self.snapshots.display().to_string();
        let mut bound = vec![(directory.to_owned(), directory.to_owned())];
        let seen = self.starter(starter);
        if seen != starter {
            bound.push((starter.to_owned(), seen));
        }
        let resolvers: &[&str] = match self.network {
            Network::None => &RESOLVERS,
            Network::Loopback | Network::Full => &[],
        };
        let hidden = self.hidden.iter().map(|path| path.display().to_string());
        let machines = MACHINE
            .iter()
            .chain(resolvers)
            .map(|path| (*path).to_owned());
        // With '-': what is not there need not be hidden.
        let hidden = hidden.chain(machines).map(|path| format!("-{path}"));
        let proc_subset = if self.jit { "all" } else { "pid" };
        vec![
            directive("Service", "ProtectSystem", "strict", "strict"),
            directive("Service", "ProtectHome", "yes", "yes"),
            Directive {
                section: "Service",
                key: "TemporaryFileSystem",
                text: format!(
                    "{} {}:{}",
                    quote(&format!("{snapshots}:ro")),
                    SHARED_MEMORY.0,
                    SHARED_MEMORY.1
                ),
                property: "TemporaryFileSystem",
                value: vec![
                    (snapshots, "ro".to_owned()),
                    (SHARED_MEMORY.0.to_owned(), SHARED_MEMORY.1.to_owned()),
                ]
                .into(),
            },
            bind(bound),
            words("InaccessiblePaths", hidden.collect()),
            // Beside some of the switches below, ProtectSystem= leaves out /run, and with it /run/lock, which is everybody's.
            words("ReadOnlyPaths", vec!["/run".to_owned()]),
            switch("PrivateTmp", true),
            switch("PrivateDevices", true),
            switch("PrivateMounts", true),
            switch("PrivateIPC", true),
            switch("PrivateUsers", true),
            directive("Service", "ProtectProc", "invisible", "invisible"),
            // What makes machine code for this machine asks /proc/cpuinfo and /proc/meminfo what it is.
            directive("Service", "ProcSubset", proc_subset, proc_subset),
        ]
    }

    /// What it may ask of the kernel.
    fn kernel(&self) -> Vec<Directive> {
        let mut lines: Vec<Directive> = [
            "ProtectClock",
            "ProtectHostname",
            "ProtectKernelTunables",
            "ProtectKernelModules",
            "ProtectKernelLogs",
            "ProtectControlGroups",
            "RestrictRealtime",
            "LockPersonality",
        ]
        .map(|key| switch(key, true))
        .into();
        if !self.jit {
            lines.push(switch("MemoryDenyWriteExecute", true));
        }
        lines.push(Directive {
            section: "Service",
            key: "RestrictNamespaces",
            text: "yes".to_owned(),
            property: "RestrictNamespaces",
            // The kinds of name spaces it may make: none.
            value: 0_u64.into(),
        });
        lines.push(words("SystemCallArchitectures", vec!["native".to_owned()]));
        lines.push(filter("SystemCallFilter", true, &[CALLS, OWN_FILTER]));
        let closed = PARTS
            .iter()
            .filter(|(part, _)| !self.kernel.contains(part))
            .flat_map(|(_, calls)| *calls);
        let closed: Vec<&str> = NO_CALLS.iter().chain(closed).copied().collect();
        lines.push(filter("SystemCallFilter", false, &closed));
        lines.push(filter("SystemCallFilter", true, &OWN_THREADS));
        lines.push(directive(
            "Service",
            "SystemCallErrorNumber",
            "EPERM",
            EPERM,
        ));
        lines
    }

    /// The ports it can listen on: of those that workers are given, its own. Where cgroups are not of the unified hierarchy systemd does
    /// nothing about it, without a word; there, and for who was there first, the proxy looks whose a port is.
    fn ports(&self, address: &Address) -> Vec<Directive> {
        if self.network == Network::None {
            return Vec::new();
        }
        let mut lines = vec![ports("SocketBindDeny", &self.ports)];
        if let Address::Tcp(own) = address {
            lines.push(ports("SocketBindAllow", &(own.port()..=own.port())));
        }
        lines
    }

    /// What it reaches of the network. Its own socket was opened by systemd: none of this concerns it.
    fn network(&self) -> Vec<Directive> {
        // With netlink a program can ask which addresses the machine has (getifaddrs(3)), as Node.js, Go and Python do.
        // Where our own filter cannot be built that is not worth its other protocols.
        let mut internet = vec!["AF_UNIX", "AF_INET", "AF_INET6"];
        internet.extend(self.closes_netlink().then_some("AF_NETLINK"));
        let key = "RestrictAddressFamilies";
        match self.network {
            Network::None => vec![
                switch("PrivateNetwork", true),
                filter(key, true, &["AF_UNIX"]),
            ],
            Network::Loopback => vec![
                addresses(
                    "IPAddressDeny",
                    "any",
                    vec![(AF_INET, vec![0; 4], 0), (AF_INET6, vec![0; 16], 0)],
                ),
                addresses(
                    "IPAddressAllow",
                    "localhost",
                    vec![
                        (AF_INET, vec![127, 0, 0, 0], 8),
                        (AF_INET6, [[0; 15].as_slice(), &[1]].concat(), 128),
                    ],
                ),
                filter(key, true, &internet),
            ],
            Network::Full => vec![filter(key, true, &internet)],
        }
    }
}

/// The TCP ports `ports`, of both versions of IP.
fn ports(key: &'static str, ports: &RangeInclusive<u16>) -> Directive {
    /// As the bus knows them: any family, and socket(2)'s IPPROTO_TCP.
    const ANY: i32 = 0;
    const TCP: i32 = 6;
    let (first, last) = (*ports.start(), *ports.end());
    let text = match first == last {
        true => format!("tcp:{first}"),
        false => format!("tcp:{first}-{last}"),
    };
    // There is no port 0, so they are never all of a u16.
    let number = last.saturating_sub(first).saturating_add(1);
    directive("Service", key, text, vec![(ANY, TCP, number, first)])
}

/// Shows the worker the first of each of `paths` at the second.
fn bind(paths: Vec<(PathBuf, PathBuf)>) -> Directive {
    let paths = paths
        .into_iter()
        .map(|(from, to)| (from.display().to_string(), to.display().to_string()));
    let words: Vec<_> = paths
        .clone()
        .map(|(from, to)| match from == to {
            true => quote(&from),
            // Its parts are divided by ':'.
            false => format!("{}:{}", quote(&from), quote(&to)),
        })
        .collect();
    let value: Vec<_> = paths
        .map(|(from, to)| (from, to, false, RECURSIVE))
        .collect();
    directive("Service", "BindReadOnlyPaths", words.join(" "), value)
}

/// A list of what is allowed, or of what is not.
fn filter(key: &'static str, allowed: bool, names: &[&str]) -> Directive {
    let not = if allowed { "" } else { "~" };
    let list: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    directive(
        "Service",
        key,
        format!("{not}{}", names.join(" ")),
        (allowed, list),
    )
}

/// Networks as (family, address, length of the prefix).
fn addresses(key: &'static str, word: &str, networks: Vec<(i32, Vec<u8>, u32)>) -> Directive {
    directive("Service", key, word, networks)
}

impl Credential {
    /// How systemd is told of it.
    pub(super) fn directive(&self) -> Directive {
        let key = if self.encrypted {
            "LoadCredentialEncrypted"
        } else {
            "LoadCredential"
        };
        let path = self.path.display().to_string();
        let text = quote(&format!("{}:{path}", self.name));
        directive("Service", key, text, vec![(self.name.clone(), path)])
    }
}
