//! Provider kind `maildir`: writes each message into the maildir of each recipient.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `path` | required | where maildirs are: `"{home}/Maildir"`, `"/var/mail/{local}"`, `"/srv/mail/{domain}/{local}"` |
//! | `recipient_delimiter` | `""` | characters that begin a tag: with `"+"`, `bob+list@…` goes to `bob` |
//! | `local_case` | `"lower"` | `"lower"` or `"keep"`: case of `{local}`; `{domain}` is always lower case |
//! | `require_user` | `true` in home folders, else `false` | refuse local parts that are no system user, with 5.1.1 |
//! | `mode` | `"0700"` | mode of new folders |
//! | `user`, `group` | none | owner of new folders of recipients who are no system users; needs root |
//! | `credit` | 16 | messages at once |
//!
//! `{home}` is the home folder of the system user named like the local part, as the user database has it. Home folders are never made, and
//! system users whose home is none of a person's (`/bin`, `/var/www`) have no maildir there.
//!
//! It serves no address type by default: claims say for whom it is. Folders are made where they are missing, but never the part of
//! the path before the first placeholder. A worker that runs as root gives new folders to the system user named like the local part,
//! and new messages to the owner of their maildir. Messages have LF line ends and `Return-Path` and `Delivered-To` in front.

mod failure;
mod folder;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod place;
mod unique;
mod write;

use std::cell::Cell;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::join_all;
use nix::sys::stat::Mode;
use nix::unistd::Uid;
use spooler_protocol::from_worker::LogonError;
use spooler_protocol::limits::CREDIT_MAX;
use spooler_protocol::message::Recipient;
use spooler_protocol::outcome::{Outcome, Reply, SubmitResult};
use spooler_protocol::settings::Settings;
use tokio::sync::{Semaphore, mpsc};

use self::failure::Failure;
use self::folder::{Folder, FolderRule};
use self::place::{Base, LocalRule, PathTemplate, Place};
use self::unique::UniqueNames;
use self::write::Letter;
use crate::contract::{Capacity, Provider};
use crate::delivery::Delivery;
use crate::provider::local::account::{Account, homes};
use crate::provider::local::form::{Front, LineEnds};
use crate::sandbox::{Identity, Needs, Privilege};
use crate::support::Support;

/// Files being written at once, each by a thread: far fewer than tokio has threads for blocking work.
const WRITERS_MAX: usize = 32;

/// Pieces of a message waiting for the thread that writes them.
const PIECES_WAITING_MAX: usize = 2;

/// The settings of a [`Maildir`].
#[derive(Debug)]
pub struct MaildirSettings {
    path: String,
    template: Option<PathTemplate>,
    local: LocalRule,
    require_user: bool,
    mode: Mode,
    user: Option<String>,
    group: Option<String>,
    credit: u32,
}

/// The provider.
#[derive(Debug)]
pub struct Maildir {
    path: String,
    template: PathTemplate,
    local: LocalRule,
    folders: Arc<FolderRule>,
    names: UniqueNames,
    writers: Semaphore,
    credit: u32,
    support: Support,
    /// The device and the number of the base, for which the sandbox was closed, if there is one for all.
    base: Option<(u64, u64)>,
    /// Folders of homes, for which the sandbox was closed.
    homes: Vec<PathBuf>,
}

impl Provider for Maildir {
    type Settings = MaildirSettings;

    fn settings(settings: &mut Settings) -> MaildirSettings {
        let path = settings.required_string("path", "the path of maildirs, such as \"/var/mail/{local}\"");
        let template = PathTemplate::parse(&path);
        if let Err(error) = &template
            && !path.is_empty()
        {
            settings.mistake("path", error.to_string());
        }
        let lower = settings.choice("local_case", "lower", &[("lower", true), ("keep", false)]).unwrap_or(true);
        let local = LocalRule { lower, delimiters: settings.string("recipient_delimiter", "") };
        let mode = settings.string("mode", "0700");
        let bits = u32::from_str_radix(&mode, 8).ok().filter(|bits| bits & !0o7777 == 0 && bits & 0o700 == 0o700);
        if bits.is_none() {
            settings.mistake("mode", format!("is {mode:?}; give an octal mode such as \"0700\", \"0750\" or \"2770\""));
        }
        let in_homes = template.as_ref().is_ok_and(PathTemplate::is_in_homes);
        let require_user = settings.boolean("require_user", in_homes);
        if !require_user && template.as_ref().is_ok_and(|template| *template.base() == Base::Home) {
            settings.mistake("require_user", "is false, but only system users have a {home}; remove it");
        }
        MaildirSettings {
            path,
            template: template.ok(),
            local,
            require_user,
            mode: Mode::from_bits_truncate(bits.unwrap_or(0o700)),
            user: settings.optional_string("user"),
            group: settings.optional_string("group"),
            credit: settings.integer("credit", 16, 1..=CREDIT_MAX),
        }
    }

