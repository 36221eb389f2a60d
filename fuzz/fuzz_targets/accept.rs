//! A value of `Accept-Encoding`.

#![no_main]

use tqserver::proxy::fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::accept(data));
