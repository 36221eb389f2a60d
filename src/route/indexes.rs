//! Which directories of PHP scripts have an `index.php`.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Directories below a document root, itself included, that have an `index.php`: by their paths from it, without slashes at either end
/// (`""`, `admin`, `admin/users`).
///
/// Each request to php-fpm has them at hand, so that they are shared. They are written down in order, each as how many bytes it has in
/// common with the one before, and what follows: their beginnings are mostly the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(Arc<BTreeSet<String>>);

/// They are more than a table could carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the paths of its directories with an index.php have more than {} bytes together",
    Indexes::MOST
)]
pub struct TooManyIndexes;

impl Indexes {
    /// Most bytes of all paths together.
    pub const MOST: usize = 512 << 10;

    /// These directories.
    ///
    /// # Errors
    /// When their paths have more than [`Self::MOST`] bytes together.
    pub fn new(directories: impl IntoIterator<Item = String>) -> Result<Self, TooManyIndexes> {
        let (mut left, mut all) = (Self::MOST, BTreeSet::new());
        for directory in directories {
            // An empty path is one, too.
            let size = directory.len() + 1;
            left = left.checked_sub(size).ok_or(TooManyIndexes)?;
            all.insert(directory);
        }
        Ok(Self(Arc::new(all)))
    }

    /// Whether the directory at this path is one of them.
    pub fn has(&self, directory: &str) -> bool {
        self.0.contains(directory)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those alone that a request for `path` can be about.
    #[must_use]
    pub fn on_the_way_to(&self, path: &str) -> Self {
        let of_path = self
            .0
            .iter()
            .filter(|directory| path.contains(&***directory));
        Self(Arc::new(of_path.cloned().collect()))
    }
}

impl Serialize for Indexes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut before = "";
        serializer.collect_seq(self.0.iter().map(|directory| {
            let both = before.chars().zip(directory.chars());
            let same = both.take_while(|(one, other)| one == other);
            let same: usize = same.map(|(one, _)| one.len_utf8()).sum();
            before = directory;
            (same, &directory[same..])
        }))
    }
}

impl<'de> Deserialize<'de> for Indexes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Vec::<(usize, String)>::deserialize(deserializer)?;
        let mut before = String::new();
        let directories = written.into_iter().map_while(|(same, rest)| {
            before = format!("{}{rest}", before.get(..same)?);
            Some(before.clone())
        });
        Self::new(directories).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indexes(directories: &[&str]) -> Indexes {
        Indexes::new(directories.iter().map(|one| (*one).to_owned())).unwrap()
    }

    #[test]
    fn what_is_written_down_is_short_and_reads_as_what_it_was() {
        let all = indexes(&[
            "wp-admin/user",
            "",
            "wp-admin",
            "wp-content/ü",
            "wp-content/ö/x",
        ]);
        let written = serde_json::to_string(&all).unwrap();
        assert_eq!(
            written,
            r#"[[0,""],[0,"wp-admin"],[8,"/user"],[3,"content/ö/x"],[11,"ü"]]"#
        );
        assert_eq!(serde_json::from_str::<Indexes>(&written).unwrap(), all);
        assert!(all.has("") && all.has("wp-admin/user") && !all.has("wp-content"));
        assert_eq!(
            all.on_the_way_to("/blog/wp-admin/"),
            indexes(&["", "wp-admin"])
        );
    }

    #[test]
    fn there_is_an_end_to_them_whoever_says_so() {
        // Each is little more to write than the one before, and much more to keep.
        let long = "a".repeat(4000);
        let deep = (0..1000).map(|number| format!("{long}/{number}"));
        assert_eq!(Indexes::new(deep), Err(TooManyIndexes));
        let mut written = vec![(0, long)];
        written.extend((0..1000).map(|number| (4000, number.to_string())));
        let written = serde_json::to_string(&written).unwrap();
        assert!(serde_json::from_str::<Indexes>(&written).is_err());
        // Not what this program writes, but nothing to fall over.
        assert!(
            serde_json::from_str::<Indexes>(r#"[[7,"a"]]"#)
                .unwrap()
                .is_empty()
        );
    }
}
