//! What changed between what lies on disk and what runs.

use super::spec::Spec;
use crate::config::WorkerType;
use crate::inventory::is_same;

/// What a reload has to do for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// New assets for the same process.
    Assets,
    /// A new generation.
    Generation,
}

/// Whether what lies on disk is what was there when `runs` was rolled back to: nobody wants it.
pub(super) fn is_passed_over(runs: &Spec, disk: &Spec) -> bool {
    let passed_over = runs.passed_over.as_ref();
    passed_over.is_some_and(|passed| passed.is_of_like_files(&disk.fingerprint))
}

/// Whether nothing but assets can have changed.
pub(super) fn is_same_program(runs: &Spec, disk: &Spec) -> bool {
    let (now, then) = (&disk.fingerprint, &runs.fingerprint);
    is_same(&then.program, &now.program) && is_same_config(runs, disk)
}

/// Whether it is to run as before.
pub(super) fn is_same_config(runs: &Spec, disk: &Spec) -> bool {
    is_same(&runs.fingerprint.config, &disk.fingerprint.config)
        && runs.settings == disk.settings
        && runs.directory == disk.directory
}

/// Compares what runs with what lies on disk.
pub(super) fn change(runs: &Spec, disk: &Spec, force: bool) -> Change {
    if !force && is_passed_over(runs, disk) {
        return Change::None;
    }
    let (now, then) = (&disk.fingerprint, &runs.fingerprint);
    let is_static = disk.settings.kind == WorkerType::Static;
    if force || !is_same_program(runs, disk) {
        Change::Generation
    } else if is_same(&then.assets, &now.assets) && runs.public == disk.public {
        Change::None
    } else if disk.public.is_none() || (is_static && !disk.is_built_site()) {
        // Without a process there is nothing to keep, and without assets nothing to copy.
        Change::Generation
    } else {
        Change::Assets
    }
}
