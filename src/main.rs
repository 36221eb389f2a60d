//! The entry: runs the command line.

fn main() {}
