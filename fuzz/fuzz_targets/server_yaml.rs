//! A server.yaml.

#![no_main]

use std::path::Path;

use tqserver::config::Settings;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let file = Path::new("/srv/config/server.yaml");
    let parse = |text| Settings::parse(file, text);
    let outcome = parse(text);
    assert_eq!(outcome, parse(text));
    if let Err(problems) = outcome {
        problems.check(text);
    }
});
