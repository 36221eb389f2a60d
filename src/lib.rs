//! TQServer: put a directory under `workers/`, get a URL.

pub mod config;
pub mod inventory;
pub mod limits;
pub mod names;
pub mod route;
pub mod wire;
