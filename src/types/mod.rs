//! What is known of each type of worker, as data: a file for each type, and its files for `tqserver new` in a directory beside it.
//!
//! Nothing is done here. Who looks for workers, builds, runs, copies or packages them asks [`of`] and goes by what it says.
//!
//! A new type is a variant of [`WorkerType`], a file that says what is known of it, its template, and its line in [`ALL`] and in [`of`].
//! Only what none of the others has, a compiler say, is a variant of [`Compiler`] and a function of the builder besides.

use std::fmt;

#[macro_use]
mod template;

pub mod bun;
pub mod deno;
mod descriptor;
pub mod exec;
pub mod go;
pub mod node;
mod omitted;
pub mod php;
pub mod python;
pub mod rust;
pub mod static_files;

pub use descriptor::{Build, Compiler, Installer, Run, Script, Sign, Signs, Type, WorkerType};
pub use omitted::{DATA, is_omitted};
pub use template::{File, Template};

/// All types, in the order in which messages name them and signs of them are looked for.
pub static ALL: [&Type; 9] = [
    &rust::TYPE,
    &go::TYPE,
    &node::TYPE,
    &python::TYPE,
    &php::TYPE,
    &bun::TYPE,
    &deno::TYPE,
    &exec::TYPE,
    &static_files::TYPE,
];

/// What is known of a type.
pub fn of(kind: WorkerType) -> &'static Type {
    match kind {
        WorkerType::Rust => &rust::TYPE,
        WorkerType::Go => &go::TYPE,
        WorkerType::Node => &node::TYPE,
        WorkerType::Python => &python::TYPE,
        WorkerType::Php => &php::TYPE,
        WorkerType::Bun => &bun::TYPE,
        WorkerType::Deno => &deno::TYPE,
        WorkerType::Exec => &exec::TYPE,
        WorkerType::Static => &static_files::TYPE,
    }
}

impl fmt::Display for WorkerType {
    /// As a file spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(of(*self).name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_name_and_is_written_down_by_it() {
        for kind in ALL {
            assert!(std::ptr::eq(of(kind.kind), kind), "{}", kind.name);
            let written = serde_json::to_string(&kind.kind).unwrap();
            assert_eq!(written, format!("\"{}\"", kind.name));
            assert_eq!(kind.kind.to_string(), kind.name);
            let read: WorkerType = serde_json::from_str(&written).unwrap();
            assert_eq!(ALL.iter().filter(|other| other.kind == read).count(), 1);
        }
    }
}
