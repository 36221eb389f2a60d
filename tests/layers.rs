//! The source has the structure that docs/ARCHITECTURE.md draws: an import goes to a lower layer, and none goes in a circle.
//!
//! An import is whatever names another file of `src/`: a `use`, and a path in the code or in the arguments of a macro. A name that a
//! module passes on (`pub use`) counts as the file that defines it. Tests beside the code may reach anywhere, and are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Item, UseTree, Visibility};

/// A module, by its path from the crate's root: `["proxy", "wire"]`.
type ModulePath = Vec<String>;

/// What the source says about one module.
#[derive(Default)]
struct Module {
    /// Where it is written, below the directory of the first file.
    file: String,
    children: BTreeSet<String>,
    /// Names brought in by `use`, with the path each stands for.
    names: BTreeMap<String, Vec<String>>,
    /// Those of them that are passed on (`pub use`). They are imports only if the module's own code says them, too.
    passed_on: BTreeSet<String>,
    /// Each word of the module's code.
    words: BTreeSet<String>,
    /// `use a::*`.
    globs: Vec<Vec<String>>,
    /// Every other path with at least two segments.
    paths: BTreeSet<Vec<String>>,
}

/// All modules of the crate.
struct Source {
    modules: BTreeMap<ModulePath, Module>,
}

/// For each file those that it imports, with the path that says so.
type Imports = BTreeMap<String, BTreeMap<String, String>>;

/// Those of this crate.
static IMPORTS: LazyLock<Imports> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    Source::read(&root.join("lib.rs")).imports()
});

impl Source {
    /// All modules below this file.
    fn read(first: &Path) -> Source {
        let mut source = Source {
            modules: BTreeMap::new(),
        };
        let root = first.parent().unwrap();
        source.read_file(root, first, Vec::new());
        source
    }

    fn read_file(&mut self, root: &Path, file: &Path, path: ModulePath) {
        let text =
            fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let parsed =
            syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let below = match file.file_name().and_then(|name| name.to_str()) {
            Some("lib.rs" | "main.rs" | "mod.rs") => file.parent().unwrap().to_owned(),
            _ => file.with_extension(""),
        };
        self.read_items(root, file, &below, path, &parsed.items);
    }

    fn read_items(
        &mut self,
        root: &Path,
        file: &Path,
        below: &Path,
        path: ModulePath,
        items: &[Item],
    ) {
        let mut module = Module {
            file: file.strip_prefix(root).unwrap().display().to_string(),
            ..Module::default()
        };
        for item in items {
            match item {
                Item::Mod(child) if !only_in_tests(&child.attrs) => {
                    let name = child.ident.to_string();
                    let mut inner = path.clone();
                    inner.push(name.clone());
                    match &child.content {
                        Some((_, items)) => {
                            self.read_items(root, file, &below.join(&name), inner, items)
                        }
                        None => {
                            let found = [
                                below.join(format!("{name}.rs")),
                                below.join(&name).join("mod.rs"),
                            ];
                            let found: Option<&PathBuf> = found.iter().find(|file| file.exists());
                            let found = found.unwrap_or_else(|| {
                                panic!("{}: mod {name}: no such file", file.display())
                            });
                            self.read_file(root, found, inner);
                        }
                    }
                    module.children.insert(name);
                }
                Item::Use(import) if !only_in_tests(&import.attrs) => {
                    let before: BTreeSet<String> = module.names.keys().cloned().collect();
                    read_use(&import.tree, &mut Vec::new(), &mut module);
                    if !matches!(import.vis, Visibility::Inherited) {
                        let passed_on = module.names.keys().filter(|name| !before.contains(*name));
                        module.passed_on.extend(passed_on.cloned());
                    }
                }
                Item::Mod(_) | Item::Use(_) => {}
                item if only_in_tests(attributes(item)) => {}
                item => read_paths(without_tests(item), &mut module),
            }
        }
        self.modules.insert(path, module);
    }

