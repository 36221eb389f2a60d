//! Claims about odd texts: each ends in nodes or in a problem, none in a panic or a long wait.

use super::*;

fn problems(text: &str) -> Vec<Problem> {
    let document = Document::parse(Path::new("x.yaml"), text);
    document
        .finish(())
        .err()
        .map(|problems| problems.0)
        .unwrap_or_default()
}

fn only(text: &str) -> Problem {
    let mut problems = problems(text);
    assert_eq!(problems.len(), 1, "{text:?}: {problems:?}");
    problems.remove(0)
}

#[test]
fn nodes_know_their_place() {
    let document = Document::parse(Path::new("x.yaml"), "a:\n  bc: \"d e\"\n  f: [1, two]\n");
    let Content::Map(inner) = &document.root()[0].value.content else {
        panic!("{document:?}");
    };
    let at = |line, column, width| Mark {
        line,
        column,
        width,
    };
    assert_eq!(inner[0].mark, at(2, 3, 2));
    assert_eq!(inner[0].value.mark, at(2, 7, 3));
    assert_eq!(document.place(inner[0].value.mark).width, 5);
    let Content::List(items) = &inner[1].value.content else {
        panic!("{document:?}");
    };
    assert_eq!(items[1].mark, at(3, 10, 3));
    assert_eq!(items[0].typed::<u64>(), Some(1));
    assert_eq!(items[0].typed::<String>(), None);
    assert_eq!(items[1].typed::<u64>(), None);
}

#[test]
fn empty_files_are_empty() {
    for text in ["", "\n", "# a comment\n", "---\n", "~", "{}", "\u{feff}"] {
        let document = Document::parse(Path::new("x.yaml"), text);
        assert!(document.root().is_empty(), "{text:?}");
        assert_eq!(document.finish(()), Ok(()), "{text:?}");
    }
}

#[test]
fn every_common_way_of_writing_is_read() {
    for text in [
        "a: 1\r\nb:\r\n  c: 2\r\n",
        "a: |\n  one\n  two\nb: >-\n  three\n\n  four\n",
        "a: one\n  two\n  three\n",
        "a: 'it''s'\nb: \"x\\ty\\\n  z\"\n",
        "a: [1, 2,]\nb: {c, d: , e: f}\n",
        "a:\n- 1\n-\n- - 2\n  - x: y\n    z:\n",
        "? a\n: b\n\"c d\": e # f\n",
        "a: # comment\n  b: c\n",
        "%YAML 1.2\n---\na: b\n...\n",
        "a: http://x/y#z\n'/b': -1\n",
        "a: 'ä €'\nb: \u{1f600}\n",
    ] {
        assert_eq!(problems(text), [], "{text:?}");
    }
    let document = Document::parse(Path::new("x"), "a: |\r\n  one\r\n  two\r\n");
    assert_eq!(
        document.root()[0].value.typed::<String>().unwrap(),
        "one\ntwo\n"
    );
}

#[test]
fn a_key_given_twice_names_both_lines() {
    let problem = only("a: 1\nb: 2\na: 3\n");
    assert_eq!((problem.place.line, problem.place.column), (3, 1));
    assert!(problem.help.unwrap().contains("line 1"));
}

#[test]
fn what_yaml_could_do_and_we_do_not_read_is_said() {
    for (text, part) in [
        ("a: &x 1\n", "anchors"),
        ("a: &x 1\nb: *x\n", "anchors"),
        ("a: !!str 1\n", "tags"),
        ("a: !mine 1\n", "tags"),
        ("a: 1\n---\nb: 2\n", "second document"),
        ("? [a, b]\n: 1\n", "a key is a plain text"),
        ("- a\n- b\n", "keys and values"),
        ("just a text", "keys and values"),
    ] {
        let problems = problems(text);
        assert!(
            problems
                .iter()
                .all(|problem| problem.message.contains(part))
                && !problems.is_empty(),
            "{text:?}: {problems:?}"
        );
        assert!(
            problems.iter().all(|problem| problem.place.line > 0),
            "{problems:?}"
        );
    }
}

