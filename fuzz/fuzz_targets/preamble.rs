//! The begin of a connection: the PROXY protocol, the preface of HTTP/2.

#![no_main]

use tqserver::proxy::fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::preamble(data));
