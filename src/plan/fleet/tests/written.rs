//! Files that a program changes while it is developed.

use super::*;
use crate::inventory::Latest;

/// A house in development, and the times of its files.
struct Written {
    house: House,
    clock: i64,
}

impl Written {
    fn new() -> Self {
        let mut house = House::new();
        house.happen(Event::Configured(Box::new(policy(true))));
        house.put("index", "one");
        house.reload(&[]);
        house.told.clear();
        Self { house, clock: 1 }
    }

    /// `file` is changed `after` so long; returns what is done.
    fn change(&mut self, file: &str, after: Duration) -> Vec<String> {
        self.house.now += after;
        self.clock += 1;
        let index = self.house.disk.get_mut(&name("index")).unwrap();
        index.fingerprint.program = format!("{file} {}", self.clock);
        let (path, changed) = (file.to_owned(), (self.clock, 0));
        index.fingerprint.latest = Some(Latest { path, changed });
        self.house.look(Look::Saved(self.house.now));
        std::mem::take(&mut self.house.told)
    }

    /// What was done when the program has changed `file` after so many starts.
    fn starts(&mut self, file: &str, times: usize) -> Vec<bool> {
        // Here all that is asked for is done in no time.
        let done = (0..times).map(|_| self.change(file, Duration::ZERO));
        done.map(|done| done.iter().any(|line| line.starts_with("launch")))
            .collect()
    }
}

const SOON: Duration = Duration::from_millis(200);
const LATER: Duration = Duration::from_secs(60);

#[test]
fn a_file_that_each_generation_changes_does_not_count_any_more() {
    let mut written = Written::new();
    assert_eq!(written.starts("counter.txt", 3), [true; 3]);
    assert_eq!(written.starts("counter.txt", 2), [false; 2]);
    written.house.wait();
    assert_eq!(
        std::mem::take(&mut written.house.told),
        ["unwatch index counter.txt"]
    );
    // As it is found without it, which is a change of its own.
    let index = written.house.disk.get_mut(&name("index")).unwrap();
    index.fingerprint.program = "two".to_owned();
    index.fingerprint.latest = None;
    written.house.look(Look::Saved(written.house.now));
    let done = std::mem::take(&mut written.house.told);
    assert!(done.contains(&"launch index@5".to_owned()), "{done:?}");
    // Whatever else is saved is taken over at once.
    assert_eq!(written.starts("main.txt", 1), [true]);
}

#[test]
fn what_a_person_saves_in_between_is_taken_over_and_begins_the_row_anew() {
    let mut written = Written::new();
    for _ in 0..4 {
        assert_eq!(written.starts("counter.txt", 2), [true; 2]);
        assert_eq!(written.starts("page.html", 1), [true]);
    }
    for pause in [SOON, LATER] {
        // As somebody does who waits until the last is live.
        for _ in 0..10 {
            written.house.now += pause;
            assert_eq!(written.starts("counter.txt", 1), [true]);
        }
    }
}

#[test]
fn a_file_that_changes_though_nothing_starts_is_somebodys() {
    let mut written = Written::new();
    assert_eq!(written.starts("notes.txt", 4), [true, true, true, false]);
    // Another worker's files are no reason to think so.
    written.house.now += SOON;
    written.house.look(Look::Saved(written.house.now));
    written.house.was(&[]);
    let done = written.change("notes.txt", SOON);
    assert!(done.contains(&"launch index@5".to_owned()), "{done:?}");
}

#[test]
fn a_source_that_changes_again_and_again_is_waited_for_and_not_passed_over() {
    let mut written = Written::new();
    assert_eq!(written.starts("main.py", 6), [true; 6]);
    assert_eq!(written.starts("main.py", 2), [false; 2]);
    written.house.wait();
    assert!(
        written.house.told.contains(&"launch index@8".to_owned()),
        "{:?}",
        written.house.told
    );
    written.house.told.clear();
    assert_eq!(written.starts("main.py", 1), [false]);
    // Another file is no reason to wait.
    assert_eq!(written.starts("page.html", 1), [true]);
}

#[test]
fn what_a_file_that_vanishes_leaves_is_nobodys_doing() {
    let mut written = Written::new();
    written.change("main.txt", LATER);
    for number in 0..10 {
        written.house.now += SOON;
        let index = written.house.disk.get_mut(&name("index")).unwrap();
        index.fingerprint.program = format!("without {number}");
        written.house.look(Look::Saved(written.house.now));
        let done = std::mem::take(&mut written.house.told);
        assert!(
            !done.iter().any(|line| line.starts_with("unwatch")),
            "{done:?}"
        );
    }
}