    fn usual_types() -> Option<&'static [&'static str]> {
        Some(&[])
    }

    fn needs(settings: &MaildirSettings) -> Needs {
        let write = match settings.template.as_ref().map(PathTemplate::base) {
            Some(Base::Fixed(base)) => vec![base.clone()],
            Some(Base::Home) => homes(),
            None => Vec::new(),
        };
        Needs {
            write,
            accounts: true,
            identity: Identity::Supervisor("gives each maildir to the user whose it is"),
            privileges: vec![Privilege::FilesOfAll],
            ..Needs::default()
        }
    }

    async fn logon(support: Support, settings: MaildirSettings) -> Result<Self, LogonError> {
        let missing = || LogonError::Unconfigured("path is missing".to_owned());
        let template = settings.template.ok_or_else(missing)?;
        let fallback = Account::of_settings(settings.user.as_deref(), settings.group.as_deref())
            .map_err(|error| LogonError::Unconfigured(error.to_string()))?;
        let (base, homes) = match template.base() {
            Base::Fixed(base) => (Some(check_base(base.clone()).await?), Vec::new()),
            Base::Home => (None, homes()),
        };
        let folders = FolderRule {
            mode: settings.mode,
            require_user: settings.require_user,
            fallback,
            root: Uid::effective().is_root(),
            making: Mutex::new(()),
        };
        Ok(Self {
            path: settings.path,
            template,
            local: settings.local,
            folders: Arc::new(folders),
            names: UniqueNames::new(support.hostname(), std::process::id()),
            writers: Semaphore::new(WRITERS_MAX),
            credit: settings.credit,
            support,
            base,
            homes,
        })
    }

    fn address_types(&self) -> Vec<String> {
        Vec::new()
    }

    fn identity(&self) -> String {
        self.path.clone()
    }

    fn capacity(&self) -> Capacity {
        Capacity { credit: self.credit, ..Capacity::default() }
    }

    async fn submit_message(&self, delivery: &Delivery) -> SubmitResult {
        let left_out = Cell::new(false);
        let serve = async |index: usize, recipient: &Recipient| {
            let _writer = self.writers.acquire().await;
            if delivery.is_cancelled() {
                left_out.set(true);
            } else {
                delivery.settle(index, self.serve(delivery, recipient).await);
            }
        };
        join_all(delivery.recipients().iter().enumerate().map(|(index, recipient)| serve(index, recipient))).await;
        if left_out.get() { SubmitResult::Cancelled } else { SubmitResult::Done }
    }
}

impl Maildir {
    async fn serve(&self, delivery: &Delivery, recipient: &Recipient) -> Outcome {
        let place = match self.template.place(&recipient.address, &self.local) {
            Ok(place) => place,
            Err(error) => return Outcome::Failed(Reply::local(553, "5.1.3", error.to_string())),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let front = Front { from_line: None, return_path: true, delivered_to: true };
        let letter = Letter {
            name: self.names.next(now),
            front: front.lines(delivery.submission(), &[recipient], LineEnds::Lf),
            ends: LineEnds::Lf,
            size: delivery.submission().size,
        };
        let (pieces, content) = mpsc::channel(PIECES_WAITING_MAX);
        let folders = Arc::clone(&self.folders);
        let writing = tokio::task::spawn_blocking(move || write_letter(&place, &folders, &letter, content));
        feed(delivery, pieces).await;
        match writing.await {
            Ok(Ok(path)) => {
                let mut reply = Reply::local(250, "2.0.0", "Delivered to maildir");
                reply.remote = path.to_string_lossy().into_owned();
                Outcome::Delivered(reply)
            }
            Ok(Err(failure)) => {
                if failure.is_denied() {
                    self.look_at_base();
                }
                failure.outcome()
            }
            Err(_) => Failure::BrokenOff.outcome(),
        }
    }
}

impl Maildir {
    /// Another folder in the place of the base, such as a disk that was mounted meanwhile, is one that the sandbox does not know.
    fn look_at_base(&self) {
        match self.template.base() {
            Base::Fixed(base) => {
                if std::fs::metadata(base).is_ok_and(|found| Some((found.dev(), found.ino())) != self.base) {
                    self.support.begin_anew(&format!("{} is another folder now", base.display()));
                }
            }
            Base::Home => {
                if homes() != self.homes {
                    self.support.begin_anew("there are users with homes elsewhere now");
                }
            }
        }
    }
}

/// Without its base (a disk that is not mounted) the provider is offline, and mail for it waits without counting attempts.
async fn check_base(base: PathBuf) -> Result<(u64, u64), LogonError> {
    let shown = base.display().to_string();
    match tokio::task::spawn_blocking(move || std::fs::metadata(base)).await {
        Ok(Ok(found)) if found.is_dir() => Ok((found.dev(), found.ino())),
        Ok(Ok(_)) => Err(LogonError::Failed(format!("{shown} is no folder"))),
        Ok(Err(error)) => Err(LogonError::Failed(format!("Cannot look at {shown}: {error}"))),
        Err(error) => Err(LogonError::Failed(format!("Cannot look at {shown}: {error}"))),
    }
}

fn write_letter(
    place: &Place,
    folders: &FolderRule,
    letter: &Letter,
    mut content: mpsc::Receiver<Result<Bytes, String>>,
) -> Result<PathBuf, Failure> {
    let folder = Folder::open(place, folders)?;
    write::write(&folder, letter, &mut content)
}

/// Sends the content to the thread that writes it, until it is through or the thread has given up.
async fn feed(delivery: &Delivery, pieces: mpsc::Sender<Result<Bytes, String>>) {
    let mut offset = 0;
    while offset < delivery.submission().size {
        let piece = delivery.content(offset).await;
        let length = piece.as_ref().map_or(0, Bytes::len) as u64;
        if pieces.send(piece).await.is_err() || length == 0 {
            return;
        }
        offset += length;
        delivery.progress("writing", offset);
    }
}
