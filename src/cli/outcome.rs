//! What reload and rollback have in common: they wait for the manager, tell its progress, and print how it went for each worker.

use futures_util::StreamExt;

use super::arguments::Common;
use super::client::plain;
use super::exit::{self, refused};
use crate::manager::control::{ControlError, Manager1Proxy};
use crate::manager::status::WorkerOutcome;

/// Waits for what was asked of the manager and prints its progress on the way.
pub(super) async fn with_progress<T>(
    manager: &Manager1Proxy<'_>,
    quiet: bool,
    asked: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ControlError> {
    // Subscribed before the call is sent: a future does nothing until it is polled.
    let mut progress = manager.receive_progress().await?;
    let mut asked = std::pin::pin!(asked);
    loop {
        tokio::select! {
            biased;
            // What fails is told in full at the end.
            Some(line) = progress.next() => if let Ok(line) = line.args() {
                match *line.severity() {
                    "info" if !quiet => println!("{}", line.text()),
                    "notice" => eprintln!("warning: {}", line.text()),
                    _ => {}
                }
            },
            answer = &mut asked => return answer,
        }
    }
}

/// How the command ends when the manager did not carry it out; `nothing`: that nothing was done, in a sentence.
pub(super) fn not_carried_out(error: ControlError, nothing: &str) -> anyhow::Error {
    match error {
        ControlError::BadConfiguration(problems) => {
            eprintln!("{problems}");
            let hint = "mend it, and try with `tqserver check`".to_owned();
            refused(exit::CONFIG, nothing, hint)
        }
        ControlError::InvalidArgument(sentence) => refused(exit::USAGE, sentence, None),
        ControlError::NotPermitted(sentence) => {
            let sentence =
                format!("permission denied: only root and administrators may do that: {sentence}");
            let hint = "run it with sudo".to_owned();
            refused(exit::NOT_PERMITTED, sentence, hint)
        }
        error => plain(error),
    }
}

/// Prints how it went; returns the exit code.
pub(super) fn report(common: &Common, outcomes: &[WorkerOutcome]) -> u8 {
    let failed = |outcome: &&WorkerOutcome| outcome.outcome == "failed";
    outcomes
        .iter()
        .filter(|outcome| !common.quiet || failed(outcome))
        .for_each(print);
    if outcomes.iter().any(|outcome| failed(&outcome)) {
        exit::FAILED
    } else {
        0
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Refused;

    #[test]
    fn who_may_not_is_told_who_may() {
        let polkit = "polkit does not allow it (org.tqserver.reload)".to_owned();
        let error = not_carried_out(ControlError::NotPermitted(polkit), "nothing was done");
        let error = error.downcast_ref::<Refused>().unwrap();
        assert_eq!(error.code, exit::NOT_PERMITTED);
        assert_eq!(
            error.sentence,
            "permission denied: only root and administrators may do that: polkit does not allow it (org.tqserver.reload)"
        );
        assert_eq!(error.hint.as_deref(), Some("run it with sudo"));
    }
}
