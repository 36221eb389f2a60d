//! Files of `public/` that lie there compressed already: `app.js.zst`, `app.js.br` or `app.js.gz` beside `app.js` is sent in its place to a
//! client that takes it.
//!
//! Such a file is an answer of its own, with its own tag, and a range is one of its bytes (RFC 9110, section 14). One that is older than
//! what it was made from is passed over: nginx and Caddy trust whoever builds, but here a file may be edited in place. Times are compared by
//! the second, since what unpacks both does so in any order; compressors give their output the time of their input.

use http::HeaderMap;

use super::compression;
use super::files::Found;
use crate::proxy::table::public::Public;

/// Fewest bytes of a file beside which to look: less fits into a packet or two as it is.
const LEAST: u64 = 1 << 10;

/// What to send for `found`: itself, or what lies beside it.
pub(crate) fn chosen(public: &Public, found: Found, asked: &HeaderMap) -> Found {
    if found.file.size < LEAST || !compression::is_compressible_type(&found.content_type) {
        return found;
    }
    let Some(accepted) = compression::accepted(asked) else {
        return found;
    };
    for coding in accepted.codings() {
        let name = format!("{}{}", found.name, coding.ending());
        // Most files have none.
        if !public.may_have(&name) {
            continue;
        }
        let Ok(file) = public.file(&name) else {
            continue;
        };
        // An empty one is no output of any compressor.
        if file.size > 0 && file.validators.stamp() >= found.file.validators.stamp() {
            return Found {
                name,
                file,
                content_type: found.content_type,
                coding: Some(coding),
            };
        }
    }
    found
}
