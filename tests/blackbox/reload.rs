//! Reloads: what was accepted serves, what was not does not, and nobody notices either.

use crate::house::House;
use crate::house::worker::{behaves, never_ready, says};

#[test]
fn a_failed_reload_leaves_the_old_generation_serving() {
    let house = House::new().worker("index", says("one")).open();
    house.replace("index", never_ready());
    house.reload().fails_with("did not become ready");
    house.get("/").is("one");
    house.units("index").are(["generation 1 serving"]);
    house.replace("index", says("two"));
    house.reload().succeeds();
    house.get("/").is("two");
    house.units("index").are(["generation 3 serving"]);
}

#[test]
fn a_failed_reload_tells_the_exit_code_and_the_last_lines_of_the_log() {
    let house = House::new().worker("index", says("one")).open();
    house.replace(
        "index",
        behaves("exit 3").and("log the database is not there"),
    );
    house
        .reload()
        .fails_with("exit code 3")
        .says("the database is not there");
    house.get("/").is("one");
}
