//! When even the journal cannot be opened (a newer t3pin wrote it, its disk can be neither read nor written): nobody's server stays
//! down for that. Holds, custody and bindings tell enough to put everybody whose data is held back on a binary and data
//! that belong together. The journal is left as it is; the agent that can read it again finds what was done here and closes the bumps.

use std::error::Error;
use std::path::Path;

use super::{Agent, VAR, lock::Alone};
use crate::conduct;
use crate::journal::{Journal, JournalError};

/// A journal for the time of one recovery, of what the disk tells; gone when it is over.
const MEANWHILE: &str = "/run/t3pin/last-resort";

/// Does what can be done without the journal, which is refused for `why`. Never ends well: the agent stays down until a person has acted.
pub async fn recover(alone: Alone, why: JournalError) -> Result<(), Box<dyn Error>> {
    tracing::error!("{why}. Whoever was left half-way is put back by what lies on disk, without the journal");
    let meanwhile = Path::new(MEANWHILE);
    clear(meanwhile)?;
    std::fs::create_dir_all(meanwhile)?;
    let agent = Agent::assemble(alone, Journal::open(&meanwhile.join("journal.sqlite"))?).await?;
    tokio::select! {
        () = agent.put_back() => {}
        () = agent.systemd.lost() => return Err(super::BUS_GONE.into()),
    }
    for bump in agent.stuck() {
        tracing::error!(T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id, "{}", agent.stuck_in_full(&bump, None));
    }
    drop(agent);
    clear(meanwhile)?;
    Err(format!("{why}. Servers run as said above; nothing is held at a version before `systemctl restart t3pin` succeeds")
        .into())
}

impl Agent {
    async fn put_back(&self) {
        self.release_left_over().await;
        self.settle_journal().await;
        Box::pin(conduct::recover(self)).await;
    }
}

/// Names everybody whose data is held, after a recovery that could not even begin: their servers are down.
pub fn tell_held() {
    let held = std::fs::read_dir(Path::new(VAR).join("holds")).into_iter().flatten().flatten();
    for user in held.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| !name.starts_with('.')) {
        let bump = std::fs::read_to_string(Path::new(VAR).join("holds").join(&user)).unwrap_or_default();
        tracing::error!(
            T3PIN_USER = %user,
            "{user} is stuck: t3-serve@{user} is down and stays down, as binary and data may not belong together ({bump}). Nothing is lost: \
             both copies are where they were. What to do: repair what is named here, then t3pin recover; \
             {VAR}/custody/{user}/{bump} says where the original lies"
        );
    }
}

fn clear(directory: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
