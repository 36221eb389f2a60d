//! What a package says of itself: its name, version, needs (deb-control(5)).

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;

use super::super::exit::{self, refused};
use super::tools;
use super::tree::Tree;
use crate::calendar::date;
use crate::names::WorkerName;

/// Before the worker's name: Debian has packages called `hello` and `blog`, whose next version would replace the worker.
const PREFIX: &str = "tqserver-worker-";

/// The control file.
pub(super) struct Control {
    pub(super) package: String,
    pub(super) version: String,
    pub(super) architecture: String,
    pub(super) maintainer: String,
    pub(super) depends: Vec<String>,
    pub(super) worker: WorkerName,
    pub(super) route: String,
}

impl Control {
    /// `PACKAGE_VERSION_ARCHITECTURE.deb`; an epoch is not part of a file's name.
    pub(super) fn file_name(&self) -> String {
        let version = self.version.split_once(':');
        let version = version.map_or(self.version.as_str(), |(_, version)| version);
        format!("{}_{version}_{}.deb", self.package, self.architecture)
    }

    /// Writes it, and the checksums, beside the files.
    pub(super) fn write(&self, tree: &Tree) -> anyhow::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let directory = tree.root.join("DEBIAN");
        fs::create_dir_all(&directory).context("make the directory DEBIAN")?;
        let files = [
            ("control", 0o644, self.text(tree.size).into_bytes()),
            ("md5sums", 0o644, tools::md5sums(tree)?),
            ("postinst", 0o755, self.postinst().into_bytes()),
        ];
        for (name, mode, bytes) in files {
            let path = directory.join(name);
            fs::write(&path, bytes)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
                .with_context(|| format!("write {}", path.display()))?;
        }
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))
            .context("change the mode of DEBIAN")
    }

    /// The script that deploys the worker, so that apt fails where the worker does.
    fn postinst(&self) -> String {
        let worker = &self.worker;
        format!(
            r#"#!/bin/sh
set -e

# Where no server runs, for instance in an image that is being built, its next start takes the worker.
[ "$1" = configure ] || exit 0
case "$(systemctl is-active tqserver.service 2>/dev/null || true)" in
    active | activating | reloading) ;;
    *) exit 0 ;;
esac
tqserver reload --quiet --manager=system --config=/etc/tqserver/server.yaml {worker} >&2 || {{
    echo "{worker}: this version does not start. If another one was running, it still is." >&2
    echo "{worker}: to go back, install the version before; to try again: dpkg --configure {package}" >&2
    exit 1
}}
"#,
            package = self.package,
        )
    }

    fn text(&self, size: u64) -> String {
        let depends = self.depends.join(", ");
        let mut text = String::new();
        for (key, value) in [
            ("Package", self.package.as_str()),
            ("Version", &self.version),
            ("Architecture", &self.architecture),
            ("Maintainer", &self.maintainer),
            ("Installed-Size", &size.to_string()),
            ("Depends", &depends),
            ("Section", "web"),
            ("Priority", "optional"),
            ("Description", &format!("TQServer worker {}", self.worker)),
        ] {
            let _ = writeln!(text, "{key}: {value}");
        }
        let _ = writeln!(
            text,
            " It serves {} on a machine that runs TQServer. Installing, upgrading or\n downgrading it deploys it, without losing a request.",
            self.route
        );
        text
    }
}

/// The package of a worker whose name nobody gave.
pub(super) fn name_of(worker: &WorkerName) -> String {
    format!(
        "{PREFIX}{}",
        worker.as_str().to_lowercase().replace(['.', '_'], "-")
    )
}

/// A package's name (Debian Policy 5.6.1).
pub(super) fn package_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if text.len() >= 2
        && text.starts_with(plain)
        && text.chars().all(|c| plain(c) || "+.-".contains(c))
    {
        Ok(text.to_owned())
    } else {
        Err("use two or more small letters, digits, '+', '-' and '.', starting with a letter or digit".to_owned())
    }
}

/// A version (deb-version(7)): `[EPOCH:]UPSTREAM[-REVISION]`.
pub(super) fn version(text: &str) -> Result<String, String> {
    let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
    let plain = |c: char, more: &str| c.is_ascii_alphanumeric() || more.contains(c);
    if epoch.parse::<u32>().is_err() || !epoch.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("what is before ':' must be a number".to_owned());
    }
    if !upstream.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("it must start with a digit".to_owned());
    }
    if revision.is_empty()
        || !upstream.chars().all(|c| plain(c, "+.~-"))
        || !revision.chars().all(|c| plain(c, "+.~"))
    {
        return Err("use letters, digits, '+', '.', '~' and '-'".to_owned());
    }
    Ok(text.to_owned())
}

/// A value that is one line of the control file.
pub(super) fn line(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        return Err("it must be one line, and not empty".to_owned());
    }
    Ok(text.trim().to_owned())
}

