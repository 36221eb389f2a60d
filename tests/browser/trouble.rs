//! What went wrong is laid over the page, and goes away when it is right.

use crate::browser::Browser;
use crate::house::worker::{behaves, write};
use crate::pages::{house, in_rust, in_rust_with, page};

/// Runs, wherever it becomes markup.
const PAYLOAD: &str = "<script>top.ran = 'script'</script><img src=x onerror=top.ran='onerror'>";

/// A source that does not compile, with a message of one's own.
fn broken(message: &str) -> String {
    format!("compile_error!({message:?});")
}

#[test]
fn a_syntax_error_is_an_overlay_with_its_message_and_line_and_goes_when_fixed() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let house = house().worker("index", in_rust("<p>one")).open();
    browser.goes_to(&house, "/");
    browser.shows("one");
    browser.script("window.before = true");
    house.replace(
        "index",
        in_rust_with("<p>one", "fn forgotten() { let x = ; }"),
    );
    let source = std::fs::read_to_string(house.worker_directory("index").join("src/main.rs"));
    let line = source.expect("the source").lines().count();
    let place = format!("src/main.rs:{line}:26");
    let overlay = browser.is_overlaid_with(&[
        "expected expression, found `;`",
        &place,
        "let x = ;",
        "The generation before it still serves.",
    ]);
    assert!(
        overlay.elements.iter().any(|name| name == "SPAN"),
        "its colours are gone: {overlay:?}"
    );
    browser.screenshot("syntax-error");
    assert_eq!(
        browser.script("return window.before"),
        true,
        "the page was left alone"
    );
    house.replace("index", in_rust("<p>two"));
    browser.is_not_overlaid();
    browser.shows("two");
    browser.screenshot("fixed");
}

#[test]
fn a_mistake_that_is_taken_back_leaves_the_page_as_it_was() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let house = house()
        .worker("index", in_rust("<p>one<input id=field>"))
        .open();
    browser.goes_to(&house, "/");
    browser.shows("one");
    let source = house.worker_directory("index").join("src/main.rs");
    let well = std::fs::read_to_string(&source).expect("the source");
    write(&source, &format!("{well}{}", broken("oh")));
    browser.is_overlaid_with(&["error: oh"]);
    write(&source, &well);
    browser.is_not_overlaid();
    browser.shows("one");
}

#[test]
fn what_a_compiler_says_runs_nothing() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let house = house()
        .worker("index", in_rust_with("", &broken(PAYLOAD)))
        .open();
    let ran =
        "return [document.readyState, window.ran === undefined ? 'nothing' : window.ran].join(' ')";
    // Nothing serves: what went wrong is the page itself.
    browser.goes_to(&house, "/");
    browser.shows(PAYLOAD);
    browser.comes_to(ran, "complete nothing");
    browser.comes_to("return document.querySelectorAll('script, img').length", 1);
    // Something serves: it is laid over that.
    house.replace("index", in_rust("<p>the first page"));
    browser.shows("the first page");
    house.replace("index", in_rust_with("<p>the first page", &broken(PAYLOAD)));
    let overlay = browser.is_overlaid_with(&[PAYLOAD]);
    let is_active = |name: &String| name == "SCRIPT" || name == "IMG";
    assert!(!overlay.elements.iter().any(is_active), "{overlay:?}");
    browser.screenshot("markup-in-a-message");
    browser.comes_to(ran, "complete nothing");
    // It would be seen if it ran.
    house.replace("index", in_rust(&format!("<p>the second page{PAYLOAD}")));
    browser.shows("the second page");
    browser.comes_to("return window.ran", "onerror");
}

#[test]
fn a_crashing_worker_shows_its_last_log_lines() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let house = house().worker("index", page("<p>the first page")).open();
    browser.goes_to(&house, "/");
    browser.shows("the first page");
    house.replace(
        "index",
        behaves("exit 3")
            .and("log about to fall")
            .and("log falling"),
    );
    browser.is_overlaid_with(&[
        "exit code 3",
        "about to fall",
        "falling",
        "The generation before it still serves.",
    ]);
    browser.screenshot("crash");
    house.replace("index", page("<p>the second page"));
    browser.is_not_overlaid();
    browser.shows("the second page");
}
