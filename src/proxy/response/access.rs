//! The access log: one journal entry for each request on a route that wants it, written when its answer is over.
//!
//! A thread of its own writes. A journal that does not read stops whoever writes to it, and that must be nobody who serves; what it
//! does not take in time is counted and left out.

use std::cell::{Cell, OnceCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Uri};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::config::printable;
use crate::messages;
use crate::names::WorkerName;
use crate::route::RoutePath;

/// Most entries that wait for the journal.
const QUEUE: usize = 4096;

/// Most bytes of what a stranger has chosen.
const TEXT_MAX: usize = 1 << 10;

/// Where entries go.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    queue: SyncSender<Line>,
    /// Entries for which the queue had no room.
    lost: Arc<AtomicU64>,
}

/// A request on its way into the journal. Everything that is part of its answer holds it; the last to let go writes it.
#[derive(Debug)]
pub(crate) struct Entry {
    journal: Journal,
    began: Instant,
    /// There until it is written.
    facts: Option<Facts>,
    /// Which generation it goes to, once that is known.
    generation: Cell<Option<u64>>,
    /// 0: there was no answer.
    status: Cell<u16>,
    bytes: Cell<u64>,
    whole: Cell<bool>,
    /// Why the worker did not answer, if the proxy did in its place.
    reason: OnceCell<Box<str>>,
}

/// What is known of a request when it comes.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) worker: WorkerName,
    pub(crate) route: RoutePath,
    /// The route is for some hosts only: the path alone does not say where it is.
    pub(crate) is_on_host: bool,
    pub(crate) id: HeaderValue,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) agent: Option<HeaderValue>,
    pub(crate) client: HeaderValue,
    pub(crate) host: HeaderValue,
}

/// An entry as it is to be written.
#[derive(Debug)]
struct Line {
    facts: Facts,
    generation: Option<u64>,
    status: u16,
    bytes: u64,
    whole: bool,
    reason: Option<Box<str>>,
    took: Duration,
}

/// Starts the thread that writes; it ends, and the receiver with it, when the last [`Journal`] is dropped.
pub(crate) fn start() -> io::Result<(Journal, oneshot::Receiver<()>)> {
    let (queue, lines) = sync_channel(QUEUE);
    let lost = Arc::new(AtomicU64::new(0));
    let journal = Journal {
        queue,
        lost: lost.clone(),
    };
    let (ended, end) = oneshot::channel();
    thread::Builder::new()
        .name("access-log".to_owned())
        .spawn(move || {
            write_all(&lines, &lost);
            let _ = ended.send(());
        })?;
    Ok((journal, end))
}

fn write_all(lines: &Receiver<Line>, lost: &AtomicU64) {
    for line in lines {
        line.write();
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            lost => {
                warn!("the journal does not keep up: {lost} requests are not in the access log")
            }
        }
    }
}

impl Journal {
    /// A request that has just come; there is no response to it yet.
    pub(crate) fn enter(&self, facts: Facts) -> Rc<Entry> {
        Rc::new(Entry {
            journal: self.clone(),
            began: Instant::now(),
            facts: Some(facts),
            generation: Cell::new(None),
            status: Cell::new(0),
            bytes: Cell::new(0),
            whole: Cell::new(false),
            reason: OnceCell::new(),
        })
    }
}

impl Entry {
    /// It goes to this generation.
    pub(crate) fn goes_to(&self, generation: Option<u64>) {
        self.generation.set(generation);
    }

    /// It is answered with this status.
    pub(crate) fn answered(&self, status: http::StatusCode) {
        self.status.set(status.as_u16());
    }

    /// The worker did not answer it, for this reason.
    pub(crate) fn failed(&self, reason: Box<str>) {
        let _ = self.reason.set(reason);
    }

