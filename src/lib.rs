//! TQServer: put a directory under `workers/`, get a URL.

pub mod config;
pub mod limits;
pub mod names;
pub mod proxy;
pub mod route;
pub mod wire;
