//! Whether every thread still does its work: each is asked again and again, and one that hangs does not answer.
//!
//! One that does not answer need not hang. On a busy machine it waits for a processor, and is left alone for as long as that takes;
//! what counts is how much it has run without an answer, and how long it was seen doing nothing at all.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::proxy::Heart;

/// How often the threads are looked at.
const TICK: Duration = Duration::from_millis(200);
/// So long a thread may run, by its own clock, without an answer.
const SPINS: Duration = Duration::from_secs(1);
/// So long it may be asleep with a question unanswered.
const SLEEPS: Duration = Duration::from_secs(1);
/// So long it may wait for a disk, or for memory that was swapped out: another process would wait no less.
const WAITS: Duration = Duration::from_secs(20);
/// Longest wait until the last word is written: what hangs may hold the log's lock.
const LAST_WORD: Duration = Duration::from_millis(100);
/// A tick of the clock in /proc/PID/stat (USER_HZ, the same on all machines).
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// What a thread is asked by, and answers with.
pub(crate) struct Responder(Arc<Thread>);

/// The threads that are asked.
#[derive(Default)]
pub(crate) struct Pulse {
    threads: Vec<Arc<Thread>>,
}

struct Thread {
    name: String,
    ask: Notify,
    asked: AtomicU64,
    answered: AtomicU64,
    /// That it panicked is somebody else's to see.
    ended: AtomicBool,
    /// Its line in /proc, opened once: there may be no descriptors left when it hangs.
    stat: OnceLock<File>,
}

/// Ends the watch.
pub(crate) struct Watch(Arc<AtomicBool>);

impl Pulse {
    /// Takes one more thread in; it is to [`respond`].
    pub(crate) fn thread(&mut self, name: String) -> Responder {
        let thread = Arc::new(Thread {
            name,
            ask: Notify::new(),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            stat: OnceLock::new(),
        });
        self.threads.push(thread.clone());
        Responder(thread)
    }

    /// Tells `heart` from a thread of its own that all are well, for as long as they are, and then that one is not.
    ///
    /// # Errors
    /// When the system refuses the thread.
    pub(crate) fn watch(self, heart: Heart) -> std::io::Result<Watch> {
        let stop = Arc::new(AtomicBool::new(false));
        let watch = Watch(stop.clone());
        thread::Builder::new()
            .name("pulse".to_owned())
            .spawn(move || self.run(&heart, &stop))?;
        Ok(watch)
    }

    fn run(self, heart: &Heart, stop: &AtomicBool) {
        let mut threads: Vec<(Arc<Thread>, Judge)> = (self.threads.into_iter())
            .map(|thread| (thread, Judge::default()))
            .collect();
        let mut beat: Option<Instant> = None;
        while !stop.load(Ordering::Relaxed) {
            for (thread, judge) in &mut threads {
                if let Some(how) = thread.look(judge) {
                    return die(heart, format!("the proxy's thread {} {how}", thread.name));
                }
            }
            if beat.is_none_or(|last| last.elapsed() >= heart.every) {
                (heart.beat)();
                beat = Some(Instant::now());
            }
            thread::sleep(TICK);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Says why, and has the process replaced.
fn die(heart: &Heart, reason: String) {
    let (said, heard) = mpsc::channel();
    let text = reason.clone();
    let word = thread::Builder::new().spawn(move || {
        tracing::error!("{text}; the proxy is replaced");
        let _ = said.send(());
    });
    if word.is_ok() {
        let _ = heard.recv_timeout(LAST_WORD);
    }
    (heart.hung)(&reason);
}

impl Thread {
    /// Asks, if the last question was answered; or else how it hangs, if it does.
    fn look(&self, judge: &mut Judge) -> Option<String> {
        let asked = self.asked.load(Ordering::SeqCst);
        if self.ended.load(Ordering::SeqCst) {
            return None;
        }
        let sample = self.stat.get().and_then(sample);
        if self.answered.load(Ordering::SeqCst) == asked {
            *judge = Judge::new(sample);
            self.asked.store(asked + 1, Ordering::SeqCst);
            self.ask.notify_one();
            return None;
        }
        judge.hangs(sample?)
    }
}

/// What is known of a thread since it was asked.
#[derive(Debug, Default)]
struct Judge {
    /// Its processor time when it was asked, and when it was last looked at.
    first: Option<Duration>,
    last: Option<Duration>,
    /// How long it was seen asleep, and waiting for a disk.
    slept: Duration,
    waited: Duration,
}

/// What the kernel says of a thread.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// As in ps(1): R, S, D, T, t.
    state: char,
    /// Processor time it has used.
    used: Duration,
}

impl Judge {
    fn new(sample: Option<Sample>) -> Self {
        let used = sample.map(|sample| sample.used);
        Self {
            first: used,
            last: used,
            ..Self::default()
        }
    }

    /// How it hangs, if it does. Each look counts for one [`TICK`], however late it comes.
    fn hangs(&mut self, sample: Sample) -> Option<String> {
        let used = sample.used;
        let first = *self.first.get_or_insert(used);
        let has_run = self.last.replace(used) != Some(used);
        match sample.state {
            // It runs, or would if there were a processor for it.
            'R' => (self.slept, self.waited) = (Duration::ZERO, Duration::ZERO),
            _ if has_run => (self.slept, self.waited) = (Duration::ZERO, Duration::ZERO),
            'D' => self.waited += TICK,
            _ => self.slept += TICK,
        }
        let ran = used.saturating_sub(first);
        match () {
            () if ran >= SPINS => Some(format!(
                "has run for {} ms without looking at its connections",
                ran.as_millis()
            )),
            () if self.slept >= SLEEPS || self.waited >= WAITS => Some(format!(
                "has done nothing for {} ms (state {})",
                (self.slept + self.waited).as_millis(),
                sample.state
            )),
            () => None,
        }
    }
}

/// Reads a line of /proc/PID/stat (proc(5)).
fn sample(stat: &File) -> Option<Sample> {
    let mut line = [0; 512];
    let length = stat.read_at(&mut line, 0).ok()?;
    let line = String::from_utf8_lossy(line.get(..length)?);
    // The name in parentheses may hold anything.
    let (_, rest) = line.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let ticks = |text: &str| text.parse::<u32>().ok();
    let (user, system) = (ticks(fields.nth(10)?)?, ticks(fields.next()?)?);
    Some(Sample {
        state,
        used: CLOCK_TICK * user.saturating_add(system),
    })
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::SeqCst);
    }
}

