//! What the layer has recorded: the changes of the file system, in their order.

/// One change.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    /// A file was opened that may be new.
    Open {
        inode: u64,
        path: &'a str,
        truncates: bool,
    },
    Write {
        inode: u64,
        offset: u64,
        data: &'a [u8],
    },
    Truncate {
        inode: u64,
        length: u64,
    },
    /// A sync began; what had happened to the file or folder by now is what it promises.
    SyncBegin {
        number: u64,
        inode: u64,
        path: &'a str,
        is_folder: bool,
    },
    SyncEnd {
        number: u64,
        ok: bool,
    },
    Rename {
        from: &'a str,
        to: &'a str,
    },
    Link {
        from: &'a str,
        to: &'a str,
    },
    Unlink {
        path: &'a str,
    },
    MakeFolder {
        path: &'a str,
    },
    RemoveFolder {
        path: &'a str,
    },
}

const HEAD_BYTES: usize = 40;

/// The changes in a trace; ends at the first that is not whole.
pub(crate) struct Steps<'a> {
    rest: &'a [u8],
}

impl<'a> Steps<'a> {
    pub(crate) fn of(trace: &'a [u8]) -> Self {
        Self { rest: trace }
    }

    fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(count).ok()?)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let head = self.take(HEAD_BYTES as u64)?;
        let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().unwrap());
        let (inode, offset, length) = (long(8), long(16), long(24));
        let path = std::str::from_utf8(self.take(word(32).into())?).unwrap();
        let other = std::str::from_utf8(self.take(word(36).into())?).unwrap();
        Some(match word(0) {
            1 => Step::Open { inode, path, truncates: offset != 0 },
            2 => Step::Write { inode, offset, data: self.take(length)? },
            3 => Step::Truncate { inode, length },
            4 => Step::SyncBegin { number: offset, inode, path, is_folder: word(4) != 0 },
            5 => Step::SyncEnd { number: offset, ok: true },
            6 => Step::SyncEnd { number: offset, ok: false },
            7 => Step::Rename { from: path, to: other },
            8 => Step::Unlink { path },
            9 => Step::MakeFolder { path },
            10 => Step::RemoveFolder { path },
            11 => Step::Link { from: path, to: other },
            unknown => panic!("the trace has a record of kind {unknown}"),
        })
    }
}
