//! Which media types are worth compressing.

use http::header::HeaderValue;

/// Types, besides text, of which much is left over when they are compressed. Streams of records (`application/x-ndjson`) are not among
/// them: each would hold a compressor for as long as it lasts.
const TYPES: [&str; 16] = [
    "application/json",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/xml",
    "application/wasm",
    "application/rtf",
    "application/yaml",
    "application/vnd.ms-fontobject",
    "application/x-font-ttf",
    "font/ttf",
    "font/otf",
    "font/collection",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
];

/// Whether a type is one of which compression leaves little.
pub(crate) fn is_compressible_type(value: &HeaderValue) -> bool {
    let kind = value.as_bytes().split(|&byte| byte == b';').next();
    let kind = kind.unwrap_or_default().trim_ascii();
    let begins = |with: &str| {
        kind.get(..with.len())
            .is_some_and(|k| k.eq_ignore_ascii_case(with.as_bytes()))
    };
    let ends = |with: &str| {
        let at = kind.len().checked_sub(with.len());
        at.is_some_and(|at| kind[at..].eq_ignore_ascii_case(with.as_bytes()))
    };
    if begins("text/") {
        return !kind.eq_ignore_ascii_case(b"text/event-stream");
    }
    ends("+json")
        || ends("+xml")
        || TYPES
            .iter()
            .any(|known| kind.eq_ignore_ascii_case(known.as_bytes()))
}
