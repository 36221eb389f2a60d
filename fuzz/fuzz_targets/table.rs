//! A route table that a proxy left to the next one.

#![no_main]

use tqserver::proxy::fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::table(data));