/// The version of the worker whose files are in `directory`, the newest of them written at `newest`.
pub(super) fn version_of(directory: &Path, newest: u64) -> anyhow::Result<String> {
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
    let said = [
        (
            "Cargo.toml",
            read("Cargo.toml").and_then(|text| toml(&text, "package")),
        ),
        (
            "package.json",
            read("package.json").and_then(|text| json(&text)),
        ),
        (
            "pyproject.toml",
            read("pyproject.toml").and_then(|text| toml(&text, "project")),
        ),
    ];
    for (file, said) in said {
        let Some(said) = said else { continue };
        return debian(&said).map_err(|error| {
            refused(
                exit::CONFIG,
                format!("the version '{said}' in {file} can not be a package's: {error}"),
                "correct it, or give one with --version".to_owned(),
            )
        });
    }
    let (year, month, day) = date(newest / 86_400);
    let (hour, minute, second) = (newest / 3600 % 24, newest / 60 % 60, newest % 60);
    // Below any release that somebody may number later.
    Ok(format!(
        "0.{year:04}{month:02}{day:02}.{hour:02}{minute:02}{second:02}"
    ))
}

/// A version of Cargo or npm as one of Debian, where what comes before a release has a '~'.
fn debian(text: &str) -> Result<String, String> {
    let (version_itself, build) = text.split_once('+').unwrap_or((text, ""));
    let mut debian = version_itself.trim_start_matches('v').replace('-', "~");
    if !build.is_empty() {
        debian += "+";
        debian += &build.replace('-', ".");
    }
    version(&debian)
}

/// The version in a section of a TOML file. Only as everybody writes it, `version = "1.2.3"` on a line; any other way is as none.
fn toml(text: &str, section: &str) -> Option<String> {
    let header = format!("[{section}]");
    let lines = text.lines().map(str::trim);
    let inside = lines.skip_while(|line| *line != header).skip(1);
    inside
        .take_while(|line| !line.starts_with('['))
        .find_map(|line| {
            let value = line.strip_prefix("version")?.trim_start();
            let value = value.strip_prefix('=')?.trim_start();
            let quote = value.chars().next().filter(|c| "\"'".contains(*c))?;
            let (version, _) = value[1..].split_once(quote)?;
            Some(version.to_owned())
        })
}

fn json(text: &str) -> Option<String> {
    let package: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(package["version"].as_str()?.to_owned())
}

/// Who builds the package: as Debian's own tools know, else as git knows.
pub(super) fn maintainer() -> String {
    let variable = |name| std::env::var(name).ok().and_then(|text| line(&text).ok());
    let name = || variable("DEBFULLNAME").or_else(|| git("user.name"));
    let address = variable("DEBEMAIL").or_else(|| git("user.email"));
    match address {
        // DEBEMAIL may have the name as well (debchange(1)).
        Some(both) if both.contains('<') => both,
        Some(address) => {
            let name = name().unwrap_or_else(|| "unknown".to_owned());
            format!("{name} <{address}>")
        }
        None => {
            let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let name = name().unwrap_or_else(|| "unknown".to_owned());
            format!("{name} <root@{}>", host.trim())
        }
    }
}

fn git(key: &str) -> Option<String> {
    let mut command = Command::new("git");
    command.args(["config", key]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    line(&String::from_utf8_lossy(&command.output().ok()?.stdout)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_has_a_name_that_debian_does_not_use() {
        for (worker, package) in [
            ("hello", "tqserver-worker-hello"),
            ("api.users", "tqserver-worker-api-users"),
            ("My_Blog", "tqserver-worker-my-blog"),
            ("x", "tqserver-worker-x"),
        ] {
            let name = name_of(&WorkerName::parse(worker).unwrap());
            assert_eq!(name, package);
            assert_eq!(package_name(&name).as_deref(), Ok(package));
        }
        for bad in ["", "x", "-x", "a_b", "Ab", "a b", "a/../b"] {
            assert!(package_name(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn versions_are_debians() {
        for good in ["1", "1.0-1", "2:1.0~rc1+git5-0+b1", "0~20260131.120000"] {
            assert!(version(good).is_ok(), "{good} was refused");
        }
        for bad in [
            "", "v1", "1_0", "1 0", "a:1", ":1", "1-", "1:", "+1:1", "1.0\n", "1/2", "-1",
        ] {
            assert!(version(bad).is_err(), "{bad:?} was accepted");
        }
        for (theirs, ours) in [
            ("1.2.3", "1.2.3"),
            ("v1.2.3", "1.2.3"),
            ("1.0.0-rc.1", "1.0.0~rc.1"),
            ("1.0.0-a-b+c-d", "1.0.0~a~b+c.d"),
        ] {
            assert_eq!(debian(theirs).as_deref(), Ok(ours));
        }
    }

    #[test]
    fn a_version_is_read_where_it_belongs() {
        let cargo = "[dependencies]\nversion = \"9\"\n\n[package]\nname='a'\nversion  = '1.2' # so\n[other]\n";
        assert_eq!(toml(cargo, "package").as_deref(), Some("1.2"));
        assert_eq!(toml("[package]\n[x]\nversion = \"1\"", "package"), None);
        assert_eq!(toml("[package]\nversion.workspace = true", "package"), None);
        assert_eq!(toml("[package]\nversion = \"", "package"), None);
        assert_eq!(json("{\"version\": \"3.1\"}").as_deref(), Some("3.1"));
        assert_eq!(json("{\"version\": 3}"), None);
    }
}
