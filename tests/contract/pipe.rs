//! Scenarios of the `pipe` provider.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};
use spooler_protocol::outcome::{Outcome, SubmitResult};
use tempfile::TempDir;

use crate::peer::{Peer, shown};

const MESSAGE: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

fn worker(settings: &str) -> Peer {
    Peer::logged_on("pipe", settings).0
}

/// A worker that runs a script of `/bin/sh`, with arguments behind it as `$1`, `$2` …
fn script(text: &str, arguments: &[&str], more: &str) -> Peer {
    let mut words = vec!["/bin/sh", "-c", "SCRIPT", "sh"];
    words.extend(arguments);
    let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let text = text.replace('{', "{{").replace('}', "}}");
    worker(&format!("{more}\ncommand = [{}]", words.join(", ")).replace("'SCRIPT'", &format!("'''{text}'''")))
}

fn deliver_one(peer: &mut Peer, recipient: &str, content: &[u8]) -> Outcome {
    let (result, mut outcomes) = peer.deliver("s@example.org", &[recipient], content);
    assert_eq!(result, SubmitResult::Done);
    outcomes.remove(&0).unwrap()
}

/// Waits for the fact that a process is gone, or dead and waiting for a parent that is not ours.
fn wait_gone(pid: &str) {
    let stat = format!("/proc/{}/stat", pid.trim());
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Ok(text) = fs::read_to_string(&stat) {
        if text.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')) {
            return;
        }
        assert!(Instant::now() < deadline, "process {pid} still lives: {text}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn at(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

#[test]
fn a_program_gets_the_message_and_its_arguments() {
    let dir = TempDir::new().unwrap();
    let text = r#"cat >"$1/$2"; printf '%s\n' "$@" >"$1/arguments""#;
    let mut peer = script(text, &[&at(&dir, ""), "{local}", "-f{sender}", "{domain}/{id}/{size}"], "");
    let outcome = deliver_one(&mut peer, "Bob@Example.ORG", MESSAGE);
    assert_eq!(shown(&outcome), "delivered 2.0.0 Delivered to the program");
    assert_eq!(outcome.reply().remote, "/bin/sh");
    let wanted = "Return-Path: <s@example.org>\nDelivered-To: Bob@Example.ORG\nSubject: hello\n\nbody\n";
    assert_eq!(fs::read_to_string(at(&dir, "Bob")).unwrap(), wanted);
    let arguments = fs::read_to_string(at(&dir, "arguments")).unwrap();
    let lines: Vec<&str> = arguments.lines().skip(1).collect();
    assert_eq!(&lines[..2], ["Bob", "-fs@example.org"]);
    assert!(lines[2].starts_with("example.org/") && lines[2].ends_with(&format!("/{}", MESSAGE.len())), "{lines:?}");
    peer.log_off();
}

#[test]
fn the_form_of_the_message_is_a_setting() {
    let dir = TempDir::new().unwrap();
    let more = "line_ends = 'crlf'\nfrom_line = true\nreturn_path = false\ndelivered_to = false";
    let mut peer = script(r#"cat >"$1""#, &[&at(&dir, "out")], more);
    deliver_one(&mut peer, "bob@d", MESSAGE);
    let found = fs::read_to_string(at(&dir, "out")).unwrap();
    let (first, rest) = found.split_once("\r\n").unwrap();
    assert!(first.starts_with("From s@example.org "), "{first}");
    assert_eq!(rest.as_bytes(), [MESSAGE, b"\r\n"].concat());
}

#[test]
fn appended_messages_stay_apart_in_an_mbox() {
    let dir = TempDir::new().unwrap();
    let mut peer = script(r#"cat >>"$1""#, &[&at(&dir, "mbox")], "from_line = true");
    for body in ["From me\r\n>From you\r\n", "no end of line"] {
        deliver_one(&mut peer, "bob@d", format!("Subject: x\r\n\r\n{body}").as_bytes());
    }
    let found = fs::read_to_string(at(&dir, "mbox")).unwrap();
    assert_eq!(found.lines().filter(|line| line.starts_with("From ")).count(), 2, "{found}");
    assert_eq!(found.matches("\n\nFrom s@example.org ").count(), 1, "{found}");
    assert!(found.contains("\n>From me\n>>From you\n") && found.ends_with("no end of line\n\n"), "{found}");
}

#[test]
fn forged_return_path_is_dropped() {
    let dir = TempDir::new().unwrap();
    let mut peer = script(r#"cat >"$1""#, &[&at(&dir, "out")], "");
    deliver_one(
        &mut peer,
        "bob@d",
        b"Return-Path: <forged@b>\r\nSubject: x\r\nreturn-path:\r\n <too@b>\r\n\r\nbody\r\n",
    );
    let wanted = "Return-Path: <s@example.org>\nDelivered-To: bob@d\nSubject: x\n\nbody\n";
    assert_eq!(fs::read_to_string(at(&dir, "out")).unwrap(), wanted);
}

#[test]
fn the_environment_is_ours_and_no_descriptor_leaks() {
    let dir = TempDir::new().unwrap();
    let text = r#"env >"$1/env"; ls -l /proc/self/fd >"$1/fds"; pwd >"$1/pwd""#;
    let more = "environment = { COLOUR = 'red', SENDER = 'forged' }";
    let mut peer = script(text, &[&at(&dir, "")], more);
    deliver_one(&mut peer, "\"b b\"@D", MESSAGE);
    let environment = fs::read_to_string(at(&dir, "env")).unwrap();
    let mut names: Vec<&str> = environment.lines().map(|line| line.split('=').next().unwrap()).collect();
    names.retain(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name));
    names.sort_unstable();
    let wanted =
        "COLOUR DOMAIN HOSTNAME LOCAL MESSAGE_ID MESSAGE_SIZE PATH PROVIDER RECIPIENT RECIPIENT_TYPE SENDER TMPDIR";
    assert_eq!(names.join(" "), wanted);
    for line in
        ["SENDER=s@example.org", "RECIPIENT=\"b b\"@D", "LOCAL=b b", "DOMAIN=d", "COLOUR=red", "RECIPIENT_TYPE=SMTP"]
    {
        assert!(environment.lines().any(|found| found == line), "{line} in {environment}");
    }
    let descriptors = fs::read_to_string(at(&dir, "fds")).unwrap();
    // Not ours: the list itself, and what this test was started with.
    let mut targets: Vec<&str> =
        descriptors.lines().filter_map(|line| line.split_once(" -> ")).map(|(_, to)| to).collect();
    targets.retain(|target| !target.starts_with("/proc/"));
    let started_with: Vec<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .map(|target| target.display().to_string())
        .collect();
    targets.retain(|target| !started_with.iter().any(|known| known == target));
    assert!(
        matches!(targets.as_slice(), [stdin, out, stderr] if stdin.ends_with(" (deleted)")
        && out.ends_with("/fds") && stderr.starts_with("pipe:")),
        "{descriptors}"
    );
    assert_eq!(fs::read_to_string(at(&dir, "pwd")).unwrap(), "/\n");
}

#[test]
fn program_reads_input_and_has_a_temporary_folder() {
    let dir = TempDir::new().unwrap();
    // Standard input cannot be written; it can be read twice; a small and a large message alike.
    let text = r#"{ echo x >&0; } 2>/dev/null && exit 65; cat >/dev/null; test "$(tail -c 5 /dev/stdin)" = "last" || exit 66
file=$(mktemp) && cat /dev/stdin >"$file" && echo "$file" >>"$1""#;
    let mut peer = script(text, &[&at(&dir, "files")], "");
    for size in [10, 3 << 20] {
        let content = format!("Subject: x\r\n\r\n{}\r\nlast\r\n", "x".repeat(size));
        assert!(shown(&deliver_one(&mut peer, "a@d", content.as_bytes())).starts_with("delivered"), "{size}");
    }
    let files = fs::read_to_string(at(&dir, "files")).unwrap();
    assert_eq!(files.lines().count(), 2);
    for file in files.lines() {
        assert!(Path::new(file).starts_with(peer.temporary.path()), "{file}");
        assert!(!Path::new(file).parent().unwrap().exists(), "{file}");
    }
    peer.log_off();
}

#[test]
fn exit_codes_mean_what_sysexits_says() {
    let mut peer = script("exit $1", &["{local}"], "");
    let table = [
        ("0", "delivered 2.0.0"),
        ("1", "failed 5.3.0"),
        ("64", "failed 5.3.5"),
        ("65", "failed 5.6.0"),
        ("66", "failed 5.3.0"),
        ("67", "failed 5.1.1"),
        ("68", "failed 5.1.2"),
        ("69", "failed 5.3.0"),
        ("70", "failed 5.3.0"),
        ("71", "deferred 4.3.0"),
        ("72", "failed 5.3.0"),
        ("73", "failed 5.2.0"),
        ("74", "deferred 4.3.0"),
        ("75", "deferred 4.3.0"),
        ("76", "failed 5.5.0"),
        ("77", "failed 5.7.0"),
        ("78", "deferred 4.3.5"),
        ("126", "deferred 4.3.5"),
        ("127", "deferred 4.3.5"),
        ("255", "failed 5.3.0"),
    ];
    let recipients: Vec<String> = table.iter().map(|(code, _)| format!("{code}@d")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let (result, outcomes) = peer.deliver("s@d", &recipients, MESSAGE);
    assert_eq!(result, SubmitResult::Done);
    for (index, (code, wanted)) in table.iter().enumerate() {
        let found = shown(&outcomes[&u32::try_from(index).unwrap()]);
        assert!(found.starts_with(wanted), "exit code {code}: {found}");
    }
    peer.log_off();
}

#[test]
fn a_killed_program_and_a_missing_one_are_tried_again() {
    let mut peer = script("kill -KILL $$", &[], "");
    assert_eq!(shown(&deliver_one(&mut peer, "a@d", MESSAGE)), "deferred 4.3.0 The program was killed by signal 9");
    let mut peer = worker("command = ['/nonexistent/program']");
    let found = shown(&deliver_one(&mut peer, "a@d", MESSAGE));
    assert!(found.starts_with("deferred 4.3.5 Cannot start the program: No such file"), "{found}");
}

#[test]
fn the_last_words_are_the_reason() {
    let mut peer = script(r#"echo out; echo "first" >&2; printf 'no \033[1mroom\n' >&2; exit 77"#, &[], "");
    assert_eq!(shown(&deliver_one(&mut peer, "a@d", MESSAGE)), "failed 5.7.0 first\nno ?[1mroom");
    let mut peer = script("echo '4.2.2 over quota'; exit 77", &[], "");
    assert_eq!(shown(&deliver_one(&mut peer, "a@d", MESSAGE)), "deferred 4.2.2 over quota");
}

#[test]
fn a_flood_of_words_blocks_nobody_and_is_cut() {
    let text = "yes out | head -c 3000000; yes err | head -c 3000000 >&2; echo the end >&2; exit 69";
    let mut peer = script(text, &[], "");
    let outcome = deliver_one(&mut peer, "a@d", MESSAGE);
    assert!(shown(&outcome).starts_with("failed 5.3.0 ") && outcome.reply().text.ends_with("\nthe end"));
    assert!(outcome.reply().text.len() <= 1024, "{}", outcome.reply().text.len());
}

#[test]
fn a_program_need_not_read_the_message() {
    let large = vec![b'x'; 3 << 20];
    let mut peer = script("exec <&-; exit $1", &["{local}"], "");
    let (_, outcomes) = peer.deliver("s@d", &["0@d", "75@d"], &large);
    assert_eq!(shown(&outcomes[&0]), "delivered 2.0.0 Delivered to the program");
    assert!(shown(&outcomes[&1]).starts_with("deferred 4.3.0"));
}

#[test]
fn a_large_message_is_whole() {
    let dir = TempDir::new().unwrap();
    let content: Vec<u8> = (0..50_000).flat_map(|n| format!("{n}\r\n{}", "y".repeat(n % 37)).into_bytes()).collect();
    let more = "line_ends = 'crlf'\nreturn_path = false\ndelivered_to = false";
    let mut peer = script(r#"cat >"$1""#, &[&at(&dir, "out")], more);
    deliver_one(&mut peer, "bob@d", &content);
    assert!(fs::read(at(&dir, "out")).unwrap() == content);
}

#[test]
fn a_timeout_ends_the_whole_group() {
    let dir = TempDir::new().unwrap();
    // Neither the program nor its child ends by SIGTERM.
    let text = r#"trap '' TERM; sleep 1000 & echo $! >"$1.child"; echo $$ >"$1.self"; while :; do wait; done"#;
    let mut peer = script(text, &[&at(&dir, "pid")], "timeout = '1s'");
    let outcome = deliver_one(&mut peer, "a@d", MESSAGE);
    assert_eq!(shown(&outcome), "deferred 4.3.0 The program still ran after 1s and was stopped");
    wait_gone(&fs::read_to_string(at(&dir, "pid.self")).unwrap());
    wait_gone(&fs::read_to_string(at(&dir, "pid.child")).unwrap());
    peer.log_off();
}

#[test]
fn what_a_program_leaves_behind_is_ended() {
    let dir = TempDir::new().unwrap();
    let text = r#"trap '' TERM; sleep 1000 & echo $! >"$1"; exit 0"#;
    let mut peer = script(text, &[&at(&dir, "pid")], "");
    assert!(shown(&deliver_one(&mut peer, "a@d", MESSAGE)).starts_with("delivered"));
    wait_gone(&fs::read_to_string(at(&dir, "pid")).unwrap());
}

#[test]
fn an_address_is_never_read_by_a_shell() {
    let dir = TempDir::new().unwrap();
    let bait = at(&dir, "bait");
    let hostile = [
        format!("$(touch {bait})@d"),
        format!("`touch {bait}`@d"),
        format!("a;touch {bait};@d"),
        format!("a|touch {bait}@d"),
        "\"a b\" 'c' *@d".to_owned(),
        "a\\@d".to_owned(),
    ];
    let recipients: Vec<&str> = hostile.iter().map(String::as_str).collect();
    let text = r#"printf "%s\n" "$RECIPIENT" >>"$OUT"; test $# = 0"#;
    let by_shell =
        format!("shell = true\ncredit = 1\ncommand = '''{text}'''\nenvironment = {{ OUT = '{}' }}", at(&dir, "out"));
    let mut peer = worker(&by_shell);
    let (_, outcomes) = peer.deliver("$(touch bait)@d", &recipients, MESSAGE);
    assert!(outcomes.values().all(|outcome| shown(outcome).starts_with("delivered")), "{outcomes:?}");
    assert_eq!(fs::read_to_string(at(&dir, "out")).unwrap().lines().collect::<Vec<_>>(), recipients);
    let mut peer = script(r#"printf "%s\n" "$2" >>"$1""#, &[&at(&dir, "args"), "{recipient}"], "credit = 1");
    peer.deliver("s@d", &recipients, MESSAGE);
    assert_eq!(fs::read_to_string(at(&dir, "args")).unwrap().lines().collect::<Vec<_>>(), recipients);
    assert!(!Path::new(&bait).exists());
}

#[test]
fn an_address_is_never_an_option() {
    let dir = TempDir::new().unwrap();
    let mut peer = script(r#"echo "$2" >>"$1""#, &[&at(&dir, "out"), "{recipient}"], "");
    let (_, outcomes) = peer.deliver("s@d", &["-oQ/tmp", "-f@d", "bob@d"], MESSAGE);
    assert!(shown(&outcomes[&0]).starts_with("failed 5.1.3") && shown(&outcomes[&1]).starts_with("failed 5.1.3"));
    assert!(shown(&outcomes[&2]).starts_with("delivered"));
    assert_eq!(fs::read_to_string(at(&dir, "out")).unwrap(), "bob@d\n");
    let mut peer = worker("command = ['/bin/true', '{sender}']");
    let (_, outcomes) = peer.deliver("-x@d", &["a@d", "b@d"], MESSAGE);
    assert!(outcomes.len() == 2 && outcomes.values().all(|outcome| shown(outcome).starts_with("failed 5.1.7")));
}

#[test]
fn one_run_can_serve_all_recipients() {
    let dir = TempDir::new().unwrap();
    let text = r#"out=$1; shift; printf '%s\n' "$@" "$RECIPIENT" >"$out"; grep -c Delivered-To; exit 75"#;
    let mut peer = script(text, &[&at(&dir, "out"), "{sender}", "{recipient}"], "per_recipient = false");
    let (_, outcomes) = peer.deliver("", &["a@d", "b@d"], MESSAGE);
    assert_eq!(
        (shown(&outcomes[&0]), shown(&outcomes[&1])),
        ("deferred 4.3.0 0".to_owned(), "deferred 4.3.0 0".to_owned())
    );
    assert_eq!(fs::read_to_string(at(&dir, "out")).unwrap(), "MAILER-DAEMON\na@d\nb@d\na@d\nb@d\n");
}

#[test]
fn root_runs_the_program_as_somebody_else() {
    if !Uid::effective().is_root() {
        eprintln!("skipped: root_runs_the_program_as_somebody_else needs root");
        return;
    }
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let mut peer = script("echo $(id -u) $(id -g) $(id -G); exit 67", &[], "user = 'nobody'");
    let found = shown(&deliver_one(&mut peer, "a@d", MESSAGE));
    assert_eq!(found, format!("failed 5.1.1 {0} {1} {1}", nobody.uid, nobody.gid));
    let mut peer = script("echo $(id -u) $(id -g); exit 67", &[], "user = 'nobody'\ngroup = 'daemon'");
    let found = shown(&deliver_one(&mut peer, "a@d", MESSAGE));
    assert_eq!(found, format!("failed 5.1.1 {} {}", nobody.uid, User::from_name("daemon").unwrap().unwrap().gid));
}

#[test]
fn wrong_settings_are_all_named() {
    let settings = "command = 'cat -x'\ntimeout = '0'\nline_ends = 'cr'\nenvironment = { '' = 'x' }\ndirectory = 'x'";
    let said = format!("{:?}", Peer::start("pipe", settings).next());
    for word in ["LogonFailed", "command ", "timeout ", "line_ends ", "environment ", "directory "] {
        assert!(said.contains(word), "{word} in {said}");
    }
}
