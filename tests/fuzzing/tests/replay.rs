//! Every input that is kept goes through its target, so that what was found once is not found again; and the lists agree.

#[cfg(test)]
mod replay {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use spooler_fuzzing::{corpus, folder, run, targets};

    /// Bytes of one input that is kept.
    const INPUT_BYTES_MAX: usize = 64 * 1024;

    fn names_in(folder: &Path, end: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| name.strip_suffix(end).map(str::to_owned)).collect()
    }

    #[test]
    fn every_input_that_is_kept_holds() {
        for (name, _) in targets() {
            let inputs = corpus(name).unwrap_or_else(|error| panic!("fuzz/corpus/{name}: {error}"));
            assert!(inputs.len() >= 2, "fuzz/corpus/{name} has {} inputs; the least is 2", inputs.len());
            for (path, input) in inputs {
                assert!(input.len() <= INPUT_BYTES_MAX, "{} is too large", path.display());
                let held = std::panic::catch_unwind(|| run(name, &input));
                assert!(held.is_ok(), "{name} does not hold for {}", path.display());
            }
        }
    }

    #[test]
    fn every_target_holds_for_nothing_at_all() {
        for (name, target) in targets() {
            for input in [&b""[..], b"\n%%\n", b"\n%%\n\n%%\n\n%%\n\n%%\n\n%%\n", b"\0\xff\r\n"] {
                let held = std::panic::catch_unwind(|| target(input));
                assert!(held.is_ok(), "{name} does not hold for {:?}", input.escape_ascii().to_string());
            }
        }
    }

    #[test]
    fn targets_programs_and_corpora_are_the_same() {
        let names: BTreeSet<String> = targets().into_iter().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names.len(), targets().len(), "a name stands twice");
        assert_eq!(names_in(&folder().join("corpus"), ""), names, "the folders of fuzz/corpus");
        assert_eq!(names_in(&folder().join("fuzz_targets"), ".rs"), names, "the programs of fuzz/fuzz_targets");
        let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
        for name in names {
            assert!(
                manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
                "{name} is missing in fuzz/Cargo.toml"
            );
            let program = fs::read_to_string(folder().join("fuzz_targets").join(format!("{name}.rs"))).unwrap();
            assert!(program.contains(&format!("run(\"{name}\", input)")), "fuzz_targets/{name}.rs runs another target");
        }
    }
}
