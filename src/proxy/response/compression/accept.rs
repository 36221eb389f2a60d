//! Which codings a client takes: `Accept-Encoding` (RFC 9110, section 12.5.3).

use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, VARY};

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

/// What a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// The best first; empty places at the end.
    codings: [Option<Coding>; 3],
    /// The client refuses what has no coding.
    pub(super) no_identity: bool,
}

/// The weights of a field in thousandths; `None`: not named.
#[derive(Debug, Default)]
struct Weights {
    /// In the order of [`Coding::ALL`].
    codings: [Option<u16>; 3],
    identity: Option<u16>,
    others: Option<u16>,
}

impl Coding {
    /// In the order in which we choose among those a client likes equally: the first costs a third of the others for a tenth more bytes,
    /// the second makes a little less of an answer than the third (figures: docs/PERFORMANCE.md).
    const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// The value of `Content-Encoding`.
    pub(crate) fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        })
    }

    /// What the name of a file ends in that is compressed so.
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Self::Zstd => ".zst",
            Self::Brotli => ".br",
            Self::Gzip => ".gz",
        }
    }
}

impl Accepted {
    /// Reads the value of a request's `Accept-Encoding`.
    pub(crate) fn read(value: &HeaderValue) -> Self {
        let mut weights = Weights::default();
        // What is no text is no list of names either.
        for member in value.to_str().unwrap_or_default().split(',') {
            weights.note(member);
        }
        weights.judge()
    }

    /// The codings the client prefers to none, best first.
    pub(crate) fn codings(&self) -> impl Iterator<Item = Coding> {
        self.codings.into_iter().flatten()
    }
}

impl Weights {
    fn note(&mut self, member: &str) {
        let mut parts = member.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let mut weight = 1000;
        for part in parts {
            let Some((key, value)) = part.split_once('=') else {
                continue;
            };
            if key.trim().eq_ignore_ascii_case("q") {
                // A weight that is none says nothing one could rely on.
                weight = thousandths(value.trim()).unwrap_or(0);
            }
        }
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let place = if is("zstd") {
            &mut self.codings[0]
        } else if is("br") {
            &mut self.codings[1]
        } else if is("gzip") || is("x-gzip") {
            &mut self.codings[2]
        } else if is("identity") {
            &mut self.identity
        } else if name == "*" {
            &mut self.others
        } else {
            return;
        };
        *place = Some(place.unwrap_or(0).max(weight));
    }

    fn judge(self) -> Accepted {
        // "Any" may be said by a program that has never heard of the younger two; all know gzip.
        let of = |at: usize| match self.codings[at] {
            None if at == 2 => self.others.unwrap_or(0),
            weight => weight.unwrap_or(0),
        };
        // Not named, it is always acceptable and never preferred (unless "any" is refused).
        let identity = self.identity.unwrap_or(0);
        let mut order = [0, 1, 2];
        // Stable: among equals the order stays.
        order.sort_by_key(|&at| std::cmp::Reverse(of(at)));
        let wanted = |at: usize| of(at) > 0 && of(at) >= identity;
        let mut codings = [None; 3];
        for (place, at) in order.into_iter().filter(|&at| wanted(at)).enumerate() {
            codings[place] = Some(Coding::ALL[at]);
        }
        Accepted {
            codings,
            no_identity: self.identity.or(self.others) == Some(0),
        }
    }
}

/// A weight: 0 to 1 with at most three decimals, in thousandths.
fn thousandths(weight: &str) -> Option<u16> {
    let (whole, decimals) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = decimals.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(whole, "0" | "1") || decimals.len() > 3 || !digits {
        return None;
    }
    let decimals: u16 = format!("{decimals:0<3}").parse().ok()?;
    let weight = if whole == "1" { 1000 } else { 0 } + decimals;
    (weight <= 1000).then_some(weight)
}

/// What the client takes, for one that says so.
pub(crate) fn accepted(headers: &HeaderMap) -> Option<Accepted> {
    field(headers).map(|value| Accepted::read(&value))
}

