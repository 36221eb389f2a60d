//! Where in the source the trouble is, found in what a compiler or a worker wrote.

use crate::ansi;

/// Endings of files that somebody writes by hand. Without them `127.0.0.1:8080` would be line 8080 of a file.
const SOURCES: &[&str] = &[
    "astro", "c", "cc", "cjs", "clj", "cpp", "cr", "cs", "css", "cts", "cxx", "d", "dart", "erl",
    "ex", "exs", "fs", "go", "h", "hpp", "hs", "html", "java", "jl", "js", "json", "jsx", "kt",
    "less", "lua", "mjs", "ml", "mts", "nim", "php", "pl", "pm", "py", "rb", "rs", "s", "scala",
    "scss", "sh", "sql", "svelte", "swift", "toml", "ts", "tsx", "v", "vue", "yaml", "yml", "zig",
];

/// Directories of code that the developer has not written.
const FOREIGN: &[&str] = &[
    "/site-packages/",
    "/dist-packages/",
    "/lib/python",
    "/node_modules/",
    "/.cargo/registry/",
    "/rustc/",
    "/go/pkg/mod/",
    "/usr/lib/",
    "/vendor/",
];

/// A place in a source file, as whoever reported it has written it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: String,
    pub(super) line: u32,
    pub(super) column: Option<u32>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        self.column.map_or(Ok(()), |column| write!(f, ":{column}"))
    }
}

impl Place {
    fn is_foreign(&self) -> bool {
        FOREIGN.iter().any(|part| self.file.contains(part))
    }
}

/// The place to look at first: the first one after the word "error" if there is one (warnings come before), else the first of all. Of a
/// traceback, whose first places are where the call came from, it is the last. Code that others have written is passed over.
pub(super) fn find(log: &[String]) -> Option<Place> {
    let lines: Vec<String> = log.iter().map(|line| ansi::strip(line)).collect();
    let error = lines.iter().position(|line| line.starts_with("error"));
    let after = error.and_then(|at| first(&lines[at..]));
    after.or_else(|| first(&lines))
}

fn first(lines: &[String]) -> Option<Place> {
    let mut lines = lines.iter();
    while let Some(line) = lines.next() {
        if line
            .trim_start()
            .starts_with("Traceback (most recent call last)")
        {
            // It ends with the first line that is not indented: the exception.
            let frames = lines.by_ref().take_while(|line| line.starts_with(' '));
            let own = frames
                .filter_map(|line| of_line(line))
                .filter(|p| !p.is_foreign());
            if let Some(place) = own.last() {
                return Some(place);
            }
        } else if let Some(place) = of_line(line).filter(|place| !place.is_foreign()) {
            return Some(place);
        }
    }
    None
}

fn of_line(line: &str) -> Option<Place> {
    arrow(line)
        .or_else(|| python(line))
        .or_else(|| php(line))
        .or_else(|| colons(line))
}

/// `  --> src/main.rs:10:5`
fn arrow(line: &str) -> Option<Place> {
    let place = line.trim_start().strip_prefix("--> ")?.trim_end();
    let (file, numbers) = place.split_once(':')?;
    numbered(file, numbers)
}

/// `  File "/x/main.py", line 3, in main`
fn python(line: &str) -> Option<Place> {
    let (file, rest) = line.trim_start().strip_prefix("File \"")?.split_once('"')?;
    let place = numbered(file, rest.strip_prefix(", line ")?)?;
    // `<string>`, `<frozen importlib._bootstrap>`
    (!file.starts_with('<')).then_some(place)
}

/// `PHP Parse error:  syntax error, unexpected ... in /x/index.php on line 3`
fn php(line: &str) -> Option<Place> {
    let (before, number) = line.rsplit_once(" on line ")?;
    let (_, file) = before.rsplit_once(" in ")?;
    numbered(file, number)
}

/// `./src/main.go:3:2: undefined: x`, `    at main (file:///x/server.js:10:5)`, `/x/server.js:10`
fn colons(line: &str) -> Option<Place> {
    for (colon, _) in line.match_indices(':') {
        let before = &line[..colon];
        let begin = before
            .rfind(|c: char| c.is_whitespace() || "\"'`()[]{}<>,;=|".contains(c))
            .map_or(0, |at| {
                at + before[at..].chars().next().map_or(1, char::len_utf8)
            });
        let file = &before[begin..];
        let file = file.strip_prefix("file://").unwrap_or(file);
        if is_source(file)
            && let Some(place) = numbered(file, &line[colon + 1..])
        {
            return Some(place);
        }
    }
    None
}

