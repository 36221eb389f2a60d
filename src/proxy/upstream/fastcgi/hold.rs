//! A request's body, held until it is whole.
//!
//! php-fpm begins with a script as soon as it knows the request's variables, and has no word for a body that broke off: whatever came of it
//! is all of it to the script. So a request is not begun before its body is there. What is longer than fits into memory lies in a file
//! without a name, which is gone with the last who has it open, also if that is killed.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fastcgi_client::io::AsyncRead as Read;
use futures_util::TryStreamExt;
use futures_util::io::Cursor;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::proxy::wire::file_body::FileBody;

/// Longest body that is held in memory. What is longer goes to the file in pieces of this size.
const MEMORY_MAX: usize = 128 << 10;
/// So much of the file system is left for others: a share of it, within these bounds.
const SPARED_SHARE: u64 = 20;
const SPARED: (u64, u64) = (16 << 20, 1 << 30);

/// A held body, as it is sent on.
pub(super) type Stdin = Pin<Box<dyn Read + Send>>;

/// A whole body.
pub(super) enum Held {
    Memory(Bytes),
    File(Spool),
}

/// A file without a name, and how many bytes were written to it.
pub(super) struct Spool {
    file: File,
    length: u64,
}

/// Why there is none.
pub(super) enum Failure {
    /// It did not come whole.
    Torn(hyper::Error),
    /// There is no room for it; with what is still to come.
    NoRoom(io::Error, Incoming),
}

/// Waits for all of `incoming`.
///
/// # Errors
/// When it breaks off, or there is no room for it.
pub(super) async fn whole(mut incoming: Incoming) -> Result<Held, Failure> {
    let mut piece = BytesMut::new();
    let mut spool = None;
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(Failure::Torn)?;
        if let Some(data) = frame.data_ref() {
            piece.extend_from_slice(data);
        }
        if piece.len() > MEMORY_MAX {
            spool = match append(spool, piece.split().freeze()).await {
                Ok(spool) => Some(spool),
                Err(error) => return Err(Failure::NoRoom(error, incoming)),
            };
        }
    }
    let Some(spool) = spool else {
        return Ok(Held::Memory(piece.freeze()));
    };
    match append(Some(spool), piece.freeze()).await {
        Ok(spool) => Ok(Held::File(spool)),
        Err(error) => Err(Failure::NoRoom(error, incoming)),
    }
}

/// Writes one more piece, on a thread that may wait for a disk.
async fn append(spool: Option<Spool>, piece: Bytes) -> io::Result<Spool> {
    let written = tokio::task::spawn_blocking(move || {
        let mut spool = match spool {
            Some(spool) => spool,
            None => Spool {
                file: nameless()?,
                length: 0,
            },
        };
        has_room(&spool.file, piece.len() as u64)?;
        spool.file.write_all(&piece)?;
        spool.length += piece.len() as u64;
        Ok(spool)
    });
    written.await.map_err(io::Error::other)?
}

/// A file without a name: where `TMPDIR` says, or below /var/tmp, which is on a disk where /tmp is memory, or there.
fn nameless() -> io::Result<File> {
    let told = std::env::var_os("TMPDIR").map(PathBuf::from);
    let usual = ["/var/tmp", "/tmp"].map(PathBuf::from);
    let mut refused = io::Error::from(io::ErrorKind::NotFound);
    for directory in told.into_iter().chain(usual) {
        match nameless_in(&directory) {
            Ok(file) => return Ok(file),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn nameless_in(directory: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(directory, flags | OFlags::TMPFILE, mode) {
        // A file system that knows only files with names.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
            let path = directory.join(format!("tqserver-{}", uuid::Uuid::now_v7()));
            let file = rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
            rustix::fs::unlink(&path)?;
            Ok(file.into())
        }
        opened => Ok(opened?.into()),
    }
}

/// Whether `more` bytes leave enough of the file system to others.
///
/// # Errors
/// When they do not.
fn has_room(file: &File, more: u64) -> io::Result<()> {
    let space = rustix::fs::fstatvfs(file)?;
    let share = space.f_blocks.saturating_mul(space.f_frsize) / SPARED_SHARE;
    let spared = share.clamp(SPARED.0, SPARED.1);
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    // One without a size has no end that it knows of.
    match space.f_blocks == 0 || free >= more.saturating_add(spared) {
        true => Ok(()),
        false => Err(io::ErrorKind::StorageFull.into()),
    }
}

impl Held {
    /// Its bytes.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(spool) => spool.length,
        }
    }

    /// It, to be read once.
    pub(super) fn stdin(self) -> Stdin {
        match self {
            Self::Memory(bytes) => Box::pin(Cursor::new(bytes)),
            Self::File(spool) => Box::pin(read(spool)),
        }
    }
}

fn read(spool: Spool) -> impl Read + Send {
    let mut body = FileBody::new(Arc::new(spool.file), spool.length);
    let pieces = futures_util::stream::poll_fn(move |cx| body.poll_frame(cx));
    let pieces = pieces.map_ok(|frame| frame.into_data().unwrap_or_default());
    pieces.into_async_read()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_in_a_file_has_no_name_and_is_nobody_elses() {
        use std::os::unix::fs::MetadataExt;
        let file = nameless().unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.nlink(), metadata.mode() & 0o777), (0, 0o600));
    }

    #[test]
    fn a_file_system_is_not_filled_to_its_end() {
        let file = nameless().unwrap();
        assert!(has_room(&file, 1).is_ok());
        let space = rustix::fs::fstatvfs(&file).unwrap();
        let all = space.f_bavail * space.f_frsize;
        let refused = has_room(&file, all).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    }
}
