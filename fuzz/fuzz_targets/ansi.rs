//! What a compiler or a worker writes for a terminal.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tqserver::ansi::check(&String::from_utf8_lossy(data)));
