//! Looks at all workers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::claims::{refuse_second_on_a_route, refuse_what_is_not_left_to_deployers};
use super::found::{Inventory, Stray};
use super::look::{Eyes, file_of, look};
use super::roots::{ScanError, roots};
use super::search::Search;
use crate::config::{Files, Mode, Settings};
use crate::ignored::Developed;
use crate::names::WorkerName;
use crate::route::Claim;

/// Files that the programs of workers write themselves, by their paths from the worker's directory on.
pub type Written = BTreeMap<WorkerName, BTreeSet<String>>;

/// Looks at all workers of `settings` as they lie there now. Of two with the same name the one in the earlier directory counts, even
/// if it can not run or is disabled.
///
/// # Errors
/// When a directory of workers itself can not be read. One that is not there is no error as long as another is.
pub fn scan(settings: &Settings, mode: Mode) -> Result<Inventory, ScanError> {
    let (held, written) = (BTreeMap::new(), Written::new());
    scan_beside(settings, mode, &held, &Files::default(), &written)
}

/// Looks at all workers as [`scan`] does, while workers serve on the routes in `held`: a newcomer does not get one of these as long as
/// who serves there wants it. `files` knows what their files said at the last look, and `written` which of them do not count in development.
///
/// # Errors
/// As [`scan`].
pub fn scan_beside(
    settings: &Settings,
    mode: Mode,
    held: &BTreeMap<Claim, WorkerName>,
    files: &Files,
    written: &Written,
) -> Result<Inventory, ScanError> {
    let mut inventory = Inventory::default();
    let mut taken = BTreeSet::new();
    let roots = roots(settings)?;
    let searches = roots.iter();
    let searches = searches.map(|(root, listing)| Search::below(root, listing));
    let searches: Vec<Search<'_>> = searches.collect();
    let all = searches.iter().flat_map(|search| {
        let workers = search.candidates.keys();
        workers.map(|relative| file_of(&search.root.join(relative)))
    });
    let eyes = Eyes {
        settings,
        mode,
        git: Rc::default(),
        written,
        files: files.read(all),
    };
    for search in searches {
        inventory.take(search, &mut taken, &eyes);
    }
    refuse_what_is_not_left_to_deployers(&mut inventory, settings);
    inventory.hidden.sort();
    for strays in [&mut inventory.strays, &mut inventory.unrecognised] {
        strays.sort_by(|a, b| a.directory.cmp(&b.directory));
    }
    refuse_second_on_a_route(&mut inventory, held);
    Ok(inventory)
}

/// The names of all workers that lie there. Nothing else of them is read, however large they are.
///
/// # Errors
/// As [`scan`].
pub fn names(settings: &Settings) -> Result<BTreeSet<WorkerName>, ScanError> {
    let roots = roots(settings)?;
    let searches = roots
        .iter()
        .map(|(root, listing)| Search::below(root, listing));
    let candidates = searches.flat_map(|search| search.candidates.into_keys());
    let names = candidates.filter_map(|relative| WorkerName::from_directory(&relative).ok());
    Ok(names.collect())
}

impl Inventory {
    /// Adds what was found in one directory of workers, but for what is `taken` by an earlier one. What can not be a worker hides as
    /// well: it was put there instead of the other.
    fn take(&mut self, search: Search<'_>, taken: &mut BTreeSet<PathBuf>, eyes: &Eyes<'_>) {
        let root = search.root;
        let mut here = BTreeSet::new();
        // What lies inside another one comes before that.
        for (relative, listing) in search.candidates.iter().rev() {
            let directory = root.join(relative);
            here.insert(relative.clone());
            if taken.contains(relative) {
                self.hidden.push(directory);
                continue;
            }
            match WorkerName::from_directory(relative) {
                Ok(name) => {
                    let others = self.workers.values().map(|found| &found.developed);
                    let inside = others.filter(|other| other.directory.starts_with(&directory));
                    let nested: Vec<&Developed> = inside.collect();
                    let found = look(eyes, name, directory, listing, &nested);
                    self.workers.insert(found.name.clone(), found);
                }
                Err(error) => self.strays.push(Stray {
                    directory,
                    reason: error.to_string(),
                }),
            }
        }
        let is_hidden = |path: &Path| taken.iter().any(|taken| path.starts_with(taken));
        for (relative, reason) in search.unrecognised {
            if !is_hidden(&relative) {
                let directory = root.join(relative);
                let reason = reason.to_owned();
                self.unrecognised.push(Stray { directory, reason });
            }
        }
        for (relative, reason) in search.strays {
            let directory = root.join(&relative);
            if taken.contains(&relative) {
                self.hidden.push(directory);
            } else {
                self.strays.push(Stray { directory, reason });
            }
            here.insert(relative);
        }
        taken.append(&mut here);
    }
}
