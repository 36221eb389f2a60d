//! What a route is found by.

use std::borrow::Cow;
use std::rc::Rc;

use http::HeaderValue;

use super::Table;
use super::route::Route;

/// The host and the decoded path of a request, by which its route is found: once at first, and again whenever the request has waited.
#[derive(Debug)]
pub(crate) struct Lookup<'a> {
    pub(crate) host: HeaderValue,
    pub(crate) path: Cow<'a, str>,
}

impl Lookup<'_> {
    /// The route of `table` that answers.
    pub(crate) fn find<'t>(&self, table: &'t Table) -> Option<&'t Rc<Route>> {
        table.find(&self.host, &self.path)
    }
}
