//! The proxy as the manager's loop knows it: the way to it while it is connected, and questions that wait for its counters.

use std::collections::HashMap;

use tokio::sync::oneshot;

use super::link::Outbox;
use crate::wire::{Count, ToProxy};

/// The proxy, connected or not.
#[derive(Debug, Default)]
pub(super) struct Proxy {
    outbox: Option<Outbox>,
    next_question: u64,
    questions: HashMap<u64, oneshot::Sender<Vec<Count>>>,
}

impl Proxy {
    /// One has connected.
    pub(super) fn up(&mut self, outbox: Outbox) {
        self.outbox = Some(outbox);
    }

    /// It is gone: there will be no answers any more.
    pub(super) fn down(&mut self) {
        self.outbox = None;
        self.questions.clear();
    }

    pub(super) fn is_connected(&self) -> bool {
        self.outbox.is_some()
    }

    pub(super) fn say(&mut self, message: ToProxy) {
        if self
            .outbox
            .as_ref()
            .is_some_and(|proxy| !proxy.say(message))
        {
            // It has not read for a long time. With this the link breaks, and begins anew.
            self.outbox = None;
        }
    }

    /// Asks for the counters; the receiver ends empty-handed when there is no proxy.
    pub(super) fn count(&mut self) -> oneshot::Receiver<Vec<Count>> {
        let (sender, receiver) = oneshot::channel();
        if let Some(proxy) = &self.outbox {
            self.next_question += 1;
            self.questions.retain(|_, asker| !asker.is_closed());
            self.questions.insert(self.next_question, sender);
            proxy.say(ToProxy::Count {
                id: self.next_question,
            });
        }
        receiver
    }

    /// Hands on an answer.
    pub(super) fn counted(&mut self, id: u64, counts: Vec<Count>) {
        if let Some(asker) = self.questions.remove(&id) {
            let _ = asker.send(counts);
        }
    }
}
