//! What a client sends over HTTP/2: what passes our filter beside what h2 sees in it.

#![no_main]

use tqserver::proxy::fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::http2(data));
