//! Files of directories that stay as they are, as they were when somebody asked for them: small ones are answered without a call to the
//! kernel. Each thread has its own, and there is an end to what all of its directories keep.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::file::File;

/// Most bytes that the directories of one thread keep together.
const ROOM: usize = 8 << 20;
/// Most bytes that one of them does: what a deployer puts there is not to take up everybody's.
const SHARE: usize = 1 << 20;
/// Most bytes of a file that is kept. With larger ones it is sending that costs.
const SMALL: usize = 64 << 10;
/// What a name costs besides its bytes, and what is known of a file.
const NAME: usize = 64;
const FILE: usize = 512;

/// What is left for the directories of one thread, in bytes.
#[derive(Debug)]
pub(crate) struct Room(Cell<usize>);

/// What one directory keeps.
#[derive(Debug)]
pub(super) struct Kept {
    room: Rc<Room>,
    files: HashMap<Box<str>, Rc<File>>,
    /// Names that are known to lead nowhere.
    missing: HashSet<Box<str>>,
    /// Bytes of the room that files have.
    of_files: usize,
    /// Bytes of it that names have which lead nowhere.
    of_missing: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self(Cell::new(ROOM))
    }
}

impl Room {
    fn take(&self, bytes: usize) -> bool {
        let left = self.0.get().checked_sub(bytes);
        self.0.set(left.unwrap_or(self.0.get()));
        left.is_some()
    }

    fn give(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes);
    }
}

impl Kept {
    pub(super) fn new(room: Rc<Room>) -> Self {
        Self {
            room,
            files: HashMap::new(),
            missing: HashSet::new(),
            of_files: 0,
            of_missing: 0,
        }
    }

    /// What is known of `name`: a file, or that there is none.
    pub(super) fn get(&self, name: &str) -> Option<Option<Rc<File>>> {
        match self.files.get(name) {
            Some(file) => Some(Some(file.clone())),
            None => self.missing.contains(name).then_some(None),
        }
    }

    /// Keeps `file` if it is small and there is room for it.
    pub(super) fn add(&mut self, name: &str, mut file: File) -> Rc<File> {
        let size = usize::try_from(file.size).unwrap_or(usize::MAX);
        let cost = size.saturating_add(name.len() + NAME + FILE);
        let fits = size <= SMALL && self.of_files + cost <= SHARE && self.room.take(cost);
        if !fits {
            return Rc::new(file);
        }
        if !file.read(SMALL) {
            self.room.give(cost);
            return Rc::new(file);
        }
        self.of_files += cost;
        let file = Rc::new(file);
        self.files.insert(name.into(), file.clone());
        file
    }

    /// Remembers that there is nothing called `name`. Names are the clients' to choose: when there are too many, all are forgotten.
    pub(super) fn add_missing(&mut self, name: &str) {
        let cost = name.len() + NAME;
        if self.of_missing + cost > SHARE / 8 {
            self.room.give(self.of_missing);
            self.of_missing = 0;
            self.missing.clear();
        }
        if self.room.take(cost) {
            self.of_missing += cost;
            self.missing.insert(name.into());
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.room.give(self.of_files + self.of_missing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_clients_make_up_have_an_end_and_leave_files_their_room() {
        let room = Rc::new(Room::default());
        let mut kept = Kept::new(room.clone());
        for number in 0..100_000 {
            kept.add_missing(&format!("{number}/{}", "a".repeat(1000)));
        }
        assert!(kept.get("99999").is_none());
        assert!(kept.of_missing <= SHARE / 8);
        assert_eq!(room.0.get(), ROOM - kept.of_missing);
        drop(kept);
        assert_eq!(room.0.get(), ROOM, "all is given back");
    }

    #[test]
    fn one_directory_leaves_room_for_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        std::fs::write(&path, vec![0; SMALL]).unwrap();
        let room = Rc::new(Room::default());
        let mut all: Vec<Kept> = Vec::new();
        for _ in 0..2 * ROOM / SHARE {
            let mut kept = Kept::new(room.clone());
            for number in 0..2 * SHARE / SMALL {
                let file = std::fs::File::open(&path).unwrap();
                let name = number.to_string();
                kept.add(&name, File::new(file, &name, false).unwrap());
            }
            assert!(kept.of_files <= SHARE);
            all.push(kept);
        }
        assert!(all.iter().map(|kept| kept.of_files).sum::<usize>() <= ROOM);
        assert!(all[1].of_files > SHARE / 2);
        assert_eq!(all.last().unwrap().of_files, 0);
    }
}
