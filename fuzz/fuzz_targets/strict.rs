//! What a client sends: the scanner beside hyper and the RFC.

#![no_main]

use tqserver::proxy::fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::strict(data));
