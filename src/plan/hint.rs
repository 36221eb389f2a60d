//! What helps where many meet the same failure.

use super::reason::Reason;
use crate::config::{KernelPart, Listen, Network, WorkerSettings, WorkerType};
use crate::systemd::Ending;

/// What languages say of something that is not installed; its name follows, in quotes or not.
const NOT_INSTALLED: [&str; 5] = [
    "Cannot find module ",
    "Cannot find package ",
    "ModuleNotFoundError: No module named ",
    "cannot load such file -- ",
    "Could not find gem ",
];

/// What programs say whose port somebody else has.
const TAKEN: [&str; 2] = ["EADDRINUSE", "Address already in use"];

/// What programs say of a call that the sandbox has refused, among others.
const REFUSED: [&str; 2] = ["EPERM", "Operation not permitted"];

/// How the kernel ends a program for a system call that is not allowed (SIGSYS, signal(7)).
const SIGSYS: i32 = 31;

/// A line that says what helps, if that can be told from why a worker failed and from what it wrote last. `confined`: it
/// runs in the sandbox of production.
pub(super) fn hint(
    settings: &WorkerSettings,
    reason: &Reason,
    log: &[String],
    confined: bool,
) -> Option<String> {
    match reason {
        Reason::Instance(_, reason) => hint(settings, reason, log, confined),
        Reason::Ended(Ending::Signal(SIGSYS)) if confined => Some(format!(
            "hint: the sandbox stopped a system call that is not allowed; `kernel:` in its config/worker.yaml opens {} and {}, \
             and nothing opens the rest",
            KernelPart::IoUring,
            KernelPart::Keyrings
        )),
        Reason::Ended(_) if log.iter().any(|line| lacks_a_package(line)) => Some(format!(
            "hint: what it needs is not installed: name it in package.json, requirements.txt or pyproject.toml; \
             before a deploy, `tqserver build --release {}` installs it",
            settings.name
        )),
        Reason::Ended(_) if confined && has(log, &REFUSED) => refused(settings),
        Reason::Ended(_) if !has(log, &TAKEN) => None,
        Reason::Ended(_) | Reason::NotReady(_) => match (settings.kind, settings.listen) {
            (WorkerType::Php | WorkerType::Static, _) => None,
            (_, Listen::Socket) => Some(
                "hint: it has to listen on the socket it is handed, descriptor 3; one that opens a port of its own \
                 needs `listen: port` in its config/worker.yaml, and takes the port that the variable PORT names"
                    .to_owned(),
            ),
            (_, Listen::Port) => Some(
                "hint: it has to listen on 127.0.0.1, on the port that the variable PORT names".to_owned(),
            ),
        },
        _ => None,
    }
}

/// What of the sandbox is closed to it, answers with EPERM, and can be opened.
fn refused(settings: &WorkerSettings) -> Option<String> {
    let mut opens = Vec::new();
    if settings.network == Network::Loopback {
        opens.push("`network: full` opens addresses beyond this machine".to_owned());
    }
    if !settings.jit {
        opens.push("`jit: true` opens memory that is written and executed".to_owned());
    }
    let parts = [KernelPart::IoUring, KernelPart::Keyrings];
    let closed = parts.iter().filter(|part| !settings.kernel.contains(part));
    let closed: Vec<String> = closed.map(ToString::to_string).collect();
    if !closed.is_empty() {
        let named = settings.kernel.iter().map(ToString::to_string);
        let all: Vec<String> = named.chain(closed.iter().cloned()).collect();
        let (all, closed) = (all.join(", "), closed.join(" and "));
        opens.push(format!("`kernel: [{all}]` opens {closed}"));
    }
    (!opens.is_empty()).then(|| {
        format!(
            "hint: the sandbox may have refused it something; in its config/worker.yaml, {}",
            opens.join(", ")
        )
    })
}

/// A module that is missing among the worker's own files is no package.
fn lacks_a_package(line: &str) -> bool {
    NOT_INSTALLED.iter().any(|text| {
        line.split_once(text).is_some_and(|(_, name)| {
            let name = name.trim_start_matches(['\'', '"', '`']);
            !name.starts_with(['.', '/'])
        })
    })
}

