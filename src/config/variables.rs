//! `${NAME}` in the arguments of `command` and the values of `env`: what a worker is told in its environment, for programs that want it
//! in a flag. `$NAME` is the same, `$$` is a `$`, and any other `$` is an error: no shell reads it, and who wrote it expected one to.

use super::program::Listen;

/// What can be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `CACHE_DIRECTORY`.
    CacheDirectory,
    /// `CREDENTIALS_DIRECTORY`.
    CredentialsDirectory,
    /// `PORT`, another for each instance.
    Port,
    /// `STATE_DIRECTORY`.
    StateDirectory,
    /// `WORKER_NAME`.
    WorkerName,
    /// `WORKER_ROUTE`.
    WorkerRoute,
}

/// What of a worker's file decides which variables have a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) listen: Listen,
    pub(super) cache: bool,
    pub(super) credentials: bool,
}

/// Why a text names no variable.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum VariableError {
    #[error("unknown variable '{0}'")]
    Unknown(String),
    #[error("'${{' is not closed")]
    Open,
    #[error("no name follows a '$'")]
    Nameless,
}

/// A part of a text: itself, or a variable.
enum Part<'t> {
    Text(&'t str),
    Value(Variable),
}

impl Variable {
    const ALL: [Self; 6] = [
        Self::CacheDirectory,
        Self::CredentialsDirectory,
        Self::Port,
        Self::StateDirectory,
        Self::WorkerName,
        Self::WorkerRoute,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::CacheDirectory => "CACHE_DIRECTORY",
            Self::CredentialsDirectory => "CREDENTIALS_DIRECTORY",
            Self::Port => "PORT",
            Self::StateDirectory => "STATE_DIRECTORY",
            Self::WorkerName => "WORKER_NAME",
            Self::WorkerRoute => "WORKER_ROUTE",
        }
    }
}

/// `text` with its variables replaced by their values.
///
/// A text that a worker.yaml could not have, or whose variables have no value, stays as it is: it was written down by a version to which
/// `$` meant nothing.
pub fn expand(text: &str, value: impl Fn(Variable) -> Option<String>) -> String {
    let expanded = parts(text).ok().and_then(|parts| {
        let texts = parts.into_iter().map(|part| match part {
            Part::Text(text) => Some(text.to_owned()),
            Part::Value(variable) => value(variable),
        });
        texts.collect()
    });
    expanded.unwrap_or_else(|| text.to_owned())
}

impl Known {
    /// What is wrong with the variables in `text`: a message and help.
    pub(super) fn problem(&self, text: &str) -> Option<(String, String)> {
        let parts = match parts(text) {
            Ok(parts) => parts,
            Err(error) => {
                let names = Variable::ALL.map(Variable::name).join(", ");
                let help = format!(
                    "variables are {names}, as in ${{PORT}}; write '$$' for a plain '$', as in [sh, -c, \"echo $$HOME\"]"
                );
                return Some((error.to_string(), help));
            }
        };
        let missing = parts.into_iter().find_map(|part| match part {
            Part::Text(_) => None,
            Part::Value(variable) => Some((variable, self.missing(variable)?)),
        });
        let (variable, help) = missing?;
        let message = format!("this worker has no '{}'", variable.name());
        Some((message, help.to_owned()))
    }

    /// What to write so that `variable` has a value, if it has none.
    fn missing(&self, variable: Variable) -> Option<&'static str> {
        match variable {
            Variable::Port if self.listen == Listen::Socket => {
                Some("write 'listen: port' to get one; without it the worker is handed a socket")
            }
            Variable::CacheDirectory if !self.cache => Some("write 'cache: true' to get one"),
            Variable::CredentialsDirectory if !self.credentials => {
                Some("name the secrets it needs in 'credentials', as in [db_password]")
            }
            _ => None,
        }
    }
}

fn parts(text: &str) -> Result<Vec<Part<'_>>, VariableError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        let (part, tail) = behind_dollar(after)?;
        parts.extend([Part::Text(before), part]);
        rest = tail;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

