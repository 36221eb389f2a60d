//! package.json and composer.json, of which a few fields are wanted.

use std::fs;
use std::io;
use std::path::Path;

use super::program::Unavailable;

/// As much as is read of a package.json or composer.json, of which a few fields are wanted.
const JSON_MAX: u64 = 1 << 20;

/// A file of JSON, if there is one.
pub(super) fn json(path: &Path) -> Result<Option<serde_json::Value>, String> {
    let read = || {
        let mut bytes = Vec::new();
        let file = fs::File::open(path)?;
        io::Read::read_to_end(&mut io::Read::take(file, JSON_MAX + 1), &mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > JSON_MAX => {
            Err(format!("it is larger than {} KiB", JSON_MAX >> 10))
        }
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| error.to_string()),
        Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// package.json, if there is one.
pub(super) fn package_json(directory: &Path) -> Result<Option<serde_json::Value>, Unavailable> {
    json(&directory.join("package.json")).map_err(Unavailable::PackageJson)
}