/// Adds that the answer would be another one for a client that takes other codings.
pub(crate) fn vary(headers: &mut HeaderMap) {
    let mut members: Vec<u8> = Vec::new();
    for value in headers.get_all(VARY) {
        let known = |member: &[u8]| {
            let member = member.trim_ascii();
            member == b"*" || member.eq_ignore_ascii_case(b"accept-encoding")
        };
        if value.as_bytes().split(|&byte| byte == b',').any(known) {
            return;
        }
        members.extend_from_slice(value.as_bytes());
        members.extend_from_slice(b", ");
    }
    members.extend_from_slice(b"Accept-Encoding");
    if let Ok(members) = HeaderValue::from_bytes(&members) {
        headers.insert(VARY, members);
    }
}

/// The one value of all fields `Accept-Encoding`.
pub(super) fn field(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(ACCEPT_ENCODING).iter();
    let first = values.next()?;
    let Some(second) = values.next() else {
        return Some(first.clone());
    };
    let all = [first, second].into_iter().chain(values);
    let all: Vec<&[u8]> = all.map(HeaderValue::as_bytes).collect();
    HeaderValue::from_bytes(&all.join(&b","[..])).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(value: &str) -> (Vec<&'static str>, bool) {
        let accepted = Accepted::read(&HeaderValue::from_str(value).unwrap());
        let codings = accepted.codings().map(|coding| coding.ending());
        (codings.collect(), accepted.no_identity)
    }

    #[test]
    fn the_client_chooses_and_among_equals_we_do() {
        for (value, codings) in [
            ("gzip, deflate, br, zstd", vec![".zst", ".br", ".gz"]),
            ("gzip, deflate, br", vec![".br", ".gz"]),
            (
                "gzip;q=1.0, br;q=0.9, zstd;q=0.8",
                vec![".gz", ".br", ".zst"],
            ),
            ("br;q=0.5,gzip;q=0.501", vec![".gz", ".br"]),
            ("GZIP", vec![".gz"]),
            ("x-gzip", vec![".gz"]),
            ("gzip ; q=0.2", vec![".gz"]),
            ("gzip;q=0", vec![]),
            ("gzip;q=0.000, br", vec![".br"]),
            ("deflate", vec![]),
            ("", vec![]),
            (",, ;, gzip", vec![".gz"]),
            ("compress;q=0.5, gzip;q=1.0", vec![".gz"]),
        ] {
            assert_eq!(accepted(value), (codings, false), "{value:?}");
        }
    }

    #[test]
    fn any_is_gzip_unless_gzip_is_named() {
        for (value, codings) in [
            ("*", vec![".gz"]),
            ("*;q=0.5, br", vec![".br", ".gz"]),
            ("gzip;q=0, *", vec![]),
            ("br, *;q=0.1", vec![".br", ".gz"]),
        ] {
            assert_eq!(accepted(value), (codings, false), "{value:?}");
        }
    }

    #[test]
    fn what_has_no_coding_can_be_preferred_or_refused() {
        assert_eq!(accepted("identity, gzip;q=0.5"), (vec![], false));
        assert_eq!(accepted("identity;q=0.5, gzip;q=0.5"), (vec![".gz"], false));
        assert_eq!(accepted("identity;q=0, gzip;q=0.5"), (vec![".gz"], true));
        assert_eq!(accepted("*;q=0, br"), (vec![".br"], true));
        assert_eq!(accepted("*;q=0, identity;q=0.1"), (vec![], false));
        assert_eq!(accepted("identity;q=0"), (vec![], true));
    }

    #[test]
    fn a_weight_that_is_none_is_not_relied_on() {
        for weight in ["2", "1.1", "-1", "0.1234", "a", "", "0,5", ".5", "1.001"] {
            let (codings, _) = accepted(&format!("gzip;q={weight}"));
            assert_eq!(codings, Vec::<&str>::new(), "{weight:?}");
        }
        assert_eq!(accepted("gzip;q=1.000;x=y").0, [".gz"]);
        assert_eq!(accepted("gzip;q=0.").0, Vec::<&str>::new());
        assert_eq!(accepted("gzip;Q=0.001").0, [".gz"]);
    }
}
