//! A request that the proxy answers with an error: what is wrong, as data. How it looks: `response/error_page.rs`.

use http::StatusCode;
use http::header::{ALLOW, CONNECTION, HeaderName, HeaderValue, RETRY_AFTER};

/// A request the proxy answers with an error.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// A sentence for people.
    pub(crate) detail: String,
    /// What is wrong with the worker, for those who run the server: strangers are not told.
    pub(crate) inside: Option<Box<str>>,
    /// It is meant to be so: the worker is in maintenance.
    pub(crate) is_maintenance: bool,
    pub(crate) extra: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// An error with a sentence that says what is wrong.
    #[cold]
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            inside: None,
            is_maintenance: false,
            extra: None,
        }
    }

    /// The worker cannot be asked, or has failed: `inside` says how.
    pub(crate) fn by_worker(status: StatusCode, inside: String) -> Self {
        let detail = match status {
            StatusCode::BAD_GATEWAY => {
                "The request could not be completed. Please try again later."
            }
            StatusCode::GATEWAY_TIMEOUT => "The request took too long. Please try again later.",
            _ => "This service is not available at the moment. Please try again later.",
        };
        let mut refusal = Self::new(status, detail);
        refusal.inside = Some(inside.into());
        refusal
    }

    /// The request is malformed; nothing after it can be trusted to begin where it seems to.
    pub(crate) fn bad_request(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail).closing()
    }

    /// The worker is not to be asked for a while, and that is no failure.
    pub(crate) fn maintenance(message: &str) -> Self {
        let mut refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, message);
        refusal.is_maintenance = true;
        refusal
    }

    /// Nobody answers there.
    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is nothing at this address")
    }

    /// Only reading makes sense there.
    pub(crate) fn read_only() -> Self {
        let mut refusal = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "this address can only be read",
        );
        refusal.extra = Some((ALLOW, HeaderValue::from_static("GET, HEAD")));
        refusal
    }

    /// Ends the connection after the answer.
    pub(crate) fn closing(mut self) -> Self {
        self.extra = Some((CONNECTION, HeaderValue::from_static("close")));
        self
    }

    /// Says when to come again, in seconds.
    pub(crate) fn retry_after(mut self, seconds: Option<u64>) -> Self {
        if let Some(seconds) = seconds {
            self.extra = Some((RETRY_AFTER, seconds.into()));
        }
        self
    }
}
