//! The command line: one file a verb, and the only place that prints.
//!
//! A new verb is a file here and, in `command`, a variant and a line that runs it. What verbs share: `arguments`, `exit` codes, the `client` of a running
//! manager, the `outcome` of what was asked of it, the `journal`, `columns`, and with `say` all that is printed.

#[macro_use]
mod say;

mod arguments;
mod build;
mod check;
mod client;
mod columns;
mod command;
mod completions;
mod dev;
mod exec;
mod exit;
mod failure;
mod history;
mod journal;
mod logs;
mod maintenance;
mod measure;
mod new;
mod outcome;
mod package;
mod pause;
mod planes;
mod reload;
mod rollback;
mod status;
mod systemd;

pub use command::run;
