//! The worker: reads requests, counts what it reads of bodies, answers with a few bytes or with a megabyte.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// Bytes of bodies that have come, all in all.
pub(crate) type Taken = Arc<AtomicU64>;

/// Listens at `path` and answers until the program ends.
pub(crate) fn start(path: &Path) -> Taken {
    let taken = Taken::default();
    let counts = taken.clone();
    let listener = std::os::unix::net::UnixListener::bind(path).expect("a socket for the worker");
    listener.set_nonblocking(true).expect("an option");
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let listener = UnixListener::from_std(listener).expect("a listener");
            let large: Arc<[u8]> = answer(1 << 20).into();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, large.clone(), counts.clone()));
            }
        });
    });
    taken
}

fn answer(length: usize) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + length, b'd');
    answer
}

/// One connection from the proxy, until it ends.
async fn serve(stream: UnixStream, large: Arc<[u8]>, counts: Taken) -> Option<()> {
    let small = answer(16);
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let (mut is_large, mut is_first, mut length) = (false, true, 0);
        loop {
            line.clear();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if std::mem::take(&mut is_first) {
                is_large = text.contains("/1m");
            }
            if let Some(value) = text.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = (&mut stream).take(length);
        let read = tokio::io::copy(&mut body, &mut tokio::io::sink())
            .await
            .ok()?;
        counts.fetch_add(read, Ordering::Relaxed);
        let answer = if is_large { &large[..] } else { &small[..] };
        stream.get_mut().write_all(answer).await.ok()?;
    }
}
