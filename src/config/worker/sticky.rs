//! `sticky`: whether a client stays with one instance, and by which cookie.

use super::super::program::Sticky;
use super::super::section::Item;

/// Longest name of a cookie in bytes: it comes with each request.
const LONGEST: usize = 64;
/// How names begin that browsers take only with attributes we do not set (RFC 6265bis, 4.1.3).
const PREFIXES: [&str; 2] = ["__secure-", "__host-"];

pub(super) fn read(item: &Item<'_>) -> Sticky {
    match item.node().typed::<bool>() {
        Some(true) => return Sticky::Yes,
        Some(false) => return Sticky::No,
        None => {}
    }
    let Some(name) = item.node().typed::<String>() else {
        item.problem(
            format!("'sticky' can not be {}", item.shown()),
            "write true, false, or the name of a cookie, as in \"instance\"",
        );
        return Sticky::No;
    };
    let help = "use letters, digits, '-', '_' and '.'";
    if name.is_empty() || !name.chars().all(is_of_a_name) {
        item.problem("this is not the name of a cookie", help);
    } else if name.len() > LONGEST {
        let message = format!("the name of a cookie has at most {LONGEST} bytes");
        item.problem(message, "choose a shorter name");
    } else if PREFIXES
        .iter()
        .any(|prefix| name.to_ascii_lowercase().starts_with(prefix))
    {
        let message = "browsers take no cookie of this name on all of the server's addresses";
        item.problem(
            message,
            "choose a name that does not begin with '__Secure-' or '__Host-'",
        );
    } else {
        return Sticky::By(name);
    }
    Sticky::No
}

/// Fewer than RFC 6265 allows: none that a program on the way may read otherwise.
fn is_of_a_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
}
