//! Pages for browsers: which requests ask for one, and the element at its end that makes it follow its worker.

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING,
    CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{Method, Request, Response, StatusCode};

use crate::proxy::response::body::Body;
use crate::proxy::wire::headers;

/// What a browser wants an answer for.
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Fields of a request by which a page would come in part, compressed, or not at all.
const CONDITIONS: [HeaderName; 5] = [
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_RANGE,
    RANGE,
    ACCEPT_ENCODING,
];

/// What our script needs, and the directives that decide on it, the first that is there.
const ADMITTED: [(&str, &[&str]); 3] = [
    (
        "script-src-elem",
        &["script-src-elem", "script-src", "default-src"],
    ),
    ("connect-src", &["connect-src", "default-src"]),
    ("frame-src", &["frame-src", "child-src", "default-src"]),
];

/// Fields of a response that are not true any more once something was added to its body.
const CLAIMS: [HeaderName; 7] = [
    ETAG,
    LAST_MODIFIED,
    ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// Whether `request` is a browser's for a page to show.
pub(crate) fn is_wanted<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    if request.method() != Method::GET || headers::wants_upgrade(headers) {
        return false;
    }
    match headers.get(FETCH_DEST) {
        Some(dest) => matches!(dest.as_bytes(), b"document" | b"iframe" | b"frame"),
        // Some do not say; what they load besides pages they do not ask for as text/html.
        None => {
            let mut accepts = headers.get_all(ACCEPT).iter();
            accepts.any(|accept| contains(accept, "text/html"))
        }
    }
}

/// Asks for the page as it is, whole and uncompressed.
pub(crate) fn ask_whole(headers: &mut HeaderMap) {
    for name in CONDITIONS {
        headers.remove(name);
    }
}

