//! The memory of `tqserver dev` while nothing happens.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::FromRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use super::client::Client;
use super::house::House;

/// Workers that run meanwhile.
const WORKERS: usize = 20;
/// So long nothing happened when it is measured.
const IDLE: Duration = Duration::from_secs(5);

/// Prints what `tqserver dev` takes with small native workers, each of which has been asked once.
pub(crate) fn measure() {
    let name = |number| format!("worker{number}");
    let house = House::open(|house| {
        for number in 0..WORKERS {
            let name = name(number);
            let program = house.worker(&name).join("bin").join(&name);
            fs::create_dir_all(program.parent().expect("bin/")).expect("a directory");
            fs::copy("/proc/self/exe", &program).expect("this program");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
        }
    });
    let mut client = Client::connect(house.address());
    for number in 0..WORKERS {
        let answer = client
            .get(&format!("/{}", name(number)))
            .expect("an answer");
        assert_eq!(answer, (200, "well".to_owned()));
    }
    std::thread::sleep(IDLE);
    println!("\nmemory of `tqserver dev`, idle, {WORKERS} workers");
    let pid = house.pid();
    print("tqserver dev", &[pid]);
    print(
        "  beside it: the private systemd, its bus and keeper",
        &helpers(pid),
    );
}

/// One line: what is mapped and there, the process's share of it, and what is nobody else's and in no file.
fn print(what: &str, pids: &[u32]) {
    let mebibytes = |field: &str| {
        let kibibytes: u64 = pids.iter().filter_map(|pid| rollup(*pid, field)).sum();
        kibibytes as f64 / 1024.0
    };
    println!(
        "{what:<52} RSS {:5.1} MiB   PSS {:5.1} MiB   anonymous {:5.1} MiB",
        mebibytes("Rss:"),
        mebibytes("Pss:"),
        mebibytes("Anonymous:")
    );
}

fn rollup(pid: u32, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The processes the server needs to run workers by: all below it that are no worker.
fn helpers(server: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut around = vec![server];
    while let Some(pid) = around.pop() {
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        let all =
            threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let all: String = all.chain([children]).collect::<Vec<_>>().join(" ");
        for child in all.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
            if !name.starts_with("worker") && !found.contains(&child) {
                found.push(child);
                around.push(child);
            }
        }
    }
    found
}

/// This program as a worker.
pub(crate) fn worker() {
    // SAFETY: systemd hands over descriptor 3, and nobody else takes it.
    #[allow(unsafe_code, reason = "sd_listen_fds(3)")]
    let listener = unsafe { UnixListener::from_raw_fd(3) };
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let mut writer = stream.try_clone()?;
            for line in BufReader::new(stream).lines() {
                if line?.is_empty() {
                    writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell")?;
                }
            }
            Ok::<(), std::io::Error>(())
        });
    }
}
