//! A target and fields of a request, as php-fpm is told of them.

#![no_main]

use tqserver::proxy::fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::script(data));
