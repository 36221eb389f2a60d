//! `tqserver dev`: everything in the foreground.

use std::net::IpAddr;

use super::arguments::Common;
use crate::config::{Instead, Mode};
use crate::dev::{self, Start};

#[derive(Debug, clap::Args)]
pub(super) struct Dev {
    /// Listen on this port instead of the configured one; 0: any free one.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Listen at this address instead of the configured ones. Default: if server.yaml names none, this machine alone can connect
    /// (127.0.0.1); 0.0.0.0 lets others in.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
}

impl Dev {
    pub(super) async fn run(self, common: &Common) -> anyhow::Result<u8> {
        let mut settings = common.settings()?;
        let instead = Instead {
            port: self.port,
            address: self.address,
            private: true,
        };
        instead.apply(&mut settings);
        let mode = common.mode(Mode::Development)?;
        dev::run(Start {
            settings,
            instead,
            kind: common.kind(),
            mode,
            quiet: common.quiet,
        })
        .await?;
        Ok(0)
    }
}
