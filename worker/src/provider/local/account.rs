//! System users and groups to act for, looked up by name or number.

use nix::unistd::{Gid, Group, Uid, User};

/// Whom files belong to, or a program runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// The user.
    pub(crate) uid: Uid,
    /// The group.
    pub(crate) gid: Gid,
}

impl Account {
    /// Whether this process is it already.
    pub(crate) fn is_ours(self) -> bool {
        self.uid == Uid::effective() && self.gid == Gid::effective()
    }
}

/// Why there is no such account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccountError {
    /// No such user.
    #[error("There is no system user {0:?}")]
    NoUser(String),
    /// No such group.
    #[error("There is no system group {0:?}")]
    NoGroup(String),
    /// A group alone.
    #[error("The setting group needs the setting user beside it")]
    GroupAlone,
    /// The user database does not answer.
    #[error("Cannot look up {name:?} in the user database: {errno}")]
    Lookup { name: String, errno: nix::Error },
    /// Acting for somebody else takes root.
    #[error("The setting user needs a worker that runs as root")]
    NotRoot,
}

impl Account {
    /// The account of a system user, if there is one of that name.
    pub(crate) fn of_user(name: &str) -> Result<Option<Self>, AccountError> {
        let failed = |errno| AccountError::Lookup { name: name.to_owned(), errno };
        let user = User::from_name(name).map_err(failed)?;
        Ok(user.map(|user| Self { uid: user.uid, gid: user.gid }))
    }

    /// The account that the settings `user` and `group` name, each a name or a number; none if they are not given.
    pub(crate) fn of_settings(user: Option<&str>, group: Option<&str>) -> Result<Option<Self>, AccountError> {
        let Some(user) = user else {
            return if group.is_some() { Err(AccountError::GroupAlone) } else { Ok(None) };
        };
        let no_user = || AccountError::NoUser(user.to_owned());
        let mut account = match Self::of_user(user)? {
            Some(account) => account,
            None => {
                let uid = Uid::from_raw(user.parse().map_err(|_| no_user())?);
                let known = User::from_uid(uid).ok().flatten();
                match (known, group) {
                    (Some(user), _) => Self { uid, gid: user.gid },
                    (None, Some(_)) => Self { uid, gid: Gid::from_raw(uid.as_raw()) },
                    (None, None) => return Err(no_user()),
                }
            }
        };
        if let Some(group) = group {
            account.gid = gid_of(group)?;
        }
        if Uid::effective() != account.uid && !Uid::effective().is_root() {
            return Err(AccountError::NotRoot);
        }
        Ok(Some(account))
    }
}

fn gid_of(group: &str) -> Result<Gid, AccountError> {
    let failed = |errno| AccountError::Lookup { name: group.to_owned(), errno };
    match Group::from_name(group).map_err(failed)? {
        Some(found) => Ok(found.gid),
        None => group.parse().map(Gid::from_raw).map_err(|_| AccountError::NoGroup(group.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_named_is_nobody() {
        assert_eq!(Account::of_settings(None, None), Ok(None));
        assert_eq!(Account::of_settings(None, Some("mail")), Err(AccountError::GroupAlone));
    }

    #[test]
    fn a_name_that_no_user_has_is_none() {
        assert_eq!(Account::of_user("no such user here"), Ok(None));
        let root = Account::of_user("root").unwrap().unwrap();
        assert_eq!((root.uid.as_raw(), root.gid.as_raw()), (0, 0));
    }
}
