//! What the command line says in place of `server.yaml`.

use std::net::{IpAddr, Ipv4Addr};

use super::super::settings::Settings;

/// What goes over server.yaml's word on where to listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instead {
    /// On this port, without TLS.
    pub port: Option<u16>,
    /// At this address alone, without TLS.
    pub address: Option<IpAddr>,
    /// On this machine alone, unless the file or `address` says otherwise.
    pub private: bool,
}

impl Instead {
    /// Changes `settings`, which are as the file says.
    pub fn apply(self, settings: &mut Settings) {
        let front = &mut settings.front;
        match self.address {
            Some(address) => front.listen_at(address),
            None if self.private && !settings.addressed => {
                front.listen_at(Ipv4Addr::LOCALHOST.into());
            }
            None => {}
        }
        if let Some(port) = self.port {
            front.listen_on(port);
        }
    }
}
