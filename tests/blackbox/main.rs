//! The built server, from outside: each test opens a house of its own (see `house`) and makes one claim about it.

#![allow(
    missing_docs,
    reason = "the names of tests are claims, and those of the harness read as sentences"
)]

#[path = "../house/mod.rs"]
mod house;

mod command_line;
mod contract;
mod illness;
mod leaving;
mod limits;
mod production;
mod reload;
mod routes;
mod shipped;
mod survival;
