//! What `tqserver new` makes a worker of.

/// What a worker of one type begins with.
#[derive(Debug)]
pub struct Template {
    /// The type's name for people.
    pub language: &'static str,
    /// The program that builds or runs it, and how it is installed.
    pub tool: Option<(&'static str, &'static str)>,
    /// What is written.
    pub files: &'static [File],
}

/// One file of a template.
#[derive(Debug)]
pub struct File {
    /// Where it lies in `src/types/`.
    #[cfg(test)]
    pub source: &'static str,
    /// Where it goes in the worker's directory; words in braces are put in.
    pub place: &'static str,
    /// What stands in it; words in braces are put in.
    pub text: &'static str,
}

/// The files in a directory of `src/types/`.
macro_rules! files {
    ($directory:literal: $($source:literal => $place:literal,)*) => {
        &[
            // Git would obey a file of this name here, and Cargo would take a template for a package.
            $($crate::types::File {
                #[cfg(test)]
                source: concat!($directory, "/", $source),
                place: $place,
                text: include_str!(concat!($directory, "/", $source)),
            },)*
        ]
    };
}
