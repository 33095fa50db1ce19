//! `t3pin reissue [USER]`.

use std::fmt::Write;

use clap::Args;

use super::answer::Answer;
use super::exit::Exit;
use super::render::{ago, clock, now_ms, plain, table};
use crate::api::client::{Client, ClientError};
use crate::api::types::{ReissueRequest, Reissued, ReissuedLink};
use crate::domain::{PairingTtl, UnixMs, UserName};

/// Answers that are asked for at most: there are no more devices than that to have links for.
const ANSWERS: usize = 64;

/// Mint a new one-time pairing credential for every device that a change of version made pair again
///
/// Some releases drop all pairings. Which devices had one is known from before, so each gets its own, named after it, until it has
/// paired again. Asking again revokes what was not used yet. The credentials are printed and kept nowhere. Everybody may do this for
/// their own devices, root and group t3pin for anybody's. It waits and ends as `t3pin mint` does.
#[derive(Debug, Args)]
pub struct Reissue {
    /// Whose devices; your own when not said
    user: Option<UserName>,

    /// For how long each is good: whole minutes, at most a day
    #[arg(long, value_name = "TIME", default_value = "1h")]
    ttl: PairingTtl,
}

impl Reissue {
    /// Asks until there is one for everybody, and tells them.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        let ask = |links: &[ReissuedLink]| ReissueRequest {
            user: self.user.clone(),
            ttl: self.ttl,
            kept: links.iter().map(|link| link.id.clone()).collect(),
        };
        let mut all: Reissued = client.post("/v1/reissue", &ask(&[])).await?;
        let mut trouble = None;
        for _ in 0..ANSWERS {
            if all.left == 0 || trouble.is_some() {
                break;
            }
            match client.post::<Reissued>("/v1/reissue", &ask(&all.links)).await {
                Ok(more) => {
                    let stands = more.links.is_empty();
                    all.links.extend(more.links);
                    all.left = more.left;
                    if stands {
                        break;
                    }
                }
                // What there is already is worth something to who asked.
                Err(error) => trouble = Some(error),
            }
        }
        let mut text = shown(&all, now_ms());
        if let Some(error) = &trouble {
            let _ = writeln!(text, "\nNo more than these: {}", plain(&error.to_string()));
        }
        Answer::new(&all, text, trouble.as_ref().map_or(Exit::Done, Exit::from))
    }
}

/// Writing to a `String` cannot fail.
pub(super) fn shown(all: &Reissued, now: UnixMs) -> String {
    let user = &all.user;
    let mut out = match (all.lost, all.lost.saturating_sub(all.paired_again)) {
        (0, _) => format!("Nobody has to pair again with {user}'s server: no change of version has cost a device its pairing.\n"),
        (lost, 0) => format!("All of {lost} have paired again with {user}'s server.\n"),
        (lost, left) => format!("{left} of {lost} devices still have to pair again with {user}'s server.\n"),
    };
    if !all.links.is_empty() {
        let row = |link: &ReissuedLink| {
            let last = link.last_connected_ms.map_or_else(|| "-".to_owned(), |at| ago(now, at));
            [link.device.clone(), last, link.credential.clone(), clock(link.until_ms)]
        };
        let rows: Vec<_> = all.links.iter().map(row).collect();
        let _ = write!(out, "\n{}", table(["DEVICE", "LAST SEEN", "CREDENTIAL", "GOOD UNTIL"], &rows));
        let _ = write!(
            out,
            "\nEach is good once. On the device, open the server's address with /pair#token=CREDENTIAL behind it. Earlier links of \
             these that were not used are revoked.\n"
        );
    }
    if all.left > 0 {
        let _ =
            writeln!(out, "\n{} more have no new link yet; ask again, which revokes those above that are not used.", all.left);
    }
    if all.unlisted > 0 {
        let _ = writeln!(out, "\n{} more lost their pairing and are not known one by one: t3pin mint {user}", all.unlisted);
    }
    out
}
