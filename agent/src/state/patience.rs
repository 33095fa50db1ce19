//! How long anybody waits for a user's home.
//!
//! A home may lie on a file server that is gone, or behind a mount of its user's that never answers; a thread that asks there waits in the
//! kernel, and nothing ends it. So what root does at a home has a time, and while something of a user's is still waiting, nothing more is begun
//! for that user: others go on, and threads do not pile up.

use std::future::Future;
use std::time::Duration;

use super::{StateError, blocking};
use crate::domain::{Place, UserName};
use crate::worker::Tally;

/// Looking at names, sizes and processes: milliseconds, with tens of thousands of attachments seconds.
pub const LOOK: Duration = Duration::from_secs(20);
/// Renames, and having them on the disk.
pub const CHANGE: Duration = Duration::from_secs(120);

/// Whose homes are being waited for, beyond the time, by how many.
static WAITING: Tally = Tally::new();

/// Whether something still waits for this user's home.
pub fn hangs(user: &UserName) -> bool {
    WAITING.has(user)
}

/// Runs `work`, which reaches into `place`'s home, on a thread that may wait; [`StateError::Hangs`] when it does not come back in `time`, and
/// at once while earlier work for this user has not. What comes late is finished by itself, and its result is lost.
pub async fn at_home<T: Send + 'static>(
    place: &Place,
    time: Duration,
    work: impl FnOnce() -> Result<T, StateError> + Send + 'static,
) -> Result<T, StateError> {
    #[cfg(feature = "simulation")]
    if crate::simulated::is_on() {
        return work();
    }
    let user = &place.account.user;
    let hanging = || StateError::Hangs { home: place.account.home.clone(), user: user.clone() };
    if hangs(user) {
        return Err(hanging());
    }
    let mut running = Box::pin(blocking(work));
    match tokio::time::timeout(time, &mut running).await {
        Ok(result) => result,
        Err(_) => {
            tracing::warn!(T3PIN_USER = %user, "{}", hanging());
            leave(user, async move { drop(running.await) });
            Err(hanging())
        }
    }
}

/// Leaves `work` for `user` to itself: until it ends, [`hangs`] says so.
pub fn leave(user: &UserName, work: impl Future<Output = ()> + Send + 'static) {
    let one = WAITING.count(user);
    tokio::spawn(async move {
        work.await;
        drop(one);
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::domain::Account;

    fn place(user: &str) -> Place {
        let home = format!("/home/{user}").into();
        Place::of(Account { user: user.parse().unwrap(), uid: 1000, gid: 1000, home, shell: "/bin/sh".into() })
    }

    #[tokio::test]
    async fn a_home_that_hangs_is_left_alone_until_it_answers_and_nobody_else_waits() {
        let (alice, bob) = (place("alice"), place("bob"));
        let (answers, hung) = std::sync::mpsc::channel::<()>();
        let late = at_home(&alice, Duration::from_millis(20), move || Ok(hung.recv().is_ok())).await;
        assert!(matches!(late, Err(StateError::Hangs { .. })) && hangs(&alice.account.user));
        let begun = || panic!("nothing is begun meanwhile");
        assert!(matches!(at_home::<()>(&alice, LOOK, begun).await, Err(StateError::Hangs { .. })));
        assert_eq!(at_home(&bob, LOOK, || Ok(1)).await.unwrap(), 1);
        drop(answers);
        let again = async {
            while hangs(&alice.account.user) {
                tokio::task::yield_now().await;
            }
            at_home(&alice, LOOK, || Ok(2)).await
        };
        assert_eq!(tokio::time::timeout(LOOK, again).await.unwrap().unwrap(), 2);
    }
}
