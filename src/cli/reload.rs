//! `tqserver reload`: replace what changed, and tell how it went.

use super::arguments::Common;
use super::client::{Client, is_gone, left_out};
use super::exit::{self, refused};
use super::outcome::{not_carried_out, report, with_progress};

#[derive(Debug, clap::Args)]
pub(super) struct Reload {
    /// Only these workers, or those in these directories.
    #[arg(value_name = "WORKER|DIRECTORY")]
    workers: Vec<String>,
    /// Replace also what has not changed.
    #[arg(long)]
    force: bool,
    /// Only tell what would be done.
    #[arg(long)]
    dry_run: bool,
}

impl Reload {
    pub(super) async fn run(self, common: &Common) -> anyhow::Result<u8> {
        let client = Client::find(common).await?;
        let holds_up_the_unit = client.holds_up_the_unit().await;
        let (manager, outcomes) = loop {
            let owner = client.owner().await;
            let manager = client.manager().await?;
            let asked = manager.reload(self.workers.clone(), self.force, self.dry_run);
            match with_progress(&manager, common.quiet, asked).await {
                // The next manager could not start before this has ended.
                Err(error) if is_gone(&error) && holds_up_the_unit => {
                    return Err(refused(
                        exit::UNAVAILABLE,
                        "the manager ended before the reload was over, and is started again",
                        "reload once more: `systemctl reload tqserver`".to_owned(),
                    ));
                }
                // Asking twice does no harm: what is done already has not changed.
                Err(error) if is_gone(&error) => {
                    client.until_back(owner.as_deref()).await?;
                    eprintln!("the manager was restarted; asking the new one");
                }
                Err(error) => {
                    let nothing = "nothing was reloaded, the running configuration stays";
                    return Err(not_carried_out(error, nothing));
                }
                Ok(outcomes) => break (manager, outcomes),
            }
        };
        if self.workers.is_empty() && !common.quiet {
            for sentence in left_out(&manager).await {
                eprintln!("warning: {sentence}");
            }
        }
        if outcomes.is_empty() && !common.quiet {
            println!("there are no workers");
        }
        Ok(report(common, &outcomes))
    }
}
