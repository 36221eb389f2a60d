//! Attacks by connections: many, slow, half done, or not what they should be.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::attacks::{Field, swarm};

/// Between two bytes of those who are slow.
pub(crate) const DRIP: Duration = Duration::from_secs(1);

/// Heads that grow by a byte now and then.
pub(crate) async fn slowloris(field: Arc<Field>) {
    let address = field.plain;
    swarm(field, 2000, address, |field, mut stream| async move {
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx: ")
            .await?;
        field.stands();
        drip(&field, &mut stream, b"y").await
    })
    .await;
}

/// Sends a byte now and then until the proxy has had enough.
pub(crate) async fn drip(
    field: &Field,
    stream: &mut TcpStream,
    byte: &'static [u8],
) -> io::Result<()> {
    loop {
        tokio::time::sleep(DRIP).await;
        stream.write_all(byte).await?;
        field.sends();
    }
}

/// Clients that have asked once.
pub(crate) async fn idle(field: Arc<Field>) {
    let address = field.plain;
    swarm(field, 10_000, address, |field, mut stream| async move {
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await?;
        let mut heard = [0; 4096];
        if stream.read(&mut heard).await? == 0 {
            return Ok(());
        }
        field.stands();
        until_closed(stream).await
    })
    .await;
}

/// Heads that are nearly as long as they may be, and never end.
pub(crate) async fn heads(field: Arc<Field>) {
    let address = field.plain;
    swarm(field, 10_000, address, |field, mut stream| async move {
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "y".repeat(60_000));
        stream.write_all(head.as_bytes()).await?;
        field.stands();
        until_closed(stream).await
    })
    .await;
}

/// The first bytes of a handshake, and no more.
pub(crate) async fn half_open(field: Arc<Field>) {
    let address = field.secure;
    swarm(field, 2000, address, |field, mut stream| async move {
        stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1]).await?;
        field.stands();
        until_closed(stream).await
    })
    .await;
}

/// Whole handshakes, one after the other, without a request.
pub(crate) async fn handshakes(field: Arc<Field>) {
    let address = field.secure;
    swarm(field, 20, address, |field, stream| async move {
        let stream = connector().connect(name(), stream).await;
        field.stands();
        field.sends();
        stream.map(drop).map_err(io::Error::other)
    })
    .await;
}

/// A client that believes whatever certificate it is shown: it is none of its business.
fn connector() -> TlsConnector {
    use std::sync::OnceLock;
    static CONFIG: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        Arc::new(config)
    });
    TlsConnector::from(config.clone())
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

/// Something else where a header of the PROXY protocol is due, by who is not trusted to send one anyway.
pub(crate) async fn garbage(field: Arc<Field>) {
    let address = field.proxied;
    swarm(field, 50, address, |field, mut stream| async move {
        field.stands();
        field.sends();
        stream.write_all(&[b'\r'; 4096]).await?;
        until_closed(stream).await
    })
    .await;
}

/// Connections that say nothing, ever more of them.
pub(crate) async fn flood(field: Arc<Field>) {
    let address = field.plain;
    swarm(field, 2000, address, |field, stream| async move {
        field.stands();
        field.sends();
        until_closed(stream).await
    })
    .await;
}

/// Waits until the proxy closes.
async fn until_closed(mut stream: TcpStream) -> io::Result<()> {
    let mut heard = [0; 4096];
    while stream.read(&mut heard).await? > 0 {}
    Ok(())
}
