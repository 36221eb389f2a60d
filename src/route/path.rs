//! Places in the URL space, without hosts.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::WorkerName;

/// A place in the URL space: `/`, or `/` and segments without a trailing slash (`/api/users`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoutePath(String);

/// Why a string is not a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoutePathError {
    /// The first character is not `/`.
    #[error("'{0}' does not start with '/'")]
    Relative(String),
    /// An empty segment, `.` or `..`.
    #[error("'{0}' has an empty, '.' or '..' segment")]
    Segment(String),
    /// A character that would have to be escaped in a URL, or would end the path.
    #[error(
        "'{0}' has the character {1:?}; a route is made of letters, digits and -._~!$&'()*+,;=:@"
    )]
    Character(String, char),
}

impl RoutePath {
    /// The route of everything.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Where the server's own health is reported unless set.
    pub(super) fn health() -> Self {
        Self("/health".to_owned())
    }

    /// Reads a route; one trailing slash is dropped.
    ///
    /// # Errors
    /// When it is relative, has an empty or dot segment, or a character that is not a `pchar` of RFC 3986 (percent escapes excluded).
    pub fn parse(path: &str) -> Result<Self, RoutePathError> {
        if path == "/" {
            return Ok(Self::root());
        }
        let Some(segments) = path.strip_prefix('/') else {
            return Err(RoutePathError::Relative(path.to_owned()));
        };
        let segments = segments.strip_suffix('/').unwrap_or(segments);
        for segment in segments.split('/') {
            if matches!(segment, "" | "." | "..") {
                return Err(RoutePathError::Segment(path.to_owned()));
            }
            let pchar = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(c);
            if let Some(bad) = segment.chars().find(|&c| !pchar(c)) {
                return Err(RoutePathError::Character(path.to_owned(), bad));
            }
        }
        Ok(Self(format!("/{segments}")))
    }

    /// The route a worker has by its place in the file system: `api.users` is `/api/users`, and a last part `index` is the directory
    /// it stands in.
    pub fn of_worker(name: &WorkerName) -> Self {
        let mut parts: Vec<&str> = name.as_str().split('.').collect();
        if parts.last() == Some(&"index") {
            parts.pop();
        }
        Self(format!("/{}", parts.join("/")))
    }

    /// Whether this route answers for `path`: it is `path`, or a prefix of it that ends at a segment (`/api` covers `/api/users`
    /// and not `/apix`).
    pub fn covers(&self, path: &str) -> bool {
        match path.strip_prefix(self.prefix()) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }

    /// The text to cut from a path this route covers: the route without the slash of `/`.
    pub fn prefix(&self) -> &str {
        if self.0 == "/" { "" } else { &self.0 }
    }

    /// The route as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Of the routes in `routes`, the one that answers for `path`: the longest that covers it.
pub fn longest_match<'a, T>(
    routes: &'a BTreeMap<RoutePath, T>,
    path: &str,
) -> Option<(&'a RoutePath, &'a T)> {
    routes
        .iter()
        .filter(|(route, _)| route.covers(path))
        .max_by_key(|(route, _)| route.prefix().len())
}

impl fmt::Display for RoutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RoutePath {
    type Error = RoutePathError;
    fn try_from(path: String) -> Result<Self, Self::Error> {
        Self::parse(&path)
    }
}

impl From<RoutePath> for String {
    fn from(path: RoutePath) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str) -> RoutePath {
        RoutePath::parse(path).unwrap()
    }

    #[test]
    fn a_route_covers_whole_segments_only() {
        assert!(route("/api").covers("/api"));
        assert!(route("/api").covers("/api/users"));
        assert!(!route("/api").covers("/apix"));
        assert!(route("/").covers("/anything"));
        assert!(!route("/api").covers("/"));
    }

    #[test]
    fn the_longest_route_answers() {
        let routes = BTreeMap::from([
            (route("/"), 0),
            (route("/api"), 1),
            (route("/api/users"), 2),
        ]);
        for (path, expected) in [
            ("/", 0),
            ("/apix", 0),
            ("/api/user", 1),
            ("/api/users/7", 2),
        ] {
            assert_eq!(longest_match(&routes, path).unwrap().1, &expected, "{path}");
        }
    }

    #[test]
    fn the_file_system_is_the_url_space() {
        for (name, path) in [
            ("index", "/"),
            ("api", "/api"),
            ("api.users", "/api/users"),
            ("api.index", "/api"),
        ] {
            assert_eq!(
                RoutePath::of_worker(&WorkerName::parse(name).unwrap()),
                route(path),
                "{name}"
            );
        }
    }

    #[test]
    fn what_would_be_read_in_two_ways_is_no_route() {
        assert_eq!(route("/a/").as_str(), "/a");
        for bad in [
            "", "a", "//", "/a//b", "/a/../b", "/.", "/a b", "/a?b", "/%41", "/ü",
        ] {
            assert!(RoutePath::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
