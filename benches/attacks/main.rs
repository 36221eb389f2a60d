//! The proxy under attack: what others notice of it, and what memory it takes.
//!
//! `cargo bench --bench attacks` starts a proxy for each attack, as it ships, with one cheap worker behind it. A normal client asks it at a
//! steady rate, first alone and then while the attack is under way. What follows `--` chooses:
//!
//! ```text
//! --seconds S     length of each of the two measurements (5)
//! --tqserver FILE another build of it
//! ATTACK...       some of them, by a part of their names; --list tells these
//! ```
//!
//! How it is measured, and what to make of the figures, is told in docs/PERFORMANCE.md.

mod attacks;
mod connections;
mod frames;
mod house;
mod normal;
mod requests;
mod worker;

use std::path::{Path, PathBuf};
use std::time::Duration;

use attacks::Attack;
use house::House;
use normal::Figures;

fn main() {
    let mut seconds = 5.0;
    let mut wanted = Vec::new();
    let mut program = PathBuf::from(env!("CARGO_BIN_EXE_tqserver"));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Cargo's own word for "not a test".
            "--bench" => {}
            "--list" => {
                attacks::ALL.iter().for_each(|a| println!("{}", a.name));
                return;
            }
            "--seconds" => {
                let value = arguments.next().and_then(|value| value.parse().ok());
                seconds = value.unwrap_or_else(|| usage("--seconds needs a number"));
            }
            "--tqserver" => match arguments.next() {
                Some(file) => program = file.into(),
                None => usage("--tqserver needs a file"),
            },
            other if other.starts_with('-') => usage(&format!("unknown option '{other}'")),
            part => wanted.push(part.to_owned()),
        }
    }
    let is_wanted = |attack: &&Attack| {
        wanted.is_empty() || wanted.iter().any(|part| attack.name.contains(part))
    };
    house::allow_files();
    println!(
        "{:<44} {:>17} {:>17} {:>6} {:>7} {:>18}",
        "attack", "p50, p99 before", "p50, p99 under", "ratio", "failed", "PSS before, peak"
    );
    for attack in attacks::ALL.iter().filter(is_wanted) {
        measure(attack, &program, Duration::from_secs_f64(seconds));
    }
}

fn usage(problem: &str) -> ! {
    eprintln!(
        "attacks: {problem}\nhint: cargo bench --bench attacks -- [--seconds S] [--tqserver FILE] [ATTACK...]"
    );
    std::process::exit(64);
}

/// Prints one line.
fn measure(attack: &Attack, program: &Path, length: Duration) {
    let house = House::new(program, attack.front);
    // Connections to the worker are made, and caches know the way.
    normal::run(&house, length / 5);
    let memory = house.memory();
    let before = normal::run(&house, length);
    let under = attacks::under(attack, &house, || normal::run(&house, length));
    let shown = |figures: &Figures| {
        let millis = |at| figures.at(at).as_secs_f64() * 1000.0;
        format!("{:6.2} {:7.2} ms", millis(0.5), millis(0.99))
    };
    println!(
        "{:<44} {:>17} {:>17} {:>6.1} {:>7} {:>14}",
        attack.name,
        shown(&before),
        shown(&under),
        under.at(0.99).as_secs_f64() / before.at(0.99).as_secs_f64(),
        format!("{}/{}", under.failed, under.times.len()),
        format!(
            "{:.1}, {:.1} MiB",
            mebibytes(memory),
            mebibytes(house.peak())
        ),
    );
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
