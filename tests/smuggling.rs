//! Messages that two programs in a row may read in two ways. Every case of `tests/smuggling/` says what is sent and what must come of it;
//! besides, what arrives at the worker must be unambiguous, and be as many requests as were answered.
//!
//! `cargo test --test smuggling -- --ignored` asks nginx and haproxy the same, and writes what they do into `tests/smuggling/peers.tsv`.

#[allow(
    dead_code,
    reason = "it is the house of tests/http, which needs more of it"
)]
#[path = "http/house.rs"]
mod house;

#[path = "smuggling/answers.rs"]
mod answers;
#[path = "smuggling/corpus.rs"]
mod corpus;
#[path = "smuggling/peers.rs"]
mod peers;
#[path = "smuggling/recorder.rs"]
mod recorder;
#[path = "smuggling/requests.rs"]
mod requests;
