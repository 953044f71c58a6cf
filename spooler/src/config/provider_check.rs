//! Asking the worker program about the keys of its kinds.
//!
//! The program is started once for the list of its kinds and once per provider, with the settings on standard input, never on the
//! command line, where everybody could read them. It reads them as it would at a logon and does nothing else. Time and answer are
//! limited: this runs in a supervisor that is asked to reload, too.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use spooler_protocol::confinement::Privilege;
use spooler_protocol::settings::{Effective, Findings, Reference, Referent, Silence};
use spooler_protocol::units;

use super::notes::Notes;
use super::provider::Provider;
use super::{Config, outside};

/// How long the program may take for one answer. It takes milliseconds; a machine may be slow.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// How often a program is asked that is killed while it answers.
const ASKED_MAX: u32 = 3;

/// Bytes of one answer.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Characters of what the program complains that are passed on.
const COMPLAINT_CHARS_MAX: usize = 300;

/// How often a program that has said everything is asked whether it has ended.
const END_POLL: Duration = Duration::from_millis(1);

/// What stands for a secret in [`Findings::effective`].
const SECRET: &str = "\"(secret)\"";

/// Why the worker program gave no findings.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("The worker program {} cannot be run ({why}); name it in worker.program or in SPOOLER_WORKER", program.display())]
    Start { program: PathBuf, why: std::io::Error },
    #[error("The worker program {} did not answer within {} s", program.display(), ANSWER_WITHIN.as_secs())]
    Late { program: PathBuf },
    #[error("The worker program {} ended with {status}: {complaint}", program.display())]
    Failed { program: PathBuf, status: ExitStatus, complaint: String },
    #[error("The worker program {} gave an answer that cannot be understood ({why}); is it of this version?", program.display())]
    Garbled { program: PathBuf, why: String },
}

impl CheckError {
    /// Whether this is the machine's trouble (no memory, no descriptors, a killed process, no time) and says nothing of the program.
    fn may_pass(&self) -> bool {
        use std::io::ErrorKind::{InvalidInput, NotADirectory, NotFound, PermissionDenied};
        match self {
            Self::Start { why, .. } => {
                !matches!(why.kind(), InvalidInput | NotADirectory | NotFound | PermissionDenied)
                    && why.raw_os_error() != Some(nix::libc::ENOEXEC)
            }
            Self::Failed { status, .. } => status.signal().is_some(),
            Self::Late { .. } => true,
            Self::Garbled { .. } => false,
        }
    }

    fn note(&self, key: &str, notes: &mut Notes) {
        if self.may_pass() { notes.trouble(key, &self.to_string()) } else { notes.mistake(key, &self.to_string()) }
    }
}

/// Has all providers checked: notes their mistakes, adds their effective values, and says whether there are secrets among them.
pub(super) fn check_all(config: &mut Config, notes: &mut Notes) -> bool {
    if config.providers.is_empty() {
        return false;
    }
    let program = WorkerProgram { path: config.worker.clone(), answer_within: ANSWER_WITHIN };
    let kinds = match program.kinds() {
        Ok(kinds) => kinds,
        Err(error) => {
            error.note("worker.program", notes);
            return false;
        }
    };
    let mut effective: Vec<Effective> = Vec::new();
    let mut listeners = Vec::new();
    for provider in &mut config.providers {
        let place = format!("provider.{}", provider.name);
        if !kinds.contains(&provider.kind) {
            note_unknown_kind(&place, &provider.kind, &kinds, notes);
            continue;
        }
        match program.check(&provider.kind, &provider.settings) {
            Ok(mut findings) => {
                if let Some(silence) = findings.silence.take() {
                    fit_patience(provider, &place, &silence, &mut config.effective, notes);
                }
                warn_of_programs(provider, &place, &findings, notes);
                provider.privileges = std::mem::take(&mut findings.privileges);
                provider.secret_files = std::mem::take(&mut findings.secret_files);
                provider.programs = findings.programs;
                provider.usual_types = findings.address_types.take();
                if provider.enabled {
                    outside::check(&place, &findings.references, notes);
                    listeners.extend(listeners_of(&place, &findings.references));
                }
                effective.extend(notes.take(&format!("{place}."), findings));
            }
            Err(error) => error.note(&place, notes),
        }
    }
    outside::check_listeners(&listeners, notes);
    let secrets = effective.iter().any(|value| value.value == SECRET);
    config.effective.extend(effective);
    secrets
}

