//! Whole configurations: the example as written, every kind of mistake with its line, and what is printed.

use super::*;
use crate::config::provider_check::tests::shell_program;
use spooler_protocol::claims::Pattern;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const EXAMPLE: &str = r#"[spool]
path = "/var/spool/spooler"
[control]
socket = "/run/spooler/control.sock"
[provider.submission]
kind = "smtp-in"
listen = ["127.0.0.1:2525"]
[provider.local]
kind = "maildir"
claims = ["@local.test"]
path = "/var/mail/{local}"
[provider.relay]
kind = "smtp"
host = "127.0.0.1:2626"
tls = "none"
address_types = ["SMTP"]
[retry]
first = "1m"
max = "1h"
max_age = "5d"
"#;

const MINUTE: Duration = Duration::from_secs(60);

fn parsed(text: &str) -> Config {
    parse(text, Path::new("x.toml")).unwrap()
}

fn mistakes(text: &str) -> Vec<String> {
    let error = parse(text, Path::new("x.toml")).expect_err(text);
    error.to_string().lines().map(str::to_owned).collect()
}

fn warnings(text: &str) -> Vec<String> {
    parsed(text).warnings.iter().map(Problem::to_string).collect()
}

#[test]
fn the_example_works_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spooler.toml");
    fs::write(&path, EXAMPLE).unwrap();
    let config = load_unchecked(&path).unwrap();
    assert_eq!(config.source, path);
    assert_eq!(config.warnings, []);
    assert_eq!(config.spool.pickup, Path::new("/var/spool/spooler/pickup"));
    assert_eq!((config.spool.min_free, config.spool.max_message_size), (64 << 20, 50 << 20));
    assert_eq!(config.retry, Retry::default());
    assert_eq!((config.scheduler.slots, config.scheduler.slice), (None, Duration::from_millis(200)));
    let [submission, local, relay] = &config.providers[..] else { panic!("{:?}", config.providers) };
    assert_eq!((submission.name.as_str(), submission.interactive, submission.nice), ("submission", true, 0));
    assert_eq!((local.name.as_str(), local.interactive, local.nice), ("local", false, 10));
    assert_eq!(local.claims, [Pattern::Domain("local.test".to_owned())]);
    assert_eq!((&local.address_types, &relay.address_types), (&None, &Some(vec!["SMTP".to_owned()])));
    assert_eq!(relay.settings, "host = \"127.0.0.1:2626\"\ntls = \"none\"\n");
}

#[test]
fn a_line_that_cannot_wait_passes_the_gate() {
    let line = |keys: &str| parsed(&format!("[provider.line]\nkind = 'serial'\n{keys}")).providers.remove(0);
    assert!(line("").interactive && line("").critical_realtime);
    assert!(!line("interactive = false").interactive);
}

#[test]
fn an_empty_file_is_all_defaults_and_a_warning() {
    let config = parsed("");
    assert_eq!(config.control.socket, Path::new("/run/spooler/control.sock"));
    assert!(config.control.anyone_may_submit);
    assert_eq!(config.stop_timeout, Duration::from_secs(30));
    assert_eq!(config.reports.max_returned_size, 100 << 10);
    assert_eq!(config.worker.file_name().unwrap(), "spooler-worker");
    assert_eq!(warnings(""), ["x.toml: nothing can be delivered: there is no [provider.NAME] that is enabled"]);
}

#[test]
fn providers_keep_the_order_of_the_file() {
    let text = "[provider.z]\nkind='a'\n[provider.a]\nkind='a'\n[provider.m]\nkind='a'\n[provider.b]\nkind='a'";
    let names: Vec<String> = parsed(text).providers.into_iter().map(|provider| provider.name).collect();
    assert_eq!(names, ["z", "a", "m", "b"]);
    let inline = "provider = { z = { kind = 'a' }, b = { kind = 'a' } }";
    assert_eq!(parsed(inline).providers[0].name, "z");
}

