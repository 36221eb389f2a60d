//! A browser with one page open: what is to be seen on it, and in what is laid over it.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::{BrowserLogEntry, By, WebDriver};
use tokio::runtime::Runtime;

use crate::chromium::{Driver, capabilities, installed};
use crate::house::{House, lock, until_or};

/// Browsers are large: one at a time.
static TURN: Mutex<()> = Mutex::new(());

pub struct Browser {
    runtime: Runtime,
    session: Option<WebDriver>,
    _driver: Driver,
    _directory: TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// What is laid over a page.
#[derive(Debug, Default)]
pub struct Overlay {
    pub text: String,
    /// The names of its elements.
    pub elements: Vec<String>,
}

impl Browser {
    /// `None`: none is installed, and that has been said.
    #[track_caller]
    pub fn start() -> Option<Self> {
        let (chromium, driver) = installed()?;
        let turn = lock(&TURN);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let directory = TempDir::with_prefix_in("browser-", env!("CARGO_TARGET_TMPDIR"))
            .expect("make a directory");
        let driver = Driver::start(&driver);
        let session = WebDriver::new(&driver.address, capabilities(&chromium, directory.path()));
        let session = runtime.block_on(session).expect("start Chromium");
        // What it shows by itself makes requests.
        let blank = session.goto("about:blank");
        runtime.block_on(blank).expect("go to an empty page");
        Some(Self {
            runtime,
            session: Some(session),
            _driver: driver,
            _directory: directory,
            _turn: turn,
        })
    }

    fn session(&self) -> &WebDriver {
        self.session.as_ref().expect("it is open")
    }

    /// Goes to a page of the house, and does not wait for it. (The driver's own way waits for the first byte of the answer.)
    pub fn goes_to(&self, house: &House, path: &str) {
        self.script(&format!(
            "location.href = 'http://{}{path}'",
            house.address()
        ));
    }

    /// What a script on the page returns; nothing, while the page changes under it.
    pub fn script(&self, script: &str) -> Value {
        let returned = self
            .runtime
            .block_on(self.session().execute(script, Vec::new()));
        returned
            .map(|value| value.json().clone())
            .unwrap_or_default()
    }

    /// What is to be read on the page itself.
    pub fn text(&self) -> String {
        let text = self.script("return document.body ? document.body.innerText : ''");
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Sooner or later the page reads so.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        let mut last = String::new();
        let met = || {
            last = self.text();
            last.contains(text)
        };
        until_or(met, |waited| {
            format!("the page does not show '{text}' after {waited:?}")
        });
    }

    /// Sooner or later a script returns this.
    #[track_caller]
    pub fn comes_to(&self, script: &str, wanted: impl Into<Value>) {
        let wanted = wanted.into();
        let mut last = Value::Null;
        until_or(
            || {
                last = self.script(script);
                last == wanted
            },
            |waited| format!("`{script}` is not {wanted} after {waited:?}"),
        );
    }

    /// Types into the element that `css` names.
    #[track_caller]
    pub fn types(&self, css: &str, text: &str) {
        let typing = async {
            let field = self.session().find(By::Css(css)).await?;
            field.send_keys(text).await
        };
        self.runtime.block_on(typing).expect("type into a field");
    }

    /// What is laid over the page, if anything is.
    pub fn overlay(&self) -> Option<Overlay> {
        let whole = json!({"depth": -1, "pierce": true});
        let document = self
            .runtime
            .block_on(self.session().cdp().send_raw("DOM.getDocument", whole));
        let document = document.ok()?;
        let frame = find(&document["root"], &|node| {
            node["nodeName"] == "IFRAME"
                && node["attributes"].to_string().contains("What went wrong")
        })?;
        let mut overlay = Overlay::default();
        read(&frame["contentDocument"], &mut overlay);
        Some(overlay)
    }

    /// Sooner or later something is laid over the page that reads so.
    #[track_caller]
    pub fn is_overlaid_with(&self, texts: &[&str]) -> Overlay {
        let mut last = None;
        until_or(
            || {
                last = self.overlay();
                let overlay = last.as_ref();
                overlay.is_some_and(|overlay| texts.iter().all(|text| overlay.text.contains(text)))
            },
            |waited| format!("nothing with {texts:?} is laid over the page after {waited:?}"),
        );
        last.unwrap_or_default()
    }

    /// Sooner or later nothing is.
    #[track_caller]
    pub fn is_not_overlaid(&self) {
        until_or(
            || self.overlay().is_none(),
            |waited| {
                format!(
                    "something is still laid over the page after {waited:?}: {:?}",
                    self.overlay()
                )
            },
        );
    }

    /// Waits until the browser has sent a request for something to show as `what` ("iframe").
    #[track_caller]
    pub fn has_asked_for(&self, what: &str) {
        let is_sent = |entry: &BrowserLogEntry| {
            let event: Value = serde_json::from_str(&entry.message).unwrap_or_default();
            let event = &event["message"];
            // The headers are known to this one alone: it comes when they are written.
            event["method"] == "Network.requestWillBeSentExtraInfo"
                && event["params"]["headers"]["Sec-Fetch-Dest"] == what
        };
        let sent = || {
            let log = self.session().get_log("performance");
            let log = self.runtime.block_on(log).unwrap_or_default();
            log.iter().any(is_sent)
        };
        until_or(sent, |waited| {
            format!("no {what} was asked for within {waited:?}")
        });
    }

    /// A picture, for people to look at, if they have said where to.
    pub fn screenshot(&self, name: &str) {
        let Some(directory) = std::env::var_os("TQ_SCREENSHOTS") else {
            return;
        };
        let directory = std::path::PathBuf::from(directory);
        std::fs::create_dir_all(&directory).expect("make TQ_SCREENSHOTS");
        let file = directory.join(format!("{name}.png"));
        self.runtime
            .block_on(self.session().screenshot(&file))
            .expect("take a picture");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "---- the page\n{}\n---- laid over it\n{:?}",
                self.text(),
                self.overlay()
            );
        }
        if let Some(session) = self.session.take() {
            let _timer = self.runtime.enter();
            let quit = tokio::time::timeout(Duration::from_secs(10), session.quit());
            // If it does not quit, the driver takes it along.
            let _ = self.runtime.block_on(quit);
        }
    }
}

/// The first node that is meant, in this one or anything inside, whatever hides it from scripts.
fn find<'a>(node: &'a Value, is_meant: &dyn Fn(&Value) -> bool) -> Option<&'a Value> {
    if is_meant(node) {
        return Some(node);
    }
    let inside = ["children", "shadowRoots"].into_iter();
    let mut inside = inside.flat_map(|key| node[key].as_array().into_iter().flatten());
    inside.find_map(|node| find(node, is_meant))
}

fn read(node: &Value, overlay: &mut Overlay) {
    match node["nodeType"].as_u64() {
        Some(1) => overlay
            .elements
            .push(node["nodeName"].as_str().unwrap_or_default().to_owned()),
        Some(3) => overlay.text += node["nodeValue"].as_str().unwrap_or_default(),
        _ => {}
    }
    for child in node["children"].as_array().into_iter().flatten() {
        if child["nodeName"] != "STYLE" {
            read(child, overlay);
        }
    }
}
