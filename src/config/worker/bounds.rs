//! Bounds for what more than one key of `worker.yaml` has.

/// Longest route and longest path of a health request in bytes: they stand in each request's log, a header and the environment.
pub(super) const LONGEST_PATH: usize = 1024;

/// Longest value of an environment variable in bytes; the kernel refuses to start a program with one of 128KiB or more.
pub(super) const LONGEST_VALUE: usize = 32 << 10;
