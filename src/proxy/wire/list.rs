//! Fields whose value is a list (RFC 9110, 5.6.1).

use http::header::HeaderValue;

/// The members of a list such as `Connection`'s.
pub(super) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let list = value.to_str().unwrap_or_default();
    list.split(',').map(str::trim).filter(|t| !t.is_empty())
}

/// Whether `member` is in it, in any case.
pub(super) fn has_member(value: &HeaderValue, member: &str) -> bool {
    tokens(value).any(|token| token.eq_ignore_ascii_case(member))
}
