//! The copy of server.yaml that the next manager starts with should the file be wrong by then.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::disk::{Disk, SMALL};
use crate::config::Settings;
use crate::effort::Effort;

/// In the state directory: the server.yaml that was taken over last.
pub const KEPT: &str = ".server.yaml";

/// Where the copy is written.
pub(super) struct Kept {
    /// `None`: there is nowhere to keep one.
    file: Option<PathBuf>,
    disk: Disk,
    /// One write at a time; one that hangs keeps it.
    turn: Arc<Mutex<()>>,
}

impl Kept {
    pub(super) fn new(state_directory: Option<&PathBuf>, disk: Disk) -> Self {
        Self {
            file: state_directory.map(|state| state.join(KEPT)),
            disk,
            turn: Arc::default(),
        }
    }

    /// Writes a copy of what was taken over. Nobody waits for it.
    pub(super) fn keep(&self, settings: &Settings) -> impl Future<Output = ()> + use<> {
        let (file, settings) = (self.file.clone(), settings.clone());
        let (disk, turn) = (self.disk.clone(), Arc::clone(&self.turn));
        async move {
            let Some(copy) = file else { return };
            let path = copy.clone();
            let what = || format!("write {}", path.display());
            let kept = async {
                let turn = disk.turn(SMALL, what, turn.lock_owned()).await?;
                let keep = move |_: &Effort| {
                    let _turn = turn;
                    settings.keep(&copy)
                };
                disk.run(SMALL, what, keep).await
            };
            let problem = match kept.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            tracing::warn!("no copy of server.yaml could be kept: {problem}");
        }
    }
}
