//! The house rules for files. Each takes one file and says what is wrong in it; each is shown to bite by a test at the end.

use crate::source::{code_of, paths_of, tokens_of};

/// Lines of a source file, its unit tests included.
const FILE_LINES_MAX: usize = 500;

/// One file of the repository.
#[derive(Debug)]
pub(crate) struct File {
    /// Below the top of the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// A line, counted from 1, and what is wrong there.
pub(crate) type Finding = (usize, String);

/// A rule: what is wrong in a file.
pub(crate) type Rule = fn(&File) -> Vec<Finding>;

/// What decides knows no clock, no kernel and no library: only `std`'s values, the protocol and itself.
pub(crate) fn deciding_is_pure(file: &File) -> Vec<Finding> {
    let decides = file.path.starts_with("spooler/src/policy/")
        || file.path.starts_with("spooler/src/supervisor/")
        || matches!(file.path.as_str(), "spooler/src/policy.rs" | "spooler/src/supervisor.rs");
    if !decides
        || file.path.ends_with("/tests.rs")
        || file.path.ends_with("/fuzzing.rs")
        || file.path.contains("/scenarios/")
    {
        return Vec::new();
    }
    let in_policy = file.path.starts_with("spooler/src/policy");
    let own_code = file.text.split("#[cfg(test)]").next().unwrap_or_default();
    let impure = |(line, path): (usize, Vec<String>)| impurity(&path, in_policy).map(|why| (line, why));
    paths_of(own_code).into_iter().filter_map(impure).collect()
}

/// What decides takes plain data only: that of the dictionary, and for the supervisor that of the configuration and the store.
fn impurity(path: &[String], in_policy: bool) -> Option<String> {
    const KERNEL: [&str; 7] = ["env", "fs", "io", "net", "os", "process", "thread"];
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    let reads_clock = words.windows(2).any(|pair| matches!(pair, ["Instant" | "SystemTime", "now"]));
    let bad = reads_clock
        || match words.as_slice() {
            ["std", module, ..] => KERNEL.contains(module),
            ["crate", "config", data, ..] => in_policy || !matches!(*data, "self" | "Config" | "Provider"),
            ["crate", "record", ..] | ["bytes", "Bytes"] => in_policy,
            ["config", function] => function.starts_with(char::is_lowercase),
            ["crate", room, ..] => !matches!(*room, "policy" | "supervisor"),
            ["super", rest @ ..] => rest.contains(&"system"),
            [root, _, ..] => crate::manifests::library_names().iter().any(|library| library == root),
            _ => false,
        };
    bad.then(|| {
        format!("{} has no place where decisions are made; they take their facts as arguments", words.join("::"))
    })
}

/// `unsafe` is below `system/` and in the worker's sandbox.
pub(crate) fn unsafe_stays_in_its_rooms(file: &File) -> Vec<Finding> {
    let allowed = file.path.starts_with("spooler/src/system/") || file.path.starts_with("worker/src/sandbox");
    if !file.is_rust() || allowed {
        return Vec::new();
    }
    let tokens = tokens_of(&code_of(&file.text)).into_iter().filter(|token| token.text == "unsafe");
    tokens
        .map(|token| (token.line, "unsafe belongs below spooler/src/system or worker/src/sandbox".to_owned()))
        .collect()
}

/// bincode is a matter of one file.
pub(crate) fn the_codec_is_one_file(file: &File) -> Vec<Finding> {
    uses_of(file, "bincode", &["protocol/src/codec.rs"])
}

/// The types of ipc-channel are a matter of one file on each side, of the handshake between them, and of the tests' own supervisor
/// and worker.
pub(crate) fn the_channel_is_one_file_a_side(file: &File) -> Vec<Finding> {
    let allowed = [
        "protocol/src/handshake.rs",
        "spooler/src/system/worker_link.rs",
        "tests/contract/peer.rs",
        "tests/e2e/fault_worker/stranger.rs",
        "worker/src/link.rs",
    ];
    uses_of(file, "ipc_channel", &allowed)
}

fn uses_of(file: &File, library: &str, allowed: &[&str]) -> Vec<Finding> {
    if !file.is_rust() || allowed.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let uses = paths_of(&file.text).into_iter().filter(|(_, path)| path.iter().any(|word| word == library));
    uses.map(|(line, _)| (line, format!("{library} is used only in {}", allowed.join(", ")))).collect()
}

/// A file can be read in one go.
pub(crate) fn files_are_short(file: &File) -> Vec<Finding> {
    let lines = file.text.lines().count();
    let too_long = file.is_rust() && lines > FILE_LINES_MAX;
    too_long.then(|| (lines, format!("{lines} lines; allowed are {FILE_LINES_MAX}"))).into_iter().collect()
}

/// Nothing is left for later.
pub(crate) fn nothing_is_left_over(file: &File) -> Vec<Finding> {
    const MARKS: [&str; 3] = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")];
    const MACROS: [&str; 2] = ["todo", "unimplemented"];
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        if let Some(mark) = words.find(|word| MARKS.contains(word)) {
            findings.push((index + 1, format!("{mark} is left over")));
        }
    }
    if file.is_rust() {
        for pair in tokens_of(&code_of(&file.text)).windows(2) {
            if let [name, sign] = pair
                && MACROS.contains(&name.text.as_str())
                && sign.text == "!"
            {
                findings.push((name.line, format!("{}! is left over", name.text)));
            }
        }
    }
    findings
}