#[test]
fn claims_that_no_worker_could_be_told_are_a_mistake() {
    let claims = |name: &str| {
        let many: Vec<String> = (0..9000).map(|number| format!("'user{number}@{name}.example.org'")).collect();
        format!("[provider.{name}]\nkind = 'a'\nclaims = [{}]\n", many.join(", "))
    };
    let found = mistakes(&["a", "b", "c"].map(claims).concat());
    assert!(found.len() == 1 && found[0].contains("bytes together; allowed are up to 524288"), "{found:?}");
    parsed(&claims("a"));
}

#[test]
fn a_provider_retries_as_all_do_but_for_what_it_says() {
    let text =
        "[retry]\nfirst = '10s'\n[provider.a]\nkind = 'smtp'\n[provider.a.retry]\nmax = '5m'\ndelay_warning = '0'";
    let config = parsed(text);
    assert_eq!(config.retry.first, 10 * Duration::from_secs(1));
    let expected = Retry { first: config.retry.first, max: 5 * MINUTE, delay_warning: None, ..Retry::default() };
    assert_eq!(config.providers[0].retry, expected);
}

#[test]
fn the_environment_names_the_worker_whatever_the_file_says() {
    for text in ["", "worker.program = '/x/w'", "[worker]\nstop_timeout = '1s'"] {
        let mut root: Table = text.parse().unwrap();
        override_worker(&mut root, Some("/y/w".to_owned()));
        assert_eq!(root["worker"]["program"].as_str(), Some("/y/w"));
    }
    let mut root: Table = "worker = 1".parse().unwrap();
    override_worker(&mut root, Some("/y/w".to_owned()));
    assert_eq!(root, "worker = 1".parse().unwrap());
}

#[test]
fn only_a_changed_provider_differs() {
    let changed = parsed(&EXAMPLE.replace("tls = \"none\"", "tls = \"required\""));
    let same: Vec<bool> =
        parsed(EXAMPLE).providers.iter().zip(&changed.providers).map(|(old, new)| old == new).collect();
    assert_eq!(same, [true, true, false]);
}

#[test]
fn every_mistake_has_its_line() {
    for (text, expected) in [
        ("[spool]\n\npath = 'var'", "x.toml:3: spool.path is \"var\"; must be a path that starts with /"),
        ("[spool]\npath = 7", "x.toml:2: spool.path must be a text in quotes, not integer"),
        ("\nspool = 7", "x.toml:2: spool must be a table, not integer"),
        (
            "[spool]\npath = '/a/b'\npickup = '/a'",
            "x.toml:3: spool.pickup is \"/a\"; the spool itself cannot be inside",
        ),
        (
            "[spool]\nmax_message_size = 10",
            "x.toml:2: spool.max_message_size is too small; allowed is \"64K\" and more",
        ),
        ("[spool]\nmin_free = 'all'", "x.toml:2: spool.min_free: \"all\" is not a size; write a number of bytes, or"),
        ("[scheduler]\nslice = '1ms'", "x.toml:2: scheduler.slice is \"1ms\"; allowed is 10ms to 10s"),
        ("[scheduler]\nslots = 0", "x.toml:2: scheduler.slots is 0; allowed is 1 to 1024"),
        ("[scheduler]\nslot = 1", "x.toml:2: scheduler.slot is not known here; did you mean `slots`?"),
        (
            "[scheduler]\ngate = 'shut'",
            "x.toml:2: scheduler.gate is \"shut\"; allowed is \"auto\", \"off\" or a number",
        ),
        ("[scheduler]\ngate = -1", "x.toml:2: scheduler.gate is -1; allowed is 0 to 1024"),
        ("[retry]\nfirst = '2h'", "x.toml:2: retry.first is \"2h\"; allowed is no more than max, which is \"1h\""),
        ("[retry]\nfactor = 0.5", "x.toml:2: retry.factor is out of range; allowed is 1 to 100"),
        ("[mail]\nhostname = 'a b'", "x.toml:2: mail.hostname is \"a b\"; must be a host name, such as"),
        ("[mail]\npostmaster = ''", "x.toml:2: mail.postmaster is \"\"; must be an address. The address is empty"),
        (
            "[control]\nanyone_may_submit = 'yes'",
            "x.toml:2: control.anyone_may_submit must be true or false, not string",
        ),
        ("[worker]\nstop_timeout = '1d'", "x.toml:2: worker.stop_timeout is \"1d\"; allowed is 100ms to 1h"),
        ("\n[spoool]\n", "x.toml:2: spoool is not known here; did you mean `spool`?"),
        ("\nprovider = 1", "x.toml:2: provider must be tables, one for each provider: [provider.NAME]"),
        ("[provider]\nx = 1", "x.toml:2: provider.x must be a table, not integer"),
        ("[[provider]]\nkind = 'smtp'", "x.toml:1: provider must be tables, one for each provider: [provider.NAME]"),
        (
            "\n[provider.Up]\nkind = 'smtp'",
            "x.toml:2: provider.Up has a name that is not allowed; allowed are up to 32",
        ),
        ("\n[provider.x]\n", "x.toml:2: provider.x.kind is missing; give the kind of transport, such as \"smtp\""),
    ] {
        let found = mistakes(text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(expected), "{found:?} instead of {expected:?}");
    }
}

