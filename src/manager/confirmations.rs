//! What is over once the proxy serves by a route table: the one place where its "applied" is awaited.

use std::time::Duration;

use tokio::time::Instant;

/// How long the proxy may take to take over a table.
pub(super) const APPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the proxy has said of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confirmation {
    /// It serves by this one, or a newer one.
    Applied,
    /// It has said nothing, and is waited for no longer.
    Unneeded,
    /// It has said nothing in time.
    Late,
}

/// The tables that were published and applied last, and what waits for one to be applied.
#[derive(Debug)]
pub(super) struct Confirmations<T> {
    published: u64,
    applied: u64,
    waiting: Vec<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    what: T,
    /// The serial of the table.
    serial: u64,
    until: Instant,
}

impl<T> Default for Confirmations<T> {
    fn default() -> Self {
        Self {
            published: 0,
            applied: 0,
            waiting: Vec::new(),
        }
    }
}

impl<T> Confirmations<T> {
    /// The table with this serial was sent to the proxy, if one is connected.
    pub(super) fn published(&mut self, serial: u64) {
        self.published = serial;
    }

    /// The proxy serves by this table.
    pub(super) fn applied(&mut self, serial: u64) {
        self.applied = serial;
    }

    /// Whether the proxy serves by the table that was published last.
    pub(super) fn is_up_to_date(&self) -> bool {
        self.applied == self.published
    }

    /// Waits for the table with this serial; `None`: for the one that was published last.
    pub(super) fn wait(&mut self, serial: Option<u64>, what: T) {
        self.waiting.push(Waiting {
            what,
            serial: serial.unwrap_or(self.published),
            until: Instant::now() + APPLY_TIMEOUT,
        });
    }

    /// When something is late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|one| one.until).min()
    }

    /// What waits no longer, `is_given_up` for one, and what the proxy has said.
    pub(super) fn over(&mut self, is_given_up: impl Fn(&T) -> bool) -> Vec<(T, Confirmation)> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let (now, applied) = (Instant::now(), self.applied);
        let confirmation = |one: &Waiting<T>| {
            if one.serial <= applied {
                Some(Confirmation::Applied)
            } else if is_given_up(&one.what) {
                Some(Confirmation::Unneeded)
            } else {
                (one.until <= now).then_some(Confirmation::Late)
            }
        };
        let is_over = |one: &mut Waiting<T>| confirmation(one).is_some();
        let over: Vec<Waiting<T>> = self.waiting.extract_if(.., is_over).collect();
        let over = over.into_iter();
        over.filter_map(|one| confirmation(&one).map(|confirmation| (one.what, confirmation)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_over_when_its_table_is_applied_or_it_is_late() {
        let mut confirmations = Confirmations::default();
        confirmations.published(2);
        confirmations.wait(None, "second");
        confirmations.wait(Some(3), "third");
        assert_eq!(confirmations.over(|_| false), []);
        confirmations.applied(2);
        assert!(confirmations.is_up_to_date());
        assert_eq!(
            confirmations.over(|_| false),
            [("second", Confirmation::Applied)],
            "a later table is still awaited"
        );
        let late = confirmations.deadline().unwrap();
        tokio::time::sleep_until(late).await;
        assert_eq!(
            confirmations.over(|_| false),
            [("third", Confirmation::Late)]
        );
        assert_eq!(confirmations.deadline(), None);
    }

    #[tokio::test]
    async fn what_is_given_up_is_over_at_once() {
        let mut confirmations = Confirmations::default();
        confirmations.wait(Some(1), "reload");
        confirmations.wait(Some(1), "pause");
        let over = confirmations.over(|what| *what == "reload");
        assert_eq!(over, [("reload", Confirmation::Unneeded)]);
        confirmations.applied(1);
        assert_eq!(
            confirmations.over(|_| true),
            [("pause", Confirmation::Applied)]
        );
    }
}
