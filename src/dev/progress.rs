//! How far builds are, while they take long.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::manager::Building;
use crate::names::Instance;
use crate::terminal;

/// A build that takes less is told when it is over.
const LONG: Duration = Duration::from_secs(1);
/// How often the line below all others counts on.
const COUNT: Duration = Duration::from_millis(200);
/// How often it is told where no line can change: in a file, a pipe, another program's window.
const TELL: Duration = Duration::from_secs(10);

/// The builds under way.
pub(super) struct Builds {
    builds: BTreeMap<Instance, Building>,
    /// Standard error is a terminal: there is a line that changes.
    terminal: bool,
    quiet: bool,
    ticks: Interval,
}

impl Builds {
    pub(super) fn new(quiet: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        let every = if terminal { COUNT } else { TELL };
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            builds: BTreeMap::new(),
            terminal,
            quiet,
            ticks,
        }
    }

    /// These are under way now.
    pub(super) fn are(&mut self, builds: BTreeMap<Instance, Building>) {
        if self.builds.is_empty() && !builds.is_empty() {
            self.ticks.reset();
        }
        let were_some = !self.builds.is_empty();
        self.builds = builds;
        if were_some && self.builds.is_empty() {
            terminal::show("");
        }
    }

    /// Waits until there is something to tell, and tells it; for ever, while nothing is built.
    pub(super) async fn tell(&mut self) {
        if self.builds.is_empty() || self.quiet {
            return std::future::pending().await;
        }
        self.ticks.tick().await;
        let now = Instant::now();
        let lines: Vec<String> = self
            .builds
            .iter()
            .filter(|(_, building)| now - building.since >= LONG)
            .map(|(instance, building)| line(instance, building, now))
            .collect();
        if self.terminal {
            // There is one line: it has the build that takes longest at its beginning.
            terminal::show(&lines.join(" | "));
        } else {
            for line in lines {
                tracing::info!("{line}");
            }
        }
    }
}

/// "index: building for 12 s: Compiling hyper v1.12.0"
fn line(instance: &Instance, building: &Building, now: Instant) -> String {
    let seconds = (now - building.since).as_secs();
    let (worker, said) = (&instance.worker, &building.line);
    let colon = if said.is_empty() { "" } else { ": " };
    format!("{worker}: building for {seconds} s{colon}{said}")
}