#[test]
fn every_mistake_of_a_provider_has_its_line() {
    for (line, expected) in [
        ("weight = 0", "weight is 0; allowed is 1 to 10000"),
        ("nice = 20", "nice is 20; allowed is -20 to 19"),
        ("sched = 'fifo'", "sched is \"fifo\"; allowed is \"other\", \"batch\" or \"idle\""),
        ("io = 'best-effort:8'", "io is \"best-effort:8\"; allowed is \"idle\", or \"best-effort:0\" (first)"),
        ("critical_nice = 15", "critical_nice is 15; allowed is no more than nice, which is 10"),
        ("critical_max = '2h'", "critical_max is \"2h\"; allowed is 1s to 1h"),
        ("start_timeout = '1ms'", "start_timeout is \"1ms\"; allowed is 100ms to 10m"),
        ("resource = 'Modem 0'", "resource is \"Modem 0\"; allowed are up to 32 of a-z, 0-9, _ and -"),
        ("enabled = 1", "enabled must be true or false, not integer"),
        ("interactive = 'no'", "interactive must be true or false, not string"),
        ("address_types = ['smtp']", "address_types has \"smtp\"; allowed are types such as \"SMTP\" or \"FAX\""),
        ("claims = ['local.test']", "claims: \"local.test\" is not a claim; allowed are \"@domain\","),
        ("retry = { first = '2h' }", "retry.first is \"2h\"; allowed is no more than max, which is \"1h\""),
        ("retry.frist = '2h'", "retry.frist is not known here; did you mean `first`?"),
    ] {
        let found = mistakes(&format!("[provider.x]\nkind = 'smtp'\n{line}"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&format!("x.toml:3: provider.x.{expected}")), "{found:?} instead of {expected:?}");
    }
}

#[test]
fn all_mistakes_are_reported_in_the_order_of_the_file() {
    let text = "[provider.x]\nclaims = [\n  '@a',\n  'b',\n]\n[retry]\nfirst = 1\n[spool]\npath = ''";
    let lines: Vec<String> =
        mistakes(text).iter().map(|text| text.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        lines,
        ["x.toml:1: provider.x.kind", "x.toml:4: provider.x.claims:", "x.toml:7: retry.first", "x.toml:9: spool.path"]
    );
}

#[test]
fn what_is_not_toml_has_its_line() {
    for (text, line) in [("a = 1\nb = \n", 2), ("[spool]\n[spool]\n", 2), ("a = 1\na = 2\n", 2), ("\n\n[x", 3)] {
        let found = mistakes(text);
        assert!(found[0].starts_with(&format!("x.toml:{line}: is not TOML: ")), "{text:?} gives {found:?}");
    }
    let number = mistakes("[scheduler]\nslots = 99999999999999999999");
    assert!(number[0].starts_with("x.toml:2: is not TOML: "), "{number:?}");
}

