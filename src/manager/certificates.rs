//! The certificates of server.yaml: read from their files, checked, and handed to the proxy with the route table.

use std::path::Path;

use crate::config::{CertificateFiles, PemFile, Place, Problem, Problems, Settings};
use crate::route::{Pair, Pem};
use crate::tls;

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
    tls.pairs = pairs;
    Ok(())
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
