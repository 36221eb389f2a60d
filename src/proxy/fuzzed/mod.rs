//! What is fuzzed of the proxy: for each parser of what comes from outside a function that takes any bytes, and panics if what must hold
//! of them does not. Built for `cargo fuzz` (see `fuzz/`) and for the tests, which give each function its corpus.
//!
//! | file | what it looks at |
//! |---|---|
//! | `fields` | header fields: who asks, for which host, on which conditions, with which codings |
//! | `paths` | paths and hosts on their way to a route, redirects |
//! | `streams` | bytes as they come from clients, in any pieces |

mod fields;
mod paths;
mod streams;

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, ReadBuf};

pub use super::serve::http2::fuzzed::http2;
pub use super::upstream::fastcgi::fuzzed::{answer as fastcgi, script};
pub use super::upstream::http1::fuzzed::answer;
pub use fields::{accept, conditions, forwarded};
pub use paths::{hosts, path, redirects, table};
pub use streams::{preamble, strict};

/// Pieces in which bytes come.
pub(super) const STEPS: [usize; 3] = [1, 7, usize::MAX];

/// Bytes that come in pieces of at most `step`, and then the end.
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    rest: &'a [u8],
    step: usize,
}

impl<'a> Pieces<'a> {
    pub(super) fn of(bytes: &'a [u8], step: usize) -> Self {
        Self { rest: bytes, step }
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &[u8] {
        self.rest
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.step.min(self.rest.len()).min(buffer.remaining());
        let (piece, rest) = self.rest.split_at(count);
        buffer.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

/// What `future` comes to, which has nothing to wait for.
pub(super) fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// The lines of `data` that are header fields.
pub(super) fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// Lines without their ends.
pub(super) fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_hold_of_any_bytes_holds_of_the_corpora() {
        type Check = fn(&[u8]);
        let targets: [(&str, Check); 13] = [
            ("accept", accept),
            ("answer", answer),
            ("conditions", conditions),
            ("fastcgi", fastcgi),
            ("forwarded", forwarded),
            ("hosts", hosts),
            ("http2", http2),
            ("path", path),
            ("preamble", preamble),
            ("redirects", redirects),
            ("script", script),
            ("strict", strict),
            ("table", table),
        ];
        let corpora = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, check) in targets {
            let files = std::fs::read_dir(corpora.join(name)).unwrap();
            let mut count = 0;
            for file in files {
                let file = file.unwrap().path();
                let data = std::fs::read(&file).unwrap();
                let checked = std::panic::catch_unwind(|| check(&data));
                assert!(checked.is_ok(), "{}", file.display());
                count += 1;
            }
            assert!(count >= 5, "{name}: {count}");
        }
    }
}
