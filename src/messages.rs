//! The ids by which the journal knows our kinds of messages (`MESSAGE_ID=`).

/// A request was answered, on a route with `access_log`.
pub const ACCESS: &str = "026c193ddd3f441aa75158a07d6ce322";
