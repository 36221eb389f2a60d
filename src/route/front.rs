//! How the proxy meets its clients.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::listen::{Listen, Place};
use super::path::RoutePath;

/// Most bytes of the certificates and keys in a table, as PEM text.
pub const FRONT_MAX: usize = 2 << 20;

/// The proxy's side towards clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Front {
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// How to speak TLS, for those of `listen` that do.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Whether a client may begin with HTTP/2 where there is no TLS ("prior knowledge", RFC 9113, 3.3).
    #[serde(default)]
    pub http2_cleartext: bool,
    /// Where proxies stand whose word on a client's address, protocol and host is believed.
    #[serde(default)]
    pub trusted_proxies: Vec<IpNet>,
    /// Most clients' connections at a time.
    pub max_connections: usize,
    /// Most connections of one address at a time (of one network of 64 bits in IPv6); 0: no such limit.
    #[serde(default)]
    pub max_connections_per_address: usize,
    /// Longest time a client may take for its request head, and between two pieces of its body.
    pub read_timeout: Duration,
    /// Longest time a client may take to accept a piece of the response.
    pub write_timeout: Duration,
    /// How long a connection may stay open between two requests, or a tunnel without a byte.
    pub idle_timeout: Duration,
    /// Bytes of a body with which a client earns back a second of [`Front::read_timeout`] when it has kept us waiting; 0: one byte gives
    /// all of it back.
    #[serde(default)]
    pub min_read_rate: u32,
    /// The same for what a client takes of a response, and [`Front::write_timeout`].
    #[serde(default)]
    pub min_write_rate: u32,
    /// The path of the server's own health report.
    pub health_path: RoutePath,
    /// Most bytes of a request's head.
    pub max_header_bytes: usize,
    /// Most header fields of a request.
    pub max_headers: usize,
    /// How long requests in flight may take to end when the proxy stops.
    pub grace: Duration,
}

impl Default for Front {
    /// Listens nowhere; the limits are those of a server.yaml that says nothing.
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            tls: None,
            http2_cleartext: false,
            trusted_proxies: Vec::new(),
            max_connections: 16_384,
            max_connections_per_address: 0,
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            min_read_rate: 240,
            min_write_rate: 240,
            health_path: RoutePath::health(),
            max_header_bytes: 64 << 10,
            max_headers: 100,
            grace: Duration::from_secs(30),
        }
    }
}

impl Front {
    /// Listens on `port` at every address, without TLS.
    pub fn listen_on(&mut self, port: u16) {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for listen in &self.listen {
            if let Place::Tcp(address) = listen.place
                && !addresses.contains(&address.ip())
            {
                addresses.push(address.ip());
            }
        }
        let plain = |ip| Listen::from(SocketAddr::new(ip, port));
        self.listen = addresses.into_iter().map(plain).collect();
    }

    /// Listens at `address` alone, on the first port there was, without TLS.
    pub fn listen_at(&mut self, address: IpAddr) {
        let port = self.listen.iter().find_map(Listen::address);
        let port = port.map_or(0, |address| address.port());
        self.listen = vec![Listen::from(SocketAddr::new(address, port))];
    }

    /// Whether `address` is one whose word about a client is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies
            .iter()
            .any(|net| net.contains(&address))
    }
}

/// How the proxy speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Certificates with their keys; the first is for clients that name no host, or one that none is for.
    pub pairs: Vec<Pair>,
    /// Whether TLS 1.2 is refused.
    #[serde(default)]
    pub only_tls13: bool,
}

/// A certificate with its chain, and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Where the certificate comes from, for messages.
    pub name: String,
    /// The certificate first, then those that vouch for it.
    pub certificate: Pem,
    /// The private key.
    pub key: Pem,
}

/// PEM text (RFC 7468), or where the proxy finds it. It is not shown when the rest of a table is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pem {
    /// The text.
    Text(String),
    /// A credential of the proxy's unit by this name (`LoadCredential=` in systemd.exec(5)).
    Credential(String),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(..)"),
            Self::Credential(name) => f.debug_tuple("Credential").field(name).finish(),
        }
    }
}
