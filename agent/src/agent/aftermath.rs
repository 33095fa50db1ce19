//! After the journal was made anew: what the disk tells is compared with what the journal still says.

use super::{Agent, now_ms};
use crate::domain::UserName;
use crate::journal::{Finding, JournalError};

impl Agent {
    /// Compares journal and disk, once, when the journal had to be made anew. Part of every recovery, before anything else.
    pub async fn settle_journal(&self) {
        let Some(finding) = self.journal.finding() else { return };
        if let Err(error) = self.compare(&finding).await {
            tracing::error!("what the disk tells could not be compared with the journal: {error}; the next start tries again");
        }
    }

    async fn compare(&self, finding: &Finding) -> Result<(), JournalError> {
        if finding.nothing
            && let Some(shown_by) = self.not_new()
        {
            self.journal.report_loss(&shown_by, now_ms())?;
        }
        self.journal.settle_finding()
    }

    /// What shows that this host has a past with t3pin; `None` on a host that is new.
    fn not_new(&self) -> Option<String> {
        let users = self.store.bound_users().unwrap_or_default();
        let names = |users: &[UserName]| users.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self.vault.held() {
            Ok(held) if !held.is_empty() => {
                let users: Vec<UserName> = held.into_iter().map(|(user, _)| user).collect();
                Some(format!("the data of {} is held", names(&users)))
            }
            _ if !users.is_empty() => Some(format!("{} are bound to versions", names(&users))),
            _ => None,
        }
    }
}
