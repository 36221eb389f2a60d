//! Static: no program, only the files in `public/`. It is known by having nothing else.

use super::descriptor::{Build, NOT_THE_PROGRAMS, Run, Signs, Type, WorkerType};

/// What is known of it.
pub static TYPE: Type = Type {
    kind: WorkerType::Static,
    name: "static",
    signs: Signs::NONE,
    run: Run::Nothing,
    build: Build::Nothing,
    tools: &[],
    jit: false,
    omits: NOT_THE_PROGRAMS,
    package: None,
    template: None,
};
