//! Files of workers as they were read last: one that has not changed is not parsed again, and those of one deployer cannot take up the time in
//! which everybody's are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::problem::{Place, Problem, Problems};
use super::source::Identity;
use super::worker::WorkerFile;

/// How long files may be parsed in one look. What is left over then fails alone, and has its turn with the next look.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of files of which it is kept what they say.
const KEPT_MAX: u64 = 16 << 20;
/// What even an empty one costs.
const KEPT_LEAST: u64 = 1 << 10;

/// What a file says, or what is wrong with it.
type Said = Result<WorkerFile, Problems>;

/// What is known of files, from one look to the next.
#[derive(Debug, Default)]
pub struct Files {
    kept: Mutex<BTreeMap<PathBuf, (Identity, Arc<Said>)>>,
}

impl Files {
    /// What these files say. The smallest are read first: those that cost most are not to be what the others wait for.
    pub fn read(&self, files: impl IntoIterator<Item = PathBuf>) -> BTreeMap<PathBuf, Arc<Said>> {
        self.read_within(files, PATIENCE)
    }

    fn read_within(
        &self,
        files: impl IntoIterator<Item = PathBuf>,
        patience: Duration,
    ) -> BTreeMap<PathBuf, Arc<Said>> {
        let found = smallest_first(files);
        let before = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut kept, mut room) = (BTreeMap::new(), KEPT_MAX);
        let (mut said, begun) = (BTreeMap::new(), Instant::now());
        for (identity, file) in found {
            let identity = identity.filter(Identity::is_settled);
            let known = before.get(&file);
            let known = known.filter(|(known, _)| Some(*known) == identity);
            let (what, keep) = match known {
                Some((_, what)) => (what.clone(), true),
                None if begun.elapsed() > patience => (Arc::new(Err(left_over(&file))), false),
                None => (Arc::new(WorkerFile::load(&file)), true),
            };
            if let (Some(identity), true) = (identity, keep) {
                let cost = identity.size.max(KEPT_LEAST);
                if let Some(rest) = room.checked_sub(cost) {
                    room = rest;
                    kept.insert(file.clone(), (identity, what.clone()));
                }
            }
            said.insert(file, what);
        }
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        said
    }
}

/// Those that have just changed in the place that their size gives them: else whoever writes to large files over and over has them read
/// before all others.
fn smallest_first(files: impl IntoIterator<Item = PathBuf>) -> Vec<(Option<Identity>, PathBuf)> {
    let found = files.into_iter().map(|file| (Identity::of(&file), file));
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(identity, _)| identity.map_or(0, |identity| identity.size));
    found
}

fn left_over(file: &Path) -> Problems {
    let message = format!(
        "was not read: the files of all workers take longer than {} s",
        PATIENCE.as_secs()
    );
    let help = "make it smaller, or reload again: what has been read is known by then";
    Problem::new(Place::file(file), message).help(help).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(directory: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let config = directory.path().join(name).join("config");
        std::fs::create_dir_all(&config).unwrap();
        let file = config.join("worker.yaml");
        std::fs::write(&file, text).unwrap();
        file
    }

    fn settle(file: &Path) {
        while !Identity::of(file).unwrap().is_settled() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_file_that_has_not_changed_is_not_parsed_again() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (
            file(&directory, "a", "cache: true"),
            file(&directory, "b", "x: 1"),
        );
        let all = [one.clone(), two.clone()];
        let files = Files::default();
        // Until a second is over it may change without showing it.
        for file in &all {
            settle(file);
        }
        let first = files.read(all.clone());
        assert!(first[&one].as_ref().as_ref().is_ok_and(|file| file.cache));
        assert!(first[&two].is_err());
        let second = files.read(all.clone());
        assert!(
            all.iter()
                .all(|file| Arc::ptr_eq(&first[file], &second[file]))
        );
        std::fs::write(&one, "cache: false").unwrap();
        let third = files.read(all);
        assert!(third[&one].as_ref().as_ref().is_ok_and(|file| !file.cache));
        assert!(files.read([]).is_empty());
        assert!(
            files.kept.lock().unwrap().is_empty(),
            "what is gone is forgotten"
        );
    }

    #[test]
    fn a_large_file_that_has_just_changed_is_not_read_before_a_small_one() {
        let directory = tempfile::tempdir().unwrap();
        let none = directory.path().join("none/config/worker.yaml");
        let small = file(&directory, "z", "cache: true");
        settle(&small);
        let large = file(&directory, "a", &"# large\n".repeat(1000));
        let found = smallest_first([large.clone(), small.clone(), none.clone()]);
        let order: Vec<_> = found.into_iter().map(|(_, file)| file).collect();
        assert_eq!(order, [none, small, large]);
    }

    #[test]
    fn what_is_left_when_time_is_over_fails_alone() {
        let directory = tempfile::tempdir().unwrap();
        let one = file(&directory, "a", "cache: true");
        let said = Files::default().read_within([one.clone()], Duration::ZERO);
        let problems = said[&one].as_ref().as_ref().unwrap_err().to_string();
        assert!(problems.contains("was not read"), "{problems}");
        assert!(Files::default().read([one.clone()])[&one].is_ok());
    }
}