    /// So many further bytes of the body are on their way to the client.
    pub(crate) fn sent(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    /// Nothing of the answer is missing.
    pub(crate) fn whole(&self) {
        self.whole.set(true);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(facts) = self.facts.take() else {
            return;
        };
        let line = Line {
            // The answer to HEAD has no body that could be whole.
            whole: self.whole.get() || (facts.method == Method::HEAD && self.status.get() != 0),
            facts,
            generation: self.generation.get(),
            status: self.status.get(),
            bytes: self.bytes.get(),
            reason: self.reason.take(),
            took: self.began.elapsed(),
        };
        if self.journal.queue.try_send(line).is_err() {
            self.journal.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Line {
    fn write(&self) {
        let facts = &self.facts;
        // Not the query, where some clients send what nobody else should read.
        let path = bounded(facts.uri.path().as_bytes());
        let host = bounded(facts.host.as_bytes());
        let agent = facts.agent.as_ref().map(|agent| bounded(agent.as_bytes()));
        let (id, client) = (
            bounded(facts.id.as_bytes()),
            bounded(facts.client.as_bytes()),
        );
        info!(
            message_id = messages::ACCESS,
            tq.worker = facts.worker.as_str(),
            tq.generation = self.generation,
            tq.route = facts.route.as_str(),
            tq.request_id = id,
            tq.method = facts.method.as_str(),
            tq.host = host,
            tq.path = path,
            tq.status = self.status,
            tq.bytes = self.bytes,
            tq.duration_usec = u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
            tq.client = client,
            tq.user_agent = agent,
            tq.reason = self.reason.as_deref(),
            "{}",
            self.message(&host, &path, &client),
        );
    }

    fn message(&self, host: &str, path: &str, client: &str) -> String {
        let host = if self.facts.is_on_host { host } else { "" };
        let method = bounded(self.facts.method.as_str().as_bytes());
        let status = match self.status {
            0 => "-".to_owned(),
            status => status.to_string(),
        };
        let how = if self.whole { "" } else { ", broken off" };
        let reason = self.reason.as_deref();
        let why = reason
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        let text = format!(
            "{method} {host}{path} {status} {} B {:.1} ms {client}{how}{why}",
            self.bytes,
            self.took.as_secs_f64() * 1e3,
        );
        printable(&text)
    }
}

/// The beginning of what a stranger has chosen, as text on which no terminal acts.
fn bounded(bytes: &[u8]) -> String {
    printable(&String::from_utf8_lossy(
        &bytes[..bytes.len().min(TEXT_MAX)],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(uri: &str) -> Facts {
        Facts {
            worker: WorkerName::parse("w").unwrap(),
            route: RoutePath::root(),
            is_on_host: false,
            id: HeaderValue::from_static("id"),
            method: Method::GET,
            uri: uri.parse().unwrap(),
            agent: None,
            client: HeaderValue::from_static("192.0.2.7"),
            host: HeaderValue::from_static("a.example"),
        }
    }

    fn line(uri: &str, status: u16, whole: bool) -> Line {
        Line {
            facts: facts(uri),
            generation: Some(3),
            status,
            bytes: 1234,
            whole,
            reason: None,
            took: Duration::from_micros(5210),
        }
    }

    fn message(line: &Line) -> String {
        let path = bounded(line.facts.uri.path().as_bytes());
        let host = bounded(line.facts.host.as_bytes());
        line.message(&host, &path, "192.0.2.7")
    }

    #[test]
    fn a_line_tells_what_was_asked_and_answered() {
        let whole = line("/api/users?token=x", 200, true);
        assert_eq!(
            message(&whole),
            "GET /api/users 200 1234 B 5.2 ms 192.0.2.7"
        );
        let broken = line("/", 0, false);
        assert_eq!(
            message(&broken),
            "GET / - 1234 B 5.2 ms 192.0.2.7, broken off"
        );
    }

    #[test]
    fn what_strangers_send_is_bounded_and_moves_no_cursor() {
        let long = line(&format!("/{}", "a".repeat(9000)), 200, true);
        assert!(message(&long).len() < TEXT_MAX + 100);
        let mut turned = line("/", 200, true);
        turned.facts.is_on_host = true;
        let odd = "\u{1b}[2J\n\u{202e}x";
        let turned = turned.message(odd, &format!("/{odd}"), "c");
        assert!(
            turned.chars().all(|c| !c.is_control() && c != '\u{202e}'),
            "{turned}"
        );
    }

    #[test]
    fn a_journal_that_hangs_holds_nobody_up() {
        let (queue, lines) = sync_channel(1);
        let journal = Journal {
            queue,
            lost: Arc::default(),
        };
        for _ in 0..3 {
            drop(journal.enter(facts("/")));
        }
        assert_eq!(journal.lost.load(Ordering::Relaxed), 2);
        assert_eq!(lines.try_iter().count(), 1);
    }
}
