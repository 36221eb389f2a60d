//! Development, measured from outside: from the moment a file is saved to the first answer of the new code; requests lost while files
//! are saved; the memory of `tqserver dev`.
//!
//! `cargo bench --bench save` runs `tqserver dev` with a worker of each type this machine has a toolchain for, by a private systemd, and
//! prints a table. `cargo bench --bench save -- go memory` measures only what is named.
//!
//! Asked is with plain requests, one at a time on one connection: pages for browsers wait for the new generation, others are answered by
//! the old one until the new one serves. What a build and a start take by themselves is measured in the same rounds, on a copy beside.

mod alone;
mod client;
mod house;
mod kind;
mod memory;
mod table;

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use alone::Alone;
use client::{Client, Load};
use house::House;
use kind::{KINDS, Kind};
use table::Row;

/// Saves of each worker.
const SAVES: usize = 30;
/// Saves while requests are made, and connections that make them.
const LOADED_SAVES: usize = 100;
const CONNECTIONS: usize = 8;
/// Before each save and each build, so that the end of what was before is not measured with it, and both find the same machine: one that has
/// just worked is quicker.
const REST: Duration = Duration::from_millis(300);
/// Pause between two requests, so that asking does not take the processor from the build that is measured. So much too late is an answer
/// seen.
const PACE: Duration = Duration::from_millis(4);
/// Longest wait for anything.
const LONG: Duration = Duration::from_secs(120);

fn main() {
    if std::env::var_os("LISTEN_FDS").is_some() {
        return memory::worker();
    }
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let is_wanted = |what: &str| wanted.is_empty() || wanted.iter().any(|word| word == what);
    table::machine();
    let kinds: Vec<&Kind> = KINDS.iter().filter(|kind| is_wanted(kind.name)).collect();
    let (kinds, missing): (Vec<&Kind>, Vec<&Kind>) =
        kinds.into_iter().partition(|kind| kind.is_installed());
    for kind in missing {
        println!(
            "left out: {}, for `{}` is not installed",
            kind.name, kind.tool
        );
    }
    if !kinds.is_empty() {
        let house = House::open(|house| kinds.iter().for_each(|kind| house.put(kind)));
        table::head(SAVES);
        kinds.iter().for_each(|kind| rounds(&house, kind).print());
        table::foot();
    }
    if is_wanted("load") {
        match KINDS.iter().find(|kind| kind.is_installed()) {
            Some(kind) => under_load(kind),
            None => println!("left out: saves under load, for there is nothing to save"),
        }
    }
    if is_wanted("memory") {
        memory::measure();
    }
    table::machine();
}

/// Saves one worker again and again.
fn rounds<'a>(house: &House, kind: &'a Kind) -> Row<'a> {
    let mut client = Client::connect(house.address());
    let alone = Alone::new(house, kind);
    let mut row = Row::new(kind);
    for number in 1..=SAVES {
        // Who comes first may find a warmer machine: they take turns.
        let first = (number % 2 == 0).then(|| live(house, kind, number, &mut client));
        std::thread::sleep(REST);
        row.build
            .push(while_asking(house, kind, || alone.build(number)));
        row.start.push(alone.start());
        let live = first.unwrap_or_else(|| live(house, kind, number, &mut client));
        row.live.push(live);
    }
    row
}

/// What `work` takes while somebody asks as during a save: it is the same machine that answers.
fn while_asking(house: &House, kind: &Kind, work: impl FnOnce() -> Duration) -> Duration {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::connect(house.address());
            while !over.load(Ordering::Relaxed) {
                client.get(&kind.route()).expect("an answer");
                std::thread::sleep(PACE);
            }
        });
        let took = work();
        over.store(true, Ordering::Relaxed);
        took
    })
}

/// Saves text number `number`, and asks until it is answered.
fn live(house: &House, kind: &Kind, number: usize, client: &mut Client<TcpStream>) -> Duration {
    std::thread::sleep(REST);
    let wanted = kind.text(number);
    let began = house.save(kind, number);
    loop {
        let (status, text) = client.get(&kind.route()).expect("an answer");
        let took = began.elapsed();
        assert_eq!(status, 200, "{text}");
        if text == wanted {
            return took;
        }
        assert!(
            took < LONG,
            "'{wanted}' was not answered within {took:?}: {}",
            house.last_words()
        );
        std::thread::sleep(PACE);
    }
}

/// Saves while others ask, each of whom looks at every answer.
fn under_load(kind: &'static Kind) {
    let house = House::open(|house| house.put(kind));
    let mut client = Client::connect(house.address());
    let load = Load::start(house.address(), kind, CONNECTIONS);
    let began = Instant::now();
    for number in 1..=LOADED_SAVES {
        live(&house, kind, number, &mut client);
    }
    let (answered, lost) = load.stop();
    println!(
        "\n{LOADED_SAVES} saves of the {} worker in {:.0} s, {CONNECTIONS} connections asking: {answered} requests answered, {} lost",
        kind.name,
        began.elapsed().as_secs_f64(),
        lost.len()
    );
    for one in lost.iter().take(10) {
        println!("  {one}");
    }
}
