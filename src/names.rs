//! Names with rules: workers, generations and the units made of them.
//!
//! Every name is checked once, where it enters; after that it can be put into a unit name, a path or a D-Bus message as it is.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// Longest worker name. With the prefix, a 20 digit generation and a suffix it stays far below the 255 bytes of a unit name
/// (systemd.unit(5)) and leaves room for the runtime directory within the 107 bytes of a unix socket path (unix(7)).
pub const WORKER_NAME_MAX: usize = 48;

/// The slice of all of TQServer. What is in it is ours: what no record knows is stopped.
pub const SLICE: &str = "tqserver.slice";

/// How the names of units begin in which commands run.
const EXEC: &str = "tqserver-exec@";
/// How the names of builds' units begin and end.
const BUILD: &str = "tqserver-build@";
const SERVICE: &str = ".service";

/// The name of a worker: its directory below `workers/`, nested directories joined by dots (`workers/api/users` is `api.users`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkerName(String);

/// Why a string is not a worker name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkerNameError {
    /// Nothing at all.
    #[error("a worker's name is empty")]
    Empty,
    /// Longer than [`WORKER_NAME_MAX`] bytes.
    #[error(
        "'{0}' is longer than {WORKER_NAME_MAX} bytes, which a unit's socket path could not carry; give the directory a shorter name"
    )]
    TooLong(String),
    /// A directory name with a character outside the allowed set, or a first character that is no letter or digit.
    #[error(
        "'{0}' can not be part of a unit's name; use ASCII letters, digits, '-' and '_', starting with a letter or digit"
    )]
    Characters(String),
}

impl WorkerName {
    /// Reads a name such as `index` or `api.users`.
    ///
    /// # Errors
    /// When it is empty, too long, or has a part that is not letters, digits, `-` and `_`.
    pub fn parse(name: &str) -> Result<Self, WorkerNameError> {
        if name.is_empty() {
            return Err(WorkerNameError::Empty);
        }
        for part in name.split('.') {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if !part.starts_with(|c: char| c.is_ascii_alphanumeric()) || !part.chars().all(plain) {
                return Err(WorkerNameError::Characters(part.to_owned()));
            }
        }
        if name.len() > WORKER_NAME_MAX {
            return Err(WorkerNameError::TooLong(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name of the worker in `directory`, a path relative to the workers' directory.
    ///
    /// # Errors
    /// When a component can not be carried by a unit name; a dot in a directory's name is refused, it would read as nesting.
    pub fn from_directory(directory: &Path) -> Result<Self, WorkerNameError> {
        let parts: Vec<_> = directory
            .iter()
            .map(|part| part.to_string_lossy())
            .collect();
        if let Some(dotted) = parts.iter().find(|part| part.contains('.')) {
            return Err(WorkerNameError::Characters(dotted.to_string()));
        }
        Self::parse(&parts.join("."))
    }

    /// The worker's directory relative to the workers' directory.
    pub fn directory(&self) -> PathBuf {
        self.0.split('.').collect()
    }

    /// The last part of the name: what the worker's program is called (`bin/NAME`).
    pub fn program(&self) -> &str {
        self.0.rsplit('.').next().unwrap_or(&self.0)
    }

    /// The name as it stands in unit names.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for WorkerName {
    type Error = WorkerNameError;
    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::parse(&name)
    }
}

impl From<WorkerName> for String {
    fn from(name: WorkerName) -> Self {
        name.0
    }
}

/// One immutable run of a worker. Numbers only grow; they are never used twice while a unit of that name is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A generation of a worker, as it names its units: `tqserver-NAME@GENERATION`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instance {
    /// Which worker.
    pub worker: WorkerName,
    /// Which run of it.
    pub generation: Generation,
}

/// Most instances of a worker.
pub const INSTANCES_MAX: u8 = 64;

/// One of the pairs of units of a generation: a generation consists of as many as the worker has `instances`.
///
/// The first is called as the generation is, `tqserver-NAME@GENERATION`, the others have their number behind that,
/// `tqserver-NAME@GENERATION.NUMBER`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// Whose.
    pub instance: Instance,
    /// Which of them, from 1.
    pub number: u8,
}

/// The two units of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitKind {
    /// The listening socket; it outlives the service while the worker sleeps.
    Socket,
    /// The worker's process.
    Service,
}

