//! The entry: runs the command line and returns its exit code.

fn main() -> std::process::ExitCode {
    tqserver::cli::run()
}
