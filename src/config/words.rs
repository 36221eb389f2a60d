//! Splits a command written as one text into its words.

/// Why a text is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WordsError {
    /// A quote without its partner.
    #[error("the quote {0} is not closed")]
    Open(char),
    /// Something that a shell would act on.
    #[error("{0:?} would mean something to a shell, and none is involved")]
    Shell(char),
}

/// The words of `text`, by one rule: spaces part words, `'…'` and `"…"` keep what is between them together and as it is. Nothing else
/// has a meaning; what a shell would act on is refused outside quotes, since somebody expected it to act. A `$` passes if it `names_variables`.
pub(super) fn words(text: &str, names_variables: bool) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some(end) if end == c => break,
                        Some(inside) => word.push(inside),
                        None => return Err(WordsError::Open(c)),
                    }
                }
            }
            c if c.is_whitespace() => words.extend(word.take()),
            '$' if !names_variables => return Err(WordsError::Shell(c)),
            '|' | '&' | ';' | '<' | '>' | '`' | '\\' | '*' | '(' | ')' => {
                return Err(WordsError::Shell(c));
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        for (text, expected) in [
            ("a  b\tc", vec!["a", "b", "c"]),
            ("a 'b c' \"d ' e\"", vec!["a", "b c", "d ' e"]),
            ("--x='1 2'", vec!["--x=1 2"]),
            ("'' a", vec!["", "a"]),
            ("'a && b'", vec!["a && b"]),
            ("  ", vec![]),
        ] {
            assert_eq!(words(text, false).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_a_shell_would_do_is_refused() {
        assert_eq!(words("a 'b", false), Err(WordsError::Open('\'')));
        for text in [
            "a && b",
            "a | b",
            "echo $HOME",
            "a > b",
            "a\\ b",
            "`a`",
            "(a)",
            "ls *",
        ] {
            let error = words(text, false);
            assert!(matches!(error, Err(WordsError::Shell(_))), "{text}");
        }
        assert_eq!(words("a -p $PORT", true).unwrap(), ["a", "-p", "$PORT"]);
    }
}
