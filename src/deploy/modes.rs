//! The modes of what is in the store.

/// Mode of all directories in the store below the two at the top. We may have no capability: only with the right to write into a
/// directory of our own can we remove what is in it.
pub(super) const DIRECTORY_MODE: u32 = 0o755;

/// Modes of the copies. What they were copied from says nothing but whether a file is a program: who may read them is for the directory
/// all copies are in to say. Nobody writes to a file again; in a directory its owner must be able to remove what is there.
pub(super) const FILE_MODE: u32 = 0o444;
pub(super) const PROGRAM_MODE: u32 = 0o555;
