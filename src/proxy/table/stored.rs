//! Directories of a worker's state whose files are served.

use super::public::Public;
use crate::route::{self, RoutePath};

/// One of them.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Where it is found, below the route.
    place: RoutePath,
    /// What is in it.
    pub(crate) files: Public,
}

impl Stored {
    /// Those of a route, the longest place first.
    pub(crate) fn all(route: &route::Route) -> Vec<Self> {
        let Some(state) = &route.state else {
            return Vec::new();
        };
        // In order, a place comes before those below it.
        let places = route.settings.files.iter().rev();
        let all = places.map(|(place, directory)| Self {
            place: place.clone(),
            files: Public::stored(state, directory),
        });
        all.collect()
    }

    /// What is left of a path below the route, if it is in here.
    pub(crate) fn rest<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(self.place.prefix())?;
        rest.starts_with('/').then_some(rest)
    }
}