#[test]
fn a_group_without_effect_is_a_warning() {
    let found = warnings(&format!(
        "control.submit_group = 'mail'\n{}",
        EXAMPLE.replace("[control]\n", "").replace("socket", "#")
    ));
    assert_eq!(found, ["x.toml:1: control.submit_group has no effect while control.anyone_may_submit is true"]);
}

#[test]
fn the_printed_configuration_is_the_same_configuration() {
    let config = parsed(&format!("{EXAMPLE}\n[provider.relay.retry]\nmax = '2h'\n[mail]\npostmaster = 'p@x'"));
    let printed = print_effective(&config);
    let again = parsed(&printed);
    let without_settings = |config: &Config| {
        let clear = |provider: &Provider| Provider { settings: String::new(), ..provider.clone() };
        let providers: Vec<Provider> = config.providers.iter().map(clear).collect();
        // The number of cores is what the printed file says.
        Config { providers, scheduler: again.scheduler.clone(), ..config.clone() }
    };
    assert_eq!(without_settings(&config), without_settings(&again), "{printed}");
}

/// What a worker program says of settings with a password.
const WORKER: &str = r#"case "$*" in
--kinds) echo smtp; echo maildir ;;
--check*) settings=$(cat); case "$settings" in
  *maybe*) echo '{"mistakes":[{"key":"tls","message":"is \"maybe\"; allowed are \"none\""},{"key":"auth.user","message":"is missing; give it"}],"effective":[]}' ;;
  *slow*) echo '{"mistakes":[],"effective":[],"silence":{"key":"timeout","duration":{"secs":3600,"nanos":0}}}' ;;
  *crash*) echo "panicked at x" >&2; exit 101 ;;
  *) echo '{"mistakes":[],"effective":[{"key":"tls","value":"\"none\""},{"key":"auth.password","value":"\"(secret)\""}]}' ;;
  esac ;;
esac"#;

/// A folder with a worker program and a configuration that uses it.
fn with_worker(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let worker = shell_program(folder.path(), WORKER);
    let path = folder.path().join("spooler.toml");
    let text = format!("worker.program = {:?}\nmail.hostname = 'mail.test'\n{text}", worker.to_str().unwrap());
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    (folder, path)
}

const RELAY: &str = "[provider.relay]\nkind = 'smtp'\ntls = 'none'\nauth.password = 'sesame'\n";

#[test]
fn the_workers_findings_have_their_lines() {
    let (_folder, path) = with_worker(&RELAY.replace("none", "maybe"));
    let name = path.display();
    let expected = format!(
        "{name}:5: provider.relay.tls is \"maybe\"; allowed are \"none\"\n{name}:6: provider.relay.auth.user is missing; give it"
    );
    assert_eq!(load(&path).unwrap_err().to_string(), expected);
    assert_eq!(check_command(Some(&path), false, &Eyes::default()), (78, format!("{expected}\n2 mistakes\n")));
}

#[test]
fn an_unknown_kind_is_answered_with_the_kinds() {
    let (_folder, path) = with_worker("[provider.x]\nkind = 'smpt'\n");
    let expected = format!("{}:4: provider.x.kind is \"smpt\"; allowed are \"smtp\", \"maildir\"", path.display());
    assert_eq!(load(&path).unwrap_err().to_string(), expected);
}

#[test]
fn a_worker_that_crashes_over_settings_is_a_mistake_there() {
    let (_folder, path) = with_worker("[provider.x]\nkind = 'smtp'\nhost = 'crash'\n");
    let text = load(&path).unwrap_err().to_string();
    assert!(text.starts_with(&format!("{}:3: provider.x: The worker program", path.display())), "{text}");
    assert!(text.ends_with("panicked at x"), "{text}");
}

