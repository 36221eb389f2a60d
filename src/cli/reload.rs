//! `tqserver reload`: replace what changed, and tell how it went.

use futures_util::StreamExt;

use super::client::{Client, is_gone, plain};
use super::{Common, exit, refused};
use crate::manager::control::{ControlError, Manager1Proxy, WorkerOutcome};

#[derive(Debug, clap::Args)]
pub(super) struct Reload {
    /// Only these workers.
    #[arg(value_name = "WORKER")]
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
        let outcomes = loop {
            let owner = client.owner().await;
            match self.ask(&client.manager().await?, common.quiet).await {
                Err(error) if is_gone(&error) => {
                    client.until_back(owner.as_deref()).await?;
                    eprintln!("the manager was restarted; asking the new one");
                }
                Err(ControlError::BadConfiguration(problems)) => {
                    eprintln!("{problems}");
                    let sentence = "nothing was reloaded, the running configuration stays";
                    let hint = "mend it, and try with `tqserver check`".to_owned();
                    return Err(refused(exit::CONFIG, sentence, hint));
                }
                Err(ControlError::InvalidArgument(sentence)) => {
                    return Err(refused(exit::USAGE, sentence, None));
                }
                Err(error) => return Err(plain(error)),
                Ok(outcomes) => break outcomes,
            }
        };
        let failed = outcomes
            .iter()
            .filter(|outcome| outcome.outcome == "failed")
            .count();
        outcomes
            .iter()
            .filter(|outcome| !common.quiet || outcome.outcome == "failed")
            .for_each(print);
        if outcomes.is_empty() && !common.quiet {
            println!("there are no workers");
        }
        Ok(if failed > 0 { exit::FAILED } else { 0 })
    }

    /// Asks for the reload and prints its progress on the way.
    async fn ask(
        &self,
        manager: &Manager1Proxy<'_>,
        quiet: bool,
    ) -> Result<Vec<WorkerOutcome>, ControlError> {
        let mut progress = manager.receive_progress().await?;
        let mut reload =
            std::pin::pin!(manager.reload(self.workers.clone(), self.force, self.dry_run));
        loop {
            tokio::select! {
                biased;
                // What fails is told in full at the end.
                Some(line) = progress.next() => if let (Ok(line), false) = (line.args(), quiet)
                    && *line.severity() == "info"
                {
                    println!("{}", line.text());
                },
                outcomes = &mut reload => return outcomes,
            }
        }
    }
}

fn print(outcome: &WorkerOutcome) {
    let WorkerOutcome {
        worker,
        outcome: word,
        from,
        to,
        reason,
        log,
    } = outcome;
    match word.as_str() {
        "failed" => {
            println!("{worker}: failed: {reason}");
            log.iter().for_each(|line| println!("    {line}"));
        }
        "replaced" => println!("{worker}: generation {to} serves, generation {from} drains"),
        "started" => println!("{worker}: generation {to} serves"),
        "assets" => println!("{worker}: new assets are live"),
        word if !reason.is_empty() => println!("{worker}: {word}: {reason}"),
        word => println!("{worker}: {word}"),
    }
}
