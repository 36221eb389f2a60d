//! `tqserver dev`: everything in the foreground.

use super::Common;
use crate::config::Mode;
use crate::dev::{self, Start};

#[derive(Debug, clap::Args)]
pub(super) struct Dev {
    /// Listen on this port instead of the configured one; 0: any free one.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

impl Dev {
    pub(super) async fn run(self, common: &Common) -> anyhow::Result<u8> {
        let mut settings = common.settings()?;
        if let Some(port) = self.port {
            settings.front.listen_on(port);
        }
        let mode = common.mode(Mode::Development)?;
        dev::run(Start {
            settings,
            port: self.port,
            kind: common.kind(),
            mode,
            quiet: common.quiet,
        })
        .await?;
        Ok(0)
    }
}
