//! What a worker that speaks HTTP/1.1 sends in answer to a request, in any pieces.

#![no_main]

use tqserver::proxy::fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::answer(data));
