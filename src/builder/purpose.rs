//! What a build is for.

/// What a build is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To be seen soon.
    #[default]
    Development,
    /// To be deployed: optimised, and without what only developers need.
    Release,
}
