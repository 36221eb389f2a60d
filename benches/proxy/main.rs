//! The data plane beside nginx and haproxy: what a request costs each of them, in one run, with one worker behind all.
//!
//! `cargo bench --bench proxy` starts all three and prints medians over the rounds; what follows `--` chooses:
//!
//! ```text
//! --rounds N          rounds of all scenarios (8)
//! --seconds S         length of one measurement (2)
//! --only SCENARIO...  some of them; --list tells their names
//! --callgrind         instructions and cache misses a request instead, counted by valgrind (of `1`, or of --only)
//! --guard             the same of a few scenarios, without the peers: fails if one costs more than benches/proxy/instructions.yaml says
//! --train             lets it do all that and what else users do, without the others and without measuring: for packaging/profile
//! --tqserver FILE     the program to measure, if it is not the one that cargo builds
//! --other FILE        a second build of it, measured beside
//! ```
//!
//! How it is measured, and why so, is told in docs/PERFORMANCE.md.

mod arguments;
mod callgrind;
mod contestants;
mod cores;
mod guard;
mod http1;
mod http2;
mod idle;
mod load;
mod manager;
mod measure;
mod pipe;
mod report;
mod scenario;
mod talk;
mod train;
mod worker;

use std::time::Duration;

use arguments::Arguments;
use contestants::{Contestant, House, Kind};
use cores::Cores;
use load::Load;
use measure::Figures;
use report::Report;
use scenario::{Place, Scenario};
use talk::Goal;

/// Before each measurement: connections to the worker are made, caches and branch predictors know the way.
const WARM_UP: Duration = Duration::from_millis(300);
/// Rounds of the idle connections: each needs fresh processes, and memory does not scatter as time does.
const IDLE_ROUNDS: usize = 3;

fn main() {
    let arguments = Arguments::read();
    let house = House::new(&arguments.tqserver, arguments.other.as_deref());
    let cores = Cores::choose();
    cores.set_worker(worker::start(house.worker()));
    if arguments.train {
        return train::run(&house, &cores);
    }
    if arguments.guard {
        return guard::run(&house, &cores);
    }
    contestants::need_peers();
    report::machine();
    if arguments.callgrind {
        return callgrind::measure(&house, &cores, &arguments.to_count());
    }
    let mut report = Report::default();
    let scenarios = arguments.scenarios();
    if !scenarios.is_empty() {
        let contestants = house.start_all(&cores);
        for round in 1..=arguments.rounds {
            for scenario in &scenarios {
                for contestant in shuffled(&contestants) {
                    if let Some(figures) = measured(contestant, scenario, &cores, &arguments) {
                        report.add(scenario.name, contestant.kind(), figures);
                    }
                }
            }
            eprintln!("round {round} of {}", arguments.rounds);
        }
    }
    report.print();
    if arguments.wants_idle() {
        let rounds = arguments.rounds.min(IDLE_ROUNDS);
        let mut bytes: Vec<(Kind, Vec<f64>)> = Vec::new();
        bytes.extend(house.kinds().into_iter().map(|kind| (kind, Vec::new())));
        for _ in 0..rounds {
            for (kind, bytes) in &mut bytes {
                bytes.push(idle::bytes_a_connection(&house, *kind, &cores));
            }
        }
        report::idle(&bytes);
    }
    report::machine();
}

/// One measurement; `None` if the contestant does not do such a thing.
fn measured(
    contestant: &Contestant,
    scenario: &Scenario,
    cores: &Cores,
    arguments: &Arguments,
) -> Option<Figures> {
    let address = contestant.door(scenario)?;
    cores.place(scenario.place, contestant.processes());
    let mut load = Load::open(scenario, address);
    load.run(Goal::after(WARM_UP));
    // Nothing is on its way at either look.
    let before = contestant.processes().cpu();
    let run = load.run(Goal::after(arguments.length));
    let cpu = contestant.processes().cpu() - before;
    let memory = contestant.processes().memory();
    cores.place(Place::Apart, contestant.processes());
    Some(Figures::of(run, cpu, memory))
}

fn shuffled(contestants: &[Contestant]) -> Vec<&Contestant> {
    let mut order: Vec<&Contestant> = contestants.iter().collect();
    fastrand::shuffle(&mut order);
    order
}