fn listeners_of(place: &str, references: &[Reference]) -> Vec<(String, SocketAddr)> {
    let address = |reference: &Reference| match reference.to {
        Referent::Listener(address) => Some((place.to_owned(), address)),
        _ => None,
    };
    references.iter().filter_map(address).collect()
}

/// Programs never have root's rights over files: such a worker would not start.
fn warn_of_programs(provider: &Provider, place: &str, findings: &Findings, notes: &mut Notes) {
    let as_it_is = provider.sandbox.as_ref().is_some_and(|sandbox| sandbox.run_as.is_none());
    if as_it_is && findings.programs && findings.privileges.contains(&Privilege::FilesOfAll) {
        let text = format!(
            "{place} has filters and no run_as: a spooler that runs as root does not start it, because the filters would have \
             root's rights over all files"
        );
        notes.warn(place, text);
    }
}

/// A worker must not be taken for hung while one of its deliveries waits as long as its settings allow. Patience that the file does not
/// give becomes half as long again; what it gives stays, with a warning if it is too short.
fn fit_patience(
    provider: &mut Provider,
    place: &str,
    silence: &Silence,
    effective: &mut [Effective],
    notes: &mut Notes,
) {
    let key = format!("{place}.stall_timeout");
    if !notes.places().has(&key) {
        provider.stall_timeout = provider.stall_timeout.max(silence.duration + silence.duration / 2);
        let shown = effective.iter_mut().find(|value| value.key == key);
        if let Some(shown) = shown {
            shown.value = format!("\"{}\"", units::show_duration(provider.stall_timeout));
        }
    } else if provider.stall_timeout <= silence.duration {
        let (stall_timeout, limit) =
            (units::show_duration(provider.stall_timeout), units::show_duration(silence.duration));
        let text = format!(
            "{key} is {stall_timeout}, and {place}.{} is {limit}: a delivery that waits longer than {stall_timeout} ends with its worker; make \
             stall_timeout longer than {limit}, or leave it out",
            silence.key
        );
        notes.warn(&key, text);
    }
}

fn note_unknown_kind(place: &str, kind: &str, kinds: &[String], notes: &mut Notes) {
    // An empty kind is a mistake already.
    if !kind.is_empty() {
        let allowed: Vec<String> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
        notes.mistake(&format!("{place}.kind"), &format!("is {kind:?}; allowed are {}", allowed.join(", ")));
    }
}

/// The worker program, as somebody to ask.
struct WorkerProgram {
    path: PathBuf,
    answer_within: Duration,
}

impl WorkerProgram {
    fn kinds(&self) -> Result<Vec<String>, CheckError> {
        let answer = self.ask(&["--kinds"], "")?;
        Ok(answer.lines().map(str::to_owned).collect())
    }

    fn check(&self, kind: &str, settings: &str) -> Result<Findings, CheckError> {
        let answer = self.ask(&["--check", kind], settings)?;
        serde_json::from_str(&answer).map_err(|error| self.garbled(error))
    }

    /// Asks, and asks again if the program was killed before it could answer: that is not its fault, nor the configuration's.
    fn ask(&self, arguments: &[&str], question: &str) -> Result<String, CheckError> {
        let mut asked = 1;
        loop {
            match self.ask_once(arguments, question) {
                Err(CheckError::Failed { status, .. }) if status.signal().is_some() && asked < ASKED_MAX => asked += 1,
                result => return result,
            }
        }
    }

    fn ask_once(&self, arguments: &[&str], question: &str) -> Result<String, CheckError> {
        let deadline = Instant::now() + self.answer_within;
        let mut child = Running::start(&self.path, arguments).map_err(|why| self.cannot_start(why))?;
        child.feed(question).map_err(|why| self.cannot_start(why))?;
        let answer = collect(child.0.stdout.take()).map_err(|why| self.cannot_start(why))?;
        let complaint = collect(child.0.stderr.take()).map_err(|why| self.cannot_start(why))?;
        let wait = |collected: Receiver<Vec<u8>>| {
            collected.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|_| self.late())
        };
        let (answer, complaint) = (wait(answer)?, wait(complaint)?);
        let status = child.end(deadline).ok_or_else(|| self.late())?;
        if answer.len() as u64 > ANSWER_BYTES_MAX {
            return Err(self.garbled(format!("it is longer than {ANSWER_BYTES_MAX} bytes")));
        }
        if !status.success() {
            return Err(CheckError::Failed { program: self.path.clone(), status, complaint: first_line(&complaint) });
        }
        String::from_utf8(answer).map_err(|error| self.garbled(error))
    }

    fn cannot_start(&self, why: std::io::Error) -> CheckError {
        CheckError::Start { program: self.path.clone(), why }
    }

    fn late(&self) -> CheckError {
        CheckError::Late { program: self.path.clone() }
    }

    fn garbled(&self, why: impl ToString) -> CheckError {
        CheckError::Garbled { program: self.path.clone(), why: why.to_string() }
    }
}

