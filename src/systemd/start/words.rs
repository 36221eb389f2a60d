//! Any word, written in letters that stay as they are wherever systemd reads, writes and reads again a command line.

use std::fmt::Write as _;

/// Stands before two hexadecimal digits, which are a byte; alone it is the empty word.
const ESCAPE: u8 = b'~';

/// Letters that mean nothing to systemd (systemd.service(5), "Command lines").
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._=:@,+-".contains(&byte)
}

pub(super) fn write(word: &[u8]) -> String {
    if word.is_empty() {
        return char::from(ESCAPE).to_string();
    }
    let mut written = String::with_capacity(word.len());
    for &byte in word {
        if is_plain(byte) {
            written.push(char::from(byte));
        } else {
            let _ = write!(written, "~{byte:02x}");
        }
    }
    written
}

/// `None`: nobody has written that.
pub(super) fn read(written: &[u8]) -> Option<Vec<u8>> {
    let mut word = Vec::with_capacity(written.len());
    let mut rest = written;
    if rest == [ESCAPE] {
        return Some(word);
    }
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            ESCAPE => {
                let (digits, tail) = rest.split_at_checked(2)?;
                let digits = std::str::from_utf8(digits).ok()?;
                // from_str_radix() takes a sign.
                let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                word.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
                rest = tail;
            }
            plain if is_plain(plain) => word.push(plain),
            _ => return None,
        }
    }
    (!word.is_empty()).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_word_comes_back_as_it_was() {
        let all: Vec<u8> = (1..=255).collect();
        for word in [
            b"".as_slice(),
            b"/usr/bin/python3",
            b"--port=3000",
            b";",
            b"\\;",
            b"$HOME ${X} $$ %n %%",
            b"~",
            b"~3b",
            b"two\nlines\r\n",
            b"\"quoted\" 'words' and \ttabs",
            "grüße".as_bytes(),
            &all,
        ] {
            let written = write(word);
            assert!(
                !written.is_empty() && written.bytes().all(|b| is_plain(b) || b == ESCAPE),
                "{written}"
            );
            assert_eq!(read(written.as_bytes()).as_deref(), Some(word), "{written}");
        }
    }

    #[test]
    fn a_usual_word_can_be_read_by_a_person() {
        assert_eq!(write(b"--bind=127.0.0.1:80"), "--bind=127.0.0.1:80");
        assert_eq!(write(b"a b;"), "a~20b~3b");
        assert_eq!(write(b""), "~");
    }

    #[test]
    fn what_nobody_has_written_is_not_guessed() {
        for strange in ["", "a b", "~x", "a~", "~3", "~+1", "$", ";", "~zz"] {
            assert_eq!(read(strange.as_bytes()), None, "{strange:?}");
        }
    }
}
