//! `tqserver rollback`: back to the files of an earlier generation, checked and switched to as in a reload.

use super::arguments::Common;
use super::client::{Client, is_gone};
use super::exit::{self, refused};
use super::outcome::{not_carried_out, report, with_progress};

#[derive(Debug, clap::Args)]
pub(super) struct Rollback {
    /// Which worker.
    #[arg(value_name = "WORKER")]
    worker: String,
    /// The generation whose files are to serve again, as `tqserver history` lists them. Default: the one before.
    #[arg(value_name = "GENERATION", value_parser = clap::value_parser!(u64).range(1..))]
    generation: Option<u64>,
}

impl Rollback {
    pub(super) async fn run(self, common: &Common) -> anyhow::Result<u8> {
        let client = Client::find(common).await?;
        let owner = client.owner().await;
        let manager = client.manager().await?;
        // Generation 0 stands for the previous one.
        let asked = manager.rollback(&self.worker, self.generation.unwrap_or(0));
        match with_progress(&manager, common.quiet, asked).await {
            // Not asked a second time, as a reload is: it could have gone one back already, and would go one more.
            Err(error) if is_gone(&error) => {
                client.until_back(owner.as_deref()).await?;
                Err(refused(
                    exit::UNAVAILABLE,
                    "the manager was restarted and did not say how it went",
                    format!(
                        "see which generation serves with `tqserver status {}`, then try again",
                        self.worker
                    ),
                ))
            }
            Err(error) => Err(not_carried_out(
                error,
                "nothing was rolled back, the running configuration stays",
            )),
            Ok(outcome) => Ok(report(common, &[outcome])),
        }
    }
}
