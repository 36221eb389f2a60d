//! `tqserver maintenance`: clients of a worker are told that it will be back, and the worker is not asked.

use super::arguments::Common;
use super::client::{Client, is_gone};
use super::exit::{self, refused};
use super::outcome::not_carried_out;

#[derive(Debug, clap::Args)]
pub(super) struct Maintenance {
    /// Which worker.
    #[arg(value_name = "WORKER")]
    worker: String,
    /// What clients are told.
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// End it: requests go to the worker again.
    #[arg(long, conflicts_with = "message")]
    off: bool,
}

impl Maintenance {
    pub(super) async fn run(self, common: &Common) -> anyhow::Result<u8> {
        let worker = &self.worker;
        if self.message.as_deref() == Some("") {
            return Err(refused(
                exit::USAGE,
                "the message is empty",
                "leave out --message for the server's own".to_owned(),
            ));
        }
        let message = self.message.as_deref().unwrap_or_default();
        let client = Client::find(common).await?;
        let changed = loop {
            let owner = client.owner().await;
            let manager = client.manager().await?;
            match manager.maintenance(worker, !self.off, message).await {
                // Asking twice does no harm.
                Err(error) if is_gone(&error) => client.until_back(owner.as_deref()).await?,
                Err(error) => return Err(not_carried_out(error, "nothing was changed")),
                Ok(changed) => break changed,
            }
        };
        if !common.quiet {
            match (self.off, changed) {
                (false, _) => println!(
                    "{worker}: clients get 503; `tqserver maintenance {worker} --off` ends it"
                ),
                (true, true) => println!("{worker}: its requests go to it again"),
                (true, false) => println!("{worker}: it was not in maintenance"),
            }
        }
        Ok(0)
    }
}
