//! What a person can do about a bump, in the words of commands.

use crate::api::types::InstanceStatus;
use crate::engine::{Blame, Bump, Outcome, Phase};

/// About a user who never had a bump.
pub fn without_bump(instance: &InstanceStatus) -> Vec<String> {
    let user = &instance.user;
    match instance.bound_version {
        None => vec![format!("t3pin enroll {user}: have t3pin hold this user's server at the pinned version")],
        Some(_) => vec!["t3pin plan: see what would be done".to_owned()],
    }
}

/// About the last or open bump of a user.
pub fn about(bump: &Bump, instance: &InstanceStatus) -> Vec<String> {
    let (user, from, to) = (bump.instance.user(), &bump.from, &bump.to);
    let log = format!("journalctl -u {}: what the server itself says", bump.instance.unit);
    match bump.phase {
        Phase::Planned | Phase::Ready => vec![
            "nothing: it goes on by itself as soon as what it waits for is over".to_owned(),
            format!("t3pin now {user}: have it done as soon as nothing is in flight (--force: at any price)"),
            format!("t3pin defer {user} --for 2h: not before then"),
        ],
        Phase::Soaking if instance.state == "needs-decision" => vec![
            format!("t3pin rollback {user}: go back to {from}; what was done since is kept as salvage"),
            format!("repair {to}: the soak ends by itself when it is well again"),
            log,
        ],
        Phase::Soaking => vec![
            "nothing: it settles by itself, or is rolled back by itself when it turns out bad".to_owned(),
            format!("t3pin rollback {user}: go back to {from} and its data now"),
        ],
        Phase::Stuck => vec![],
        Phase::Closed(Outcome::Done) => {
            let mut can = vec!["nothing has to be done".to_owned()];
            if bump.snapshot.is_some() {
                can.push(format!("t3pin rollback {user}: go back to {from} and the data of that time"));
            }
            can
        }
        Phase::Closed(Outcome::RolledBack | Outcome::Refused | Outcome::Cancelled) => after_a_failure(bump),
        _ => vec!["nothing: t3pin is at work on it, and takes it up again by itself whatever dies".to_owned()],
    }
}

fn after_a_failure(bump: &Bump) -> Vec<String> {
    let (user, from, to) = (bump.instance.user(), &bump.from, &bump.to);
    let mut can = match bump.fault.as_ref().map(|fault| fault.blame) {
        Some(Blame::Version) => vec![
            format!("nothing has to be done: {to} is quarantined, and nobody gets it unattended"),
            "pin a release in which this is repaired, then t3pin enforce".to_owned(),
            format!("t3pin versions retry {to} {user} --wait: try it once more, with {user} alone"),
            format!("t3pin versions clear {to}, then t3pin enforce: try it again with everybody"),
        ],
        Some(Blame::User) => vec![format!("repair what is named above, then t3pin now {user}: try it again")],
        Some(Blame::Operator) => vec![
            format!("t3pin enforce: try {to} again"),
            format!("hold {user} in the pin file ([users.{user}] version = \"{from}\"), if it is to stay that way"),
        ],
        Some(Blame::Environment) | None => vec!["repair what is named above; t3pin enforce tries it again".to_owned()],
    };
    if let Some(salvage) = &bump.salvage {
        can.push(format!("look at what {to} wrote: {} (root only; nothing removes it)", salvage.path.display()));
    }
    can
}
