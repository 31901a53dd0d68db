//! The floors of docs/architecture.md: a module imports only from floors below its own, so there is no circle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[test]
fn no_module_imports_from_its_own_floor_or_above() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let floors = floors(&std::fs::read_to_string(root.join("docs/architecture.md")).unwrap());
    let mut wrong = Vec::new();
    for file in sources(&root.join("src")) {
        let relative = file.strip_prefix(root.join("src")).unwrap();
        let module = relative.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
        if module == "lib" || module == "main" || relative.to_string_lossy().contains("tests") {
            continue;
        }
        let Some(own) = floors.get(&module) else {
            wrong.push(format!("{module} has no floor in docs/architecture.md"));
            continue;
        };
        let source = std::fs::read_to_string(&file).unwrap();
        // Tests stand last.
        let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
        for line in code.lines().map(|l| l.split("//").next().unwrap()) {
            for import in line.split("crate::").skip(1) {
                let name: String = import.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if name != module && floors.get(&name).is_some_and(|floor| floor >= own) {
                    wrong.push(format!("{}: {}", relative.display(), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(floors.len() > 20, "{floors:?}");
}

/// The floor of each module, from the table.
fn floors(text: &str) -> BTreeMap<String, u32> {
    let mut floors = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, floor, modules, ..] = cells.as_slice() else { continue };
        let Ok(floor) = floor.parse() else { continue };
        for module in modules.split(',') {
            floors.insert(module.trim().trim_matches('`').to_owned(), floor);
        }
    }
    floors
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            all.push(path);
        }
    }
    all
}
