//! What the route table has of one worker.

use crate::names::Instance;
use crate::route::Route;

/// What the table has of a worker.
#[derive(Debug, PartialEq)]
pub(super) struct Part {
    pub(super) route: Option<Route>,
    pub(super) draining: Vec<Instance>,
}
