//! When to look at the disk: file events, gathered into bursts. They say only *when*; what has changed is for the fingerprints to say, so
//! that an event too many or too few does no harm. The one door to the crate `notify`.
//!
//! Each directory is watched by itself: one that does not count (`node_modules` with ten thousand others in it) costs nothing. Where the
//! kernel has no room for more watches, or file systems send no events, a burst comes every so often instead.

mod burst;
mod eye;
mod tail;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

pub use burst::Burst;
pub use eye::Watched;
pub use tail::{Line, Tails};

use burst::Bursts;
use eye::{Eye, Message};

/// Events that may wait. What comes beyond is made up for by a look at everything.
const EVENTS: usize = 4096;

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    messages: SyncSender<Message>,
    bursts: Arc<Bursts>,
}

impl Watcher {
    /// Starts to watch. A kernel that has no room for it is no error: a warning says what to do, and the disk is looked at every so often.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(watched: Watched) -> std::io::Result<Self> {
        let (messages, heard) = sync_channel(EVENTS);
        let bursts = Arc::<Bursts>::default();
        let overflow = Arc::<AtomicBool>::default();
        let (sender, lost) = (messages.clone(), Arc::clone(&overflow));
        // On the thread of `notify`, which must not wait for ours: that one waits for it in turn.
        let hear = move |event| {
            if let Err(TrySendError::Full(_)) = sender.try_send(Message::Event(event)) {
                lost.store(true, Ordering::SeqCst);
            }
        };
        let told = Arc::clone(&bursts);
        thread::Builder::new()
            .name("watcher".to_owned())
            .spawn(move || Eye::open(hear, told, overflow).run(watched, &heard))?;
        Ok(Self { messages, bursts })
    }

    /// Watches something else from now on.
    pub fn watch(&self, watched: Watched) {
        // The thread ends with us, so it is there, and takes this before long.
        let _ = self.messages.send(Message::Watch(Box::new(watched)));
    }

    /// The next moment in which a burst rests: it may be over, which is known when it is handed out, and nothing has to be done before that.
    pub async fn rests(&self) {
        self.bursts.rests.notified().await;
    }

    /// The next burst. May be dropped and called again without losing one.
    pub async fn burst(&self) -> Burst {
        loop {
            if let Some(burst) = self.bursts.take() {
                return burst;
            }
            self.bursts.ready.notified().await;
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Should the queue be full, the thread ends when it finds that nobody can send any more.
        let _ = self.messages.try_send(Message::Stop);
    }
}

#[cfg(test)]
mod tests;