    /// The files that `path`, said in the module `from`, names: the modules on the way that are named for themselves, and the file that defines
    /// its end. `None` if it leads out of the crate.
    fn resolve(&self, from: &ModulePath, path: &[String], steps: usize) -> Option<ModulePath> {
        if steps > 16 {
            return None;
        }
        let (mut at, mut rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (from.clone(), &path[1..]),
            "super" => {
                let mut at = from.clone();
                at.pop()?;
                (at, &path[1..])
            }
            name => {
                let module = &self.modules[from];
                if !module.children.contains(name) && !module.names.contains_key(name) {
                    return None;
                }
                (from.clone(), path)
            }
        };
        while rest.first().is_some_and(|name| name == "super") {
            at.pop()?;
            rest = &rest[1..];
        }
        while let Some(name) = rest.first() {
            let module = &self.modules[&at];
            if module.children.contains(name) {
                at.push(name.clone());
                rest = &rest[1..];
                continue;
            }
            if let Some(meant) = module.names.get(name) {
                let mut meant = meant.clone();
                if meant.first() == Some(name) && !self.modules[&at].children.contains(name) {
                    return None;
                }
                meant.extend_from_slice(&rest[1..]);
                return self.resolve(&at, &meant, steps + 1);
            }
            for glob in &module.globs {
                let mut meant = glob.clone();
                meant.push(name.clone());
                if let Some(found) = self.resolve(&at, &meant, steps + 1)
                    && found != at
                {
                    return Some(found);
                }
            }
            break;
        }
        Some(at)
    }

    fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (path, module) in &self.modules {
            let of_module = imports.entry(module.file.clone()).or_default();
            let globs = module.globs.iter().cloned().map(|mut glob| {
                glob.push("*".to_owned());
                glob
            });
            let named = module.names.iter().filter(|(name, _)| {
                !module.passed_on.contains(*name) || module.words.contains(*name)
            });
            for said in named
                .map(|(_, path)| path)
                .cloned()
                .chain(module.paths.iter().cloned())
                .chain(globs)
            {
                let Some(meant) = self.resolve(path, &said, 0) else {
                    continue;
                };
                let file = &self.modules[&meant].file;
                if *file != module.file {
                    of_module
                        .entry(file.clone())
                        .or_insert_with(|| said.join("::"));
                }
            }
        }
        imports
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether `#[cfg(test)]` or `#[cfg(any(fuzzing, test))]` is before it.
fn only_in_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = attribute.to_token_stream().to_string();
        attribute.path().is_ident("cfg")
            && !text.contains("not")
            && (text.contains("test") || text.contains("fuzzing"))
    })
}

/// The code of an item but for functions that only tests have.
fn without_tests(item: &Item) -> TokenStream {
    let Item::Impl(block) = item else {
        return item.to_token_stream();
    };
    let mut code = block.self_ty.to_token_stream();
    if let Some((implemented, _)) = &block.trait_ {
        code.extend(implemented.to_token_stream());
    }
    for item in &block.items {
        match item {
            syn::ImplItem::Fn(function) if only_in_tests(&function.attrs) => {}
            syn::ImplItem::Const(constant) if only_in_tests(&constant.attrs) => {}
            item => code.extend(item.to_token_stream()),
        }
    }
    code
}

fn read_use(tree: &UseTree, before: &mut Vec<String>, module: &mut Module) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            read_use(&path.tree, before, module);
            before.pop();
        }
        UseTree::Name(name) if name.ident == "self" => {
            module
                .names
                .insert(before.last().unwrap().clone(), before.clone());
        }
        UseTree::Name(name) => {
            let mut path = before.clone();
            path.push(name.ident.to_string());
            module.names.insert(name.ident.to_string(), path);
        }
        UseTree::Rename(name) => {
            let mut path = before.clone();
            if name.ident != "self" {
                path.push(name.ident.to_string());
            }
            // Traits without a name, too.
            let key = if name.rename == "_" {
                format!("_ {}", path.join("::"))
            } else {
                name.rename.to_string()
            };
            module.names.insert(key, path);
        }
        UseTree::Glob(_) => module.globs.push(before.clone()),
        UseTree::Group(group) => {
            for tree in &group.items {
                read_use(tree, before, module);
            }
        }
    }
}

/// Finds the words of code and each `a::b::c`, in what macros are given, too. What `pub(in a::b)` names is no import.
fn read_paths(code: TokenStream, module: &mut Module) {
    let mut path: Vec<String> = Vec::new();
    let mut colons = 0;
    let keep = |path: &mut Vec<String>, module: &mut Module| {
        if path.len() > 1 {
            module.paths.insert(path.clone());
        }
        path.clear();
    };
    for token in code {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            TokenTree::Ident(ident) => {
                if colons != 2 {
                    keep(&mut path, module);
                }
                module.words.insert(ident.to_string());
                path.push(ident.to_string());
                colons = 0;
            }
            token => {
                let visibility = path == ["pub"];
                keep(&mut path, module);
                colons = 0;
                match token {
                    TokenTree::Group(group) if !visibility => read_paths(group.stream(), module),
                    _ => {}
                }
            }
        }
    }
    keep(&mut path, module);
}

