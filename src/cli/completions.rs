//! `tqserver completions`: what a shell needs to complete our command line.

use clap_complete::Shell;

use super::say;

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// For which shell.
    #[arg(value_name = "SHELL", value_parser = shell)]
    shell: Shell,
}

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
    pub(super) fn run(self, mut command: clap::Command) -> anyhow::Result<u8> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "tqserver", &mut script);
        say::print(&script)?;
        Ok(0)
    }
}
