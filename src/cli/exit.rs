//! Exit codes, of sysexits.h where it has one, and the error that asks for a certain one.

pub(super) const FAILED: u8 = 1;
pub(super) const USAGE: u8 = 64;
pub(super) const UNAVAILABLE: u8 = 69;
pub(super) const NOT_PERMITTED: u8 = 77;
pub(super) const CONFIG: u8 = 78;

/// A sentence that ends the command with a certain exit code, and the next command to type.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) code: u8,
    pub(super) sentence: String,
    pub(super) hint: Option<String>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Refused {}

pub(super) fn refused(
    code: u8,
    sentence: impl Into<String>,
    hint: impl Into<Option<String>>,
) -> anyhow::Error {
    anyhow::Error::new(Refused {
        code,
        sentence: sentence.into(),
        hint: hint.into(),
    })
}
