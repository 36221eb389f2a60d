//! What a worker can be rolled back to.

use super::scan::{Scan, spec_of};
use crate::deploy::Accepted;
use crate::names::{Generation, WorkerName};
use crate::plan::Spec;

/// The accepted generation to go back to, with what it was made of, as server.yaml allows it: `wanted`, or else the newest before the one
/// that serves.
///
/// # Errors
/// Why there is none, in a sentence.
pub(super) fn to_roll_back_to(
    scan: &Scan,
    worker: &WorkerName,
    serving: Option<Generation>,
    wanted: Option<Generation>,
) -> Result<(Generation, Spec), String> {
    let Some(accepted) = &scan.history else {
        return Err("in development nothing is kept to go back to".to_owned());
    };
    let (generation, mut spec) = chosen(accepted, scan, worker, serving, wanted)?;
    if let Some((.., why)) = scan.forbidden(&spec) {
        return Err(why);
    }
    let of = &mut spec.settings;
    of.limits = scan.settings.lowered(&of.route, &of.limits).0;
    Ok((generation, spec))
}

fn chosen(
    accepted: &[Accepted],
    scan: &Scan,
    worker: &WorkerName,
    serving: Option<Generation>,
    wanted: Option<Generation>,
) -> Result<(Generation, Spec), String> {
    let Some(on_disk) = scan.workers.get(worker) else {
        return Err(format!("there is no worker '{worker}'"));
    };
    let kept = || {
        let others = accepted.iter().map(|kept| kept.generation);
        let others = others.filter(|other| Some(*other) != serving);
        let numbers: Vec<String> = others.map(|number| number.to_string()).collect();
        match numbers.is_empty() {
            true => "no other that was accepted is kept".to_owned(),
            false => format!("accepted and kept: {}", numbers.join(", ")),
        }
    };
    let previous = || match serving {
        Some(serving) => Accepted::previous(accepted, serving),
        None => accepted.first(),
    };
    let numbered = |wanted| accepted.iter().find(|kept| kept.generation == wanted);
    let found = match wanted {
        Some(wanted) if Some(wanted) == serving => Err(format!(
            "generation {wanted} of '{worker}' serves already; {}",
            kept()
        )),
        Some(wanted) => numbered(wanted).ok_or_else(|| {
            format!(
                "there is no generation {wanted} of '{worker}' to go back to; {}",
                kept()
            )
        }),
        None => previous().ok_or_else(|| {
            format!(
                "there is nothing different to go back to of '{worker}'; {}",
                kept()
            )
        }),
    }?;
    let generation = found.generation;
    let mut spec = spec_of(found.manifest.clone(), found.assets.is_some(), scan, worker);
    // Whoever rolls back does not want the next reload to bring back what lies there now.
    spec.passed_over = match on_disk {
        Ok(disk) if !disk.fingerprint.is_of_the_same_files(&spec.fingerprint) => {
            Some(disk.fingerprint.clone())
        }
        _ => None,
    };
    Ok((generation, spec))
}
