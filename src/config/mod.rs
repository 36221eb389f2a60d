//! Configuration in three stages, three types: what a file says, merged over the defaults, checked.
//!
//! The last stage is what the rest of the program sees: `settings` of the server, `worker_settings` of one worker, and what both consist of (`mode`, `program`,
//! `limits`, `grants`). Before it, `source` opens files, `files` knows what those of workers said, `document` parses them, `section` reads keys, `patch` limits;
//! `server` and `worker` are the two files, `hosts` what both name, `variables` what a worker's command can name, `merge` lays one over the other, `lowered` is for what runs already, and `problem` is how all
//! of them say what is wrong.

mod document;
mod files;
mod grants;
mod hosts;
mod limits;
mod lowered;
mod merge;
mod mode;
mod patch;
pub mod problem;
mod program;
mod section;
mod server;
mod settings;
mod source;
mod variables;
mod words;
mod worker;
mod worker_settings;

pub use files::Files;
pub use grants::{Grant, Grants, Refused};
pub use limits::{Caps, Limits, LimitsPatch};
pub use mode::{Mode, ModeError};
pub use problem::{Place, Problem, Problems, printable};
pub use program::{DocumentRoot, Enabled, Health, KernelPart, Listen, Network, Sticky, WorkerType};
pub use server::{Instead, project_directory};
pub use settings::{BuildLimits, CertificateFiles, Exposure, PemFile, Settings, SnapshotLimits};
pub use variables::{Variable, expand};
pub use worker::{EnvFileError, WorkerFile, parse_env_file, read_env_files};
pub use worker_settings::WorkerSettings;
