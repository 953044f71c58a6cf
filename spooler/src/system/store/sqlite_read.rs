//! Reading a spool on disk, while it is being written.
//!
//! Long readings go page by page, each page in a short transaction that is over before anything is shown: a visitor may take its time, and
//! the write-ahead log is never pinned. So a long reading is no snapshot: a message that comes or goes meanwhile may be seen or not,
//! but each one is seen whole.
//!
//! A scan looks at every file of a large content, but not at contents in the database: that would read all of them from disk, while
//! row and content came with one commit and go with one. [`StoreReader::get`] and [`StoreReader::content`] do look.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row};
use spooler_protocol::control::{Filter, MessageDetail, MessageSummary};
use spooler_protocol::history::{Finished, HistoryFilter};
use spooler_protocol::ids::MessageId;

use super::body_files::BodyFolder;
use super::claim::DatabaseFile;
use super::damage::is_damage;
use super::failure::{failed, if_really_damaged, of_sqlite};
use super::listing::{Selection, Stored};
use super::rows::{Draft, MESSAGES_PAGE, RECIPIENTS_PAGE, key, recipient_of};
use super::schema::open_reader;
use super::{HistoryPage, Scanned, StoreError, StoreReader, history, sums};

/// Messages that one page holds at most.
const PAGE_MESSAGES_MAX: u32 = 256;

/// Recipients from which on a page ends early.
const PAGE_RECIPIENTS: u32 = 2048;

pub(super) const CONTENT: &str =
    "SELECT content, (SELECT content_sum FROM messages WHERE id = ?1) FROM bodies WHERE message_id = ?1";
const HAS_CONTENT: &str = "SELECT 1 FROM bodies WHERE message_id = ?1";
const HAS_MESSAGE: &str = "SELECT 1 FROM messages WHERE id = ?1";
const SIZE_IN_FILE: &str = "SELECT in_file, size FROM messages WHERE id = ?1";

pub(super) type Visit<'visitor> = dyn FnMut(Stored) -> ControlFlow<()> + 'visitor;

/// A reading end of a [`super::sqlite::SqliteStore`].
pub struct SqliteReader {
    // Goes before the file.
    pub(super) connection: Connection,
    bodies: BodyFolder,
    pub(super) path: PathBuf,
    _file: DatabaseFile,
}

/// Which messages, as far as SQL decides it.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) owner_uid: Option<u32>,
    pub(super) before_ms: Option<i64>,
}

impl Range {
    const ALL: Self = Self { first: 0, last: i64::MAX, owner_uid: None, before_ms: None };

    fn one(id: MessageId) -> Self {
        Self { first: key(id), last: key(id), ..Self::ALL }
    }
}

impl SqliteReader {
    pub(super) fn open(path: &Path, file: DatabaseFile, bodies: BodyFolder) -> Result<Self, StoreError> {
        Ok(Self { connection: open_reader(path)?, bodies, path: path.to_owned(), _file: file })
    }

    pub(super) fn fail(&self, error: &rusqlite::Error) -> StoreError {
        of_sqlite(&self.path, &self.connection, error)
    }

    fn visit(&self, mut range: Range, visit: &mut Visit<'_>) -> Result<ControlFlow<()>, StoreError> {
        let mut messages = PAGE_MESSAGES_MAX;
        loop {
            let drafts = match self.page(range, messages) {
                Ok(drafts) => drafts,
                // What is before the damage is read first.
                Err(error) if is_damage(&error) && messages > 1 => {
                    messages = (messages / 8).max(1);
                    continue;
                }
                // A disk that gives nothing for the time being is no damage.
                Err(error) if self.fail(&error).is_passing() => return Err(self.fail(&error)),
                Err(error) if is_damage(&error) => match self.pass_over(range, visit)? {
                    ControlFlow::Continue(next) if next <= range.last => {
                        range.first = next;
                        continue;
                    }
                    ControlFlow::Continue(_) => break,
                    ControlFlow::Break(()) => return Ok(ControlFlow::Break(())),
                },
                Err(error) => return Err(self.fail(&error)),
            };
            messages = (messages * 2).min(PAGE_MESSAGES_MAX);
            let Some(newest) = drafts.last().map(|draft| key(draft.id)) else { break };
            for draft in drafts {
                if let Some(stored) = self.complete(draft)?
                    && visit(stored).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if newest >= range.last {
                break;
            }
            range.first = newest + 1;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The first messages of a range, with their recipients, as of one moment.
    pub(super) fn page(&self, range: Range, messages: u32) -> rusqlite::Result<Vec<Draft>> {
        let transaction = self.connection.unchecked_transaction()?;
        let mut drafts = Vec::new();
        let mut recipients = 0_u32;
        {
            let mut statement = transaction.prepare_cached(MESSAGES_PAGE)?;
            let mut rows = statement.query((range.first, range.last, range.owner_uid, range.before_ms, messages))?;
            while recipients < PAGE_RECIPIENTS
                && let Some(row) = rows.next()?
            {
                let draft = Draft::read(row)?;
                recipients = recipients.saturating_add(draft.recipients);
                drafts.push(draft);
            }
        }
        add_recipients(&transaction, &mut drafts)?;
        transaction.commit()?;
        Ok(drafts)
    }

    /// The finished message of a page; `None` if it was removed meanwhile.
    pub(super) fn complete(&self, mut draft: Draft) -> Result<Option<Stored>, StoreError> {
        if draft.in_file
            && let Err(why) = self.bodies.check(draft.id, draft.size())
        {
            if !self.exists(HAS_MESSAGE, draft.id)? {
                return Ok(None);
            }
            draft.spoil(why);
        }
        Ok(Some(draft.finish()))
    }

    fn exists(&self, query: &str, id: MessageId) -> Result<bool, StoreError> {
        let exists = || self.connection.prepare_cached(query)?.exists([key(id)]);
        exists().map_err(|error| self.fail(&error))
    }

    fn one(&self, id: MessageId) -> Result<Option<Stored>, StoreError> {
        let drafts = self.page(Range::one(id), 1).map_err(|error| self.fail(&error))?;
        let Some(mut draft) = drafts.into_iter().next() else { return Ok(None) };
        if !draft.in_file && !self.exists(HAS_CONTENT, id)? {
            if !self.exists(HAS_MESSAGE, id)? {
                return Ok(None);
            }
            draft.spoil("its content is missing".to_owned());
        }
        self.complete(draft)
    }

    /// A piece of a content in the database, if all of it is as it was; `None` if there is none.
    fn inline(&self, id: MessageId, offset: u64, length: usize) -> rusqlite::Result<Option<Result<Bytes, StoreError>>> {
        let mut statement = self.connection.prepare_cached(CONTENT)?;
        let mut rows = statement.query([key(id)])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let content = row.get_ref(0)?.as_blob()?;
        if row.get::<_, Option<u32>>(1)?.is_some_and(|sum| sum != sums::content(content)) {
            let why = format!("the content of message {id} is not what it was: the checksum is wrong");
            return Ok(Some(Err(failed(&self.path, why))));
        }
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let rest = content.get(from..).unwrap_or_default();
        Ok(Some(Ok(Bytes::copy_from_slice(rest.get(..length).unwrap_or(rest)))))
    }

    /// The size of a content, if it is in a file.
    fn size_in_file(&self, id: MessageId) -> Result<Option<u64>, StoreError> {
        let size = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)?));
        let found = || self.connection.prepare_cached(SIZE_IN_FILE)?.query_row([key(id)], size).optional();
        match found().map_err(|error| self.fail(&error))? {
            Some((true, size)) => Ok(Some(size.cast_unsigned())),
            Some((false, _)) => Ok(None),
            None => Err(failed(&self.path, format!("there is no message {id}"))),
        }
    }
}

