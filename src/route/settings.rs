//! What a worker's own file says of its route.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error_page::ErrorPages;
use super::host::HostPattern;
use super::path::RoutePath;
use super::redirect::Redirect;

/// What `worker.yaml` says of a route and the proxy does: the same value in the worker's settings, in its units and snapshots, in the route
/// table and in the proxy.
///
/// A later version reads it: a new field has a default, and is left out where it is not set, so that what other workers are written down as
/// stays the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSettings {
    /// The hosts it is for; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
    /// Whether the worker is asked without its route at the beginning of paths.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strip_prefix: bool,
    /// Whether the worker gets a client's fields that have names with `_` and other signs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub underscores_in_headers: bool,
    /// Where requests are sent instead, the first that fits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirects: Vec<Redirect>,
    /// Files in `public/` that are sent with the proxy's own errors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub error_pages: ErrorPages,
    /// Directories below the worker's state whose files are served without asking it, by their place below the route.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<RoutePath, String>,
}
