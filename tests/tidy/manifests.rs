//! Which package may depend on which: the protocol on none of ours, worker and spooler never on each other.

use std::collections::BTreeSet;

use toml::{Table, Value};

/// The packages of ours that each of ours may depend on. Tests (`dev-dependencies`) may use all.
const ARROWS: [(&str, &[&str]); 3] =
    [("protocol", &[]), ("worker", &["spooler-protocol"]), ("spooler", &["spooler-protocol"])];

const OURS: [&str; 3] = ["spooler-protocol", "spooler-worker", "spooler"];

/// The dependencies of a package that are not allowed; `folder` is where its manifest is.
pub(crate) fn wrong_arrows(folder: &str, manifest: &str) -> Vec<String> {
    let allowed = ARROWS.iter().find(|(name, _)| *name == folder).map_or(&[][..], |(_, allowed)| allowed);
    let dependencies = dependencies_of(manifest).into_iter();
    dependencies.filter(|name| OURS.contains(&name.as_str()) && !allowed.contains(&name.as_str())).collect()
}

/// What a package depends on when it is built, on any target, under the names that registries know.
fn dependencies_of(manifest: &str) -> BTreeSet<String> {
    let manifest: Table = manifest.parse().expect("a manifest is TOML");
    let mut names = names_in(&manifest);
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flatten();
    names.extend(targets.filter_map(|(_, target)| target.as_table()).flat_map(names_in));
    names
}

fn names_in(table: &Table) -> BTreeSet<String> {
    let sections = ["dependencies", "build-dependencies"].into_iter().filter_map(|key| table.get(key)?.as_table());
    let real_name =
        |(name, value): (&String, &Value)| value.get("package").and_then(Value::as_str).unwrap_or(name).to_owned();
    sections.flatten().map(real_name).collect()
}

/// The libraries of `spooler`, as its code names them, but for the protocol.
pub(crate) fn library_names() -> Vec<String> {
    let names = dependencies_of(include_str!("../../spooler/Cargo.toml")).into_iter();
    names.filter(|name| name != "spooler-protocol").map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_arrow_is_found() {
        let worker = "spooler-worker.workspace = true\nserde = '1'";
        assert_eq!(wrong_arrows("spooler", &format!("[dependencies]\n{worker}")), ["spooler-worker"]);
        assert_eq!(wrong_arrows("spooler", &format!("[build-dependencies]\n{worker}")), ["spooler-worker"]);
        assert_eq!(
            wrong_arrows("spooler", "[target.'cfg(unix)'.dependencies]\nspooler-worker = '1'"),
            ["spooler-worker"]
        );
        assert_eq!(wrong_arrows("spooler", &format!("[dev-dependencies]\n{worker}")), [""; 0]);
        assert_eq!(wrong_arrows("worker", "[dependencies]\nx = { package = 'spooler', path = '..' }"), ["spooler"]);
        assert_eq!(wrong_arrows("protocol", "[dependencies]\nspooler-worker = '1'"), ["spooler-worker"]);
        assert_eq!(wrong_arrows("worker", "[dependencies]\nspooler-protocol = '1'"), [""; 0]);
    }

    #[test]
    fn libraries_have_the_names_of_the_code() {
        let names = library_names();
        assert!(names.iter().any(|name| name == "ipc_channel") && names.iter().all(|name| name != "spooler_protocol"));
    }
}
