//! Whoever started the daemon and wants to know how it is: systemd, by the protocol of `sd_notify(3)`. Without `NOTIFY_SOCKET` in the
//! environment nobody is told, and nothing happens.
//!
//! The watchdog is fed from the loop, never from a thread of its own: what shall be shown is that the loop still takes its turns. It is fed
//! every half of the time after which the service manager gives us up, as `sd_watchdog_enabled(3)` advises.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// What the service manager hears, and when it has to hear from us next.
#[derive(Debug)]
pub struct ServiceManager {
    feed_every: Option<Duration>,
    fed: Instant,
}

impl ServiceManager {
    /// What the environment says of it. The watchdog's time counts from here.
    #[must_use]
    pub fn find() -> Self {
        let feed_every = sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|every| !every.is_zero());
        Self { feed_every, fed: Instant::now() }
    }

    /// How long the loop may wait until the watchdog has to be fed; `None` if there is no watchdog.
    #[must_use]
    pub fn until_due(&self) -> Option<Duration> {
        self.feed_every.map(|every| every.saturating_sub(self.fed.elapsed()))
    }

    /// Feeds the watchdog if it is time. For the loop, at the end of a turn.
    pub fn feed(&mut self) {
        if self.until_due().is_some_and(|wait| wait.is_zero()) {
            self.fed = Instant::now();
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// The spooler is ready for everything; `status` says for people what it does.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again; the end of that is [`ready`].
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reading the configuration again")]),
        Err(error) => tracing::debug!(%error, "the service manager is not told of the reload"),
    }
}

/// The spooler stops: deliveries in flight may end.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping: deliveries in flight may end")]);
}

/// The command that has the running spooler reload its configuration, for people: with `systemctl` if systemd runs it.
#[must_use]
pub fn reload_command() -> String {
    let by_systemd = std::env::var_os("INVOCATION_ID").is_some() && std::env::var_os("NOTIFY_SOCKET").is_some();
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match unit_of(&cgroup).filter(|_| by_systemd) {
        Some((unit, false)) => format!("systemctl reload {unit}"),
        Some((unit, true)) => format!("systemctl --user reload {unit}"),
        None => format!("kill -HUP {}", std::process::id()),
    }
}

/// The unit in `/proc/PID/cgroup`, without `.service`, and whether it is one of a user's own service manager.
fn unit_of(cgroup: &str) -> Option<(&str, bool)> {
    let path = cgroup.lines().find_map(|line| {
        line.strip_prefix("0::").or_else(|| line.split_once(":name=systemd:").map(|(_, path)| path))
    })?;
    let unit = path.split('/').rev().find_map(|part| part.strip_suffix(".service"))?;
    Some((unit, path.contains("/user@")))
}

fn tell(words: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(words) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reload_command_names_the_unit() {
        assert_eq!(unit_of("0::/system.slice/spooler.service\n"), Some(("spooler", false)));
        assert_eq!(unit_of("1:name=systemd:/system.slice/mail.service\n0::/\n"), Some(("mail", false)));
        let of_user = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/spooler.service\n";
        assert_eq!(unit_of(of_user), Some(("spooler", true)));
        assert_eq!(unit_of("0::/init.scope\n"), None);
    }

    #[test]
    fn without_a_watchdog_the_loop_need_not_wake_up() {
        let mut nobody = ServiceManager { feed_every: None, fed: Instant::now() };
        nobody.feed();
        assert_eq!(nobody.until_due(), None);
    }

    #[test]
    fn a_watchdog_that_was_fed_is_not_hungry_at_once() {
        let hour = Duration::from_secs(3600);
        let Some(long_ago) = Instant::now().checked_sub(hour) else { return };
        let mut service = ServiceManager { feed_every: Some(hour), fed: long_ago };
        assert_eq!(service.until_due(), Some(Duration::ZERO));
        service.feed();
        assert!(service.until_due().unwrap() > hour / 2);
    }
}
