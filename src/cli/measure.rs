//! `tqserver measure-state`: what tqserver-state.service runs, which may look where the manager may not.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;

use crate::footprint::measure_each;
use crate::manager::line_of_state;

#[derive(Debug, clap::Args)]
pub(super) struct MeasureState {
    /// The directory with the state of each worker.
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

impl MeasureState {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut lines = String::new();
        let measured = measure_each(&self.directory, |name, found| {
            if let Some(line) = line_of_state(name, found) {
                lines.push_str(&line);
                lines.push('\n');
            }
        });
        match measured {
            // No worker has been started yet.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            measured => measured.with_context(|| format!("read {}", self.directory.display()))?,
        }
        std::io::stdout().write_all(lines.as_bytes())?;
        Ok(0)
    }
}
