//! What is printed: tables as docs/PERFORMANCE.md has them.

use std::collections::BTreeMap;
use std::fs;

use super::contestants::Kind;
use super::idle::CONNECTIONS;
use super::measure::{Figures, median};

/// All measurements so far: by scenario in the order they came, one of each kind a round.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<(&'static str, BTreeMap<Kind, Vec<Figures>>)>,
}

impl Report {
    pub(crate) fn add(&mut self, scenario: &'static str, kind: Kind, figures: Figures) {
        let at = self.rows.iter().position(|(name, _)| *name == scenario);
        let at = at.unwrap_or_else(|| {
            self.rows.push((scenario, BTreeMap::new()));
            self.rows.len() - 1
        });
        self.rows[at].1.entry(kind).or_default().push(figures);
    }

    /// Prints medians over the rounds. Ratios are those of the same round, and then their median.
    pub(crate) fn print(&self) {
        if self.rows.is_empty() {
            return;
        }
        println!(
            "\n| scenario | proxy | CPU us/request | to nginx | requests/s | to nginx | p50 us | p99 us | memory MiB |"
        );
        println!("|---|---|--:|--:|--:|--:|--:|--:|--:|");
        for (scenario, kinds) in &self.rows {
            for (kind, figures) in kinds {
                let of = |pick: fn(&Figures) -> f64| median(figures.iter().map(pick));
                let ratio = |pick: fn(&Figures) -> f64| {
                    let peers = kinds.get(&Kind::Nginx)?;
                    let pairs = figures.iter().zip(peers);
                    Some(median(pairs.map(|(own, peer)| pick(own) / pick(peer))))
                };
                let told = |ratio: Option<f64>| match ratio {
                    Some(ratio) => format!("{ratio:.2}x"),
                    None => "-".to_owned(),
                };
                println!(
                    "| {scenario} | {} | {:.1} | {} | {:.0} | {} | {:.0} | {:.0} | {:.1} |",
                    kind.name(),
                    of(|f| f.cpu),
                    told(ratio(|f| f.cpu)),
                    of(|f| f.rate),
                    told(ratio(|f| f.rate)),
                    of(|f| f.median),
                    of(|f| f.p99),
                    of(|f| f.memory),
                );
            }
        }
    }
}

/// Prints what idle connections cost.
pub(crate) fn idle(bytes: &[(Kind, Vec<f64>)]) {
    println!("\n| {CONNECTIONS} idle connections | KiB a connection |\n|---|--:|");
    for (kind, bytes) in bytes {
        let each = median(bytes.iter().copied()) / 1024.0;
        println!("| {} | {each:.1} |", kind.name());
    }
}

/// What the machine has done in the last minute.
pub(crate) fn machine() {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "load average: {}",
        load.split(' ').next().unwrap_or("unknown")
    );
}
