//! What a request costs may not grow unseen: instructions are counted again, and held against what was agreed on.

use std::collections::BTreeMap;

use super::callgrind;
use super::contestants::House;
use super::cores::Cores;
use super::scenario::{ALL, Scenario};

/// What was agreed on, by scenario, of the program that `cargo build --release` makes.
const AGREED: &str = include_str!("instructions.yaml");
/// How much more is taken for chance: what comes together with what is left to the machine.
const TOLERANCE: f64 = 0.03;
/// Where it is written.
const FILE: &str = "benches/proxy/instructions.yaml";

/// Counts, prints, and ends the program with a failure if a scenario costs more than it may.
pub(crate) fn run(house: &House, cores: &Cores) {
    let agreed: BTreeMap<String, f64> = serde_yaml::from_str(AGREED).expect(FILE);
    callgrind::need_valgrind();
    let mut dearer = Vec::new();
    println!("| scenario | instructions/request | agreed | difference |\n|---|--:|--:|--:|");
    for (name, agreed) in &agreed {
        let scenario = scenario(name);
        let counted = callgrind::instructions(house, cores, scenario);
        let difference = counted / agreed - 1.0;
        println!(
            "| {name} | {counted:.0} | {agreed:.0} | {:+.1} % |",
            difference * 100.0
        );
        if difference > TOLERANCE {
            dearer.push(name.as_str());
        } else if difference < -TOLERANCE {
            println!("'{name}' has become cheaper: write {counted:.0} into {FILE}");
        }
    }
    if !dearer.is_empty() {
        eprintln!(
            "proxy: a request costs more than was agreed on, in {}\n\
             hint: docs/PERFORMANCE.md says how to see where; if it is worth it, write the new figures into {FILE}, and into the commit why",
            dearer.join(", ")
        );
        std::process::exit(1);
    }
}

fn scenario(name: &str) -> &'static Scenario {
    let scenario = ALL.iter().find(|scenario| scenario.name == name);
    scenario.unwrap_or_else(|| panic!("{FILE}: there is no scenario '{name}'"))
}
