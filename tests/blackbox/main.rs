//! The built server, from outside: each test opens a house of its own (see `house`) and makes one claim about it.

#![allow(
    missing_docs,
    unreachable_pub,
    reason = "the names of tests are claims, those of the harness read as sentences, and nobody imports either"
)]

#[path = "../house/mod.rs"]
mod house;
#[path = "../untested/mod.rs"]
mod untested;

mod command_line;
mod contract;
mod disk;
mod environment;
mod exec;
mod halt;
mod illness;
mod instances;
mod leaving;
mod limits;
mod logs;
mod new;
mod package;
mod permission;
mod php;
mod production;
mod programs;
mod protocols;
mod reload;
mod routes;
mod sandbox;
mod save;
mod scale;
mod shipped;
mod state;
mod survival;
mod terminal;
mod tls;
mod user;
