//! What a final delivery makes of a message that claims to have been delivered before.

use std::fs;
use std::path::{Path, PathBuf};

use crate::world::World;
use crate::{IN, smtp};

/// The same bytes for a maildir and for a program.
const PROVIDERS: &str = "[provider.local]\nkind = \"maildir\"\nclaims = [\"@local.test\"]\npath = \"{dir}/mail/{local}\"\n\
[provider.program]\nkind = \"pipe\"\nclaims = [\"@program.test\"]\ncommand = [\"/bin/sh\", \"-c\", \"cat > {dir}/mail/program\"]\n";

/// The content in a recorded session with an SMTP server, if the recording is there.
fn recorded(name: &str) -> Option<Vec<u8>> {
    let shared = std::env::var_os("SPOOLER_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let path = shared.join("cases/mail").join(name);
    let Ok(text) = fs::read_to_string(&path) else {
        eprintln!("skipped: there is no {} (set SPOOLER_SHARED)", path.display());
        return None;
    };
    let (_, content) = text.split_once("DATA\n").unwrap_or_else(|| text.split_once("DATA\r\n").expect("no DATA"));
    let content = content.replace("\r\n", "\n");
    let (content, _) = content.split_once("\n.\n").expect("no end of the content");
    Some(format!("{content}\n").replace('\n', "\r\n").into_bytes())
}

#[test]
fn message_has_one_return_path() {
    let world = World::running(&format!("{IN}{PROVIDERS}"));
    let own = b"Return-Path: <forged@example.net>\r\nRETURN-PATH:\r\n <again@example.net>\r\nSubject: x\r\n\r\nhi\r\n"
        .to_vec();
    for (number, content) in [Some(own), recorded("F13-two-return-paths.in")].into_iter().flatten().enumerate() {
        assert!(content.windows(6).any(|bytes| bytes == b"forged"));
        let user = format!("rp{number}");
        let recipients = [format!("{user}@local.test"), "x@program.test".to_owned()];
        let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
        smtp::send(world.port("submission"), "s@example.org", &recipients, &content);
        world.wait_empty();
        let new = fs::read_dir(world.path(&format!("mail/{user}/new"))).unwrap().next().unwrap().unwrap().path();
        for path in [new, world.path("mail/program")] {
            let found = fs::read_to_string(&path).unwrap();
            assert!(found.starts_with("Return-Path: <s@example.org>\n") && found.ends_with("\n\nhi\n"), "{found}");
            assert_eq!(found.to_ascii_lowercase().matches("return-path").count(), 1, "{found}");
            assert!(!found.contains("forged") && !found.contains("again") && found.contains("Subject: x\n"), "{found}");
        }
    }
}
