//! What documents say of tests and examples is so: `tests/contract/README.md` names tests that exist, and the transport in `README.md` is
//! the example that is built.

use std::collections::HashSet;

use crate::rules::File;

/// Names in `tests/contract/README.md` that may still be pending. It only ever falls.
const PENDING_MAX: usize = 0;

/// The document that names tests.
const LIST: &str = "tests/contract/README.md";

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
