//! A worker's own pages for what the proxy answers in its name.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Files in `public/`, each with the errors it is for.
pub type ErrorPages = BTreeMap<Errors, String>;

/// Errors that a page is for: a single status, or all from 400 or from 500 on. A single one goes before its hundred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Errors {
    /// One status, 400 to 599.
    Status(u16),
    /// `4xx` or `5xx`, by its first digit.
    Hundred(u16),
}

impl Errors {
    /// Reads `404` or `4xx`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "4xx" => Some(Self::Hundred(4)),
            "5xx" => Some(Self::Hundred(5)),
            _ if text.len() != 3 => None,
            _ => {
                let status = text.parse().ok()?;
                (400..=599)
                    .contains(&status)
                    .then_some(Self::Status(status))
            }
        }
    }
}

/// The file for an answer with `status`.
pub fn error_page(pages: &ErrorPages, status: u16) -> Option<&str> {
    let page = pages.get(&Errors::Status(status));
    let page = page.or_else(|| pages.get(&Errors::Hundred(status / 100)));
    page.map(String::as_str)
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Hundred(digit) => write!(f, "{digit}xx"),
        }
    }
}

impl TryFrom<String> for Errors {
    type Error = String;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or_else(|| format!("'{text}' is no status of an error"))
    }
}

impl From<Errors> for String {
    fn from(errors: Errors) -> Self {
        errors.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_goes_before_its_hundred() {
        let page = |errors: &str, file: &str| (Errors::parse(errors).unwrap(), file.to_owned());
        let pages = BTreeMap::from([page("404", "a"), page("4xx", "b"), page("503", "c")]);
        for (status, file) in [
            (404, Some("a")),
            (413, Some("b")),
            (503, Some("c")),
            (502, None),
        ] {
            assert_eq!(error_page(&pages, status), file, "{status}");
        }
        let text = serde_json::to_string(&pages).unwrap();
        assert_eq!(serde_json::from_str::<ErrorPages>(&text).unwrap(), pages);
    }

    #[test]
    fn only_errors_have_pages() {
        for text in ["200", "399", "600", "0404", "40", "3xx", "4XX", "+40", ""] {
            assert_eq!(Errors::parse(text), None, "{text:?}");
        }
    }
}
