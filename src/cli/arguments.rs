//! The arguments that every verb understands.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::config::{Mode, Problems, Settings};
use crate::systemd::{Kind, Place};

/// The configuration of a project: the one in the current directory.
const PROJECTS: &str = "config/server.yaml";
/// The configuration of the machine's own server.
const MACHINES: &str = "/etc/tqserver/server.yaml";

/// What every verb understands.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Common {
    /// The server's configuration. Default: config/server.yaml in this directory or one above it; else the user's
    /// ~/.config/tqserver/server.yaml, if that or workers beside it are there; else the machine's /etc/tqserver/server.yaml.
    #[arg(
        long,
        global = true,
        env = "TQ_CONFIG",
        value_parser = OsStringValueParser::new().map(file),
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

/// A variable that is set to nothing is one that is not set.
fn file(given: OsString) -> PathBuf {
    if given.is_empty() {
        PROJECTS.into()
    } else {
        given.into()
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "development" | "dev" => Ok(Mode::Development),
        "production" | "prod" => Ok(Mode::Production),
        other => Err(format!("'{other}' is neither development nor production")),
    }
}

impl Common {
    /// The configuration; a missing file at the place of a project or of the user is no error, everything has a default.
    pub(super) fn settings(&self) -> Result<Settings, Problems> {
        let default = Path::new(PROJECTS);
        if self.config == default && !default.exists() {
            return Ok(Settings::defaults_at(
                &std::env::current_dir().unwrap_or_default(),
            ));
        }
        if !self.config.exists() && users_file().as_ref() == Some(&self.config) {
            return Ok(Settings::unwritten(&self.config));
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

    /// From now on the configuration is meant that `verb` finds from the current directory, if none was named.
    pub(super) fn look_around(&mut self, verb: Looks) {
        if self.config != Path::new(PROJECTS) {
            return;
        }
        let here = std::env::current_dir().unwrap_or_default();
        let is_meant = |kind| self.manager.is_none_or(|manager| manager == kind);
        // Named by --manager it need not be there.
        let users = users_file()
            .filter(|file| is_meant(Kind::User) && (self.manager.is_some() || is_users(file)));
        let machines = Some(PathBuf::from(MACHINES));
        let machines = machines.filter(|file| is_meant(Kind::System) && file.exists());
        let around = Around {
            has: &|project| project.join(PROJECTS).exists(),
            runs: &|project| Place::of(project).is_up(),
            servers: users.into_iter().chain(machines).collect(),
            workers: &|file| {
                let settings = match file.exists() {
                    true => Settings::load(file).ok(),
                    false => Some(Settings::unwritten(file)),
                };
                settings.map_or_else(Vec::new, |settings| settings.workers_directories)
            },
        };
        if let Some(found) = around.meant(&here, verb) {
            self.config = found;
        }
    }
}

/// The configuration of this user's own server, where the units of a user's systemd look for it (`%E` in systemd.unit(5)); `None`: there
/// is no home.
fn users_file() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let absolute = |path: &PathBuf| path.is_absolute();
    let configs = variable("XDG_CONFIG_HOME").filter(absolute);
    let configs = configs.or_else(|| Some(variable("HOME").filter(absolute)?.join(".config")));
    Some(configs?.join("tqserver/server.yaml"))
}

/// Whether the user has a server of that configuration: without a file it has the defaults.
fn is_users(file: &Path) -> bool {
    file.exists() || file.with_file_name("workers").is_dir()
}

/// Where a verb looks for a configuration that nobody named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    /// In the project it stands in, which need not have a file yet.
    InTheProject,
    /// There, too; but among the workers of the user's or the machine's own server that one's is meant.
    InTheProjectOrAmongWorkers,
    /// In the project, and where there is none, the user's, then the machine's.
    Everywhere,
}

/// What is around the current directory.
struct Around<'a> {
    /// Whether a directory has a configuration.
    has: &'a dyn Fn(&Path) -> bool,
    /// Whether a private systemd runs for a directory: `tqserver dev` needs no file.
    runs: &'a dyn Fn(&Path) -> bool,
    /// Those of the user's and of the machine's own server, as far as they are there.
    servers: Vec<PathBuf>,
    /// Where the server of such a one looks for workers.
    workers: &'a dyn Fn(&Path) -> Vec<PathBuf>,
}

