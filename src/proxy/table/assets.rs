//! Which files of a route's public directory are served.

use crate::route::{Protocol, Route, Target, Upstream};

/// Which files of a public directory are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Assets {
    /// What a directory's own path leads to.
    pub(crate) directories: Directories,
    /// Whether there may be PHP scripts among them, which are not.
    pub(crate) scripts: bool,
}

/// What the path of a directory leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Directories {
    /// Nothing: it is for the worker to answer.
    Nothing,
    /// Its `index.html`, else nothing.
    Index,
    /// Its `index.html`, also from its path without a slash at the end.
    Site,
}

impl Assets {
    /// Those of a route.
    pub(crate) fn of(route: &Route) -> Self {
        let directories = match &route.target {
            Target::Files => Directories::Site,
            // The scripts are in there, and what stands for them.
            Target::Serving(Upstream {
                protocol: Protocol::FastCgi(scripts),
                ..
            }) if scripts.root.ends_with("public") => Directories::Index,
            _ => Directories::Nothing,
        };
        Self {
            directories,
            scripts: route.scripts,
        }
    }
}
