//! A worker.yaml.

#![no_main]

use std::path::Path;

use tqserver::config::WorkerFile;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let file = Path::new("/srv/workers/w/config/worker.yaml");
    let parse = |text| WorkerFile::parse(file, text);
    let outcome = parse(text);
    assert_eq!(outcome, parse(text));
    if let Err(problems) = outcome {
        problems.check(text);
    }
});
