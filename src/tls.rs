//! TLS: certificates read and checked, chosen by the name a client asks for, and sessions that outlive a restart. The one door to
//! rustls.

mod choice;
mod tickets;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};

use self::choice::Choice;
pub use self::choice::Shown;
pub use self::tickets::Tickets;
use crate::route::{Pair, Pem, Tls};

/// A connection that speaks TLS.
pub type Stream<S> = tokio_rustls::server::TlsStream<S>;

/// What a client and we agree on when it speaks HTTP/2 (RFC 9113, 3.2).
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The directory of the unit's credentials (systemd.exec(5)).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Why a certificate and a key are not served with.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The credential can not be read.
    #[error("the credential '{0}' can not be read by the proxy: {1}")]
    Credential(String, String),
    /// No certificate, or not PEM.
    #[error("{0}: {1}")]
    Certificate(String, String),
    /// No private key, or not PEM, or of a kind that is not known.
    #[error("the key of {0}: {1}")]
    Key(String, String),
    /// The one does not belong to the other.
    #[error("the key is not that of the certificate {0}")]
    Mismatch(String),
}

/// Reads and checks `pair`: that both are there, can be used, and belong together.
///
/// # Errors
/// When not.
pub fn check(pair: &Pair) -> Result<(), PairError> {
    certified(pair, &aws_lc_rs::default_provider()).map(|_| ())
}

/// When the certificate of `pair` ends, if it has ended by `then`; `None` also where that can not be told here, as of a credential.
pub fn ended(pair: &Pair, then: SystemTime) -> Option<SystemTime> {
    let Pem::Text(text) = &pair.certificate else {
        return None;
    };
    let certificate = CertificateDer::from_pem_slice(text.as_bytes()).ok()?;
    let certificate = ParsedCertificate::try_from(&certificate).ok()?;
    let then = UnixTime::since_unix_epoch(then.duration_since(UNIX_EPOCH).ok()?);
    // It is looked at for its times first, and then for who signed it: nobody who is trusted here.
    let nobody = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(&certificate, &nobody, &[], then, &[]) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(UNIX_EPOCH + Duration::from_secs(not_after.as_secs()))
        }
        _ => None,
    }
}

/// Meets clients that speak TLS.
#[derive(Clone)]
pub struct Acceptor {
    acceptor: tokio_rustls::TlsAcceptor,
    choice: Arc<Choice>,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Acceptor {
    /// An acceptor that shows the certificates of `tls`; sessions are kept by `tickets`.
    ///
    /// # Errors
    /// When one of them can not be used.
    pub fn new(tls: &Tls, tickets: Arc<Tickets>) -> Result<Self, PairError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let keys = tls.pairs.iter().map(|pair| certified(pair, &provider));
        let choice = Arc::new(Choice::new(keys.collect::<Result<_, _>>()?));
        let versions: &[_] = match tls.only_tls13 {
            true => &[&TLS13],
            false => &[&TLS13, &TLS12],
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| PairError::Certificate("TLS".to_owned(), error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(choice.clone());
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        config.ticketer = tickets;
        // A ticket is all that is kept of a session: nothing grows with the number of clients.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        // Half of what rustls sends unless told: a browser needs a second one for connections it opens side by side.
        config.send_tls13_tickets = 2;
        Ok(Self {
            acceptor: tokio_rustls::TlsAcceptor::from(Arc::new(config)),
            choice,
        })
    }

    /// Shakes hands with a client.
    ///
    /// # Errors
    /// When it does not speak TLS, or nothing that both can.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> std::io::Result<Stream<S>> {
        self.acceptor.accept(stream).await
    }

    /// What the client of `stream` was shown; `None` where there is but one certificate.
    pub fn shown<S>(&self, stream: &Stream<S>) -> Option<Shown> {
        self.choice.shown(stream.get_ref().1.server_name())
    }
}

/// Whether client and server have agreed on HTTP/2.
pub fn is_http2<S>(stream: &Stream<S>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}

fn certified(pair: &Pair, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, PairError> {
    let certificate = text(&pair.certificate)?;
    let bad_certificate = |error: String| PairError::Certificate(pair.name.clone(), error);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| bad_certificate(explain(&error)))?;
    if chain.is_empty() {
        return Err(bad_certificate(
            "there is no certificate in it (-----BEGIN CERTIFICATE-----)".to_owned(),
        ));
    }
    let key = text(&pair.key)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| {
        let reason = match error {
            pem::Error::NoItemsFound if key.contains("BEGIN ENCRYPTED PRIVATE KEY") => {
                "it is locked by a passphrase; 'openssl pkey -in KEY -out NEW' takes that away"
                    .to_owned()
            }
            pem::Error::NoItemsFound => {
                "there is no private key in it (-----BEGIN PRIVATE KEY-----)".to_owned()
            }
            error => explain(&error),
        };
        PairError::Key(pair.name.clone(), reason)
    })?;
    match CertifiedKey::from_der(chain, key, provider) {
        Ok(key) => Ok(Arc::new(key)),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(PairError::Mismatch(pair.name.clone()))
        }
        Err(error @ Error::InvalidCertificate(_)) => Err(bad_certificate(error.to_string())),
        Err(error) => Err(PairError::Key(pair.name.clone(), error.to_string())),
    }
}

fn explain(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        _ => "it is not PEM text".to_owned(),
    }
}

fn text(pem: &Pem) -> Result<String, PairError> {
    match pem {
        Pem::Text(text) => Ok(text.clone()),
        Pem::Credential(name) => {
            let unreadable =
                |error: &dyn fmt::Display| PairError::Credential(name.clone(), error.to_string());
            let directory = std::env::var_os(CREDENTIALS).ok_or_else(|| {
                unreadable(
                    &"its unit has none; 'systemctl edit tqserver-proxy' and add LoadCredential=",
                )
            })?;
            std::fs::read_to_string(PathBuf::from(directory).join(name))
                .map_err(|error| unreadable(&error))
        }
    }
}

#[cfg(test)]
mod tests;
