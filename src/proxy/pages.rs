//! The few answers the proxy gives in its own name: errors, as a small page or as JSON.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::{Response, StatusCode};

use super::body::Body;

/// A request the proxy answers with an error.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// A sentence for people.
    pub(super) detail: String,
    /// What stands above it, instead of the status.
    heading: Option<&'static str>,
    extra: Option<(HeaderName, HeaderValue)>,
}

/// Which form of an error the client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Html,
    Json,
}

impl Refusal {
    /// An error with a sentence that says what is wrong.
    #[cold]
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            heading: None,
            extra: None,
        }
    }

    /// The request is malformed; nothing after it can be trusted to begin where it seems to.
    pub(super) fn bad_request(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail).closing()
    }

    /// The worker is not to be asked for a while, and that is no failure.
    pub(super) fn maintenance(message: &str) -> Self {
        let mut refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, message);
        refusal.heading = Some("Down for maintenance");
        refusal
    }

    /// Nobody answers there.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is nothing at this address")
    }

    /// Only reading makes sense there.
    pub(super) fn read_only() -> Self {
        let mut refusal = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "this address can only be read",
        );
        refusal.extra = Some((ALLOW, HeaderValue::from_static("GET, HEAD")));
        refusal
    }

    /// Ends the connection after the answer.
    pub(super) fn closing(mut self) -> Self {
        self.extra = Some((CONNECTION, HeaderValue::from_static("close")));
        self
    }

    /// Says when to come again, in seconds.
    pub(super) fn retry_after(mut self, seconds: Option<u64>) -> Self {
        if let Some(seconds) = seconds {
            self.extra = Some((RETRY_AFTER, seconds.into()));
        }
        self
    }

    /// The answer, in the form the client reads.
    pub(super) fn into_response(self, form: Form, id: &HeaderValue) -> Response<Body> {
        let reason = self.status.canonical_reason().unwrap_or("Error");
        let id = id.to_str().unwrap_or_default();
        let (kind, text) = match form {
            Form::Json => {
                let page = serde_json::json!({
                    "status": self.status.as_u16(),
                    "error": reason,
                    "detail": self.detail,
                    "request_id": id,
                });
                ("application/json", page.to_string() + "\n")
            }
            Form::Html => {
                let (status, detail, id) = (self.status.as_u16(), escape(&self.detail), escape(id));
                let heading = match self.heading {
                    Some(heading) => heading.to_owned(),
                    None => format!("{status} {reason}"),
                };
                let page = format!(
                    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{heading}</title></head>\n\
                     <body><h1>{heading}</h1><p>{detail}</p><p><small>Request {id}</small></p></body></html>\n"
                );
                ("text/html; charset=utf-8", page)
            }
        };
        let mut response = Response::new(Body::full(Bytes::from(text)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        self.mark(&mut response);
        response
    }

    /// Gives `response` the status, and the field that goes with it.
    pub(super) fn mark(self, response: &mut Response<Body>) {
        *response.status_mut() = self.status;
        if let Some((name, value)) = self.extra {
            response.headers_mut().insert(name, value);
        }
    }
}

impl Form {
    /// JSON for those who ask for JSON and not for HTML.
    pub(super) fn wanted(accept: Option<&HeaderValue>) -> Self {
        let Some(accept) = accept else {
            return Self::Html;
        };
        // Most have no such letter, and are not looked at any further.
        if memchr::memchr(b'j', accept.as_bytes()).is_none() {
            return Self::Html;
        }
        let accept = accept.to_str().unwrap_or_default();
        if accept.contains("json") && !accept.contains("text/html") {
            Self::Json
        } else {
            Self::Html
        }
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_can_not_become_markup() {
        assert_eq!(
            escape("<a href='x'>&\""),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;"
        );
    }

    #[test]
    fn json_is_for_those_who_do_not_read_html() {
        let wanted = |accept: &str| {
            let accept = HeaderValue::from_str(accept).unwrap();
            Form::wanted(Some(&accept))
        };
        assert_eq!(wanted("application/json"), Form::Json);
        assert_eq!(wanted("application/problem+json, */*"), Form::Json);
        assert_eq!(wanted("text/html, application/json"), Form::Html);
        assert_eq!(wanted("*/*"), Form::Html);
    }
}
