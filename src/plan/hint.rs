//! What helps where many meet the same failure.

use super::reason::Reason;
use crate::config::{Listen, WorkerSettings, WorkerType};

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

/// A line that says what helps, if that can be told from why a worker failed and from what it wrote last.
pub(super) fn hint(settings: &WorkerSettings, reason: &Reason, log: &[String]) -> Option<String> {
    match reason {
        Reason::Instance(_, reason) => hint(settings, reason, log),
        Reason::Ended(_) if log.iter().any(|line| lacks_a_package(line)) => Some(format!(
            "hint: what it needs is not installed: name it in package.json, requirements.txt or pyproject.toml; \
             before a deploy, `tqserver build --release {}` installs it",
            settings.name
        )),
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
    use crate::systemd::Ending;

    #[test]
    fn what_many_meet_is_explained() {
        let mut settings = settings_of(&WorkerName::parse("shop").unwrap());
        let ended = || Reason::Ended(Ending::ExitCode(1));
        let late = Reason::NotReady(Duration::from_secs(30));
        let told = |settings: &WorkerSettings, reason: &Reason, line: &str| {
            hint(settings, reason, &[line.to_owned()]).unwrap_or_default()
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
}
