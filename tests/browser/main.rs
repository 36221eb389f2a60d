//! Pages in a real browser, that follow their worker while it is developed: Debian's Chromium, driven by its own driver, and the built
//! server with real workers (see `house`).
//!
//! `apt install chromium chromium-driver`, then `cargo test --test browser`. Where they are missing the tests pass, for the server
//! needs no browser, and the end of `cargo test` says so; with `TQ_TEST_ALL=1` they fail. `TQ_SCREENSHOTS=DIRECTORY` is given pictures of what is laid over pages.

#![allow(
    missing_docs,
    unreachable_pub,
    reason = "the names of tests are claims, those of the harness read as sentences, and nobody imports either"
)]

#[allow(dead_code, reason = "these tests need less of a house than others")]
#[path = "../house/mod.rs"]
mod house;
#[path = "../untested/mod.rs"]
mod untested;

mod browser;
mod chromium;
mod following;
mod pages;
mod trouble;