/// A lint is switched off where it is wrong, with a reason, and not for a whole crate or module.
pub(crate) fn no_lint_is_off_everywhere(file: &File) -> Vec<Finding> {
    if !file.is_rust() {
        return Vec::new();
    }
    let tokens = tokens_of(&code_of(&file.text));
    let is_allow = |words: &[&str]| words == ["#", "!", "[", "allow"];
    let found = tokens.windows(4).filter(|four| {
        let words: Vec<&str> = four.iter().map(|token| token.text.as_str()).collect();
        is_allow(&words)
    });
    let message = "use #[expect(lint, reason = \"...\")] on the smallest item that needs it";
    found.filter_map(|four| four.first()).map(|token| (token.line, message.to_owned())).collect()
}

/// The place where this was written is nobody's business.
pub(crate) fn no_path_of_a_workplace(file: &File) -> Vec<Finding> {
    const PATHS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/tmp", "/wt/")];
    let lines = file.text.lines().enumerate();
    let found = lines.filter_map(|(index, line)| Some((index + 1, PATHS.iter().find(|path| line.contains(**path))?)));
    found.map(|(line, path)| (line, format!("{path} is a path of one workplace"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines in which a rule finds something, in a file with this path.
    fn lines(rule: Rule, path: &str, text: &str) -> Vec<usize> {
        rule(&File { path: path.to_owned(), text: text.to_owned() }).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn impure_decisions_are_found() {
        for bad in [
            "use std::fs;",
            "use std::{collections::HashMap, net::TcpStream};",
            "fn f() { std::thread::yield_now() }",
            "fn f() { let _ = Instant::now(); }",
            "fn f() { let _ = std::time::SystemTime::now(); }",
            "use crate::system::store::Change;",
            "use super::super::system::clock;",
            "use tokio::time;",
            "use ipc_channel::ipc;",
            "fn f() { fastrand::u8(..); }",
        ] {
            assert_eq!(lines(deciding_is_pure, "spooler/src/policy/token.rs", bad), [1], "{bad}");
            assert_eq!(lines(deciding_is_pure, "spooler/src/supervisor.rs", bad), [1], "{bad}");
            assert_eq!(lines(deciding_is_pure, "spooler/src/driver.rs", bad), [0; 0], "{bad}");
        }
        let good = "use std::time::{Duration, Instant};\nuse crate::policy::retry;\nuse spooler_protocol::ids::Token;
            // std::fs\nfn f(now: Instant) {}\n#[cfg(test)]\nmod tests { use std::fs; }";
        assert_eq!(lines(deciding_is_pure, "spooler/src/policy/token.rs", good), [0; 0]);
    }

    #[test]
    fn unsafe_elsewhere_is_found() {
        let bad = "\nfn f() { unsafe { g() } }";
        for path in ["spooler/src/driver.rs", "worker/src/link.rs", "tests/e2e/main.rs", "protocol/src/codec.rs"] {
            assert_eq!(lines(unsafe_stays_in_its_rooms, path, bad), [2], "{path}");
        }
        for path in ["spooler/src/system/priority.rs", "worker/src/sandbox.rs", "worker/src/sandbox/seccomp.rs"] {
            assert_eq!(lines(unsafe_stays_in_its_rooms, path, bad), [0; 0], "{path}");
        }
        let good = "#![deny(unsafe_code)] // unsafe\nconst A: &str = \"unsafe\";";
        assert_eq!(lines(unsafe_stays_in_its_rooms, "spooler/src/driver.rs", good), [0; 0]);
    }

    #[test]
    fn a_second_codec_is_found() {
        let bad = "//! bincode\nuse bincode::config;\nfn f() { crate::x::bincode::y() }";
        assert_eq!(lines(the_codec_is_one_file, "protocol/src/ids.rs", bad), [2, 3]);
        assert_eq!(lines(the_codec_is_one_file, "protocol/src/codec.rs", bad), [0; 0]);
    }

    #[test]
    fn a_channel_elsewhere_is_found() {
        let bad = "use ipc_channel::ipc::{IpcSender, IpcReceiver};";
        assert_eq!(lines(the_channel_is_one_file_a_side, "spooler/src/driver.rs", bad), [1, 1]);
        assert_eq!(lines(the_channel_is_one_file_a_side, "worker/src/link.rs", bad), [0; 0]);
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(lines(files_are_short, "a.rs", &"\n".repeat(501)), [501]);
        assert_eq!(lines(files_are_short, "a.rs", &"\n".repeat(500)), [0; 0]);
        assert_eq!(lines(files_are_short, "a.md", &"\n".repeat(501)), [0; 0]);
    }

    #[test]
    fn leftovers_are_found() {
        let mark = concat!("FIX", "ME");
        assert_eq!(lines(nothing_is_left_over, "a.rs", &format!("\n// {mark}: later")), [2]);
        assert_eq!(lines(nothing_is_left_over, "README.md", concat!("TO", "DO write this")), [1]);
        assert_eq!(
            lines(nothing_is_left_over, "a.rs", "fn f() {\n    todo!()\n}\nfn g() { unimplemented!() }"),
            [2, 4]
        );
        assert_eq!(lines(nothing_is_left_over, "a.rs", "/// The todo list.\nlet name = \"XXXXXX\";"), [0; 0]);
    }

    #[test]
    fn a_lint_that_is_off_everywhere_is_found() {
        assert_eq!(lines(no_lint_is_off_everywhere, "a.rs", "\n#![allow(missing_docs)]"), [2]);
        let good = "#![deny(missing_docs)]\n#[allow(dead_code, reason = \"shared\")]\nfn f() {}";
        assert_eq!(lines(no_lint_is_off_everywhere, "a.rs", good), [0; 0]);
    }

    #[test]
    fn a_path_of_a_workplace_is_found() {
        assert_eq!(lines(no_path_of_a_workplace, "README.md", concat!("\nsee /wo", "rk/notes")), [2]);
        assert_eq!(lines(no_path_of_a_workplace, "README.md", "see /workshop/notes"), [0; 0]);
    }
}