impl Instance {
    /// The run `generation` of `worker`.
    pub fn new(worker: WorkerName, generation: Generation) -> Self {
        Self { worker, generation }
    }

    /// Its pair of units of this number, from 1.
    pub fn pair(&self, number: u8) -> Pair {
        Pair {
            instance: self.clone(),
            number,
        }
    }

    /// `tqserver-NAME@GENERATION.service`: the service of its first pair.
    pub fn service_unit(&self) -> String {
        format!("{self}.service")
    }

    /// `tqserver-build@NAME:GENERATION.service`: what builds it. No generation's unit is called so: a worker's name has no colon.
    pub fn build_unit(&self) -> String {
        format!("{BUILD}{}:{}{SERVICE}", self.worker, self.generation)
    }

    /// The pattern of all builds' units.
    pub fn all_builds() -> String {
        format!("{BUILD}*{SERVICE}")
    }

    /// Reads the name of a build's unit back.
    pub fn from_build_unit(unit: &str) -> Option<Self> {
        let (name, generation) = unit
            .strip_prefix(BUILD)?
            .strip_suffix(SERVICE)?
            .rsplit_once(':')?;
        let worker = WorkerName::parse(name).ok()?;
        let generation = Generation(generation.parse().ok()?);
        Some(Self { worker, generation })
    }

    /// `NAME@GENERATION.EXTENSION`: what belongs to this generation, or to its first pair, among the files of all.
    pub fn file_name(&self, extension: &str) -> String {
        format!("{}@{}.{extension}", self.worker, self.generation)
    }

    /// `NAME/GENERATION`: where its own copy of the worker's files lies among those of all.
    pub fn snapshot(&self) -> PathBuf {
        Path::new(self.worker.as_str()).join(self.generation.to_string())
    }
}

/// `tqserver-exec@NAME:ID.service`: a command in the surroundings of the worker. No generation's unit is called so.
pub fn exec_unit(worker: &WorkerName, id: &str) -> String {
    format!("{EXEC}{worker}:{id}{SERVICE}")
}

/// Whether a unit has the name of such a command's.
pub fn is_exec_unit(unit: &str) -> bool {
    let name = unit
        .strip_prefix(EXEC)
        .and_then(|unit| unit.strip_suffix(SERVICE));
    let parts = name.and_then(|name| name.rsplit_once(':'));
    parts.is_some_and(|(worker, _)| WorkerName::parse(worker).is_ok())
}

impl Pair {
    /// `tqserver-NAME@GENERATION.socket`, or `tqserver-NAME@GENERATION.NUMBER.socket`.
    pub fn socket_unit(&self) -> String {
        format!("{self}.socket")
    }

    /// `tqserver-NAME@GENERATION.service`, or `tqserver-NAME@GENERATION.NUMBER.service`.
    pub fn service_unit(&self) -> String {
        format!("{self}.service")
    }

    /// `NAME@GENERATION.EXTENSION`, or `NAME@GENERATION.NUMBER.EXTENSION`: what belongs to this pair among the files of all.
    pub fn file_name(&self, extension: &str) -> String {
        match self.number {
            1 => self.instance.file_name(extension),
            number => self.instance.file_name(&format!("{number}.{extension}")),
        }
    }

    /// The slice its units are in.
    pub fn slice(&self) -> String {
        worker_slice(&self.instance.worker)
    }

    /// Reads a unit's name back; `None` for a unit that is not a generation's of ours.
    pub fn from_unit(unit: &str) -> Option<(Self, UnitKind)> {
        let (stem, kind) = match unit.rsplit_once('.')? {
            (stem, "socket") => (stem, UnitKind::Socket),
            (stem, "service") => (stem, UnitKind::Service),
            _ => return None,
        };
        Some((Self::parse(stem.strip_prefix("tqserver-")?)?, kind))
    }

    /// Reads the name of one of its files back.
    pub fn from_file_name(file: &str, extension: &str) -> Option<Self> {
        Self::parse(file.strip_suffix(extension)?.strip_suffix('.')?)
    }

