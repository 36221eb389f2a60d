//! When to look at the disk: file events, gathered into bursts. They say only *when*; what has changed is for the fingerprints to say, so
//! that an event too many or too few does no harm. The one door to the crate `notify`.
//!
//! Each directory is watched by itself: one that does not count (`node_modules` with ten thousand others in it) costs nothing. Where the
//! kernel has no room for more watches, or file systems send no events, a burst comes every so often instead.

mod eye;
mod tail;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ignored::Developed;
use eye::Eye;
pub use tail::{Line, Tails};

/// Events that may wait. What comes beyond is made up for by a look at everything.
const EVENTS: usize = 4096;

/// What is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Directories of workers, absolute; one that is not there is waited for.
    pub directories: Vec<PathBuf>,
    /// Single files, absolute, that may not be there.
    pub files: Vec<PathBuf>,
    /// The workers, by which it is known what counts.
    pub workers: Vec<Developed>,
    /// How long events are gathered, from the last one on.
    pub debounce: Duration,
    /// A burst so often instead of events.
    pub poll: Option<Duration>,
}

/// Something changed, or may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// When the first event of it came.
    pub first: Instant,
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    messages: SyncSender<Message>,
    bursts: Arc<Bursts>,
}

/// What the thread that watches hears.
#[derive(Debug)]
enum Message {
    Event(notify::Result<notify::Event>),
    Watch(Box<Watched>),
    Stop,
}

/// The burst that is to be taken: one that is not taken yet takes the next one in.
#[derive(Debug, Default)]
struct Bursts {
    waiting: Mutex<Option<Burst>>,
    ready: Notify,
    /// A burst rests.
    rests: Notify,
}

impl Bursts {
    fn add(&self, burst: Burst) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.get_or_insert(burst);
        self.ready.notify_one();
    }

    fn take(&self) -> Option<Burst> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.take()
    }
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
