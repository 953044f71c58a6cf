//! What documents say of tests and examples is so: `tests/contract/README.md` and the promises in `README.md` name tests and files that
//! exist, and the transport in `README.md` is the example that is built.

use std::collections::HashSet;

use crate::rules::File;

/// Names in `tests/contract/README.md` that may still be pending. It only ever falls.
const PENDING_MAX: usize = 0;

/// The document that names tests.
const LIST: &str = "tests/contract/README.md";

/// The part of `README.md` that names tests and files.
const PROMISES: &str = "## Promises, and what holds them\n";

/// Where files of tests and of the source are, for names such as `e2e/crash` and `policy/scheduler`.
const ROOMS: [&str; 5] = ["", "tests/", "spooler/src/", "spooler/src/system/", "worker/src/"];

/// What is wrong with the names in the list.
fn wrong_names(list: &str, known: &HashSet<String>, pending_max: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut pending = 0;
    for (index, line) in list.lines().enumerate().filter(|(_, line)| line.starts_with('|')) {
        let pieces: Vec<&str> = line.split('`').collect();
        // Every second piece stands between two backticks; what names a test has words in it.
        for pair in pieces.chunks_exact(2) {
            let [before, name] = pair else { continue };
            if !name.contains('_') || name.contains(char::is_uppercase) {
                continue;
            }
            let is_pending = before.trim_end().ends_with("*pending*");
            pending += usize::from(is_pending);
            match (known.contains(*name), is_pending) {
                (true, false) | (false, true) => {}
                (true, true) => {
                    wrong.push(format!("{LIST}:{}: {name} is there; it is not pending any more", index + 1))
                }
                (false, false) => wrong.push(format!("{LIST}:{}: there is no test {name}", index + 1)),
            }
        }
    }
    if pending > pending_max {
        wrong.push(format!("{LIST}: {pending} names are pending; allowed are {pending_max}"));
    }
    wrong
}

/// The table of promises.
fn promises(readme: &str) -> &str {
    let (_, rest) = readme.split_once(PROMISES).expect("README.md has a table of promises");
    rest.split("\n#").next().unwrap_or_default()
}

/// Names in the table of promises of which there is neither a test nor a file nor a fuzz target. What has no `_` and no `/` is a word, and
/// what has a capital is a variable.
fn broken_promises(promises: &str, known: &HashSet<String>, paths: &HashSet<&str>) -> Vec<String> {
    let rows = promises.lines().filter(|line| line.starts_with('|'));
    let names = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let exists = |name: &str| {
        let path = name.split(' ').next().unwrap_or_default();
        let is = |path: &str| {
            let folder = format!("{path}/");
            [path, &format!("{path}.rs"), &format!("fuzz/fuzz_targets/{path}.rs")]
                .iter()
                .any(|path| paths.contains(path))
                || paths.iter().any(|known| known.starts_with(&folder))
        };
        known.contains(name) || ROOMS.iter().any(|room| is(&format!("{room}{path}")))
    };
    let is_name = |name: &&str| name.contains(['_', '/']) && !name.contains(char::is_uppercase);
    names.filter(is_name).filter(|name| !exists(name)).map(str::to_owned).collect()
}

/// The names of all tests: functions below `#[test]`.
fn tests_in(files: &[File]) -> HashSet<String> {
    let mut names = HashSet::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let mut is_test = false;
        for line in file.text.lines().map(str::trim_start) {
            is_test |= line == "#[test]";
            if let Some(rest) = line.strip_prefix("fn ").filter(|_| is_test) {
                names.extend(rest.split('(').next().map(str::to_owned));
                is_test = false;
            }
        }
    }
    names
}

fn text_of<'a>(files: &'a [File], path: &str) -> &'a str {
    let file = files.iter().find(|file| file.path == path);
    &file.unwrap_or_else(|| panic!("{path} was not found")).text
}

#[test]
fn the_contract_names_tests_that_exist() {
    let files = crate::files();
    let wrong = wrong_names(text_of(&files, LIST), &tests_in(&files), PENDING_MAX);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_promises_name_tests_and_files_that_exist() {
    let files = crate::files();
    let paths: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let promises = promises(text_of(&files, "README.md"));
    assert!(promises.lines().filter(|line| line.starts_with('|')).count() > 20, "the table is not where it was");
    assert_eq!(broken_promises(promises, &tests_in(&files), &paths), [""; 0], "in the promises of README.md");
}

#[test]
fn the_transport_of_the_readme_is_the_example() {
    let files = crate::files();
    let block = format!("```rust\n{}```\n", text_of(&files, "worker/examples/printer.rs"));
    assert!(text_of(&files, "README.md").contains(&block), "README.md shows another worker/examples/printer.rs");
}

#[test]
fn names_that_are_wrong_are_found() {
    let rust = |text: &str| File { path: "a.rs".to_owned(), text: text.to_owned() };
    let known = tests_in(&[rust(
        "#[test]\nfn it_is_so() {}\n#[test]\n#[ignore = \"slow\"]\nfn it_was_so() {}\nfn a_helper() {}",
    )]);
    assert_eq!(known.len(), 2);
    assert_eq!(
        wrong_names("| a | `it_is_so`, `it_was_so` | *pending* `it_will_be` |\n`not_in_a_table`", &known, 1),
        [""; 0]
    );
    for bad in ["| `a_helper` |", "| x | `it_is_so`, `it_is_not` |", "| *pending* `it_is_so` |"] {
        assert_eq!(wrong_names(bad, &known, 1).len(), 1, "{bad}");
    }
    let many = "| *pending* `not_yet` |\n".repeat(2);
    assert_eq!(wrong_names(&many, &known, 1).len(), 1);
}

#[test]
fn promises_that_nothing_holds_are_found() {
    let known = HashSet::from(["it_is_so".to_owned()]);
    let paths = HashSet::from(["tests/e2e/crash.rs", "fuzz/fuzz_targets/from_worker.rs", "scripts/soak"]);
    let table =
        |names: &str| format!("# Title\n\n{PROMISES}\n| a promise | 3 | {names} |\n\n## Next\n| `not_here` |\n");
    let good = table("`e2e/crash` `it_is_so`, `from_worker`, `scripts/soak --short` (`SPOOLER_KILLS=200`, `word`)");
    assert_eq!(broken_promises(promises(&good), &known, &paths), [""; 0]);
    for bad in ["it_is_not", "e2e/crush", "scripts/walk --far", "to_worker"] {
        assert_eq!(broken_promises(promises(&table(&format!("`{bad}`"))), &known, &paths), [bad]);
    }
}
