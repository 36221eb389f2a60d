//! Pages show what was saved, and nobody presses a key.

use std::fs::OpenOptions;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::browser::Browser;
use crate::house::until;
use crate::house::worker::write;
use crate::pages::{built, house, page};

#[test]
fn a_saved_file_is_shown_without_a_key() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let house = house().worker("index", page("<p>one")).open();
    browser.goes_to(&house, "/");
    browser.shows("one");
    for text in ["two", "three"] {
        house.replace("index", page(&format!("<p>{text}")));
        browser.shows(text);
    }
    assert_eq!(browser.text().trim(), "three");
}

#[test]
fn a_stylesheet_is_swapped_without_a_reload_and_typed_text_stays() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let form = page("<link rel=stylesheet href=/style.css><h1>one</h1><input id=field>");
    let coloured = |colour: &str| format!("h1 {{ color: {colour} }}");
    let house = house()
        .worker(
            "index",
            form.file("public/style.css", &coloured("rgb(255, 0, 0)")),
        )
        .open();
    browser.goes_to(&house, "/");
    let colour = "return getComputedStyle(document.querySelector('h1')).color";
    browser.comes_to(colour, "rgb(255, 0, 0)");
    browser.types("#field", "half a sentence");
    browser.script("window.before = true");
    let style = house.worker_directory("index").join("public/style.css");
    for other in ["rgb(0, 128, 0)", "rgb(0, 0, 255)"] {
        write(&style, &coloured(other));
        browser.comes_to(colour, other);
        browser.comes_to("return document.querySelectorAll('link').length", 1);
    }
    assert_eq!(
        browser.script("return document.querySelector('#field').value"),
        "half a sentence"
    );
    assert_eq!(browser.script("return window.before"), true);
    house.units("index").are(["generation 1 serving"]);
}

#[test]
fn the_page_survives_a_restart_of_the_server() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let mut house = house().worker("index", page("<p>one")).open();
    browser.goes_to(&house, "/");
    browser.shows("one");
    let port = format!("--port={}", house.address().port());
    assert_eq!(house.close(Signal::TERM), Some(0));
    house.replace("index", page("<p>two"));
    let house = house.on_port(port.leak()).open();
    browser.shows("two");
    house.replace("index", page("<p>three"));
    browser.shows("three");
}

#[test]
fn a_page_asked_for_during_a_build_shows_the_new_text() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let house = house()
        .worker("index", page("<p>a frame follows"))
        .worker("built", built("exit 0", "<p>one"))
        .open();
    let (begun, end) = (house.path().join("begun"), house.path().join("end"));
    // It ends when somebody opens the other end of the pipe.
    let script = format!(
        "mkfifo {1}\n: >{0}\n: <{1}\n",
        begun.display(),
        end.display()
    );
    browser.goes_to(&house, "/");
    browser.shows("a frame follows");
    house.replace("built", built(&script, "<p>two"));
    until("the build runs", || begun.exists());
    // In a frame: while the page itself is on its way the driver tells nothing.
    browser.script(
        "const frame = document.createElement('iframe'); frame.src = '/built'; document.body.append(frame)",
    );
    browser.has_asked_for("iframe");
    let ended = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock");
    OpenOptions::new()
        .write(true)
        .open(&end)
        .expect("end the build");
    browser.comes_to("return frames[0].document.body.innerText.trim()", "two");
    // By the first answer, and not because it has reloaded itself.
    let navigation = "frames[0].performance.getEntriesByType('navigation')[0]";
    browser.comes_to(&format!("return {navigation}.type"), "navigate");
    let asked = format!("return {navigation}.requestStart + frames[0].performance.timeOrigin");
    let asked = browser.script(&asked).as_f64().expect("a time");
    assert!(
        asked < ended.as_secs_f64() * 1000.0,
        "it was asked for when the build had ended"
    );
}
