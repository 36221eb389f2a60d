//! What is printed.

use std::fs;
use std::time::Duration;

use super::kind::Kind;

/// The seeds' server gathered file events for 500 ms, whatever came, and looked every 100 ms whether a worker was there: on average it
/// saw that half of it too late.
const ORIGINAL_WAIT: Duration = Duration::from_millis(550);

/// All saves of one worker; a figure in each for every round.
pub(crate) struct Row<'a> {
    kind: &'a Kind,
    pub(crate) live: Vec<Duration>,
    pub(crate) build: Vec<Duration>,
    pub(crate) start: Vec<Duration>,
}

impl<'a> Row<'a> {
    pub(crate) fn new(kind: &'a Kind) -> Self {
        Self {
            kind,
            live: Vec::new(),
            build: Vec::new(),
            start: Vec::new(),
        }
    }

    /// What a save took more than the build of the same round.
    fn beyond_build(&self) -> Vec<f64> {
        let rounds = self.live.iter().zip(&self.build);
        rounds
            .map(|(live, build)| millis(*live) - millis(*build))
            .collect()
    }

    pub(crate) fn print(&self) {
        let all = |times: &[Duration]| times.iter().copied().map(millis).collect::<Vec<f64>>();
        let (live, build, start) = (all(&self.live), all(&self.build), all(&self.start));
        let built = |figure: f64| match self.kind.is_built {
            true => format!("{figure:.0} ms"),
            false => "-".to_owned(),
        };
        let target = match self.kind.is_built {
            true => "100 ms beyond the build",
            false => "150 ms",
        };
        println!(
            "{:<8} {:>8} {:>8} {:>12} {:>12} {:>14}   {:<24} {:>8}",
            self.kind.name,
            format!("{:.0} ms", at(&live, 0.5)),
            format!("{:.0} ms", at(&live, 0.9)),
            built(at(&build, 0.5)),
            format!("{:.0} ms", at(&start, 0.5)),
            built(at(&self.beyond_build(), 0.5)),
            target,
            format!(
                "{:.0} ms",
                millis(ORIGINAL_WAIT) + at(&build, 0.5) + at(&start, 0.5)
            ),
        );
    }
}

/// What stands above the rows.
pub(crate) fn head(saves: usize) {
    println!("\nfrom a save to the first answer of the new code, {saves} saves of each");
    println!(
        "{:<8} {:>8} {:>8} {:>12} {:>12} {:>14}   {:<24} {:>8}",
        "worker",
        "median",
        "p90",
        "build alone",
        "start alone",
        "beyond build",
        "target (median)",
        "original"
    );
}

/// What stands below them.
pub(crate) fn foot() {
    println!(
        "original: the Go server's way, computed: 500 ms debounce + 50 ms (polling every 100 ms) + build alone + start alone"
    );
}

/// The machine, and how busy it is.
pub(crate) fn machine() {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = read("/proc/loadavg");
    println!(
        "{}, {cores} cores, Linux {}; load {}",
        model.unwrap_or("unknown processor"),
        read("/proc/sys/kernel/osrelease").trim(),
        load.split(' ').take(3).collect::<Vec<_>>().join(" ")
    );
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The figure that this share of all is not above.
fn at(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(place.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}
