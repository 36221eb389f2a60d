//! What was written, and what became of a worker: as far as a private systemd, which has no journal, can tell.

use std::process::Command;

use crate::house::House;
use crate::house::process::{Ran, Running, tqserver};
use crate::house::until;
use crate::house::worker::says;

#[test]
fn a_private_systemd_has_the_output_of_its_workers_in_files() {
    let house = House::new()
        .worker("index", says("one").and("log the first line"))
        .worker("api/users", says("users"))
        .open();
    let log = house.place().join("tqserver/log/index@1.log");
    std::fs::write(&log, "line 1\nline 2\nline 3\n").expect("write a log");
    house
        .run(["logs", "index"])
        .succeeds()
        .says("line 1\nline 2\nline 3")
        .says("no times are kept");
    let last = house.run(["logs", "index", "-n", "1", "--quiet"]);
    assert_eq!(
        (last.stdout.as_str(), last.stderr.as_str()),
        ("line 3\n", "")
    );
    // Of all workers: each file is named.
    house
        .run(["logs"])
        .succeeds()
        .says("index@1.log <==")
        .says("api.users@1.log <==");
}

#[test]
fn a_log_is_followed() {
    let house = House::new().worker("index", says("one")).open();
    let log = house.place().join("tqserver/log/index@1.log");
    let out = house.path().join("followed");
    let file = std::fs::File::create(&out).expect("make a file");
    let mut command = house.command(["logs", "--follow", "index"]);
    command.stdout(file).stderr(std::process::Stdio::null());
    let mut child = command.spawn().expect("run it");
    let seen = |text: &str| std::fs::read_to_string(&out).is_ok_and(|out| out.contains(text));
    let append = |text: &str| {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&log)
            .expect("open a log");
        std::io::Write::write_all(&mut file, text.as_bytes()).expect("write a log");
    };
    append("before\n");
    until("the old line is shown", || seen("before"));
    append("after\n");
    until("the new line is shown", || seen("after"));
    child.kill().expect("it still runs");
    child.wait().expect("it ends");
}

#[test]
fn a_worker_that_never_was_has_no_logs() {
    let house = House::new().worker("index", says("one"));
    let mut command = tqserver(["logs", "nope", "--manager=system", "--config"]);
    Ran::of(command.arg(house.path().join("config/server.yaml")))
        .exits(64)
        .says("there is no worker 'nope'")
        .says("there are: index");
}

#[test]
fn what_takes_a_journal_is_refused_where_there_is_none() {
    let house = House::new().worker("index", says("one")).open();
    for option in [
        "--since=today",
        "--until=today",
        "--output=json",
        "--catalog",
    ] {
        let name = option.split('=').next().unwrap_or(option);
        house
            .run(["logs", option])
            .exits(64)
            .says(&format!("{name} takes a journal"));
    }
    house
        .run(["logs", "nope"])
        .fails_with("there is no output of nope");
    for history in [&["history", "index"][..], &["history"]] {
        house
            .run(history.iter().copied())
            .fails_with("a history is read from the journal");
    }
    for wrong in ["a/b", "..", "_x"] {
        house.run(["logs", wrong]).exits(64);
        house.run(["history", wrong]).exits(64);
    }
    house.run(["logs", "-n", "many"]).exits(64);
    house.run(["history", "index", "-n", "0"]).exits(64);
}

#[test]
fn a_worker_that_is_not_there_is_not_rolled_back() {
    let house = House::new().worker("index", says("one")).open();
    house.run(["rollback", "../x"]).exits(64);
    house.run(["rollback", "index", "0"]).exits(64);
    house.run(["rollback"]).exits(64);
    house.get("/").is("one");
}

#[test]
fn each_shell_gets_its_completions() {
    for (shell, word) in [
        ("bash", "complete -F _tqserver"),
        ("zsh", "#compdef tqserver"),
        ("fish", "complete -c tqserver"),
    ] {
        Ran::of(&mut tqserver(["completions", shell]))
            .succeeds()
            .says(word)
            .says("rollback")
            .says("list-workers")
            .says_nothing_of("end-proxy")
            .says_nothing_of("measure-state")
            .says_nothing_of("keep");
    }
    Ran::of(&mut tqserver(["completions", "ksh"])).exits(64);
    let script = Ran::of(&mut tqserver(["completions", "bash"])).stdout;
    let ran = Ran::of(Command::new("bash").args(["-n", "-c", &script]));
    ran.succeeds();
}

/// What bash offers after these words.
fn completed(house: &House, words: &[&str]) -> Vec<String> {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_tqserver"));
    let path = program.parent().expect("a directory").display();
    let line: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let (line, last) = (line.join(" "), words.len() - 1);
    let (cur, prev) = (words[last], words[last - 1]);
    let script = format!(
        "PATH={path}:$PATH; source <(tqserver completions bash); COMP_WORDS=({line}); COMP_CWORD={last}
         $(complete -p tqserver | sed 's/.*-F \\([^ ]*\\).*/\\1/') tqserver '{cur}' '{prev}'; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(house.path());
    command.env_remove("TQ_CONFIG").env_remove("TQ_MANAGER");
    let ran = Ran::of(&mut command);
    ran.succeeds();
    ran.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn names_of_workers_are_offered_where_one_is_taken() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("api/users", says("users"));
    let offered = |words: &[&str]| completed(&house, words);
    for verb in [
        "reload",
        "status",
        "rollback",
        "pause",
        "resume",
        "maintenance",
        "logs",
        "history",
        "package",
        "build",
    ] {
        let names = offered(&["tqserver", verb, ""]);
        for name in ["api.users", "index"] {
            assert!(
                names.iter().any(|offered| offered == name),
                "{verb}: {names:?}"
            );
        }
    }
    assert_eq!(
        offered(&["tqserver", "--quiet", "reload", "--force", "in"]),
        ["index"]
    );
    // Where something else is taken they are not.
    for words in [
        &["tqserver", "in"][..],
        &["tqserver", "check", "in"],
        &["tqserver", "logs", "--since", "in"],
        &["tqserver", "reload", "--"],
    ] {
        let names = offered(words);
        assert!(
            !names.iter().any(|name| name == "index"),
            "{words:?}: {names:?}"
        );
    }
    let verbs = offered(&["tqserver", ""]);
    assert!(verbs.contains(&"reload".to_owned()), "{verbs:?}");
    assert!(!verbs.contains(&"list-workers".to_owned()), "{verbs:?}");
}

#[test]
fn options_of_all_commands_are_explained_once() {
    let whole = Ran::of(&mut tqserver(["--help"]));
    whole
        .succeeds()
        .says("--mode <MODE>")
        .says("--config <FILE>");
    let reload = Ran::of(&mut tqserver(["reload", "--help"]));
    reload
        .succeeds()
        .says("--dry-run")
        .says("`tqserver --help`")
        .says_nothing_of("--mode <MODE>")
        .says_nothing_of("--config <FILE>");
    // They are understood on either side of the command.
    for line in [&["--mode=wrong", "check"][..], &["check", "--mode=wrong"]] {
        Ran::of(&mut tqserver(line.iter().copied()))
            .exits(64)
            .says("'wrong' is neither");
    }
}

#[test]
fn output_nobody_reads_any_more_is_no_failure() {
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_tqserver");
    command.args([
        "-c",
        &format!("('{program}' completions bash; echo $? >&2) | :"),
    ]);
    let ran = Running::start(&mut command).ends();
    assert_eq!(ran.stderr.trim(), "0", "{ran}");
}