/// Reads the recipients of consecutive messages in one go; both are in ascending order.
fn add_recipients(connection: &Connection, drafts: &mut [Draft]) -> rusqlite::Result<()> {
    let (Some(first), Some(last)) = (drafts.first(), drafts.last()) else { return Ok(()) };
    let mut statement = connection.prepare_cached(RECIPIENTS_PAGE)?;
    let mut rows = statement.query([key(first.id), key(last.id)])?;
    let mut drafts = drafts.iter_mut().peekable();
    while let Some(row) = rows.next()? {
        let id = recipient_of(row)?;
        while drafts.next_if(|draft| draft.id < id).is_some() {}
        if let Some(draft) = drafts.peek_mut()
            && draft.id == id
        {
            draft.push(row);
        }
    }
    Ok(())
}

impl StoreReader for SqliteReader {
    fn scan(&mut self, visit: &mut dyn FnMut(Scanned) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.visit(Range::ALL, &mut |stored| visit(stored.into_scanned())).map(drop)
    }

    fn get(&mut self, id: MessageId) -> Result<Option<Scanned>, StoreError> {
        Ok(if_really_damaged(|| self.one(id))?.map(Stored::into_scanned))
    }

    fn content(&mut self, id: MessageId, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        let inline = || self.inline(id, offset, length).map_err(|error| self.fail(&error));
        if let Some(piece) = if_really_damaged(inline)? {
            return piece;
        }
        match if_really_damaged(|| self.size_in_file(id))? {
            Some(size) => self.bodies.read(id, size, offset, length),
            None => Err(failed(&self.path, format!("the content of message {id} is missing"))),
        }
    }

    fn check_content(&mut self, id: MessageId) -> Result<(), StoreError> {
        match if_really_damaged(|| self.size_in_file(id))? {
            Some(size) => self.bodies.check_sum(id, size),
            None => self.content(id, 0, 0).map(drop),
        }
    }

    fn list(
        &mut self,
        filter: &Filter,
        now_ms: i64,
        owner_uid: Option<u32>,
        visit: &mut dyn FnMut(MessageSummary) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let selection = Selection::new(filter, now_ms, owner_uid).map_err(|why| failed(&self.path, why))?;
        let mut left = selection.limit.unwrap_or(u64::MAX);
        let mut select = |stored: Stored| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            if !selection.matches(&stored) {
                return ControlFlow::Continue(());
            }
            left -= 1;
            visit(stored.summary(now_ms))
        };
        let Selection { owner_uid, before_ms, .. } = selection;
        let Some(ids) = &selection.ids else {
            let all = Range { owner_uid, before_ms, ..Range::ALL };
            return self.visit(all, &mut select).map(drop);
        };
        for id in ids {
            if self.visit(Range::one(*id), &mut select)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn history(
        &mut self,
        filter: &HistoryFilter,
        owner_uid: Option<u32>,
        before: u64,
    ) -> Result<HistoryPage, StoreError> {
        history::page(&self.connection, filter, owner_uid, before).map_err(|error| self.fail(&error))
    }

    fn finished(&mut self, id: MessageId, owner_uid: Option<u32>) -> Result<Option<Finished>, StoreError> {
        history::of_number(&self.connection, id, owner_uid).map_err(|error| self.fail(&error))
    }

    fn detail(&mut self, id: MessageId, now_ms: i64) -> Result<Option<(MessageDetail, Option<u32>)>, StoreError> {
        let found = if_really_damaged(|| self.one(id))?;
        Ok(found.map(|stored| (stored.detail(now_ms), stored.owner_uid())))
    }
}
