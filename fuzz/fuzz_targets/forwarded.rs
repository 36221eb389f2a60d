//! A target and fields of a request, on their way to a worker.

#![no_main]

use tqserver::proxy::fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::forwarded(data));
