//! System users and groups to act for, looked up by name or number.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};

/// Numbers of users who are persons: as `UID_MIN` of login.defs has it, and below those of containers and `nobody`.
const PERSONS: RangeInclusive<u32> = 1000..=60_000;

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

/// The system user of a name.
pub(crate) fn user_of(name: &str) -> Result<Option<User>, AccountError> {
    User::from_name(name).map_err(|errno| AccountError::Lookup { name: name.to_owned(), errno })
}

/// What files of a user belong to.
pub(crate) fn account_of(user: &User) -> Account {
    Account { uid: user.uid, gid: user.gid }
}

/// Folders that home folders of persons are in: `/home`, root's, and those of the users of `/etc/passwd` whose numbers are persons'.
/// Homes of system users (`/bin`, `/var/www`) are no place for mail.
pub(crate) fn homes() -> Vec<PathBuf> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    homes_in(&passwd)
}

fn homes_in(passwd: &str) -> Vec<PathBuf> {
    let mut homes = vec![PathBuf::from("/home")];
    for line in passwd.lines() {
        let mut fields = line.split(':').skip(2);
        let Some(Ok(uid)) = fields.next().map(str::parse::<u32>) else { continue };
        let Some(home) = fields.nth(2).map(Path::new).filter(|home| home.is_absolute()) else { continue };
        let place = match home.parent() {
            // Not all of the machine, and nothing but his own of root.
            Some(above) if above != Path::new("/") && uid != 0 => above,
            Some(_) => home,
            None => continue,
        };
        if (uid == 0 || PERSONS.contains(&uid)) && !homes.iter().any(|known| place.starts_with(known)) {
            homes.push(place.to_owned());
        }
    }
    homes
}

impl Account {
    /// The account of a system user, if there is one of that name.
    pub(crate) fn of_user(name: &str) -> Result<Option<Self>, AccountError> {
        Ok(user_of(name)?.as_ref().map(account_of))
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
    fn homes_are_those_of_persons() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbin:x:2:2::/bin:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n\
             eve:x:1001:1000::/srv/people/eve:/bin/sh\nmax:x:1002:1::/srv/people/max:\nall:x:1003:1::/:/bin/sh\ndata:x:1004:1::/data:/bin/sh\n\
             nobody:x:65534:65534::/nonexistent:/bin/sh\nbroken:x\nodd:x:1005:1::relative:/bin/sh\n";
        let homes: Vec<String> = homes_in(passwd).iter().map(|home| home.display().to_string()).collect();
        assert_eq!(homes, ["/home", "/root", "/srv/people", "/data"]);
    }

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
