//! A file below a public directory: what an answer says of it, and where its content comes from.

use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::HeaderValue;
use rustix::io::ReadWriteFlags;

use crate::proxy::wire::conditions::Validators;

/// A file that may be served.
#[derive(Debug)]
pub(crate) struct File {
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) validators: Validators,
    /// The same as a field's value.
    pub(crate) etag: HeaderValue,
    /// Its time of modification, as a field's value.
    pub(crate) modified: HeaderValue,
    pub(crate) content_type: HeaderValue,
    pub(crate) content: Content,
}

/// Where the bytes of a file come from.
#[derive(Debug)]
pub(crate) enum Content {
    /// They are read when they are sent.
    Open(Arc<fs::File>),
    /// They are here.
    Read(Bytes),
}

impl File {
    /// What was opened as `name`; `is_edited` says whether people work in its directory.
    ///
    /// # Errors
    /// [`io::ErrorKind::IsADirectory`] when it is one, [`io::ErrorKind::NotFound`] when it is nothing that is served.
    pub(super) fn new(file: fs::File, name: &str, is_edited: bool) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !metadata.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let validators = Validators {
            etag: etag(&metadata, is_edited),
            modified: metadata.modified().unwrap_or(UNIX_EPOCH),
        };
        let date = httpdate::fmt_http_date(validators.modified);
        let value = |text: &str| HeaderValue::from_str(text).map_err(io::Error::other);
        Ok(Self {
            size: metadata.len(),
            etag: value(&validators.etag)?,
            modified: value(&date)?,
            validators,
            content_type: content_type(name),
            content: Content::Open(Arc::new(file)),
        })
    }

    /// Reads all of it, if it has at most `most` bytes and they need not be fetched from a disk. Says whether they are here now.
    pub(super) fn read(&mut self, most: usize) -> bool {
        let Content::Open(file) = &self.content else {
            return true;
        };
        let Some(size) = usize::try_from(self.size).ok().filter(|&size| size <= most) else {
            return false;
        };
        let mut buffer = vec![0; size];
        let slices = &mut [io::IoSliceMut::new(&mut buffer)];
        let read = rustix::io::preadv2(file, slices, 0, ReadWriteFlags::NOWAIT);
        if read != Ok(size) {
            return false;
        }
        self.content = Content::Read(buffer.into());
        true
    }
}

/// The type of a file by its name. Text is UTF-8 these days.
fn content_type(name: &str) -> HeaderValue {
    let raw = mime_guess::from_path(name).first_raw();
    HeaderValue::from_static(match raw.unwrap_or("application/octet-stream") {
        "text/html" => "text/html; charset=utf-8",
        "text/css" => "text/css; charset=utf-8",
        "text/javascript" => "text/javascript; charset=utf-8",
        "text/plain" => "text/plain; charset=utf-8",
        text if text.starts_with("text/") => {
            let text = HeaderValue::from_str(&format!("{text}; charset=utf-8"));
            return text.unwrap_or_else(|_| HeaderValue::from_static("text/plain"));
        }
        other => other,
    })
}

/// What changes with the content of a file: the kernel's own stamp with all its digits, since two versions within a second are two.
///
/// Of a file that `is_edited` in place it is the time of the last change, which nobody can set: a release may give all its files one time
/// of modification. One that was deployed is never written again, and one more link to it, for the next generation, is a change of that
/// kind: its tag is to stay. When it was made stays, too, and tells it from the file of an older release whose inode it was given.
fn etag(metadata: &Metadata, is_edited: bool) -> String {
    let mut etag = String::with_capacity(64);
    let (seconds, nanos) = match is_edited {
        true => (metadata.ctime(), metadata.ctime_nsec()),
        false => (metadata.mtime(), metadata.mtime_nsec()),
    };
    let made = metadata.created().ok();
    let made = made.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let made = made.unwrap_or_default().as_nanos();
    let (size, inode) = (metadata.len(), metadata.ino());
    // Writing to a string does not fail.
    let _ = write!(
        etag,
        "\"{seconds:x}.{nanos:x}-{size:x}-{inode:x}-{made:x}\""
    );
    etag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_given_the_inode_of_a_removed_one_has_a_tag_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.js");
        let mut tags = std::collections::HashSet::new();
        let mut last = UNIX_EPOCH;
        for number in 0..20 {
            let metadata = loop {
                let _ = fs::remove_file(&path);
                // As a release does it that gives all its files one time: the size is the same, too.
                let file = fs::File::create(&path).unwrap();
                file.set_len(13).unwrap();
                file.set_modified(UNIX_EPOCH).unwrap();
                let metadata = file.metadata().unwrap();
                let Ok(made) = metadata.created() else {
                    // A file system that does not note it.
                    return;
                };
                // The kernel's clock for files has ticks of some milliseconds, and releases are further apart.
                if made != last {
                    last = made;
                    break metadata;
                }
            };
            let tag = etag(&metadata, false);
            assert!(tags.insert(tag), "release {number} has the tag of another");
        }
    }
}