impl Around<'_> {
    /// The configuration that is meant in the directory `here`; `None`: the one there, whether it exists or not.
    fn meant(&self, here: &Path, looks: Looks) -> Option<PathBuf> {
        if (self.has)(here) || (self.runs)(here) {
            return None;
        }
        let above = here.ancestors().skip(1).find(|project| (self.has)(project));
        if let Some(project) = above {
            return Some(project.join(PROJECTS));
        }
        let is_meant = |file: &&PathBuf| match looks {
            Looks::InTheProject => false,
            Looks::InTheProjectOrAmongWorkers => (self.workers)(file)
                .iter()
                .any(|workers| here.starts_with(workers) || workers.parent() == Some(here)),
            Looks::Everywhere => true,
        };
        self.servers.iter().find(is_meant).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "/home/jo/.config/tqserver/server.yaml";

    fn meant(here: &str, looks: Looks, projects: &[&str], runs: bool, machine: bool) -> String {
        let servers = if machine { vec![MACHINES] } else { Vec::new() };
        meant_of(here, looks, projects, runs, &servers)
    }

    fn meant_of(
        here: &str,
        looks: Looks,
        projects: &[&str],
        runs: bool,
        servers: &[&str],
    ) -> String {
        let around = Around {
            has: &|project| projects.iter().any(|has| Path::new(has) == project),
            runs: &|_| runs,
            servers: servers.iter().map(PathBuf::from).collect(),
            workers: &|file| match file == Path::new(MACHINES) {
                true => vec!["/srv/tqserver/workers".into()],
                false => vec![file.with_file_name("workers")],
            },
        };
        let meant = around.meant(Path::new(here), looks);
        meant.map_or_else(|| "here".to_owned(), |file| file.display().to_string())
    }

    #[test]
    fn a_project_is_found_from_within_it() {
        let all = [
            Looks::InTheProject,
            Looks::InTheProjectOrAmongWorkers,
            Looks::Everywhere,
        ];
        for looks in all {
            assert_eq!(meant("/a", looks, &["/a"], false, true), "here");
            let inside = meant("/a/workers/x", looks, &["/a"], false, true);
            assert_eq!(inside, "/a/config/server.yaml");
            // The nearest.
            let inside = meant("/a/b/c", looks, &["/a", "/a/b"], false, true);
            assert_eq!(inside, "/a/b/config/server.yaml");
            assert_eq!(meant("/a/b", looks, &["/a"], true, true), "here");
        }
    }

    #[test]
    fn the_machines_configuration_is_meant_where_there_is_no_project() {
        let everywhere = |machine| meant("/a", Looks::Everywhere, &[], false, machine);
        assert_eq!(everywhere(true), MACHINES);
        assert_eq!(everywhere(false), "here");
        let project = Looks::InTheProject;
        assert_eq!(meant("/srv/tqserver", project, &[], false, true), "here");
        let new = |here| meant(here, Looks::InTheProjectOrAmongWorkers, &[], false, true);
        assert_eq!(new("/home/jo/site"), "here");
        for here in [
            "/srv/tqserver",
            "/srv/tqserver/workers",
            "/srv/tqserver/workers/api",
        ] {
            assert_eq!(new(here), MACHINES, "{here}");
        }
    }

    #[test]
    fn the_users_configuration_goes_before_the_machines() {
        let both = [USERS, MACHINES];
        let meant = |here, looks| meant_of(here, looks, &[], false, &both);
        assert_eq!(meant("/a", Looks::Everywhere), USERS);
        assert_eq!(meant("/srv/tqserver/workers", Looks::Everywhere), USERS);
        let new = Looks::InTheProjectOrAmongWorkers;
        assert_eq!(meant("/srv/tqserver/workers", new), MACHINES);
        assert_eq!(meant("/home/jo/.config/tqserver/workers/api", new), USERS);
        assert_eq!(meant("/home/jo", new), "here");
    }
}
