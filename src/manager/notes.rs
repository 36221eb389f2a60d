//! What happens to workers, as entries of the journal.

use crate::messages;
use crate::names::Instance;
use crate::plan::{Kind, Note, Severity};

/// A note as an entry of the journal. `tqserver history` reads these.
pub(super) fn log(note: &Note) {
    let generation = note.generation.map(|generation| generation.0);
    let unit = note
        .generation
        .map(|generation| Instance::new(note.worker.clone(), generation).service_unit());
    let unit = unit.as_deref();
    let (worker, text) = (note.worker.as_str(), note.text.as_str());
    let (message_id, cause, reason, from) = match &note.kind {
        Kind::Progress => (None, None, None, None),
        Kind::Accepted { cause, from } => (
            Some(messages::GENERATION_ACCEPTED),
            Some(*cause),
            None,
            *from,
        ),
        Kind::Failed { cause, reason } => (
            Some(messages::GENERATION_FAILED),
            *cause,
            Some(reason),
            None,
        ),
        Kind::Ended { reason } => (Some(messages::GENERATION_ENDED), None, Some(reason), None),
        Kind::Assets => (Some(messages::ASSETS_ACCEPTED), None, None, None),
        Kind::Stopped => (Some(messages::GENERATION_STOPPED), None, None, None),
        Kind::Removed => (Some(messages::WORKER_REMOVED), None, None, None),
        Kind::Down { reason } => (Some(messages::WORKER_DOWN), None, Some(reason), None),
        Kind::Unhealthy { reason } => (Some(messages::HEALTH_FAILED), None, Some(reason), None),
    };
    let (cause, from) = (
        cause.map(|cause| cause.to_string()),
        from.map(|generation| generation.0),
    );
    // The journal shows the line among the worker's own when asked for the worker's unit (systemd.journal-fields(7)): with the first
    // field for the machine's units, which it believes root alone, with the second for a user's.
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(
                message_id,
                tq.worker = worker,
                tq.generation = generation,
                tq.cause = cause,
                tq.reason = reason,
                tq.from = from,
                object_systemd_unit = unit,
                object_systemd_user_unit = unit,
                "{text}"
            )
        };
    }
    match note.severity {
        Severity::Info => log!(info),
        Severity::Warning => log!(warn),
        Severity::Error => log!(error),
    }
}