    /// Reads `NAME@GENERATION` or `NAME@GENERATION.NUMBER`.
    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.rsplit_once('@')?;
        let (generation, number) = match rest.split_once('.') {
            // The first has no number, so that no two names mean the same.
            Some((generation, number)) => (
                generation,
                number.parse().ok().filter(|number| *number > 1)?,
            ),
            None => (rest, 1),
        };
        let worker = WorkerName::parse(name).ok()?;
        let generation = Generation(generation.parse().ok()?);
        Some(Instance { worker, generation }.pair(number))
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.instance.fmt(f)?;
        match self.number {
            1 => Ok(()),
            number => write!(f, ".{number}"),
        }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tqserver-{}@{}", self.worker, self.generation)
    }
}

/// The slice of all generations of a worker, below [`SLICE`]. In a slice's name `-` means nesting, so the worker's own
/// dashes are escaped (systemd.slice(5), systemd-escape(1)).
pub fn worker_slice(worker: &WorkerName) -> String {
    format!("tqserver-{}.slice", worker.as_str().replace('-', "\\x2d"))
}

/// Longest name of a user that systemd makes (systemd.exec(5), `User=`; the size of the field in utmp(5)).
const USER_NAME_MAX: usize = 31;
const USER_PREFIX: &str = "tqw-";
/// Bytes of a worker's name that stay readable in the name of its user when not all of it can.
const USER_READABLE: usize = 10;
/// Characters of the hash beside them, of five bits each: nobody finds a second name for 80 bits.
const USER_HASH: usize = 16;
/// RFC 4648, 6, in lower case.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The user that a worker runs as: `tqw-NAME` where that can be a user's name, otherwise the beginning of NAME and a hash of all of it.
///
/// No name that is kept looks like one that was hashed, so the two never meet. The hash is cryptographic: a deployer who chooses a name
/// cannot choose the user of somebody else's worker with it.
pub fn worker_user(worker: &WorkerName) -> String {
    let name = worker.as_str();
    let is_hash = |end: &str| end.len() == USER_HASH && end.bytes().all(|c| BASE32.contains(&c));
    // What an earlier version has hashed may still run.
    let was_hash = |end: &str| end.len() == 8 && end.bytes().all(|c| c.is_ascii_hexdigit());
    let looks_hashed = name
        .rsplit_once('-')
        .is_some_and(|(_, end)| is_hash(end) || was_hash(end));
    let fits = USER_PREFIX.len() + name.len() <= USER_NAME_MAX;
    if fits && !name.contains('.') && !looks_hashed {
        return format!("{USER_PREFIX}{name}");
    }
    let hash = digest(&SHA256, name.as_bytes());
    let bits = hash.as_ref().iter().take(USER_HASH * 5 / 8);
    let bits = bits.fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    let hash: String = (0..USER_HASH)
        .rev()
        .map(|at| char::from(BASE32[(bits >> (5 * at) & 31) as usize]))
        .collect();
    format!("{USER_PREFIX}{}-{hash}", readable(name, USER_READABLE))
}