#[test]
fn patience_is_longer_than_the_timeouts_of_the_provider_or_there_is_a_warning() {
    let slow = "[provider.x]\nkind = 'smtp'\nhost = 'slow'\n";
    let (_folder, path) = with_worker(slow);
    let config = load(&path).unwrap();
    assert_eq!((config.providers[0].stall_timeout, config.warnings.len()), (90 * MINUTE, 0));
    assert!(print_effective(&config).contains("stall_timeout = \"90m\"\n"));
    for (stall_timeout, is_enough) in [("60m", false), ("61m", true)] {
        let (_folder, path) = with_worker(&format!("{slow}stall_timeout = '{stall_timeout}'\n"));
        let (code, said) = check_command(Some(&path), false, &Eyes::default());
        assert_eq!(code, 0);
        assert_eq!(
            said.contains(":6: provider.x.stall_timeout is 1h, and provider.x.timeout is 1h: "),
            !is_enough,
            "{said}"
        );
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let (_folder, path) = with_worker(RELAY);
    let config = load(&path).unwrap();
    assert!(config.providers[0].settings.contains("sesame"));
    let (code, printed) = check_command(Some(&path), true, &Eyes::default());
    assert_eq!(code, 0);
    for shown in [
        format!("{config:?}"),
        print_effective(&config),
        printed,
        check_command(Some(&path), false, &Eyes::default()).1,
    ] {
        assert!(!shown.contains("sesame"), "{shown}");
    }
    assert!(print_effective(&config).contains("tls = \"none\"\nauth.password = \"(secret)\"\n"));
}

#[test]
fn a_secret_that_others_can_read_is_refused() {
    let (_folder, path) = with_worker(RELAY);
    assert_eq!(load(&path).unwrap().warnings, []);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let name = path.display();
    fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let mistake =
        format!("{name}: holds a password and has mode 0644, so that everybody can read it; `chmod go= {name}`");
    assert_eq!(check_command(Some(&path), false, &Eyes::default()), (78, format!("{mistake}\n1 mistake\n")));
    // Its own group is as good as its user.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(load(&path).unwrap().warnings, []);
}

#[test]
fn a_configuration_that_others_can_write_is_not_even_read() {
    let (folder, path) = with_worker("[provider.x]\nkind = 'no such kind'\n");
    for (changed, mode, back) in [(path.as_path(), 0o622, 0o600), (folder.path(), 0o777, 0o700)] {
        fs::set_permissions(changed, fs::Permissions::from_mode(mode)).unwrap();
        let (code, said) = check_command(Some(&path), true, &Eyes::default());
        let expected = format!("{}: is not safe to use: {} has mode {mode:04o}", path.display(), changed.display());
        assert!(code == 78 && said.starts_with(&expected) && said.ends_with("\n1 mistake\n"), "{said}");
        fs::set_permissions(changed, fs::Permissions::from_mode(back)).unwrap();
    }
    assert!(load(&path).unwrap_err().to_string().contains("no such kind"));
    load_unchecked(&path).unwrap();
}

#[test]
fn a_transport_order_is_complete_and_known() {
    let providers =
        "[provider.a]\nkind = 'smtp'\npoll_interval = '5m'\n[provider.b]\nkind = 'smtp'\naddress_types = ['*']\n";
    let read = |order: &str| parse(&format!("[routing]\norder = {order}\n{providers}"), Path::new("x.toml"));
    let config = read("['b', 'a']").unwrap();
    assert_eq!(config.routing.order, Some(vec!["b".to_owned(), "a".to_owned()]));
    assert_eq!(config.providers[0].poll_interval, Duration::from_secs(300));
    let printed = print_effective(&config);
    assert!(printed.contains("order = [\"b\", \"a\"]") && printed.contains("poll_interval = \"5m\""), "{printed}");
    let mistakes = read("['a', 'a', 'c']").unwrap_err().to_string();
    for mistake in ["names \"a\" twice", "names \"c\", but there is no [provider.c]", "leaves out \"b\""] {
        assert!(mistakes.contains(mistake) && mistakes.contains("x.toml:2"), "{mistakes}");
    }
    assert_eq!(parse(providers, Path::new("x.toml")).unwrap().routing.order, None);
}