#[test]
fn syntax_errors_have_a_place_and_tabs_are_named() {
    let problem = only("a:\n\tb: 1\n");
    assert!(problem.help.unwrap().contains("tabs"));
    assert_eq!(problem.place.line, 2);
    let problem = only("a: 'x\nb: 2\n");
    assert!(problem.place.line > 0, "{problem}");
    assert!(!problems("a: b: c\n").is_empty());
    assert!(!problems("a: \u{0}\n").is_empty());
}

#[test]
fn deep_and_long_files_end_soon() {
    let begun = std::time::Instant::now();
    for text in [
        "[".repeat(1 << 20),
        "{a: ".repeat(1 << 18),
        "- ".repeat(1 << 19),
        "? ".repeat(1 << 19),
        "a: ".repeat(1 << 18),
        "\"".repeat(1 << 20),
        ":".repeat(1 << 20),
        "&a ".repeat(1 << 18),
        (0..33)
            .map(|depth| format!("{}a:\n", " ".repeat(depth)))
            .collect(),
    ] {
        assert!(!problems(&text).is_empty(), "{}", &text[..20]);
    }
    for text in ["# ".repeat(1 << 19), "\n".repeat(1 << 20)] {
        assert!(problems(&text).is_empty());
    }
    let line = |piece: &str| {
        format!(
            "a: {{{}}}",
            (0..2_000)
                .map(|key| format!("{piece}{key}: {{}}, "))
                .collect::<String>()
        )
    };
    assert!(problems(&line("k")).is_empty());
    assert_eq!(problems(&line("&x k")).len(), MAX_PROBLEMS + 1);
    assert_eq!(problems(&line("k: 1, k: 2, x")).len(), MAX_PROBLEMS + 1);
    let many: String = (0..8_000).map(|key| format!("key{key}: {key}\n")).collect();
    assert!(problems(&many).is_empty());
    // A bound that a debug build on a loaded machine keeps; the cost that is guarded against would be hours.
    assert!(begun.elapsed().as_secs() < 60, "took {:?}", begun.elapsed());
}

#[test]
fn no_text_panics() {
    const PIECES: [&str; 40] = [
        "a",
        "b: ",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "\n    ",
        "\t",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&x ",
        "*x",
        "!",
        "!!str ",
        "|",
        ">",
        "|2-",
        "'",
        "\"",
        "\\",
        "%YAML 1.2\n",
        "---\n",
        "...\n",
        "#",
        " # c",
        "? ",
        "~",
        "1",
        "0x1f",
        "-.inf",
        "é",
        "\u{2028}",
        "\u{0}",
        "\r\n",
        "<<: ",
        "@",
        "`",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let text: String = (0..random.usize(1..16))
            .map(|_| PIECES[random.usize(..PIECES.len())])
            .collect();
        for problem in problems(&text) {
            assert!(!problem.to_string().contains('\0'), "{text:?}");
        }
    }
}

#[test]
fn nothing_is_expanded_in_a_text_that_only_one_parser_reads() {
    let odd = "a: |#\n  b\n";
    assert!(serde_yaml::from_str::<Raw>(odd).is_ok());
    let begun = std::time::Instant::now();
    let first = "x0: &x0 [y, y, y, y, y, y, y, y, y]\n".to_owned();
    let bomb = (1..10).fold(odd.to_owned() + &first, |text, level| {
        let alias = format!("*x{}", level - 1);
        text + &format!("x{level}: &x{level} [{}]\n", [alias.as_str(); 9].join(", "))
    });
    assert_eq!(only(&bomb).place.line, 1);
    assert!(begun.elapsed().as_secs() < 10, "took {:?}", begun.elapsed());
}

#[test]
fn a_file_of_many_values_is_refused_before_it_costs_much() {
    let many = format!("env: {{{}}}", "A: 1,".repeat(150_000));
    let text = problems(&many);
    assert_eq!(text.len(), 1, "{text:?}");
}