/// Adds `tag` at the end of `response` if that is a page.
pub(crate) fn append(response: &mut Response<Body>, tag: Bytes) {
    if !is_page(response.status(), response.headers()) {
        return;
    }
    let headers = response.headers_mut();
    for name in CLAIMS {
        headers.remove(name);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for policy in headers
        .iter_mut()
        .filter(|(name, _)| *name == CONTENT_SECURITY_POLICY)
    {
        let text = policy.1.to_str().map(admit).unwrap_or_default();
        if let Ok(admitting) = HeaderValue::from_str(&text) {
            *policy.1 = admitting;
        }
    }
    let length = headers.get(CONTENT_LENGTH).map(length);
    match length {
        Some(Some(length)) => {
            let length = length.saturating_add(tag.len() as u64);
            headers.insert(CONTENT_LENGTH, length.into());
        }
        // A length that is none is hyper's to refuse, and was.
        Some(None) => return,
        None => {}
    }
    response.body_mut().append(tag);
}

/// A page's policy (Content Security Policy Level 3) that lets our script run, hear of events, and show a frame: from the page's own
/// origin, and whatever the page lets do already.
fn admit(policies: &str) -> String {
    let admit = |policy: &str| {
        let directives = policy
            .split(';')
            .map(str::trim)
            .filter(|one| !one.is_empty());
        let mut directives: Vec<(String, String)> = directives
            .map(|directive| {
                let (name, sources) = directive
                    .split_once(char::is_whitespace)
                    .unwrap_or((directive, ""));
                (name.to_ascii_lowercase(), sources.trim().to_owned())
            })
            .collect();
        for (wanted, otherwise) in ADMITTED {
            let sources = |name: &str| directives.iter().position(|(known, _)| known == name);
            let Some(from) = otherwise.iter().find_map(|name| sources(name)) else {
                continue;
            };
            let sources = directives[from].1.split_whitespace();
            let sources = sources.filter(|source| !source.eq_ignore_ascii_case("'none'"));
            let sources: Vec<&str> = sources.chain(["'self'"]).collect();
            let sources = sources.join(" ");
            match directives[from].0 == wanted {
                true => directives[from].1 = sources,
                false => directives.push((wanted.to_owned(), sources)),
            }
        }
        let directives = directives
            .iter()
            .map(|(name, sources)| format!("{name} {sources}"));
        directives.collect::<Vec<_>>().join("; ")
    };
    let policies: Vec<String> = policies.split(',').map(admit).collect();
    policies.join(", ")
}

fn length(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.trim().parse().ok()
}

fn is_page(status: StatusCode, headers: &HeaderMap) -> bool {
    let bodiless = matches!(
        status,
        StatusCode::NO_CONTENT
            | StatusCode::RESET_CONTENT
            | StatusCode::PARTIAL_CONTENT
            | StatusCode::NOT_MODIFIED
    );
    let Some(kind) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    let html = kind.to_str().unwrap_or_default().split(';').next();
    let html = html.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/html"));
    // In these an ASCII letter is not a byte.
    let wide = contains(kind, "utf-16") || contains(kind, "utf-32");
    let encoded = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    // To be kept as a file, as it is.
    let kept = headers
        .get(CONTENT_DISPOSITION)
        .is_some_and(|how| contains(how, "attachment"));
    html && !wide && !encoded && !kept && !bodiless && !status.is_informational()
}

fn contains(value: &HeaderValue, word: &str) -> bool {
    let mut words = value.as_bytes().windows(word.len());
    words.any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(method: &str, fields: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        is_wanted(&request.body(()).unwrap())
    }

    #[test]
    fn a_browser_says_what_it_wants_and_others_are_taken_by_their_word() {
        let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        let dest = |dest| ("sec-fetch-dest", dest);
        assert!(wanted("GET", &[dest("document")]));
        assert!(wanted("GET", &[dest("iframe"), ("accept", "*/*")]));
        assert!(wanted("GET", &[dest("frame")]));
        assert!(wanted("GET", &[html]));
        assert!(!wanted("GET", &[html, dest("empty")]));
        assert!(!wanted("GET", &[html, dest("image")]));
        assert!(!wanted("HEAD", &[dest("document")]));
        assert!(!wanted("POST", &[html]));
        assert!(!wanted("GET", &[("accept", "*/*")]));
        assert!(!wanted("GET", &[]));
        let upgrade = [html, ("connection", "upgrade"), ("upgrade", "websocket")];
        assert!(!wanted("GET", &upgrade));
    }

    fn page(status: u16, fields: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_static(name);
            headers.append(name, HeaderValue::from_static(value));
        }
        is_page(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn only_what_can_be_added_to_is_a_page() {
        let html = ("content-type", "Text/HTML; charset=utf-8");
        assert!(page(200, &[html]));
        assert!(page(404, &[("content-type", "text/html")]));
        assert!(page(200, &[html, ("content-encoding", "identity")]));
        assert!(page(200, &[html, ("content-disposition", "inline")]));
        for status in [100, 101, 204, 205, 206, 304] {
            assert!(!page(status, &[html]), "{status}");
        }
        assert!(!page(200, &[]));
        assert!(!page(200, &[("content-type", "text/html+x")]));
        assert!(!page(200, &[("content-type", "application/xhtml+xml")]));
        assert!(!page(
            200,
            &[("content-type", "text/html; charset=UTF-16LE")]
        ));
        assert!(!page(200, &[html, ("content-encoding", "br")]));
        assert!(!page(
            200,
            &[html, ("content-disposition", "attachment; filename=x")]
        ));
    }

    #[test]
    fn a_strict_page_lets_our_script_in_and_nothing_else() {
        for (policy, admitting) in [
            (
                "default-src 'none'; img-src 'self'",
                "default-src 'none'; img-src 'self'; script-src-elem 'self'; connect-src 'self'; frame-src 'self'",
            ),
            (
                "script-src https://a",
                "script-src https://a; script-src-elem https://a 'self'",
            ),
            ("connect-src 'none';", "connect-src 'self'"),
            ("img-src *", "img-src *"),
            ("", ""),
        ] {
            assert_eq!(admit(policy), admitting, "{policy}");
        }
    }
}
