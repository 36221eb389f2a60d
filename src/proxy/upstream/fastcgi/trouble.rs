//! Why php-fpm's answer is none.

use std::io;
use std::sync::{Arc, OnceLock};

/// Most bytes and fields of an answer's head.
pub(super) const HEAD_MAX: usize = 64 << 10;

/// Why php-fpm's answer is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The connection broke, or what came over it was no record of an answer.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// php-fpm has refused the request.
    #[error("php-fpm refused it: {0}")]
    Refused(fastcgi_client::ClientError),
    /// The client's body did not come whole.
    #[error("the request's body did not come whole")]
    Body(#[source] hyper::Error),
    /// It could be reached when the request came, and not when that was whole.
    #[error("it can not be reached any more: {0}")]
    Gone(#[source] io::Error),
    /// No empty line within the bytes a head may have.
    #[error("its answer has no head within {} KiB", HEAD_MAX >> 10)]
    LongHead,
    /// The answer ended within its head.
    #[error("its answer ended within the head")]
    NoHead,
    /// Less came than its head announced.
    #[error("its answer is shorter than its Content-Length")]
    Short,
    /// A line of the head is no header field.
    #[error("its answer's head can not be read: {0}")]
    Head(String),
}

impl From<fastcgi_client::ClientError> for Trouble {
    fn from(error: fastcgi_client::ClientError) -> Self {
        match error {
            fastcgi_client::ClientError::Io(error) => Self::Io(error),
            other => Self::Refused(other),
        }
    }
}

/// What went wrong behind a gateway, for whoever reads its stream to the end.
pub(super) type Verdict = Arc<OnceLock<String>>;