/// Groups of files that import each other, directly or by way of others.
fn cycles(imports: &Imports) -> Vec<Vec<String>> {
    // Few hundred files: what each reaches, and who reaches it, is soon known.
    let reach = |start: &String| {
        let mut seen = BTreeSet::new();
        let mut open = vec![start.clone()];
        while let Some(file) = open.pop() {
            for next in imports.get(&file).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> =
        imports.keys().map(|file| (file, reach(file))).collect();
    let mut found = BTreeSet::new();
    for (file, files) in &reached {
        if files.contains(*file) {
            let circle: Vec<String> = files
                .iter()
                .filter(|other| reached.get(other).is_some_and(|back| back.contains(*file)))
                .cloned()
                .collect();
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

#[test]
fn no_import_goes_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bench = Source::read(&root.join("benches/proxy/main.rs")).imports();
    assert!(bench.len() > 10, "only {} files", bench.len());
    let mut text = String::new();
    for imports in [&*IMPORTS, &bench] {
        for circle in cycles(imports) {
            text += &format!("\n{} files import each other:\n", circle.len());
            for file in &circle {
                for (other, said) in &imports[file] {
                    if circle.contains(other) {
                        text += &format!("  {file} -> {other} ({said})\n");
                    }
                }
            }
        }
    }
    assert!(text.is_empty(), "{text}");
}

/// The floors of one directory, as a table of docs/ARCHITECTURE.md draws them: `| floor | in `src/proxy/` | ... |`.
struct Floors {
    /// Below `src/`: empty, or `proxy/`.
    directory: String,
    floor_of: BTreeMap<String, u32>,
}

impl Floors {
    fn read(document: &str) -> Vec<Floors> {
        let mut tables: Vec<Floors> = Vec::new();
        let mut inside = false;
        for line in document.lines() {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            match cells.as_slice() {
                ["", "floor", place, ..] => {
                    let directory = place.trim_start_matches("in `src/").trim_end_matches('`');
                    let directory = directory.to_owned();
                    tables.push(Floors {
                        directory,
                        floor_of: BTreeMap::new(),
                    });
                    inside = true;
                }
                ["", floor, modules, ..] if inside => {
                    let Ok(floor) = floor.parse() else { continue };
                    let names = modules.split('`').skip(1).step_by(2);
                    let names = names.map(|name| (name.trim_end_matches('/').to_owned(), floor));
                    tables.last_mut().unwrap().floor_of.extend(names);
                }
                _ => inside = false,
            }
        }
        tables
    }

    /// What of this directory a file is part of: `config` for `config/server/front.rs`.
    fn part(&self, file: &str) -> Option<String> {
        let below = file.strip_prefix(&self.directory)?;
        let part = below.split('/').next()?.trim_end_matches(".rs");
        let root = matches!(part, "lib" | "main" | "mod");
        (!root).then(|| part.to_owned())
    }
}

#[test]
fn imports_go_to_lower_floors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/ARCHITECTURE.md")).unwrap();
    let mut wrong = BTreeSet::new();
    let tables = Floors::read(&document);
    assert!(
        tables.len() > 1,
        "docs/ARCHITECTURE.md has a table of floors for src/ and one for src/proxy/"
    );
    for floors in tables {
        let mut seen = BTreeSet::new();
        for (file, imported) in &*IMPORTS {
            let Some(part) = floors.part(file) else {
                continue;
            };
            let Some(floor) = floors.floor_of.get(&part) else {
                wrong.insert(format!("{file} is on no floor"));
                continue;
            };
            seen.insert(part.clone());
            for (other, said) in imported {
                let Some(below) = floors.part(other).filter(|other| *other != part) else {
                    continue;
                };
                if floors
                    .floor_of
                    .get(&below)
                    .is_some_and(|below| below >= floor)
                {
                    wrong.insert(format!("{file} (floor {floor}) imports {other} by {said}"));
                }
            }
        }
        let gone = floors.floor_of.keys().filter(|part| !seen.contains(*part));
        wrong.extend(gone.map(|part| format!("src/{}{part} does not exist", floors.directory)));
    }
    assert!(
        wrong.is_empty(),
        "{}",
        wrong.into_iter().collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn the_rust_version_that_is_named_is_enough_for_all_dependencies() {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let known: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let version = |text: &str| {
        let numbers = text.split('.').map(|number| number.parse().unwrap());
        numbers.collect::<Vec<u32>>()
    };
    let named = env!("CARGO_PKG_RUST_VERSION");
    for package in known["packages"].as_array().unwrap() {
        let Some(needed) = package["rust_version"].as_str() else {
            continue;
        };
        assert!(
            version(needed)[..2] <= version(named)[..2],
            "{} needs Rust {needed}; Cargo.toml names {named}",
            package["name"]
        );
    }
    let readme = include_str!("../README.md");
    assert!(
        readme.contains(&format!("Rust {named}")),
        "README.md names another version than Cargo.toml"
    );
}
