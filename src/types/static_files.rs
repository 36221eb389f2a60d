//! Static: no program, only the files in `public/`. It is known by having nothing else.

use super::descriptor::{Build, Run, Signs, Type, WorkerType};
use super::omitted;

/// What is known of it.
pub static TYPE: Type = Type {
    kind: WorkerType::Static,
    name: "static",
    signs: Signs::NONE,
    run: Run::Nothing,
    build: Build::Nothing,
    tools: &[],
    jit: false,
    omits: &[omitted::DATA],
    package: None,
    template: None,
};
