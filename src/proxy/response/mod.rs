//! What is sent to a client.
//!
//! | file | what it is for |
//! |---|---|
//! | `body`, `relay` | a response's body, and a worker's as it comes |
//! | `files`, `precompressed` | `public/` |
//! | `compression/` | responses made smaller on their way to the client |
//! | `error_page`, `report` | what the proxy says in its own name |
//! | `route_pages` | and on a worker's route as the worker's settings say |
//! | `access` | the access log |

pub(super) mod access;
pub(super) mod body;
pub(super) mod compression;
pub(super) mod error_page;
pub(super) mod files;
pub(super) mod precompressed;
pub(super) mod relay;
pub(super) mod report;
pub(super) mod route_pages;
