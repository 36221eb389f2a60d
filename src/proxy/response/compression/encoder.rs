//! A body on its way through a compressor, piece by piece.

use std::cell::Cell;
use std::io::{self, Write};
use std::task::{Context, Poll};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::write::GzEncoder;
use http_body::Frame;
use zstd::stream::raw::CParameter;

use super::accept::Coding;

/// Levels beyond which more effort gains little (figures: docs/PERFORMANCE.md). Below 5 Brotli does no better than gzip does at 5.
const ZSTD_LEVEL: i32 = 3;
const BROTLI_QUALITY: i32 = 5;
const GZIP_LEVEL: u32 = 5;

/// How far a compressor looks back, as a power of two in bytes. Of a page nothing is gained beyond, and memory grows with it.
const WINDOW: u32 = 18;

/// Most KiB that a thread's compressors take; bodies beyond are sent as they are. Slow readers can make it take so much, and no more.
const MEMORY: usize = 64 << 10;

/// Bytes of a body that is small enough for smaller tables.
const SMALL: u64 = 128 << 10;

/// Bytes that are sent on without waiting for more.
const PIECE: usize = 16 << 10;

/// Bytes that are compressed before other connections have their turn.
const TURN: usize = 64 << 10;

thread_local! {
    /// KiB of [`MEMORY`] that are taken.
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

/// A body that is being compressed.
#[derive(Debug)]
pub(crate) struct Encoding {
    coding: Coding,
    /// Bytes to come, if that is known.
    length: Option<u64>,
    /// Made when there is something to compress, gone when all is.
    encoder: Option<Encoder>,
    progress: Progress,
    /// What follows when all that was compressed is sent: trailers, or why there is no more.
    last: Option<io::Result<Frame<Bytes>>>,
    _share: Share,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// All that came was given to the client.
    Even,
    /// The compressor holds something back.
    Held,
    /// And its source has paused, perhaps only until others have had their turn.
    Paused,
    /// Nothing more comes.
    Ended,
}

/// A share of the memory, in KiB.
#[derive(Debug)]
struct Share(usize);

enum Encoder {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Share {
    /// What a compressor was measured to take at most.
    fn take(coding: Coding, length: Option<u64>) -> Option<Self> {
        let small = length.is_some_and(|length| length <= SMALL);
        let share = match (coding, small) {
            (Coding::Zstd, true) => 500,
            (Coding::Zstd, false) => 1400,
            (Coding::Brotli, true) => 2600,
            (Coding::Brotli, false) => 3600,
            (Coding::Gzip, _) => 400,
        };
        TAKEN.with(|taken| {
            let with = taken.get() + share;
            (with <= MEMORY).then(|| {
                taken.set(with);
                Self(share)
            })
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        TAKEN.with(|taken| taken.set(taken.get().saturating_sub(self.0)));
    }
}

impl Encoding {
    /// For a body of `length` bytes; `None` when compressors take so much memory already that it should be sent as it is.
    pub(super) fn new(coding: Coding, length: Option<u64>) -> Option<Self> {
        Some(Self {
            coding,
            length,
            encoder: None,
            progress: Progress::Even,
            last: None,
            _share: Share::take(coding, length)?,
        })
    }

    /// Whether all was sent.
    pub(crate) fn is_end(&self) -> bool {
        self.progress == Progress::Ended && self.last.is_none()
    }

    /// The next piece of what `plain` gives. When that pauses the client gets all there is so far. When it breaks off, so do we, and
    /// the client can see that the end is missing.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        mut plain: impl FnMut(&mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut taken = 0;
        while self.progress != Progress::Ended {
            match plain(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => {
                        taken += bytes.len();
                        self.encoder()?.write_all(&bytes)?;
                        self.progress = Progress::Held;
                        if self.encoder()?.ready() >= PIECE {
                            return self.piece();
                        }
                        if taken >= TURN {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                    }
                    Err(trailers) => {
                        self.last = Some(Ok(trailers));
                        return self.finish();
                    }
                },
                Poll::Ready(None) => return self.finish(),
                Poll::Ready(Some(Err(error))) => {
                    let held = self.progress != Progress::Even;
                    self.progress = Progress::Ended;
                    if !held {
                        return Poll::Ready(Some(Err(error)));
                    }
                    self.last = Some(Err(error));
                    self.encoder()?.flush()?;
                    return self.piece();
                }
                Poll::Pending => match self.progress {
                    // What follows at once may only wait for whoever reads it, and each flush costs some bytes.
                    Progress::Held => {
                        self.progress = Progress::Paused;
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Progress::Paused => {
                        self.progress = Progress::Even;
                        self.encoder()?.flush()?;
                        return self.piece();
                    }
                    _ => return Poll::Pending,
                },
            }
        }
        Poll::Ready(self.last.take())
    }

    fn finish(&mut self) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.progress = Progress::Ended;
        self.encoder()?;
        let rest = self.encoder.take().map(Encoder::finish).transpose()?;
        Poll::Ready(Some(Ok(Frame::data(rest.unwrap_or_default().into()))))
    }

    /// What the compressor has ready.
    fn piece(&mut self) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = std::mem::take(self.encoder()?.output());
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn encoder(&mut self) -> io::Result<&mut Encoder> {
        match &mut self.encoder {
            Some(encoder) => Ok(encoder),
            none => Ok(none.insert(Encoder::new(self.coding, self.length)?)),
        }
    }
}

impl Encoder {
    fn new(coding: Coding, length: Option<u64>) -> io::Result<Self> {
        Ok(match coding {
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW))?;
                // Tables that are no larger than the body needs.
                encoder.set_pledged_src_size(length)?;
                Self::Zstd(encoder)
            }
            Coding::Brotli => {
                let params = BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: WINDOW.cast_signed(),
                    size_hint: length.map_or(0, |length| usize::try_from(length).unwrap_or(0)),
                    ..BrotliEncoderParams::default()
                };
                let writer = CompressorWriter::with_params(Vec::new(), 8 << 10, &params);
                Self::Brotli(Box::new(writer))
            }
            Coding::Gzip => {
                let level = flate2::Compression::new(GZIP_LEVEL);
                Self::Gzip(GzEncoder::new(Vec::new(), level))
            }
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.write_all(bytes),
            Self::Brotli(encoder) => encoder.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
        }
    }

    /// Makes all that was written ready.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.flush(),
            Self::Brotli(encoder) => encoder.flush(),
            Self::Gzip(encoder) => encoder.flush(),
        }
    }

    fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Gzip(encoder) => encoder.get_mut(),
        }
    }

    /// Bytes that are ready.
    fn ready(&mut self) -> usize {
        self.output().len()
    }

    /// The end.
    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Zstd(_) => "zstd",
            Self::Brotli(_) => "br",
            Self::Gzip(_) => "gzip",
        })
    }
}
