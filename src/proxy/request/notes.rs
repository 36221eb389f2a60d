//! What is noted of a request on its way down, for its response on the way up.

use std::rc::Rc;

use bytes::Bytes;

use crate::proxy::response::access::Entry;
use crate::proxy::response::compression::Offer;
use crate::proxy::table::route::Route;

/// What is found out about a request on its way, for its answer.
#[derive(Default)]
pub(super) struct Notes {
    /// Where it is noted, on a route with an access log.
    pub(super) entry: Option<Rc<Entry>>,
    /// What is appended to a page in development.
    pub(super) tag: Option<Bytes>,
    /// How the answer may be compressed.
    pub(super) offer: Option<Offer>,
    /// The route, if it has pages of its own for errors.
    pub(super) own: Option<Rc<Route>>,
}
