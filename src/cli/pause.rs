//! `tqserver pause` and `tqserver resume`: no request goes to a worker for a while, and none is refused.

use std::time::Duration;

use super::arguments::Common;
use super::client::{Client, is_gone};
use super::exit::{self, refused};
use super::outcome::not_carried_out;
use crate::manager::control::PAUSE;

#[derive(Debug, clap::Args)]
pub(super) struct Pause {
    /// Which worker.
    #[arg(value_name = "WORKER")]
    worker: String,
    /// Longest time its requests wait, as in 90, 30s or 5min, up to 1h; then they go on by themselves.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = max)]
    max: Duration,
    /// How long to wait for the requests that are in flight in it.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = wait)]
    wait: Duration,
}

#[derive(Debug, clap::Args)]
pub(super) struct Resume {
    /// Which worker.
    #[arg(value_name = "WORKER")]
    worker: String,
}

impl Pause {
    pub(super) async fn run(self, common: &Common) -> anyhow::Result<u8> {
        let worker = &self.worker;
        let client = Client::find(common).await?;
        let owner = client.owner().await;
        let manager = client.manager().await?;
        let asked = manager.pause(worker, millis(self.max), millis(self.wait));
        match asked.await {
            // Not asked a second time: the pause would begin again, and last longer than was said.
            Err(error) if is_gone(&error) => {
                client.until_back(owner.as_deref()).await?;
                Err(refused(
                    exit::UNAVAILABLE,
                    "the manager was restarted and did not say how it went",
                    format!("see whether it is paused with `tqserver status {worker}`"),
                ))
            }
            Err(error) => Err(not_carried_out(error, "nothing was paused")),
            Ok(0) => {
                if !common.quiet {
                    println!(
                        "{worker}: paused for at most {}, nothing is in flight in it; `tqserver resume {worker}` ends it",
                        shown(self.max)
                    );
                }
                Ok(0)
            }
            Ok(left) => Err(refused(
                exit::FAILED,
                format!(
                    "'{worker}' is paused, but {left} of its requests are still in flight after {}",
                    shown(self.wait)
                ),
                format!(
                    "see them end with `tqserver status {worker}`, or let all go on with `tqserver resume {worker}`"
                ),
            )),
        }
    }
}

impl Resume {
    pub(super) async fn run(self, common: &Common) -> anyhow::Result<u8> {
        let worker = &self.worker;
        let client = Client::find(common).await?;
        let resumed = loop {
            let owner = client.owner().await;
            let manager = client.manager().await?;
            match manager.resume(worker).await {
                // Asking twice does no harm.
                Err(error) if is_gone(&error) => client.until_back(owner.as_deref()).await?,
                Err(error) => return Err(not_carried_out(error, "nothing was resumed")),
                Ok(resumed) => break resumed,
            }
        };
        if !common.quiet {
            match resumed {
                true => println!("{worker}: its requests go on"),
                false => println!("{worker}: it was not paused"),
            }
        }
        Ok(0)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn max(text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    match PAUSE.contains(&millis(time)) {
        true => Ok(time),
        false => Err("a pause lasts from 1s to 1h".to_owned()),
    }
}

fn wait(text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    match millis(time) <= *PAUSE.end() {
        true => Ok(time),
        false => Err("it can be waited for 1h at most".to_owned()),
    }
}

/// A number with a unit as systemd.time(7) has it; without one, of seconds.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim() {
        "" | "s" | "sec" => 1,
        "m" | "min" => 60,
        "h" | "hr" => 3600,
        _ => 0,
    };
    let number: Option<u64> = number.parse().ok();
    let seconds = number.and_then(|number| number.checked_mul(seconds));
    match seconds.filter(|seconds| *seconds > 0 || number == Some(0)) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err("write a whole number with s, min or h, as in 30s".to_owned()),
    }
}

fn shown(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds > 0 && seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_systemd_writes_them() {
        for (text, seconds) in [
            ("90", 90),
            ("30s", 30),
            ("5min", 300),
            ("1 h", 3600),
            ("0", 0),
        ] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in [
            "",
            "s",
            "-1s",
            "1.5s",
            "3 days",
            "99999999999999999999h",
            "1ms",
        ] {
            assert!(time(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(max("0").is_err() && max("61min").is_err() && wait("0").is_ok());
    }
}
