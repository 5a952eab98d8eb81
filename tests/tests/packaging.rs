//! Each crate that others use holds all that it embeds: what `cargo package` packs is enough to build it.

use std::path::{Path, PathBuf};

/// Files below `folder` that end in `.rs`; nested crates are their own.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() && !path.join("Cargo.toml").exists() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn nothing_is_embedded_from_outside_a_crate() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a parent");
    let mut embedded = 0;
    for folder in ["shaders", "runtime", "tools", "examples/data"] {
        let folder = root.join(folder).canonicalize().expect("the crate is there");
        let mut files = Vec::new();
        sources(&folder, &mut files);
        for file in files {
            if file.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests")) {
                continue;
            }
            let text = std::fs::read_to_string(&file).expect("it is text");
            // Tests run in the project, beside their fixtures.
            let text = text.split("#[cfg(test)]").next().expect("a part before it");
            for call in ["include_str!(\"", "include_bytes!(\""] {
                for part in text.split(call).skip(1) {
                    let name = part.split('"').next().expect("a name");
                    let path = file.parent().expect("a folder").join(name);
                    let path = path.canonicalize().expect("what is embedded is there");
                    assert!(path.starts_with(&folder), "{} embeds {name}", file.display());
                    embedded += 1;
                }
            }
        }
    }
    assert!(embedded > 20, "{embedded} embedded files were found");
}