fn has(log: &[String], texts: &[&str]) -> bool {
    log.iter()
        .any(|line| texts.iter().any(|text| line.contains(text)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::names::WorkerName;
    use crate::plan::simulation::disk::settings as settings_of;

    #[test]
    fn what_many_meet_is_explained() {
        let mut settings = settings_of(&WorkerName::parse("shop").unwrap());
        let ended = || Reason::Ended(Ending::ExitCode(1));
        let late = Reason::NotReady(Duration::from_secs(30));
        let told = |settings: &WorkerSettings, reason: &Reason, line: &str| {
            hint(settings, reason, &[line.to_owned()], true).unwrap_or_default()
        };
        for line in [
            "Error: Cannot find module 'express'",
            "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'hono' imported from /s/a.js",
            "ModuleNotFoundError: No module named 'django'",
            "<internal>: cannot load such file -- sinatra (LoadError)",
        ] {
            let told = told(&settings, &ended(), line);
            assert!(told.contains("tqserver build --release shop"), "{told}");
        }
        for line in ["Error: Cannot find module './lib/a'", "KeyError: 'x'"] {
            assert_eq!(told(&settings, &ended(), line), "");
        }
        let taken = "Error: listen EADDRINUSE: address already in use :::3000";
        assert!(told(&settings, &ended(), taken).contains("listen: port"));
        let first = Reason::Instance(1, Box::new(late.clone()));
        assert!(told(&settings, &first, "").contains("listen: port"));
        settings.listen = Listen::Port;
        assert!(told(&settings, &late, "").contains("127.0.0.1"));
        settings.kind = WorkerType::Php;
        assert_eq!(told(&settings, &late, ""), "");
    }

    #[test]
    fn what_the_sandbox_has_refused_is_named_with_what_opens_it() {
        let mut settings = settings_of(&WorkerName::parse("shop").unwrap());
        let ended = Reason::Ended(Ending::ExitCode(1));
        let refused = ["OSError: [Errno 1] Operation not permitted".to_owned()];
        let told = |settings: &WorkerSettings, log: &[String]| {
            hint(settings, &ended, log, true).unwrap_or_default()
        };
        (settings.network, settings.jit) = (Network::Full, true);
        let words = told(&settings, &refused);
        assert!(words.contains("`kernel: [io_uring, keyrings]`"), "{words}");
        assert!(
            !words.contains("network") && !words.contains("jit"),
            "{words}"
        );
        (settings.network, settings.jit) = (Network::Loopback, false);
        settings.kernel = vec![KernelPart::Keyrings];
        let words = told(&settings, &refused);
        for opens in [
            "`network: full`",
            "`jit: true`",
            "`kernel: [keyrings, io_uring]`",
        ] {
            assert!(words.contains(opens), "{words}");
        }
        // Nothing is closed that it could open.
        (settings.network, settings.jit) = (Network::Full, true);
        settings.kernel = vec![KernelPart::IoUring, KernelPart::Keyrings];
        assert_eq!(told(&settings, &refused), "");
        assert_eq!(told(&settings, &["Permission denied".to_owned()]), "");
        // Without a sandbox it was somebody else.
        settings.kernel.clear();
        assert_eq!(hint(&settings, &ended, &refused, false), None);
    }

    #[test]
    fn a_system_call_that_is_not_allowed_is_told_by_its_name() {
        let settings = settings_of(&WorkerName::parse("shop").unwrap());
        let reason = Reason::Ended(Ending::Signal(31));
        assert!(reason.to_string().starts_with("signal 31 (SYS"), "{reason}");
        let words = hint(&settings, &reason, &[], true).unwrap_or_default();
        assert!(
            words.contains("a system call that is not allowed"),
            "{words}"
        );
        assert!(
            words.contains("`kernel:` in its config/worker.yaml"),
            "{words}"
        );
    }
}
