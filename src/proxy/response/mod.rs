//! What is sent to a client.

pub(super) mod access;
pub(super) mod body;
pub(super) mod compression;
pub(super) mod error_page;
pub(super) mod files;
pub(super) mod precompressed;
pub(super) mod relay;
pub(super) mod report;
pub(super) mod route_pages;