fn is_source(file: &str) -> bool {
    let Some((stem, ending)) = file.rsplit_once('.') else {
        return false;
    };
    // `http://host.sh:80` is none.
    !stem.is_empty()
        && !file.contains(':')
        && SOURCES.contains(&ending.to_ascii_lowercase().as_str())
}

/// `file` at the line, and column if there is one, that `numbers` begins with.
fn numbered(file: &str, numbers: &str) -> Option<Place> {
    let mut parts = numbers.splitn(3, ':');
    let leading = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit());
        text[..end.unwrap_or(text.len())].parse::<u32>().ok()
    };
    let line = leading(parts.next()?)?;
    Some(Place {
        file: file.to_owned(),
        line,
        column: parts.next().and_then(leading),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(log: &str) -> Option<String> {
        let log: Vec<String> = log.lines().map(str::to_owned).collect();
        find(&log).map(|place| place.to_string())
    }

    #[test]
    fn every_language_has_its_way_to_name_a_place() {
        for (line, place) in [
            (
                "   \u{1b}[1m\u{1b}[94m--> \u{1b}[0msrc/main.rs:10:5",
                "src/main.rs:10:5",
            ),
            ("  --> src/a b.rs:1:2", "src/a b.rs:1:2"),
            ("./src/main.go:3:2: undefined: x", "./src/main.go:3:2"),
            ("\t/x/main.go:25 +0x1d", "/x/main.go:25"),
            (
                "  File \"/x/my main.py\", line 3, in <module>",
                "/x/my main.py:3",
            ),
            ("/x/server.js:10", "/x/server.js:10"),
            (
                "    at main (file:///x/server.mjs:10:5)",
                "/x/server.mjs:10:5",
            ),
            ("    at /x/server.ts:7:1", "/x/server.ts:7:1"),
            (
                "PHP Parse error:  syntax error, unexpected token \"}\" in /x/index.php on line 3",
                "/x/index.php:3",
            ),
            (
                "PHP Fatal error:  Uncaught Error: no in /x/a.php:4",
                "/x/a.php:4",
            ),
            (
                "thread 'main' panicked at src/main.rs:4:9:",
                "src/main.rs:4:9",
            ),
            ("main.c:12:3: error: expected ';'", "main.c:12:3"),
            ("Ünïcode ünd\u{a0}größe.rb:7: oh", "größe.rb:7"),
        ] {
            assert_eq!(found(line).as_deref(), Some(place), "{line}");
        }
    }

    #[test]
    fn addresses_and_times_are_no_places() {
        for line in [
            "listening on 127.0.0.1:8080",
            "http://localhost:3000",
            "https://install.sh:443/x",
            "2024-01-01T10:20:30",
            "node:internal/modules/cjs/loader:1143",
            "  File \"<string>\", line 1",
            ".rs:1",
            "src/main.rs:",
            "src/main.rs:99999999999999",
            " on line 3",
            "",
        ] {
            assert_eq!(found(line), None, "{line}");
        }
    }

    #[test]
    fn an_error_is_looked_at_before_a_warning() {
        let log = "warning: unused\n --> src/a.rs:1:1\nerror[E0425]: no\n --> src/b.rs:2:2\nerror: could not compile";
        assert_eq!(found(log).as_deref(), Some("src/b.rs:2:2"));
        let log = "warning: unused\n --> src/a.rs:1:1\nerror: could not compile";
        assert_eq!(found(log).as_deref(), Some("src/a.rs:1:1"));
    }

    #[test]
    fn of_a_traceback_the_innermost_place_that_is_ones_own_counts() {
        let log = "Traceback (most recent call last):\n  File \"/x/main.py\", line 9, in <module>\n    run()\n\
                   \x20 File \"/x/app.py\", line 4, in run\n    json.loads(1)\n\
                   \x20 File \"/usr/lib/python3.11/json/__init__.py\", line 339, in loads\n    raise\nTypeError: no";
        assert_eq!(found(log).as_deref(), Some("/x/app.py:4"));
        let log = "node:internal/modules/cjs/loader:1143\n    at f (/x/node_modules/a/b.js:1:1)\n    at g (/x/s.js:2:3)";
        assert_eq!(found(log).as_deref(), Some("/x/s.js:2:3"));
    }
}
