//! A file that `env_file` names.

#![no_main]

use std::fmt::Write as _;

use tqserver::config::parse_env_file;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let outcome = parse_env_file(bytes);
    assert_eq!(outcome, parse_env_file(bytes));
    match outcome {
        Ok(variables) => {
            for (name, value) in &variables {
                let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                assert!(!name.is_empty() && name.chars().all(is_plain), "{name:?}");
                assert!(!value.contains('\0'), "{value:?}");
            }
            assert_eq!(
                parse_env_file(written(&variables).as_bytes()),
                Ok(variables)
            );
        }
        Err(wrong) => {
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
            assert!((1..=lines).contains(&wrong.line), "{wrong:?}");
            // What is shown is ours: nothing of the file but a name that is known here.
            let said = format!("{}; {}", wrong.what, wrong.help);
            assert!(said.len() < 200 && said.is_ascii(), "{said}");
        }
    }
});

/// The same as a file, each value in double quotes.
fn written(variables: &[(String, String)]) -> String {
    let mut text = String::new();
    for (name, value) in variables {
        let _ = write!(text, "{name}=\"");
        for c in value.chars() {
            match c {
                '"' | '\\' | '$' => text.extend(['\\', c]),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                c => text.push(c),
            }
        }
        text.push_str("\"\n");
    }
    text
}
