//! Instructions a request, counted by valgrind's callgrind: the same in every run, whatever else the machine does. What the kernel does
//! is not in them. With many connections it is not they that cost but the memory they touch, so callgrind plays a core's caches as well.

use std::fs;
use std::path::{Path, PathBuf};

use super::contestants::{House, Kind, need};
use super::cores::Cores;
use super::load::Load;
use super::scenario::Scenario;
use super::talk::Goal;

/// Requests of the shorter run; the longer has twice as many, and the difference has no start and no end in it. A start differs by some
/// million instructions from another: it gathers chance by the clock.
const REQUESTS: usize = 4000;
/// The caches of a core as they are common in servers: 32 KiB for instructions, 32 KiB for data, 512 KiB for both.
const CACHES: [&str; 4] = [
    "--cache-sim=yes",
    "--I1=32768,8,64",
    "--D1=32768,8,64",
    "--LL=524288,8,64",
];

/// What was counted.
#[derive(Clone, Copy)]
struct Counts {
    instructions: f64,
    /// Cache lines that had to come from beyond the first cache.
    first: f64,
    /// From beyond the core's own.
    second: f64,
}

/// Prints them for each of `scenarios`, and where the profiles lie.
pub(crate) fn measure(house: &House, cores: &Cores, scenarios: &[&Scenario]) {
    need_valgrind();
    println!(
        "| scenario | proxy | instructions/request | to nginx | L1 misses | L2 misses | profile |"
    );
    println!("|---|---|--:|--:|--:|--:|---|");
    for scenario in scenarios {
        let mut nginx = None;
        for kind in house.kinds() {
            let counted = of_each(house, cores, kind, scenario, &CACHES);
            let Some((each, profile)) = counted else {
                continue;
            };
            let instructions = each.instructions;
            let ratio = instructions / *nginx.get_or_insert(instructions);
            println!(
                "| {} | {} | {instructions:.0} | {ratio:.2}x | {:.0} | {:.0} | {} |",
                scenario.name,
                kind.name(),
                each.first,
                each.second,
                profile.display()
            );
        }
    }
    println!("\nto see where: callgrind_annotate --inclusive=yes PROFILE");
}

/// Instructions of a request, of no other than `tqserver`. Without the caches it takes half the time.
pub(crate) fn instructions(house: &House, cores: &Cores, scenario: &Scenario) -> f64 {
    let kind = Kind::Tqserver;
    let counted = of_each(house, cores, kind, scenario, &[]);
    let (each, _) = counted.expect("it does all there is");
    each.instructions
}

/// Ends the bench if there is nothing to count with.
pub(crate) fn need_valgrind() {
    need("valgrind", "--version");
}

/// Where profiles go.
fn profiles() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("callgrind");
    fs::create_dir_all(&directory).expect("a directory");
    directory
}

/// What a request costs, and the profile of the longer run; `None` if the contestant does not do such a thing.
fn of_each(
    house: &House,
    cores: &Cores,
    kind: Kind,
    scenario: &Scenario,
    caches: &[&str],
) -> Option<(Counts, PathBuf)> {
    let measured = |requests| counted(house, cores, kind, scenario, requests, caches);
    let ((few, _), (many, profile)) = (measured(REQUESTS)?, measured(2 * REQUESTS)?);
    let each = |few, many| (many - few) / REQUESTS as f64;
    let each = Counts {
        instructions: each(few.instructions, many.instructions),
        first: each(few.first, many.first),
        second: each(few.second, many.second),
    };
    Some((each, profile))
}

/// What a whole life with so many requests costs, and its profile.
fn counted(
    house: &House,
    cores: &Cores,
    kind: Kind,
    scenario: &Scenario,
    requests: usize,
    caches: &[&str],
) -> Option<(Counts, PathBuf)> {
    let profile = profiles().join(format!("{}-{}-{requests}.out", kind.name(), scenario.name));
    let mut valgrind = vec!["valgrind".to_owned(), "--tool=callgrind".to_owned()];
    valgrind.extend(caches.iter().map(|&option| option.to_owned()));
    valgrind.push(format!("--callgrind-out-file={}", profile.display()));
    let contestant = house.start(kind, cores, Some(&valgrind));
    let mut load = Load::open(scenario, contestant.door(scenario)?);
    load.run(Goal::answers(requests));
    drop(load);
    contestant.stop();
    let text = fs::read_to_string(&profile).expect("callgrind has written a profile");
    let counts = Counts::read(&text).expect("a profile has a sum");
    Some((counts, profile))
}

impl Counts {
    /// Those of a profile, whose head says in which order they stand.
    fn read(profile: &str) -> Option<Self> {
        let line = |name| profile.lines().find_map(|line| line.strip_prefix(name));
        let names = line("events:")?.split_whitespace();
        let sums = line("totals:").or_else(|| line("summary:"))?;
        let sums = sums
            .split_whitespace()
            .map(|sum| sum.parse().unwrap_or(0.0));
        let sums: Vec<(&str, f64)> = names.zip(sums).collect();
        let sum = |wanted: &[&str]| {
            let wanted = sums.iter().filter(|(name, _)| wanted.contains(name));
            wanted.map(|(_, sum)| sum).sum()
        };
        Some(Self {
            instructions: sum(&["Ir"]),
            first: sum(&["I1mr", "D1mr", "D1mw"]),
            second: sum(&["ILmr", "DLmr", "DLmw"]),
        })
    }
}
