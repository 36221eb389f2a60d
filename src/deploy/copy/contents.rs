//! Copies what is in a file.

use std::os::fd::OwnedFd;

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::{Errno, pread, pwrite};

use super::super::allowance::Spent;

/// Most bytes copied in one system call, so that a copy can be given up between two.
const PIECE: u64 = 16 << 20;

/// Most bytes that are read at once where the kernel does not copy by itself.
const BY_HAND: usize = 256 << 10;

/// Copies `size` bytes, the size the file had when it was opened: one that grows all the time has an end for us. Holes stay holes.
pub(super) fn contents(
    source: &OwnedFd,
    target: &OwnedFd,
    size: u64,
    spent: &mut Spent,
) -> Result<(), Errno> {
    if ioctl_ficlone(target, source).is_ok() {
        // It may have grown since.
        return ftruncate(target, size);
    }
    ftruncate(target, size)?;
    let mut at = 0;
    while at < size {
        let (start, end) = match next_data(source, at, size)? {
            Some(data) => data,
            None => return Ok(()),
        };
        let copied = range(source, target, start, end, spent)?;
        if copied < end {
            // It has become shorter.
            return ftruncate(target, copied);
        }
        at = end;
    }
    Ok(())
}

/// Puts `bytes` into a file instead.
pub(super) fn text(target: &OwnedFd, bytes: &[u8], spent: &mut Spent) -> Result<(), Errno> {
    write(target, bytes, 0)?;
    spent.written(bytes.len() as u64);
    Ok(())
}

fn write(target: &OwnedFd, bytes: &[u8], at: u64) -> Result<(), Errno> {
    let mut written = 0;
    while written < bytes.len() {
        match pwrite(target, &bytes[written..], at + written as u64) {
            Err(Errno::INTR) => {}
            more => written += more?,
        }
    }
    Ok(())
}

/// The next bytes from `at` on that are not in a hole, up to `size`. A file system that knows of no holes has none.
fn next_data(source: &OwnedFd, at: u64, size: u64) -> Result<Option<(u64, u64)>, Errno> {
    let start = match seek(source, SeekFrom::Data(at)) {
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, size))),
        start => start?,
    };
    if start >= size {
        return Ok(None);
    }
    let end = seek(source, SeekFrom::Hole(start)).unwrap_or(size);
    Ok(Some((start, end.clamp(start + 1, size))))
}

/// Copies the bytes from `start` to `end`; returns up to where there were any.
fn range(
    source: &OwnedFd,
    target: &OwnedFd,
    start: u64,
    end: u64,
    spent: &mut Spent,
) -> Result<u64, Errno> {
    let (mut from, mut to) = (start, start);
    while from < end {
        spent.go_on()?;
        let piece = usize::try_from((end - from).min(PIECE)).unwrap_or(BY_HAND);
        let copied = copy_file_range(source, Some(&mut from), target, Some(&mut to), piece);
        match copied {
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return by_hand(source, target, from, end, spent);
            }
            Ok(0) => break,
            copied => spent.written(copied? as u64),
        }
    }
    Ok(from)
}

/// For pairs of file systems the kernel does not copy between.
fn by_hand(
    source: &OwnedFd,
    target: &OwnedFd,
    start: u64,
    end: u64,
    spent: &mut Spent,
) -> Result<u64, Errno> {
    let mut at = start;
    let mut buffer = vec![0; BY_HAND];
    while at < end {
        spent.go_on()?;
        let piece = usize::try_from(end - at).unwrap_or(BY_HAND).min(BY_HAND);
        let read = match pread(source, &mut buffer[..piece], at) {
            Err(Errno::INTR) => continue,
            Ok(0) => break,
            read => read?,
        };
        write(target, &buffer[..read], at)?;
        at += read as u64;
        spent.written(read as u64);
    }
    Ok(at)
}
