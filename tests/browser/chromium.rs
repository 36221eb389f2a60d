//! The programs: Chromium, and the driver that starts it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use thirtyfour::common::capabilities::desiredcapabilities::{CapabilitiesHelper, PageLoadStrategy};
use thirtyfour::{ChromeCapabilities, ChromiumLikeCapabilities, DesiredCapabilities};

use crate::house::LONG;
use crate::house::process::wait;
use crate::untested::not_tested;

/// Without a screen, in a container, and without a word to anybody but us.
const ARGUMENTS: [&str; 11] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // What is in a frame can be read through the page around it.
    "--disable-site-isolation-trials",
    "--window-size=1280,900",
];

/// Both programs, if they are there.
pub fn installed() -> Option<(PathBuf, PathBuf)> {
    match (program("chromium"), program("chromedriver")) {
        (Some(chromium), Some(driver)) => Some((chromium, driver)),
        (chromium, _) => {
            let missing = if chromium.is_none() {
                "chromium"
            } else {
                "chromedriver"
            };
            let missing = format!("{missing} is not installed");
            not_tested(&missing, "apt install chromium chromium-driver");
            None
        }
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut found = std::env::split_paths(&path).map(|directory| directory.join(name));
    found.find(|file| file.is_file())
}

/// How Chromium is to be run, with `directory` for all that is its own.
pub fn capabilities(chromium: &Path, directory: &Path) -> ChromeCapabilities {
    let mut chrome = DesiredCapabilities::chrome();
    let profile = format!("--user-data-dir={}", directory.display());
    let mut set = || {
        chrome.set_binary(&chromium.to_string_lossy())?;
        for argument in ARGUMENTS.into_iter().chain([profile.as_str()]) {
            chrome.add_arg(argument)?;
        }
        // Tests wait for what they want to see, and no command for a page.
        chrome.set_page_load_strategy(PageLoadStrategy::None)?;
        let logs = serde_json::json!({"performance": "ALL"});
        chrome.set("goog:loggingPrefs", logs)
    };
    set().expect("words that are JSON");
    chrome
}

/// A driver, and whatever it has started: gone when it is dropped.
pub struct Driver {
    process: Child,
    pub address: String,
}

impl Driver {
    /// Starts it on a port that is free.
    #[track_caller]
    pub fn start(program: &Path) -> Self {
        let mut command = Command::new(program);
        command
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0);
        let mut process = command.spawn().expect("start the driver");
        let mut lines = BufReader::new(process.stdout.take().expect("piped"))
            .lines()
            .map_while(Result::ok);
        let said = lines.find_map(|line| {
            let (_, port) = line.split_once("successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        // Its output has to be read, or it would wait for that.
        std::thread::spawn(move || lines.for_each(drop));
        let driver = Self {
            process,
            address: format!("http://127.0.0.1:{}", said.unwrap_or_default()),
        };
        assert!(said.is_some(), "the driver did not say where it listens");
        driver
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.process);
        let _ = kill_process_group(group, Signal::TERM);
        if wait(&mut self.process, LONG).is_none() {
            eprintln!("the driver did not end on SIGTERM");
        }
        // Of the browser it may have left something.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.process.wait();
    }
}
