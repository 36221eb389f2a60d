//! Instructions a request, counted by valgrind's callgrind: the same in every run, whatever else the machine does. What the kernel does
//! is not in them.

use std::fs;
use std::path::{Path, PathBuf};

use super::contestants::{House, Kind, need};
use super::cores::Cores;
use super::load::{Goal, Load};
use super::scenario::{self, Scenario};

/// Requests of the shorter run; the longer has twice as many, and the difference has no start and no end in it.
const REQUESTS: usize = 4000;
/// One connection: what comes together with what is then not left to chance.
const SCENARIO: &Scenario = &scenario::ALL[0];

/// Prints them, and where the profiles lie.
pub(crate) fn measure(house: &House, cores: &Cores) {
    need("valgrind", "--version");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("callgrind");
    fs::create_dir_all(&directory).expect("a directory");
    println!("| proxy | instructions/request | to nginx | profile |\n|---|--:|--:|---|");
    let mut nginx = None;
    for kind in Kind::ALL {
        let (few, _) = counted(house, cores, kind, REQUESTS, &directory);
        let (many, profile) = counted(house, cores, kind, 2 * REQUESTS, &directory);
        let each = (many - few) / REQUESTS as f64;
        let ratio = each / *nginx.get_or_insert(each);
        let (name, profile) = (kind.name(), profile.display());
        println!("| {name} | {each:.0} | {ratio:.2}x | {profile} |");
    }
    println!("\nto see where: callgrind_annotate --inclusive=yes PROFILE");
}

/// Instructions of a whole life with so many requests, and its profile.
fn counted(
    house: &House,
    cores: &Cores,
    kind: Kind,
    requests: usize,
    directory: &Path,
) -> (f64, PathBuf) {
    let profile = directory.join(format!("{}-{requests}.out", kind.name()));
    let out = format!("--callgrind-out-file={}", profile.display());
    let valgrind = ["valgrind", "--tool=callgrind", &out].map(str::to_owned);
    let contestant = house.start(kind, cores, Some(&valgrind));
    let mut load = Load::open(SCENARIO, contestant.plain());
    load.run(Goal::answers(requests));
    drop(load);
    contestant.stop();
    let text = fs::read_to_string(&profile).expect("callgrind has written a profile");
    let total = text.lines().find_map(|line| {
        let line = line
            .strip_prefix("totals:")
            .or(line.strip_prefix("summary:"))?;
        line.split_whitespace().next()?.parse().ok()
    });
    (total.expect("a profile has a sum"), profile)
}
