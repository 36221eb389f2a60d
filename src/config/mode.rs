//! Development or production.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The variables that name the mode; the first that is set decides.
const VARIABLES: [&str; 2] = ["TQ_MODE", "DEPLOYMENT_MODE"];

/// Whether workers run from their directories and are built (development) or from snapshots (production).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The worker's directory itself is run, after a build.
    Development,
    /// A snapshot of the worker's directory is run, as it was deployed.
    Production,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Development => "development",
            Self::Production => "production",
        })
    }
}

/// A variable names no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{variable}={value:?} is not a mode; set it to development (or dev) or production (or prod)"
)]
pub struct ModeError {
    /// Which variable.
    pub variable: &'static str,
    /// What it is set to.
    pub value: String,
}

impl Mode {
    /// The mode that `TQ_MODE`, else `DEPLOYMENT_MODE` names; `None` if neither is set to anything. `variable` looks one up
    /// (`|name| std::env::var(name).ok()`).
    ///
    /// # Errors
    /// When the variable that decides names no mode.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ModeError> {
        for name in VARIABLES {
            let value = variable(name).unwrap_or_default();
            return match value.trim().to_ascii_lowercase().as_str() {
                "" => continue,
                "development" | "dev" => Ok(Some(Self::Development)),
                "production" | "prod" => Ok(Some(Self::Production)),
                _ => Err(ModeError {
                    variable: name,
                    value,
                }),
            };
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(ours: &str, theirs: &str) -> Result<Option<Mode>, ModeError> {
        Mode::from_environment(|name| match name {
            "TQ_MODE" => Some(ours.to_owned()),
            "DEPLOYMENT_MODE" => Some(theirs.to_owned()),
            _ => None,
        })
    }

    #[test]
    fn our_own_variable_decides() {
        assert_eq!(mode("dev", "production"), Ok(Some(Mode::Development)));
        assert_eq!(mode("", "Production"), Ok(Some(Mode::Production)));
        assert_eq!(mode("", ""), Ok(None));
        assert_eq!(Mode::from_environment(|_| None), Ok(None));
    }

    #[test]
    fn another_word_is_an_error_that_names_variable_value_and_choices() {
        let error = mode("", "staging").unwrap_err().to_string();
        for part in ["DEPLOYMENT_MODE", "staging", "development", "production"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
