//! The proxy, asked and answered in raw bytes: clients on one side, workers played by the test on the other, and the manager's end of
//! the link. No test waits for time to pass, except for the deadlines that are its subject.

#[path = "http/house.rs"]
mod house;
mod untested;

#[path = "http/access.rs"]
mod access;
#[path = "http/compression.rs"]
mod compression;
#[path = "http/crowd.rs"]
mod crowd;
#[path = "http/deadlines.rs"]
mod deadlines;
#[path = "http/development.rs"]
mod development;
#[path = "http/errors.rs"]
mod errors;
#[path = "http/fastcgi.rs"]
mod fastcgi;
#[path = "http/files.rs"]
mod files;
#[path = "http/flow.rs"]
mod flow;
#[path = "http/frames.rs"]
mod frames;
#[path = "http/headers.rs"]
mod headers;
#[path = "http/http2.rs"]
mod http2;
#[path = "http/instances.rs"]
mod instances;
#[path = "http/interim.rs"]
mod interim;
#[path = "http/leaving.rs"]
mod leaving;
#[path = "http/messages.rs"]
mod messages;
#[path = "http/retry.rs"]
mod retry;
#[path = "http/routing.rs"]
mod routing;
#[path = "http/secure.rs"]
mod secure;
#[path = "http/starting.rs"]
mod starting;
#[path = "http/strangers.rs"]
mod strangers;
#[path = "http/streams.rs"]
mod streams;
#[path = "http/table.rs"]
mod table;
