//! Fields of a request for a file: ranges and conditions.

#![no_main]

use tqserver::proxy::fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::conditions(data));
