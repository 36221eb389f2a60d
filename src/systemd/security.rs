//! How much of the machine a worker can reach, as systemd counts it: `systemd-analyze security` on the unit that would be made.
//!
//! It is asked `--offline`: no unit is loaded and no systemd need be booted.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::units::UnitPair;
use crate::config::Exposure;
use crate::names::Instance;

/// Longest wait for the answer on all workers.
const ANSWER: Duration = Duration::from_secs(60);
/// What stands before the figure, between the unit's name and it.
const OVERALL: &str = "Overall exposure level for ";
/// How many directives are worth a look.
const HEAVIEST: usize = 3;

/// What a service is exposed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// All in all.
    pub exposure: Exposure,
    /// The directives that weigh most, heaviest first, each with its weight.
    pub heaviest: Vec<(String, Exposure)>,
}

/// Why the exposure is not known.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// The unit files could not be written.
    #[error("write the unit files to {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// There is no such program, or it can not be run.
    #[error("run systemd-analyze (of the package 'systemd')")]
    Run(#[source] io::Error),
    /// It did not answer.
    #[error("systemd-analyze did not answer within {} s", ANSWER.as_secs())]
    TooLong,
    /// It said nothing of a unit.
    #[error("systemd-analyze tells no exposure of '{unit}': {said}")]
    Silent {
        /// Of which.
        unit: String,
        /// The last it said of all.
        said: String,
    },
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&tenths(self.exposure))
    }
}

impl Exposed {
    /// What weighs most, as a list to read.
    pub fn weights(&self) -> String {
        let weights = self.heaviest.iter();
        let weights = weights.map(|(directive, weight)| format!("{directive} {}", tenths(*weight)));
        weights.collect::<Vec<_>>().join(", ")
    }
}

fn tenths(exposure: Exposure) -> String {
    format!("{}.{}", exposure.0 / 10, exposure.0 % 10)
}

/// The exposure of each of `pairs`.
///
/// # Errors
/// When systemd-analyze is missing or can not tell.
pub fn exposures(pairs: &[UnitPair]) -> Result<BTreeMap<Instance, Exposed>, SecurityError> {
    if pairs.is_empty() {
        return Ok(BTreeMap::new());
    }
    let directory = Scratch::make()?;
    let mut files = Vec::new();
    for pair in pairs {
        let (name, text) = pair.service_file();
        let path = directory.0.join(name);
        std::fs::write(&path, text).map_err(|error| SecurityError::Write(path.clone(), error))?;
        files.push(path);
    }
    let said = ask(&files)?;
    let mut found = read(&said);
    pairs
        .iter()
        .map(|pair| {
            let unit = pair.name().service_unit();
            match found.remove(&unit) {
                Some(exposed) => Ok((pair.instance.clone(), exposed)),
                None => Err(SecurityError::Silent {
                    unit,
                    said: said.lines().last().unwrap_or("nothing").trim().to_owned(),
                }),
            }
        })
        .collect()
}

/// A directory of our own for a moment.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Result<Self, SecurityError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_nanos());
        let name = format!("tqserver-check-{}-{now}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // One that is there already, whoever made it, is an error.
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self(path)),
            Err(error) => Err(SecurityError::Write(path, error)),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs systemd-analyze on `files`; what it said, wrong or right.
fn ask(files: &[PathBuf]) -> Result<String, SecurityError> {
    let mut command = Command::new("systemd-analyze");
    command
        .args(["security", "--offline=true", "--no-pager"])
        .args(files.iter().map(AsRef::<Path>::as_ref))
        // Its table is cut to the width of a terminal, if there is one.
        .env_remove("COLUMNS")
        .env("SYSTEMD_COLORS", "0")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(SecurityError::Run)?;
    let said = collect(&mut child);
    let said = said.recv_timeout(ANSWER).and_then(|first| {
        let second = said.recv_timeout(ANSWER)?;
        Ok(first + &second)
    });
    if said.is_err() {
        let _ = child.kill();
    }
    let _ = child.wait();
    said.map_err(|_| SecurityError::TooLong)
}

/// What both ends of `child` say, each when it has ended.
fn collect(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let read = |source: Option<Box<dyn Read + Send>>| {
        let (sender, source) = (sender.clone(), source);
        std::thread::spawn(move || {
            let mut said = Vec::new();
            if let Some(mut source) = source {
                let _ = source.read_to_end(&mut said);
            }
            let _ = sender.send(String::from_utf8_lossy(&said).into_owned());
        });
    };
    read(child.stdout.take().map(|out| Box::new(out) as _));
    read(child.stderr.take().map(|err| Box::new(err) as _));
    receiver
}

/// Reads tables, each of which ends with the line of its unit: `→ Overall exposure level for UNIT: 1.3 OK`. (The JSON it can print has no
/// such line, and the sum is not that of the weights.)
fn read(text: &str) -> BTreeMap<String, Exposed> {
    let mut found = BTreeMap::new();
    let mut weights: Vec<(String, Exposure)> = Vec::new();
    for line in text.lines() {
        let overall = line
            .split_once(OVERALL)
            .and_then(|(_, rest)| rest.rsplit_once(": "));
        if let Some((unit, level)) = overall {
            // A stable sort: among equals the order of systemd-analyze.
            weights.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
            weights.truncate(HEAVIEST);
            let heaviest = std::mem::take(&mut weights);
            if let Some(exposure) = level.split_whitespace().next().and_then(figure) {
                found.insert(unit.to_owned(), Exposed { exposure, heaviest });
            }
            continue;
        }
        let mut words = line.split_whitespace();
        // The mark (or none), the directive, the description, the weight if it is not zero.
        let directive = words.by_ref().find(|word| word.contains('='));
        if let (Some(directive), Some(weight)) = (directive, words.last().and_then(figure)) {
            weights.push((directive.to_owned(), weight));
        }
    }
    found
}

fn figure(text: &str) -> Option<Exposure> {
    let (whole, tenth) = text.split_once('.')?;
    let tenths = (whole.parse::<u8>().ok()?)
        .checked_mul(10)?
        .checked_add(tenth.parse::<u8>().ok().filter(|tenth| *tenth < 10)?)?;
    Some(Exposure(tenths)).filter(|exposure| exposure.0 > 0 || text == "0.0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
  NAME                         DESCRIPTION                              EXPOSURE
✗ RootDirectory=/RootImage=    Service runs within the host's root directory     0.1
✗ PrivateNetwork=              Service has access to the host's network          0.5
✓ UMask=                       Files created by service are its own
✗ IPAddressDeny=               Service does not define an IP address list        0.2
✗ RestrictAddressFamilies=~…   Service may allocate exotic sockets               0.3

→ Overall exposure level for tqserver-a@1.service: 1.3 OK :-)
✗ PrivateNetwork=              Service has access to the host's network          0.5

→ Overall exposure level for tqserver-b.c@1.service: 10.0 DANGEROUS
";

    #[test]
    fn each_unit_has_its_figure_and_what_weighs_most() {
        let found = read(SAID);
        let one = &found["tqserver-a@1.service"];
        assert_eq!(one.to_string(), "1.3");
        assert_eq!(
            one.weights(),
            "PrivateNetwork= 0.5, RestrictAddressFamilies=~… 0.3, IPAddressDeny= 0.2"
        );
        assert_eq!(found["tqserver-b.c@1.service"].exposure, Exposure(100));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn what_is_no_figure_is_not_read_as_one() {
        for text in ["", "1", "a.b", "1.23", "300.1", "-1.0", "1.-1"] {
            assert_eq!(figure(text), None, "{text}");
        }
    }
}
