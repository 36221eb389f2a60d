//! Compression of answers for workers that do not do it themselves.
//!
//! | file | what it is for |
//! |---|---|
//! | `accept` | which codings a client takes |
//! | `offer` | what a client says, kept until its response is there |
//! | `media_type` | what is worth it |
//! | `encoder` | a body on its way through a compressor |
//!
//! An answer that says anything about its own bytes (a coding, a range, a digest, "no-transform") is not touched.

mod accept;
mod encoder;
mod media_type;
mod offer;

#[cfg(any(fuzzing, test))]
pub(crate) use self::accept::Accepted;
pub(crate) use self::accept::{Coding, accepted, vary};
pub(crate) use self::encoder::Encoding;
pub(crate) use self::media_type::is_compressible_type;
pub(crate) use self::offer::Offer;
