//! What a connection begins with before there is HTTP/1: a header of the PROXY protocol, the preface of HTTP/2.

use std::io;
use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use ppp::v2::{Addresses, Command, Header};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a header before its length is known.
const FIXED: usize = 16;

/// Most bytes that may follow: addresses, and what a proxy has to tell besides, of which nothing is used here.
const REST_MAX: usize = 4096;

/// With that a client begins that knows we speak HTTP/2 (RFC 9113, 3.4). No request of HTTP/1 does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Why a header of the PROXY protocol is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PreambleError {
    /// It is none, or not of version 2.
    #[error("the connection does not begin with a header of the PROXY protocol, version 2")]
    Foreign,
    /// It is longer than any that says who the client is.
    #[error("the header of the PROXY protocol is {0} bytes long")]
    Long(usize),
}

/// Both ends of the client's connection to a proxy, by that proxy's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proxied {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
}

/// Reads the header of the PROXY protocol that `stream` begins with; returns who the client is, if the proxy says it: of its own
/// connections ("LOCAL") it does not.
///
/// # Errors
/// When there is no such header, or the connection breaks.
pub(crate) async fn proxied<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<Proxied>> {
    let mut header = vec![0; FIXED];
    stream.read_exact(&mut header).await?;
    let rest = usize::from(u16::from_be_bytes([header[FIXED - 2], header[FIXED - 1]]));
    if rest > REST_MAX {
        return Err(io::Error::other(PreambleError::Long(rest)));
    }
    header.resize(FIXED + rest, 0);
    stream.read_exact(&mut header[FIXED..]).await?;
    parse(&header).map_err(io::Error::other)
}

/// Who the client is by a whole header.
///
/// # Errors
/// When it is not one.
pub(crate) fn parse(header: &[u8]) -> Result<Option<Proxied>, PreambleError> {
    let header = Header::try_from(header).map_err(|_| PreambleError::Foreign)?;
    if header.command == Command::Local {
        return Ok(None);
    }
    let end = |address: IpAddr, port| SocketAddr::new(address.to_canonical(), port);
    Ok(match header.addresses {
        Addresses::IPv4(of) => Some(Proxied {
            client: end(of.source_address.into(), of.source_port),
            server: end(of.destination_address.into(), of.destination_port),
        }),
        Addresses::IPv6(of) => Some(Proxied {
            client: end(of.source_address.into(), of.source_port),
            server: end(of.destination_address.into(), of.destination_port),
        }),
        Addresses::Unspecified | Addresses::Unix(_) => None,
    })
}

/// Whether `stream` begins with the preface of HTTP/2, and what was read of it to find out.
///
/// # Errors
/// When the connection breaks.
pub(crate) async fn has_preface<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(bool, Bytes)> {
    let mut read = BytesMut::new();
    while PREFACE.starts_with(&read) && read.len() < PREFACE.len() {
        let mut rest = [0; PREFACE.len()];
        let wanted = PREFACE.len() - read.len();
        let count = stream.read(&mut rest[..wanted]).await?;
        if count == 0 {
            break;
        }
        read.extend_from_slice(&rest[..count]);
    }
    Ok((read == PREFACE, read.freeze()))
}

/// The address as a client's, for what counts clients and compares addresses.
pub(crate) fn client_of(peer: Option<SocketAddr>) -> Option<IpAddr> {
    peer.map(|peer| peer.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend_from_slice(rest);
        header
    }

    #[tokio::test]
    async fn the_address_is_the_proxys_word_and_what_follows_is_not_touched() {
        let mut bytes = header(1, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 0x1f, 0x90, 0, 80]);
        bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
        let mut stream = bytes.as_slice();
        let client = proxied(&mut stream).await.unwrap();
        let proxied = Proxied {
            client: "192.0.2.1:8080".parse().unwrap(),
            server: "10.0.0.1:80".parse().unwrap(),
        };
        assert_eq!(client, Some(proxied));
        assert_eq!(stream, b"GET / HTTP/1.1\r\n");
    }

    #[test]
    fn addresses_of_all_kinds_are_read() {
        let mut v6 = [0; 36];
        v6[15] = 1;
        let proxied = parse(&header(1, 0x21, &v6)).unwrap().unwrap();
        assert_eq!(proxied.client, "[::1]:0".parse().unwrap());
        assert_eq!(parse(&header(1, 0x31, &[0; 216])).unwrap(), None);
        assert_eq!(parse(&header(0, 0x00, &[])).unwrap(), None);
        // What a proxy tells besides is passed over.
        let more = [192, 0, 2, 1, 10, 0, 0, 1, 0, 1, 0, 2, 0x04, 0, 1, 0];
        assert!(parse(&header(1, 0x11, &more)).unwrap().is_some());
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for bytes in [
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n".to_vec(),
            header(1, 0x11, &[1, 2, 3]),
            header(7, 0x11, &[0; 12]),
            header(1, 0x11, &[0; REST_MAX + 1]),
            header(1, 0x11, &[0; 12])[..20].to_vec(),
            Vec::new(),
        ] {
            assert!(proxied(&mut bytes.as_slice()).await.is_err(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn the_preface_is_known_by_all_of_its_bytes() {
        let mut whole = [PREFACE, b"rest"].concat();
        let mut stream = whole.as_slice();
        let (is_http2, read) = has_preface(&mut stream).await.unwrap();
        assert!(is_http2 && read == PREFACE && stream == b"rest");
        whole[20] = b'X';
        for other in [whole.as_slice(), b"P", b"PRI * HTTP/1.1\r\n", b"GET /", b""] {
            let mut stream = other;
            let (is_http2, read) = has_preface(&mut stream).await.unwrap();
            assert!(!is_http2);
            assert_eq!([&read, stream].concat(), other);
        }
    }
}
