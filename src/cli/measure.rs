//! `tqserver measure-state`: what tqserver-state.service runs, which may look where the manager may not.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::footprint::{Footprint, measure_each};
use crate::manager::line_of_state;
use crate::systemd::STORED;

#[derive(Debug, clap::Args)]
pub(super) struct MeasureState {
    /// The directory with the state of each worker.
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

impl MeasureState {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut all = BTreeMap::new();
        add(&mut all, &self.directory)?;
        add(&mut all, &self.directory.join(STORED))?;
        let lines = all
            .iter()
            .filter_map(|(name, found)| line_of_state(name, *found));
        let lines: String = lines.map(|line| line + "\n").collect();
        std::io::stdout().write_all(lines.as_bytes())?;
        Ok(0)
    }
}

/// Adds what the workers have in `directory`.
fn add(all: &mut BTreeMap<OsString, Footprint>, directory: &Path) -> anyhow::Result<()> {
    let measured = measure_each(directory, |name, found| {
        let sum = all.entry(name.to_owned()).or_default();
        *sum = sum.and(found);
    });
    match measured {
        // No worker has been started yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        measured => measured.with_context(|| format!("read {}", directory.display())),
    }
}
