//! How much of the route table a worker may have. The table goes to the proxy as one message, and a message has an end: without a bound for
//! each, one worker's redirects would keep everybody's changes from being served.

use serde::Serialize;

use super::reason::Reason;
use crate::route::Route;
use crate::wire::FRAME_MAX;

/// Most bytes of one worker's part, as it is sent.
pub(super) const PART: usize = 128 << 10;
/// What each worker has for itself: up to this, no part is refused for the size of others'.
pub(super) const OWN: usize = 4 << 10;
/// What there is for all that is beyond that.
const SHARED: usize = 4 << 20;
/// Most bytes of all parts. What is left of a message is for certificates, for what drains and for what halts workers.
const WHOLE: usize = 10 << 20;
/// Most bytes of what went wrong with workers, which developers are shown.
pub(super) const TROUBLES: usize = 1 << 20;
/// What is not known of a part when it is measured: where its assets will be, when it is tried again.
const UNKNOWN: usize = 512;

const _: () = assert!(WHOLE + TROUBLES + crate::route::FRONT_MAX < FRAME_MAX - (2 << 20));

/// The bytes of a worker's part.
pub(super) fn part(route: &Route) -> usize {
    size(route) + UNKNOWN
}

/// Bytes as they are sent.
fn size(what: &impl Serialize) -> usize {
    // What can not be written is not sent either.
    serde_json::to_vec(what).map_or(usize::MAX / 2, |bytes| bytes.len())
}

/// Whether there is room for `part` beside `others`.
pub(super) fn admit(part: usize, others: impl Iterator<Item = usize>) -> Result<(), Reason> {
    const CURE: &str = "shorten or remove 'redirects', 'hosts' or 'error_pages' in its config/worker.yaml, or directories with an index.php below its document root";
    if part > PART {
        return Err(Reason::Unusable(format!(
            "its part of the route table has {part} bytes, and a worker's may have {PART}; {CURE}"
        )));
    }
    let (mut whole, mut shared) = (part, part.saturating_sub(OWN));
    for other in others {
        whole += other;
        shared += other.saturating_sub(OWN);
    }
    if part > OWN && shared > SHARED {
        return Err(Reason::Unusable(format!(
            "its part of the route table has {part} bytes; each worker has {OWN} for itself, and the {SHARED} bytes that all share beyond \
             that are used up by others; {CURE}"
        )));
    }
    if whole > WHOLE {
        return Err(Reason::Unusable(format!(
            "with its {part} bytes the route table would have {whole}, and it may have {WHOLE}; {CURE}, or remove workers"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(part: usize, others: &[usize]) -> bool {
        admit(part, others.iter().copied()).is_ok()
    }

    #[test]
    fn a_small_part_fits_whatever_others_have() {
        let large = vec![PART; 100];
        let admitted = (0..large.len())
            .take_while(|&n| fits(PART, &large[..n]))
            .count();
        assert!(admitted < large.len(), "large parts come to an end");
        let mut all = large[..admitted].to_vec();
        while fits(PART, &all) {
            all.push(PART);
        }
        for _ in 0..1000 {
            assert!(fits(OWN, &all), "{} workers", all.len());
            all.push(OWN);
        }
        assert!(!fits(OWN + PART / 2, &all));
        assert!(all.iter().sum::<usize>() < FRAME_MAX);
    }

    #[test]
    fn the_one_that_is_too_large_is_told_its_size_and_what_to_do() {
        let refused = admit(PART + 1, std::iter::empty()).unwrap_err().to_string();
        assert!(refused.contains("131073 bytes"), "{refused}");
        assert!(refused.contains("'redirects'"), "{refused}");
    }
}