/// The first line only: further ones could quote the settings.
fn first_line(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    line.chars().filter(|c| !c.is_control()).take(COMPLAINT_CHARS_MAX).collect()
}

/// A child that does not outlive this value.
struct Running(Child);

impl Running {
    fn start(program: &Path, arguments: &[&str]) -> std::io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Self(command.spawn()?))
    }

    /// Writes everything to the child's standard input and closes it, in a thread of its own: the child may say something before it
    /// reads. That it does not read everything is its own matter.
    fn feed(&mut self, text: &str) -> std::io::Result<()> {
        let (stdin, text) = (self.0.stdin.take(), text.to_owned());
        thread::Builder::new().spawn(move || stdin.map(|mut stdin| stdin.write_all(text.as_bytes())))?;
        Ok(())
    }

    /// Waits for the end of a child that has closed its outputs.
    fn end(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(END_POLL),
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads everything that comes out, and one byte more than is allowed at most, in a thread of its own. The thread is not waited for:
/// somebody else may hold the other end open.
fn collect(output: Option<impl Read + Send + 'static>) -> std::io::Result<Receiver<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().spawn(move || {
        let mut bytes = Vec::new();
        if let Some(output) = output {
            // What was read before a failure is judged like a short answer.
            let _ = output.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    })?;
    Ok(receiver)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Writes a program for `/bin/sh`. A child does the writing: a descriptor of ours that is open for writing could be inherited by
    /// another test's child at the wrong moment and make the program busy.
    pub(in super::super) fn shell_program(folder: &Path, script: &str) -> PathBuf {
        let path = folder.join("worker");
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$2\" && chmod 700 \"$2\"";
        let status = Command::new("/bin/sh").args(["-c", write, "sh", script]).arg(&path).status().unwrap();
        assert!(status.success());
        path
    }

    fn ask(script: &str, answer_within: Duration) -> Result<String, CheckError> {
        let folder = tempfile::tempdir().unwrap();
        let program = WorkerProgram { path: shell_program(folder.path(), script), answer_within };
        program.ask(&["--check", "smtp"], "question")
    }

    #[test]
    fn the_program_gets_the_kind_and_the_settings() {
        assert_eq!(ask("echo \"$@\"; cat", ANSWER_WITHIN).unwrap(), "--check smtp\nquestion");
    }

    #[test]
    fn a_program_that_fails_is_quoted_with_one_line() {
        let error = ask("echo >&2; echo no luck >&2; echo password=sesame >&2; exit 3", ANSWER_WITHIN).unwrap_err();
        let text = error.to_string();
        assert!(text.ends_with("ended with exit status: 3: no luck"), "{text}");
    }

    #[test]
    fn a_program_that_does_not_answer_is_given_up() {
        let soon = Duration::from_millis(50);
        for script in ["exec sleep 1000", "sleep 5 & wait", "exec >&- 2>&-; exec sleep 1000"] {
            assert!(matches!(ask(script, soon), Err(CheckError::Late { .. })), "{script}");
        }
    }

    #[test]
    fn a_program_that_is_killed_is_asked_again_and_is_no_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let kill_first = "cd \"${0%/*}\"; mkdir once 2>/dev/null && kill -9 $$; cat";
        let program =
            |script| WorkerProgram { path: shell_program(folder.path(), script), answer_within: ANSWER_WITHIN };
        assert_eq!(program(kill_first).ask(&[], "question").unwrap(), "question");
        assert!(program("kill -9 $$").ask(&[], "").unwrap_err().may_pass());
        assert!(!program("exit 1").ask(&[], "").unwrap_err().may_pass());
    }

    #[test]
    fn an_answer_without_end_is_cut_off() {
        assert!(matches!(ask("exec yes", ANSWER_WITHIN), Err(CheckError::Garbled { .. })));
    }

    #[test]
    fn a_program_that_is_not_there_says_what_to_do() {
        let program = WorkerProgram { path: PathBuf::from("/nowhere/worker"), answer_within: ANSWER_WITHIN };
        let text = program.kinds().unwrap_err().to_string();
        assert!(text.contains("/nowhere/worker") && text.contains("SPOOLER_WORKER"), "{text}");
    }
}
