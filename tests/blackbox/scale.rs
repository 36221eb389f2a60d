//! Many workers: more units than a bus takes calls for at the same time.

use crate::house::worker::says;
use crate::house::{House, until};

/// As many as a worker can have.
const INSTANCES: usize = 64;

#[test]
fn a_stop_of_more_units_than_the_bus_takes_calls_for_leaves_none_of_them() {
    let crowd = |text| says(text).config(&format!("instances: {INSTANCES}"));
    let house = House::new()
        .worker("a", crowd("a"))
        .worker("b", crowd("b"))
        .worker("c", crowd("c"))
        .planes()
        .open();
    // dbus-daemon refuses a connection's 129th call that waits for its reply.
    assert_eq!(house.loaded("tqserver-*@*.service").len(), 3 * INSTANCES);
    house.systemctl(["stop", "tqserver.service"]).succeeds();
    assert_eq!(house.loaded("tqserver-*@*"), [""; 0]);
    assert_eq!(house.property("tqserver.service", "Result"), "success");
}

#[test]
fn what_runs_in_our_slice_and_no_record_knows_is_found_and_stopped() {
    let house = House::new().worker("index", says("one")).planes().open();
    let strays = [
        "tqserver-index@77.service",
        "tqserver-gone@3.service",
        "backup.service",
    ];
    let run = || {
        house.runs_a_stray(strays[0], "tqserver-index.slice");
        house.runs_a_stray(strays[1], "tqserver-gone.slice");
        house.runs_a_stray(strays[2], "tqserver.slice");
    };
    let left = || strays.map(|unit| house.loaded(unit)).concat();
    // What is somebody else's, whatever it is called, is left alone.
    house.runs_a_stray("tqserver-other@4.service", "app.slice");
    run();
    house.reload().succeeds();
    until("a reload finds them", || left().is_empty());
    run();
    house.systemctl(["restart", "tqserver.service"]).succeeds();
    until("a start finds them", || left().is_empty());
    run();
    house.systemctl(["stop", "tqserver.service"]).succeeds();
    assert_eq!(left(), [""; 0], "a stop finds them");
    assert_eq!(house.loaded("tqserver-index@*"), [""; 0]);
    assert_eq!(house.loaded("tqserver-other@4.service").len(), 1);
}
