//! What is asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use super::idle;
use super::scenario::{self, Scenario};

/// What to measure, and for how long.
pub(crate) struct Arguments {
    pub(crate) rounds: usize,
    /// Of one measurement.
    pub(crate) length: Duration,
    pub(crate) callgrind: bool,
    pub(crate) train: bool,
    /// Whether what it costs is only held against what it may.
    pub(crate) guard: bool,
    /// The program that is measured.
    pub(crate) tqserver: PathBuf,
    /// Another build of it, beside.
    pub(crate) other: Option<PathBuf>,
    /// Names of scenarios; empty: all.
    only: Vec<String>,
}

impl Arguments {
    /// Reads them; what can not be read ends the program.
    pub(crate) fn read() -> Self {
        let mut arguments = Self {
            rounds: 8,
            length: Duration::from_secs(2),
            callgrind: false,
            train: false,
            guard: false,
            tqserver: env!("CARGO_BIN_EXE_tqserver").into(),
            other: None,
            only: Vec::new(),
        };
        let mut words = std::env::args().skip(1).peekable();
        while let Some(word) = words.next() {
            let mut number = |least: f64| {
                let number = words.next().and_then(|word| word.parse::<f64>().ok());
                number.filter(|number| *number >= least)
            };
            match word.as_str() {
                // Cargo's own.
                "--bench" => {}
                "--rounds" => match number(1.0) {
                    Some(rounds) => arguments.rounds = rounds as usize,
                    None => fail("--rounds needs a number, 1 or more"),
                },
                "--seconds" => match number(0.1) {
                    Some(seconds) => arguments.length = Duration::from_secs_f64(seconds),
                    None => fail("--seconds needs a number, 0.1 or more"),
                },
                "--tqserver" => match words.next() {
                    Some(file) => arguments.tqserver = file.into(),
                    None => fail("--tqserver needs a file: the program to measure"),
                },
                "--other" => match words.next() {
                    Some(file) => arguments.other = Some(file.into()),
                    None => fail("--other needs a file: another build, to measure beside"),
                },
                "--guard" => arguments.guard = true,
                "--callgrind" => arguments.callgrind = true,
                "--train" => arguments.train = true,
                "--only" => {
                    let named = std::iter::from_fn(|| words.next_if(|word| !word.starts_with('-')));
                    arguments.only.extend(named);
                }
                "--list" => {
                    println!("{}", names().join("\n"));
                    std::process::exit(0);
                }
                _ => fail(&format!(
                    "'{word}' is not one of --rounds, --seconds, --only, --list, --callgrind, --guard, --train, --tqserver, --other"
                )),
            }
        }
        if let Some(unknown) = arguments
            .only
            .iter()
            .find(|n| !names().contains(&n.as_str()))
        {
            fail(&format!(
                "there is no scenario '{unknown}', but {}",
                names().join(", ")
            ));
        }
        arguments
    }

    /// What is to be timed.
    pub(crate) fn scenarios(&self) -> Vec<&'static Scenario> {
        let all = scenario::ALL.iter();
        all.filter(|s| self.wants_name(s.name)).collect()
    }

    /// What instructions are to be counted of. With one connection it is not left to chance what comes together with what.
    pub(crate) fn to_count(&self) -> Vec<&'static Scenario> {
        match self.only.is_empty() {
            true => vec![&scenario::ALL[0]],
            false => self.scenarios(),
        }
    }

    /// Whether idle connections are to be measured.
    pub(crate) fn wants_idle(&self) -> bool {
        self.wants_name(idle::NAME)
    }

    fn wants_name(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == name)
    }
}

fn names() -> Vec<&'static str> {
    let scenarios = scenario::ALL.iter().map(|scenario| scenario.name);
    scenarios.chain([idle::NAME]).collect()
}

fn fail(text: &str) -> ! {
    eprintln!("proxy: {text}");
    std::process::exit(64);
}
