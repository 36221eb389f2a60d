//! The built server, from outside: each test opens a house of its own (see `house`) and makes one claim about it.

#![allow(
    missing_docs,
    reason = "the names of tests are claims, and those of the harness read as sentences"
)]

#[path = "../house/mod.rs"]
mod house;

mod reload;
mod survival;
