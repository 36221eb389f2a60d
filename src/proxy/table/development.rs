//! How far a worker is, as its pages are told: a line of JSON that differs when a page would.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use serde::Serialize;

use crate::ansi::escape;
use crate::route::{RouteTable, Target, Trouble, Work};

/// Where the script is served.
pub(crate) const SCRIPT: &str = "/.tqserver/client.js";

/// How far a worker is by one table.
#[derive(Debug)]
pub(crate) struct State {
    /// A newer generation is on its way.
    pub(crate) pending: bool,
    worker: String,
    json: String,
}

/// What the script reads.
#[derive(Serialize)]
struct Told<'a> {
    server: &'a str,
    /// `None`: nobody answers. 0: nobody but files does; generations count from 1.
    generation: Option<u64>,
    styles: &'a str,
    files: &'a str,
    pending: bool,
    /// Names the trouble, so that another one can be told from it.
    trouble: Option<String>,
}

impl State {
    /// How far the worker of `route` is.
    pub(crate) fn of(server: &str, route: &crate::route::Route) -> Self {
        let generation = match &route.target {
            Target::Serving(upstream) => Some(upstream.generation.0),
            Target::Files => Some(0),
            Target::Unavailable { .. } => None,
        };
        let nothing = Work::default();
        let work = route.work.as_ref().unwrap_or(&nothing);
        Self::told(server, route.worker.as_str(), generation, work)
    }

    /// How far the worker called `name` is by `table`. One that is not there may come.
    pub(crate) fn named(server: &str, name: &str, table: &RouteTable) -> Self {
        let mut routes = table.routes.iter();
        match routes.find(|route| route.worker.as_str() == name) {
            Some(route) => Self::of(server, route),
            None => Self::told(server, name, None, &Work::default()),
        }
    }

    fn told(server: &str, worker: &str, generation: Option<u64>, work: &Work) -> Self {
        let told = Told {
            server,
            generation,
            styles: &work.styles,
            files: &work.files,
            pending: work.pending,
            trouble: work.trouble.as_ref().map(mark),
        };
        Self {
            pending: work.pending,
            worker: worker.to_owned(),
            // Text, numbers and booleans can always be written.
            json: serde_json::to_string(&told).unwrap_or_default(),
        }
    }

    /// The state as a line of JSON.
    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// The element that makes a page follow the worker.
    pub(crate) fn tag(&self) -> Bytes {
        self.element("").into()
    }

    /// The same for a page that shows nothing but the worker's trouble.
    pub(crate) fn tag_of_trouble(&self) -> String {
        self.element(" data-trouble")
    }

    fn element(&self, more: &str) -> String {
        let (worker, state) = (escape(&self.worker), escape(&self.json));
        format!(
            "<script src=\"{SCRIPT}\" data-worker=\"{worker}\" data-state=\"{state}\"{more} async></script>"
        )
    }
}

fn mark(trouble: &Trouble) -> String {
    let mut hasher = DefaultHasher::new();
    (&trouble.reason, &trouble.log).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
