//! Sizes and quotas, read and printed the way systemd and Go write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An amount of memory in bytes, written `512MiB` (Go's GOMEMLIMIT) or `512M` (systemd.resource-control(5)); both are powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ByteSize(pub u64);

/// Why a string is not an amount of memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a size; write a whole number with B, KiB, MiB, GiB or TiB, as in \"512MiB\"")]
pub struct ByteSizeError(String);

const SUFFIXES: [(&str, u64); 10] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
    ("B", 1),
    ("", 1),
];

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ByteSizeError(text.to_owned());
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| refused())?;
        let (_, factor) = SUFFIXES
            .iter()
            .find(|(name, _)| *name == suffix.trim())
            .ok_or_else(refused)?;
        number.checked_mul(*factor).map(Self).ok_or_else(refused)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, factor) in SUFFIXES[..4].iter().rev() {
            if self.0 >= *factor && self.0.is_multiple_of(*factor) {
                return write!(f, "{}{name}", self.0 / factor);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl ByteSize {
    /// About this much, and no more, with one decimal: `1.2GiB`.
    pub fn rough(self) -> String {
        let fits = |(_, factor): &&(&str, u64)| self.0 >= *factor;
        let Some((name, factor)) = SUFFIXES[..4].iter().rev().find(fits) else {
            return self.to_string();
        };
        let (whole, rest) = (self.0 / factor, self.0 % factor);
        match u128::from(rest) * 10 / u128::from(*factor) {
            0 => format!("{whole}{name}"),
            tenths => format!("{whole}.{tenths}{name}"),
        }
    }
}

/// How many processors this process may use; 1 where that is not known.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// How many CPUs' worth of time a unit may use: `cores` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuQuota {
    /// Whole cores.
    pub cores: u32,
}

impl CpuQuota {
    /// The value of the D-Bus property `CPUQuotaPerSecUSec`: microseconds of CPU time in each second.
    pub fn per_second_usec(self) -> u64 {
        u64::from(self.cores) * 1_000_000
    }
}

impl fmt::Display for CpuQuota {
    /// As `CPUQuota=` is written: `200%` is two cores.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", u64::from(self.cores) * 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_go_and_systemd_write_them() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("1GiB", 1 << 30),
            ("2G", 2 << 30),
            ("100", 100),
            ("7B", 7),
            ("64K", 64 << 10),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in [
            "",
            "MiB",
            "-1",
            "1.5GiB",
            "12 parsecs",
            "99999999999999999999",
            "99999999999TiB",
        ] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn sizes_are_printed_in_the_largest_whole_unit() {
        assert_eq!(ByteSize(512 << 20).to_string(), "512MiB");
        assert_eq!(ByteSize((1 << 20) + 1).to_string(), "1048577B");
        assert_eq!(ByteSize(0).to_string(), "0B");
    }

    #[test]
    fn a_rough_size_has_one_decimal_and_is_no_more_than_it_is() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (4096, "4KiB"),
            ((1 << 30) / 10 * 13, "1.2GiB"),
            ((2 << 30) - 1, "1.9GiB"),
            (2 << 30, "2GiB"),
            (u64::MAX, "16777215.9TiB"),
        ] {
            assert_eq!(ByteSize(bytes).rough(), text, "{bytes}");
        }
    }

    #[test]
    fn a_quota_of_two_cores_is_200_percent() {
        assert_eq!(CpuQuota { cores: 2 }.to_string(), "200%");
        assert_eq!(CpuQuota { cores: 2 }.per_second_usec(), 2_000_000);
    }
}
