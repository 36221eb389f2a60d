//! The sockets that clients connect to.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A socket that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Listen {
    /// Where.
    pub place: Place,
    /// Whether clients speak TLS there.
    #[serde(default)]
    pub tls: bool,
    /// Whether each connection begins with a header of the PROXY protocol, version 2, from one of
    /// [`Front::trusted_proxies`].
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Whether those who connect to this unix socket are believed as [`Front::trusted_proxies`] are: it has no addresses to tell.
    #[serde(default)]
    pub trusted: bool,
    /// Requests that come without TLS are sent to this port with it; `None`: they are answered.
    #[serde(default)]
    pub redirect: Option<u16>,
}

/// Where a socket is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// An address and port; a port of 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self {
            place: Place::Tcp(address),
            tls: false,
            proxy_protocol: false,
            trusted: false,
            redirect: None,
        }
    }
}

impl Listen {
    /// The address, if it is one of TCP.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.place {
            Place::Tcp(address) => Some(address),
            Place::Unix(_) => None,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)?;
        if self.tls {
            f.write_str(" (TLS)")?;
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