/// The user that earlier versions gave such a worker, whose generations may still run: 32 bits of FNV-1a, which anybody can
/// find a second name for.
pub fn worker_user_before(worker: &WorkerName) -> String {
    let name = worker.as_str();
    let looks_hashed = name
        .rsplit_once('-')
        .is_some_and(|(_, end)| end.len() == 8 && end.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let fits = USER_PREFIX.len() + name.len() <= USER_NAME_MAX;
    if fits && !name.contains('.') && !looks_hashed {
        return format!("{USER_PREFIX}{name}");
    }
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{USER_PREFIX}{}-{hash:08x}", readable(name, 18))
}

fn readable(name: &str, most: usize) -> String {
    let plain = |c| if c == '.' { '_' } else { c };
    name.chars().take(most).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_directories_become_dots_and_come_back() {
        let name = WorkerName::from_directory(Path::new("api/users")).unwrap();
        assert_eq!(name.as_str(), "api.users");
        assert_eq!(name.directory(), Path::new("api/users"));
        assert_eq!(name.program(), "users");
    }

    #[test]
    fn names_systemd_could_not_carry_are_refused() {
        for bad in ["", "a b", "-x", "ü", "a..b", ".", "a/b", "a@1", "_x"] {
            assert!(WorkerName::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(WorkerName::from_directory(Path::new("v1.2")).is_err());
        assert!(WorkerName::parse(&"x".repeat(WORKER_NAME_MAX + 1)).is_err());
        assert!(WorkerName::parse(&"x".repeat(WORKER_NAME_MAX)).is_ok());
    }

    #[test]
    fn unit_names_are_read_back() {
        let instance = Instance::new(WorkerName::parse("api.a-b").unwrap(), Generation(42));
        let pair = instance.pair(1);
        assert_eq!(pair.socket_unit(), "tqserver-api.a-b@42.socket");
        assert_eq!(pair.service_unit(), instance.service_unit());
        assert_eq!(
            Pair::from_unit(&instance.service_unit()),
            Some((pair.clone(), UnitKind::Service))
        );
        assert_eq!(Pair::from_unit("tqserver-proxy.service"), None);
        assert_eq!(Pair::from_unit("tqserver-index@x.service"), None);
        let build = instance.build_unit();
        assert_eq!(Instance::from_build_unit(&build), Some(instance.clone()));
        assert_eq!(Pair::from_unit(&build), None);
        assert_eq!(Instance::from_build_unit(&instance.service_unit()), None);
        let exec = exec_unit(&instance.worker, "1f");
        assert!(is_exec_unit(&exec) && Pair::from_unit(&exec).is_none());
        assert!(!is_exec_unit("tqserver-exec@7.service") && !is_exec_unit(&build));
        assert_eq!(worker_slice(&instance.worker), "tqserver-api.a\\x2db.slice");
    }

    #[test]
    fn each_pair_of_a_generation_has_a_name_of_its_own() {
        let instance = Instance::new(WorkerName::parse("api.users").unwrap(), Generation(42));
        let second = instance.pair(2);
        assert_eq!(second.socket_unit(), "tqserver-api.users@42.2.socket");
        assert_eq!(
            Pair::from_unit("tqserver-api.users@42.2.service"),
            Some((second.clone(), UnitKind::Service))
        );
        assert_eq!(second.file_name("sock"), "api.users@42.2.sock");
        for pair in [instance.pair(1), second] {
            let file = pair.file_name("log");
            assert_eq!(Pair::from_file_name(&file, "log"), Some(pair));
        }
        for other in ["0", "1", "256", "x", "2.3"] {
            let unit = format!("tqserver-api.users@42.{other}.service");
            assert_eq!(Pair::from_unit(&unit), None, "{unit}");
        }
    }

    fn user(name: &str) -> String {
        worker_user(&WorkerName::parse(name).unwrap())
    }

    #[test]
    fn a_worker_runs_as_a_user_of_its_name() {
        assert_eq!(user("index"), "tqw-index");
        assert_eq!(user("a_b-c"), "tqw-a_b-c");
        let longest = "x".repeat(27);
        assert_eq!(user(&longest), format!("tqw-{longest}"));
    }

    #[test]
    fn a_name_that_no_user_can_have_is_shortened_and_hashed() {
        // `printf a.b | sha256sum | xxd -r -p | base32 | tr A-Z a-z | head -c 16`
        assert_eq!(user("a.b"), "tqw-a_b-fzztnxeoxkd66rzn");
        for name in [
            "x".repeat(28),
            "x".repeat(WORKER_NAME_MAX),
            "api.users".to_owned(),
        ] {
            let user = user(&name);
            let strange = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-';
            assert!(user.len() <= USER_NAME_MAX, "{user}");
            assert!(!user.contains(strange), "{user}");
        }
    }

    #[test]
    fn no_worker_gets_the_user_of_another_whatever_its_name() {
        let hashed = user("api.users");
        let hashed = hashed.strip_prefix(USER_PREFIX).unwrap();
        let before = worker_user_before(&WorkerName::parse("api.users").unwrap());
        let before = before.strip_prefix(USER_PREFIX).unwrap();
        for (one, other) in [
            // The user of the one is the name of the other.
            ("api.users", hashed),
            ("api.users", before),
            ("api_users", "api.users"),
            // The hash of before is the same.
            (
                "customers-production.bob.shop",
                "customers-production.alice.amxvbfw",
            ),
        ] {
            assert_ne!(user(one), user(other), "{one} and {other}");
        }
        let before = |name| worker_user_before(&WorkerName::parse(name).unwrap());
        let (one, other) = (
            "customers-production.bob.shop",
            "customers-production.alice.amxvbfw",
        );
        assert_eq!(before(one), before(other), "they are no example");
    }
}