/// Answers on this thread for as long as it lives.
pub(crate) async fn respond(responder: Responder) {
    if let Ok(stat) = File::open("/proc/thread-self/stat") {
        let _ = responder.0.stat.set(stat);
    }
    loop {
        responder.0.ask.notified().await;
        let asked = responder.0.asked.load(Ordering::SeqCst);
        responder.0.answered.store(asked, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread that answers once and then does `work`; what is said of it by the time it ends, or has hung.
    fn verdict(work: impl FnOnce() + Send + 'static) -> Option<String> {
        let mut pulse = Pulse::default();
        let responder = pulse.thread("proxy-0".to_owned());
        let (begun, begin) = mpsc::channel();
        let worker = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.unwrap().block_on(async {
                let mut answers = tokio::spawn(respond(responder));
                tokio::task::yield_now().await;
                begun.send(()).unwrap();
                work();
                answers.abort();
                let _ = (&mut answers).await;
            });
        });
        begin.recv().unwrap();
        let (hung, verdict) = mpsc::channel();
        let ended = hung.clone();
        let heart = Heart {
            every: TICK,
            beat: Box::new(|| {}),
            hung: Box::new(move |reason| hung.send(Some(reason.to_owned())).unwrap()),
        };
        let watch = pulse.watch(heart).unwrap();
        thread::spawn(move || {
            let _ = worker.join();
            let _ = ended.send(None);
        });
        let verdict = verdict.recv_timeout(Duration::from_secs(60)).unwrap();
        drop(watch);
        verdict
    }

    #[test]
    fn a_thread_that_waits_for_ever_hangs() {
        let (_never, waits) = mpsc::channel::<()>();
        let began = Instant::now();
        let reason = verdict(move || {
            let _ = waits.recv();
        });
        assert!(reason.unwrap().contains("has done nothing"));
        assert!(began.elapsed() >= SLEEPS - TICK);
    }

    #[test]
    fn a_thread_that_only_computes_hangs() {
        let stop = Arc::new(AtomicBool::new(false));
        let spins = stop.clone();
        let reason = verdict(move || while !spins.load(Ordering::Relaxed) {});
        stop.store(true, Ordering::Relaxed);
        assert!(reason.unwrap().contains("has run for"));
    }

    #[test]
    fn a_thread_that_is_short_of_processor_time_does_not_hang() {
        let runs = |used| Sample {
            state: 'R',
            used: Duration::from_millis(used),
        };
        let mut judge = Judge::new(Some(runs(500)));
        // For a minute it wants to run, and gets next to nothing.
        for look in 0..600 {
            assert_eq!(judge.hangs(runs(500 + look)), None, "after {look} looks");
        }
        let asleep = |used| Sample {
            state: 'S',
            ..runs(used)
        };
        // Between two looks it was seen asleep, but has run.
        let mut judge = Judge::new(Some(runs(0)));
        for look in 0..90 {
            assert_eq!(judge.hangs(asleep(10 * look)), None, "after {look} looks");
        }
    }

    #[test]
    fn a_thread_that_waits_for_a_disk_is_given_time() {
        let waits = Sample {
            state: 'D',
            used: Duration::ZERO,
        };
        let mut judge = Judge::new(Some(waits));
        let looks = (0..1000).position(|_| judge.hangs(waits).is_some());
        assert_eq!(looks, Some(99));
    }

    #[test]
    fn a_line_of_a_thread_is_read_whatever_its_name() {
        let stat = File::open("/proc/thread-self/stat").unwrap();
        assert_eq!(sample(&stat).unwrap().state, 'R');
        let odd = tempfile::tempfile().unwrap();
        let line = b"1 (a) S (b) D 0 0 0 0 0 0 0 0 0 0 7 5 0 0\n";
        odd.write_at(line, 0).unwrap();
        let read = sample(&odd).unwrap();
        assert_eq!((read.state, read.used), ('D', CLOCK_TICK * 12));
    }
}
