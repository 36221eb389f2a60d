//! The arguments that every verb understands.

use std::path::{Path, PathBuf};

use crate::config::{Mode, Problems, Settings};
use crate::systemd::{Kind, Place};

/// The configuration of a project: the one in the current directory.
const PROJECTS: &str = "config/server.yaml";
/// The configuration of the machine's own server.
const MACHINES: &str = "/etc/tqserver/server.yaml";

/// What every verb understands.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Common {
    /// The server's configuration. Default: config/server.yaml, and where there is none, the machine's /etc/tqserver/server.yaml.
    #[arg(
        long,
        global = true,
        env = "TQ_CONFIG",
        default_value = PROJECTS,
        hide_default_value = true,
        value_name = "FILE"
    )]
    pub(super) config: PathBuf,
    /// Which systemd runs the workers: system, user or private. Default: what is there, in the order user session, system (as root),
    /// private.
    #[arg(long, global = true, env = "TQ_MANAGER", value_name = "WHICH")]
    pub(super) manager: Option<Kind>,
    /// development or production. Default: TQ_MODE, DEPLOYMENT_MODE, else what fits the verb.
    #[arg(long, global = true, value_parser = mode, value_name = "MODE")]
    mode: Option<Mode>,
    /// Say only what went wrong.
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "development" | "dev" => Ok(Mode::Development),
        "production" | "prod" => Ok(Mode::Production),
        other => Err(format!("'{other}' is neither development nor production")),
    }
}

impl Common {
    /// The configuration; a missing file at the default place is no error, everything has a default.
    pub(super) fn settings(&self) -> Result<Settings, Problems> {
        let default = Path::new(PROJECTS);
        if self.config == default && !default.exists() {
            return Ok(Settings::defaults_at(
                &std::env::current_dir().unwrap_or_default(),
            ));
        }
        Settings::load(&self.config)
    }

    pub(super) fn kind(&self) -> Kind {
        self.manager.unwrap_or_else(Kind::detect)
    }

    /// The mode by option, by environment, or this one.
    pub(super) fn mode(&self, or: Mode) -> anyhow::Result<Mode> {
        match self.mode {
            Some(mode) => Ok(mode),
            None => Ok(Mode::from_environment(|name| std::env::var(name).ok())?.unwrap_or(or)),
        }
    }

    /// From now on the machine's configuration is meant, if none was named and there is no project here.
    pub(super) fn look_beyond_the_project(&mut self) {
        let runs = |project: &Path| Place::of(project).is_up();
        let given = std::mem::take(&mut self.config);
        self.config = meant(given, Path::exists, runs);
    }
}

/// The configuration meant by who named none: the project's if `there` is one, or a private systemd `runs` for it (`tqserver dev`
/// needs no file), else the machine's if there is one.
fn meant(given: PathBuf, there: impl Fn(&Path) -> bool, runs: impl Fn(&Path) -> bool) -> PathBuf {
    let (project, machine) = (Path::new(PROJECTS), Path::new(MACHINES));
    if given == project && !there(project) && !runs(project) && there(machine) {
        machine.to_owned()
    } else {
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_configuration_is_meant_where_there_is_no_project() {
        let (project, machine) = (Path::new(PROJECTS), Path::new(MACHINES));
        let meant = |given: &Path, there: &[&Path], runs: bool| {
            let found = meant(given.to_owned(), |path| there.contains(&path), |_| runs);
            found.display().to_string()
        };
        assert_eq!(meant(project, &[machine], false), MACHINES);
        assert_eq!(meant(project, &[project, machine], false), PROJECTS);
        assert_eq!(meant(project, &[machine], true), PROJECTS);
        assert_eq!(meant(project, &[], false), PROJECTS);
        assert_eq!(meant(Path::new("x"), &[machine], false), "x");
    }
}
