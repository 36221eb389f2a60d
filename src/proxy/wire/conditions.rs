//! Conditional and partial requests for files (RFC 9110, sections 13 and 14).

use std::time::{Duration, SystemTime};

use http::Method;
use http::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};

/// What tells one version of a file from another.
#[derive(Debug)]
pub(crate) struct Validators {
    /// With its quotes.
    pub(crate) etag: String,
    pub(crate) modified: SystemTime,
}

/// What a request's conditions come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Condition<'a> {
    /// The client has this version.
    NotModified,
    /// The client wanted another version.
    Failed,
    /// The whole file is wanted.
    Whole,
    /// This range of it is.
    Part(&'a str),
}

impl Validators {
    /// Weighs the conditions in the order of RFC 9110, 13.2.2. An entity tag decides wherever there is one: a date is good to a second.
    pub(crate) fn check<'a>(&self, method: &Method, asked: &'a HeaderMap) -> Condition<'a> {
        if let Some(tags) = field(asked, IF_MATCH) {
            if !self.is_among(tags, false) {
                return Condition::Failed;
            }
        } else if date(asked, IF_UNMODIFIED_SINCE).is_some_and(|since| self.stamp() > since) {
            return Condition::Failed;
        }
        if let Some(tags) = field(asked, IF_NONE_MATCH) {
            if self.is_among(tags, true) {
                return Condition::NotModified;
            }
        } else if date(asked, IF_MODIFIED_SINCE).is_some_and(|since| self.stamp() <= since) {
            return Condition::NotModified;
        }
        let Some(range) = field(asked, RANGE).filter(|_| method == Method::GET) else {
            return Condition::Whole;
        };
        let same = match field(asked, IF_RANGE) {
            // One that is no text is none of ours.
            None => !asked.contains_key(IF_RANGE),
            Some(tag) if tag.starts_with('"') => tag == self.etag,
            // A date would do only if it could tell two versions within a second apart.
            Some(_) => false,
        };
        if same {
            Condition::Part(range)
        } else {
            Condition::Whole
        }
    }

    fn is_among(&self, tags: &str, weak: bool) -> bool {
        let same = |tag: &str| {
            let tag = tag.trim();
            tag == self.etag || (weak && tag.strip_prefix("W/") == Some(&*self.etag))
        };
        tags.trim() == "*" || tags.split(',').any(same)
    }

    /// The date as a client was told it.
    pub(crate) fn stamp(&self) -> SystemTime {
        let since = self.modified.duration_since(SystemTime::UNIX_EPOCH);
        SystemTime::UNIX_EPOCH + Duration::from_secs(since.map_or(0, |since| since.as_secs()))
    }
}

/// The one range of `range` in a file of `size` bytes, as start and length. `None`: the whole is sent, as for several ranges, which
/// nobody needs and which make one request as dear as many.
///
/// # Errors
/// When no byte of the file is in the range.
pub(crate) fn part(range: &str, size: u64) -> Result<Option<(u64, u64)>, ()> {
    let Some(range) = range.strip_prefix("bytes=") else {
        return Ok(None);
    };
    let Some((first, last)) = range.trim().split_once('-') else {
        return Ok(None);
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last),
        (Some(first), None) if last.is_empty() => (first, u64::MAX),
        (None, Some(count)) if first.is_empty() => {
            if count == 0 || size == 0 {
                return Err(());
            }
            (size.saturating_sub(count), u64::MAX)
        }
        _ => return Ok(None),
    };
    if first >= size {
        return Err(());
    }
    Ok(Some((first, last.min(size - 1) - first + 1)))
}

fn field(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(field(headers, name)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (range, expected) in [
            ("bytes=0-0", Ok(Some((0, 1)))),
            ("bytes=2-", Ok(Some((2, 8)))),
            ("bytes=-3", Ok(Some((7, 3)))),
            ("bytes=-30", Ok(Some((0, 10)))),
            ("bytes=5-99", Ok(Some((5, 5)))),
            ("bytes=10-", Err(())),
            ("bytes=-0", Err(())),
            ("bytes=99999999999999999999-", Err(())),
            ("bytes=3-2", Ok(None)),
            ("bytes=0-1,3-4", Ok(None)),
            ("bytes=a-b", Ok(None)),
            ("lines=1-2", Ok(None)),
        ] {
            assert_eq!(part(range, 10), expected, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), Err(()));
    }

    #[test]
    fn the_tag_decides_over_the_date() {
        let validators = Validators {
            etag: "\"new\"".to_owned(),
            modified: SystemTime::UNIX_EPOCH,
        };
        let check = |lines: &[(HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.insert(name.clone(), value.parse().unwrap());
            }
            match validators.check(&Method::GET, &headers) {
                Condition::Part(_) => "part",
                Condition::Whole => "whole",
                Condition::NotModified => "not modified",
                Condition::Failed => "failed",
            }
        };
        let epoch = "Thu, 01 Jan 1970 00:00:00 GMT";
        assert_eq!(check(&[(IF_MODIFIED_SINCE, epoch)]), "not modified");
        let both = [(IF_NONE_MATCH, "\"old\""), (IF_MODIFIED_SINCE, epoch)];
        assert_eq!(check(&both), "whole");
        assert_eq!(
            check(&[(IF_NONE_MATCH, "\"x\", W/\"new\"")]),
            "not modified"
        );
        assert_eq!(check(&[(IF_MATCH, "\"old\"")]), "failed");
        assert_eq!(check(&[(RANGE, "bytes=0-"), (IF_RANGE, "\"new\"")]), "part");
        assert_eq!(
            check(&[(RANGE, "bytes=0-"), (IF_RANGE, "\"old\"")]),
            "whole"
        );
        assert_eq!(check(&[(RANGE, "bytes=0-"), (IF_RANGE, epoch)]), "whole");
    }
}
