//! The link to the manager, and what it asks for.
//!
//! | file | what it is for |
//! |---|---|
//! | `link` | the manager's requests, and the responses |
//! | `memory` | the last table, for the next proxy |
//! | `probe` | a health request |
//! | `pulse` | whether every thread still does its work |

pub(super) mod link;
pub(super) mod memory;
pub(super) mod probe;
pub(super) mod pulse;
