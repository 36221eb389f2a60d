//! stub

use serde::{Deserialize, Serialize};

/// stub
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    pub program: String,
    pub assets: String,
    pub config: String,
}
