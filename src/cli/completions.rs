//! `tqserver completions`: what a shell needs to complete our command line, with the names of the workers that lie there.

use clap::Command;
use clap_complete::Shell;

use super::arguments::Common;
use super::say;
use crate::inventory;

/// The verb by which a shell asks for the names of workers. Nobody types it.
pub(super) const LIST: &str = "list-workers";

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// For which shell.
    #[arg(value_name = "SHELL", value_parser = shell)]
    shell: Shell,
}

/// Prints the names of the workers, for completions.
#[derive(Debug, clap::Args)]
pub(super) struct ListWorkers {}

/// The shells Debian's packages install completions for.
fn shell(text: &str) -> Result<Shell, String> {
    match text {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        other => Err(format!("'{other}' is none of bash, zsh, fish")),
    }
}

impl Completions {
    /// For the command line `command`.
    pub(super) fn run(self, command: &Command) -> anyhow::Result<u8> {
        let mut visible = visible(command);
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut visible, "tqserver", &mut script);
        let script = String::from_utf8_lossy(&script).into_owned();
        let script = match self.shell {
            Shell::Bash => script + &bash(&visible),
            Shell::Zsh => zsh(&script, &visible),
            _ => script + &fish(&visible),
        };
        say::print(script.as_bytes())?;
        Ok(0)
    }
}

impl ListWorkers {
    pub(super) fn run(&self, common: &Common) -> anyhow::Result<u8> {
        let settings = common.settings()?;
        for name in inventory::names(&settings)? {
            println!("{name}");
        }
        Ok(0)
    }
}

/// The command without its internal verbs, which clap_complete would offer.
fn visible(command: &Command) -> Command {
    let verbs = command.get_subcommands();
    let verbs = verbs.filter(|verb| !verb.is_hide_set()).cloned();
    Command::new("tqserver")
        .version(env!("CARGO_PKG_VERSION"))
        .args(command.get_arguments().cloned())
        .subcommands(verbs)
}

/// The verbs that take a worker: the name of each, that of its argument, and whether a directory will do.
fn takers(command: &Command) -> impl Iterator<Item = (&str, &str, bool)> {
    command.get_subcommands().filter_map(|verb| {
        verb.get_positionals().find_map(|argument| {
            let value = argument.get_value_names()?.first()?.as_str();
            let is_worker = value.split('|').any(|kind| kind == "WORKER");
            is_worker.then(|| {
                let directory = value.contains("DIRECTORY");
                (verb.get_name(), argument.get_id().as_str(), directory)
            })
        })
    })
}

/// The options of a command that take a value.
fn options(command: &Command) -> impl Iterator<Item = String> {
    let valued = command
        .get_opts()
        .filter(|option| option.get_action().takes_values());
    valued.flat_map(|option| {
        let long = option.get_long().map(|long| format!("--{long}"));
        let short = option.get_short().map(|short| format!("-{short}"));
        long.into_iter().chain(short)
    })
}

/// A function around the one that clap_complete has made.
fn bash(command: &Command) -> String {
    let common: Vec<String> = options(command).collect();
    let verbs: Vec<String> = takers(command).map(|(verb, ..)| verb.to_owned()).collect();
    let mut valued: Vec<String> = command.get_subcommands().flat_map(options).collect();
    valued.extend(common.clone());
    valued.sort();
    valued.dedup();
    format!(
        r#"
_tqserver_and_workers() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" verb="" at
    _tqserver "$@"
    [[ "$cur" != -* ]] || return 0
    for ((at = 1; at < COMP_CWORD; at++)); do
        case "${{COMP_WORDS[at]}}" in
            {common}) ((++at)) ;;
            -*) ;;
            *) verb="${{COMP_WORDS[at]}}"; break ;;
        esac
    done
    case "${{COMP_WORDS[COMP_CWORD - 1]}}" in
        =|{valued}) return 0 ;;
    esac
    case "$verb" in
        {verbs}) COMPREPLY=( $(compgen -W "$(tqserver {LIST} 2>/dev/null)" -- "$cur") ) ;;
    esac
}}
complete -F _tqserver_and_workers -o bashdefault -o default tqserver
"#,
        common = common.join("|"),
        valued = valued.join("|"),
        verbs = verbs.join("|"),
    )
}

/// The function that completes an argument is a part of its description.
fn zsh(script: &str, command: &Command) -> String {
    let takers: Vec<_> = takers(command).collect();
    let mut verb = None;
    let mut lines = Vec::new();
    for line in script.lines() {
        // A verb's part begins with its name in brackets.
        let name = line
            .strip_prefix('(')
            .and_then(|rest| rest.strip_suffix(')'));
        if let Some(name) = name {
            verb = takers.iter().find(|(verb, ..)| *verb == name);
        }
        let is_its = |argument: &str| {
            let mut begins = ["':", "'::", "'*::"].into_iter();
            begins.any(|how| line.starts_with(&format!("{how}{argument} -- ")))
        };
        let argument = verb.filter(|(_, argument, _)| is_its(argument));
        let text = line.strip_suffix(":_default' \\");
        lines.push(match (argument, text) {
            (Some((_, _, true)), Some(text)) => {
                format!("{text}:_tqserver_workers_or_directories' \\")
            }
            (Some(_), Some(text)) => format!("{text}:_tqserver_workers' \\"),
            _ => line.to_owned(),
        });
    }
    let script = lines.join("\n") + "\n";
    let functions = format!(
        r#"
_tqserver_workers() {{
    local -a workers
    workers=(${{(f)"$(_call_program workers tqserver {LIST} 2>/dev/null)"}})
    compadd -a workers
}}

_tqserver_workers_or_directories() {{
    _tqserver_workers
    _files -/
}}
"#
    );
    // Before what runs the completion at once when the file is loaded by it.
    let last = "if [ \"$funcstack[1]\"";
    match script.rfind(last) {
        Some(at) => format!(
            "{}{}
{}",
            &script[..at],
            functions,
            &script[at..]
        ),
        None => script + &functions,
    }
}

fn fish(command: &Command) -> String {
    let lines = takers(command).map(|(verb, _, directory)| {
        let no_files = if directory { "" } else { " -f" };
        format!(
            "complete -c tqserver -n \"__fish_tqserver_using_subcommand {verb}\"{no_files} -a \"(tqserver {LIST} 2>/dev/null)\"\n"
        )
    });
    lines.collect()
}