/// What a `$` before `text` stands for, and the rest of it.
fn behind_dollar(text: &str) -> Result<(Part<'_>, &str), VariableError> {
    if let Some(rest) = text.strip_prefix('$') {
        return Ok((Part::Text("$"), rest));
    }
    let (name, rest) = match text.strip_prefix('{') {
        Some(braced) => braced.split_once('}').ok_or(VariableError::Open)?,
        None => {
            let is_over = |c: char| !c.is_ascii_alphanumeric() && c != '_';
            text.split_at(text.find(is_over).unwrap_or(text.len()))
        }
    };
    if name.is_empty() {
        return Err(VariableError::Nameless);
    }
    let mut all = Variable::ALL.into_iter();
    let found = all.find(|variable| variable.name() == name);
    let variable = found.ok_or_else(|| VariableError::Unknown(name.to_owned()))?;
    Ok((Part::Value(variable), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(variable: Variable) -> Option<String> {
        match variable {
            Variable::Port => Some("9001".to_owned()),
            Variable::WorkerRoute => Some("/a$b".to_owned()),
            Variable::CacheDirectory => None,
            other => Some(format!("<{}>", other.name())),
        }
    }

    #[test]
    fn a_variable_is_replaced_wherever_it_stands() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("${PORT}", "9001"),
            ("$PORT", "9001"),
            ("127.0.0.1:$PORT/x", "127.0.0.1:9001/x"),
            ("${STATE_DIRECTORY}/db${PORT}", "<STATE_DIRECTORY>/db9001"),
            ("ä$PORT-$WORKER_NAME", "ä9001-<WORKER_NAME>"),
            // A value is not read again.
            ("${WORKER_ROUTE}", "/a$b"),
        ] {
            assert_eq!(expand(text, value), expected, "{text}");
        }
    }

    #[test]
    fn two_dollars_are_one() {
        for (text, expected) in [
            ("$$", "$"),
            ("$$$$", "$$"),
            ("$${PORT}", "${PORT}"),
            ("$$$PORT", "$9001"),
            ("a$$b", "a$b"),
        ] {
            assert_eq!(expand(text, value), expected, "{text}");
        }
    }

    #[test]
    fn what_an_earlier_version_wrote_down_stays_as_it_was() {
        for text in ["$HOME", "$(date) $$", "${CACHE_DIRECTORY} $$"] {
            assert_eq!(expand(text, value), text);
        }
    }

    #[test]
    fn what_names_no_variable_is_told_with_those_there_are() {
        let known = Known {
            listen: Listen::Port,
            cache: true,
            credentials: true,
        };
        for (text, message) in [
            ("$FOO", "unknown variable 'FOO'"),
            ("$PORTS", "unknown variable 'PORTS'"),
            ("${port}", "unknown variable 'port'"),
            ("${PORT:-80}", "unknown variable 'PORT:-80'"),
            ("a ${PORT", "'${' is not closed"),
            ("5$", "no name follows a '$'"),
            ("$(date)", "no name follows a '$'"),
            ("${}", "no name follows a '$'"),
        ] {
            let (said, help) = known.problem(text).expect(text);
            assert_eq!(said, message, "{text}");
            for part in ["${PORT}", "CREDENTIALS_DIRECTORY", "WORKER_ROUTE", "'$$'"] {
                assert!(help.contains(part), "'{part}' is not in: {help}");
            }
        }
        for variable in Variable::ALL {
            assert_eq!(known.problem(&format!("${{{}}}", variable.name())), None);
        }
        assert_eq!(known.problem("$$FOO"), None);
    }

    #[test]
    fn a_variable_without_a_value_is_told_with_the_key_that_gives_it_one() {
        let known = Known {
            listen: Listen::Socket,
            cache: false,
            credentials: false,
        };
        for (text, key) in [
            ("${PORT}", "'listen: port'"),
            ("${CACHE_DIRECTORY}/x", "'cache: true'"),
            ("${CREDENTIALS_DIRECTORY}/x", "'credentials'"),
        ] {
            let (_, help) = known.problem(text).expect(text);
            assert!(help.contains(key), "{help}");
        }
        assert_eq!(
            known.problem("$STATE_DIRECTORY$WORKER_NAME$WORKER_ROUTE"),
            None
        );
    }
}
