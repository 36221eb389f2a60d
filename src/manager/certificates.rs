//! The certificates of server.yaml: read from their files, checked, and handed to the proxy with the route table.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::calendar;
use crate::config::{CertificateFiles, PemFile, Place, Problem, Problems, Settings};
use crate::route::{FRONT_MAX, Pair, Pem};
use crate::tls;

/// A certificate that ends so soon should have been renewed: who gives them out for 90 days has them renewed 30 before their end.
const SOON: Duration = Duration::from_secs(14 * DAY);
/// Seconds of a day.
const DAY: u64 = 86_400;

/// More bytes than any chain of certificates has.
const SIZE_MAX: u64 = 1 << 20;

/// Reads the certificates of `settings` into its front.
///
/// # Errors
/// All that is wrong with them; then nothing is changed.
pub fn load(settings: &mut Settings) -> Result<(), Problems> {
    let Some(tls) = &mut settings.front.tls else {
        return Ok(());
    };
    let (mut pairs, mut problems) = (Vec::new(), Vec::new());
    for files in &settings.certificates {
        match pair(files) {
            Ok(pair) => pairs.push(pair),
            Err(problem) => problems.push(problem),
        }
    }
    Problems(problems).or(())?;
    let text = |pem: &Pem| match pem {
        Pem::Text(text) => text.len(),
        Pem::Credential(name) => name.len(),
    };
    let all = pairs.iter();
    let all: usize = all
        .map(|pair| text(&pair.certificate) + text(&pair.key))
        .sum();
    if let Some(files) = settings.certificates.first().filter(|_| all > FRONT_MAX) {
        let message = format!("the certificates have {all} bytes in all, and may have {FRONT_MAX}");
        let help = "leave out roots and certificates that no client needs, or certificates";
        return Err(Problem::new(files.place.clone(), message).help(help).into());
    }
    tls.pairs = pairs;
    Ok(())
}

/// What deserves a look in the certificates of `settings`, which were [`load`]ed, and keeps none from being served with: that it ends
/// soon or has ended, that its key is everybody's.
pub fn doubts(settings: &Settings, now: SystemTime) -> Vec<Problem> {
    let pairs = settings.front.tls.iter().flat_map(|tls| &tls.pairs);
    let mut doubts = Vec::new();
    for (files, pair) in settings.certificates.iter().zip(pairs) {
        if let Some(end) = tls::ended(pair, now + SOON) {
            let ends = if end < now { "has ended" } else { "ends" };
            let days = end.duration_since(UNIX_EPOCH).unwrap_or_default();
            let (year, month, day) = calendar::date(days.as_secs() / DAY);
            let message = format!("{} {ends} on {year}-{month:02}-{day:02}", pair.name);
            let help = "have it renewed, then reload: clients refuse one that has ended";
            doubts.push(Problem::new(files.place.clone(), message).help(help));
        }
        if let PemFile::File(key) = &files.key
            && is_everybodys(key)
        {
            let message = format!("{} can be read by every user", key.display());
            let help = format!("chmod 600 {}", key.display());
            doubts.push(Problem::new(files.place.clone(), message).help(help));
        }
    }
    doubts
}

/// Whether every user of the machine can read `file`, the directories above it included.
fn is_everybodys(file: &Path) -> bool {
    let may = |path: &Path, bit| path.metadata().is_ok_and(|is| is.mode() & bit != 0);
    let Ok(file) = file.canonicalize() else {
        return false;
    };
    may(&file, 0o004) && file.ancestors().skip(1).all(|above| may(above, 0o001))
}

/// The files that are read.
pub(super) fn files(settings: &Settings) -> impl Iterator<Item = &Path> {
    let pairs = settings.certificates.iter();
    let files = pairs.flat_map(|pair| [&pair.certificate, &pair.key]);
    files.filter_map(|file| match file {
        PemFile::File(path) => Some(path.as_path()),
        PemFile::Credential(_) => None,
    })
}

fn pair(files: &CertificateFiles) -> Result<Pair, Problem> {
    let pair = Pair {
        name: match &files.certificate {
            PemFile::File(path) => path.display().to_string(),
            PemFile::Credential(name) => format!("credential:{name}"),
        },
        certificate: pem(&files.certificate, &files.place)?,
        key: pem(&files.key, &files.place)?,
    };
    // What the proxy alone can read, it alone can check.
    let is_text = |pem: &Pem| matches!(pem, Pem::Text(_));
    if is_text(&pair.certificate) && is_text(&pair.key) {
        tls::check(&pair).map_err(|error| {
            let help = "put a certificate and the key it was made for in place, then reload";
            Problem::new(files.place.clone(), error.to_string()).help(help)
        })?;
    }
    Ok(pair)
}

fn pem(file: &PemFile, place: &Place) -> Result<Pem, Problem> {
    let path = match file {
        PemFile::Credential(name) => return Ok(Pem::Credential(name.clone())),
        PemFile::File(path) => path,
    };
    let read = || {
        let length = std::fs::metadata(path)?.len();
        if length > SIZE_MAX {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        std::fs::read_to_string(path)
    };
    read().map(Pem::Text).map_err(|error| {
        let message = format!("{} can not be read: {error}", path.display());
        let help = "name a file in PEM that root can read (keys: chmod 600, owner root), or credential:NAME";
        Problem::new(place.clone(), message).help(help)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_everybodys_if_they_can_come_to_it_and_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("live");
        create_dir(&inner).unwrap();
        let key = inner.join("key.pem");
        write(&key, "").unwrap();
        let mode = |path: &Path, mode| set_permissions(path, Permissions::from_mode(mode)).unwrap();
        mode(directory.path(), 0o755);
        for (above, own, expected) in [
            (0o755, 0o644, true),
            (0o755, 0o600, false),
            (0o755, 0o640, false),
            (0o700, 0o644, false),
        ] {
            mode(&inner, above);
            mode(&key, own);
            assert_eq!(is_everybodys(&key), expected, "{above:o} {own:o}");
        }
        assert!(!is_everybodys(&inner.join("none")));
    }
}
