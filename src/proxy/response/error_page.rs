//! The few responses the proxy gives in its own name: errors, as a small page or as JSON.

use bytes::Bytes;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};

use super::body::Body;
use crate::proxy::wire::refusal::Refusal;

/// Which form of an error the client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Html,
    Json,
}

/// The answer, in the form the client reads.
pub(crate) fn response(refusal: Refusal, form: Form, id: &HeaderValue) -> Response<Body> {
    let reason = refusal.status.canonical_reason().unwrap_or("Error");
    let id = id.to_str().unwrap_or_default();
    let (kind, text) = match form {
        Form::Json => {
            let page = serde_json::json!({
                "status": refusal.status.as_u16(),
                "error": reason,
                "detail": refusal.detail,
                "request_id": id,
            });
            ("application/json", page.to_string() + "\n")
        }
        Form::Html => {
            let (status, detail, id) =
                (refusal.status.as_u16(), escape(&refusal.detail), escape(id));
            let heading = match refusal.is_maintenance {
                true => "Down for maintenance".to_owned(),
                false => format!("{status} {reason}"),
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
    mark(refusal, &mut response);
    response
}

/// Gives `response` the status, and the field that goes with it.
pub(crate) fn mark(refusal: Refusal, response: &mut Response<Body>) {
    *response.status_mut() = refusal.status;
    if let Some((name, value)) = refusal.extra {
        response.headers_mut().insert(name, value);
    }
}

impl Form {
    /// JSON for those who ask for JSON and not for HTML.
    pub(crate) fn wanted(accept: Option<&HeaderValue>) -> Self {
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
