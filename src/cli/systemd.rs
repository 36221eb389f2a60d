//! `tqserver systemd`: a private systemd in the foreground.

use std::path::PathBuf;

use super::arguments::Common;
use crate::dev::{Asked, Signals};
use crate::systemd::{Place, Private};

#[derive(Debug, clap::Args)]
pub(super) struct Systemd {
    /// A directory of further unit files it may load.
    #[arg(long, value_name = "DIRECTORY")]
    units: Option<PathBuf>,
}

impl Systemd {
    pub(super) async fn run(self, common: &Common) -> anyhow::Result<u8> {
        let units = self.units.map(std::path::absolute).transpose()?;
        let mut signals = Signals::open()?;
        let mut private = Private::start(Place::of(&common.config), units.as_deref()).await?;
        if let Some(warning) = private.warning() {
            tracing::warn!("{warning}");
        }
        println!("{}", private.place().bus_address());
        loop {
            tokio::select! {
                () = private.ended() => anyhow::bail!("the private systemd ended"),
                asked = signals.next() => if asked == Asked::End { break },
            }
        }
        private.stop().await;
        Ok(0)
    }
}
