//! What a person can do about a bump that is stuck: the real commands, with the real paths of both copies.

use super::drive::words;
use super::{Agent, VAR};
use crate::domain::Version;
use crate::engine::Bump;
use crate::state::{CustodySeen, Whereabouts};

impl Agent {
    /// What is wrong, whether the server runs all the same, and what a person can do.
    pub fn stuck_in_full(&self, bump: &Bump, running: Option<&Version>) -> String {
        let server = match running {
            Some(running) => format!("{} runs and answers as {running}", bump.instance.unit),
            None => format!("{} does not answer", bump.instance.unit),
        };
        let prospect = self.retries.prospect(bump.id);
        format!("{}. Now {server}; it is {prospect}. What to do: {}", words(bump), self.ways_out(bump).join("; "))
    }

    /// One thing to do each, the easiest first. Reads the disk.
    pub fn ways_out(&self, bump: &Bump) -> Vec<String> {
        match self.vault.custodies(&bump.instance.place) {
            Ok(seen) => ways_out(bump, seen.iter().find(|seen| seen.bump == bump.id)),
            Err(error) => {
                let mut ways = ways_out(bump, None);
                ways.push(format!("custody could not be looked at: {error}"));
                ways
            }
        }
    }
}

fn ways_out(bump: &Bump, custody: Option<&CustodySeen>) -> Vec<String> {
    let (user, from, to, unit) = (bump.instance.user(), &bump.from, &bump.to, &bump.instance.unit);
    let userdata = bump.instance.place.userdata();
    let userdata = userdata.display();
    let mut ways = vec![
        format!("repair what is named above, then: t3pin rollback {user}"),
        format!("journalctl -u {unit} -u t3pin: what the server and the agent say"),
    ];
    let bind = format!("ln -sfn ../versions/{from} {VAR}/bindings/{user}; rm -f {VAR}/holds/{user}; systemctl start {unit}");
    match custody.map(|seen| (seen.originals, seen.path.display())) {
        Some((Whereabouts::InCustody, path)) => {
            ways.push(format!("the data as {from} left it lies in {path}/original, what {to} made of it in {userdata}"));
            ways.push(format!(
                "by hand, only when that rollback keeps failing: systemctl stop {unit}; cp -a {userdata} {path}/aside; \
                 rm -f {userdata}/state.sqlite-wal {userdata}/state.sqlite-shm; \
                 cp -a --remove-destination {path}/original/. {userdata}/; {bind}"
            ));
        }
        Some((Whereabouts::Back, _)) => {
            ways.push(format!("the data as {from} left it is in its place, {userdata}"));
            ways.push(format!("by hand, only when that rollback keeps failing: systemctl stop {unit}; {bind}"));
        }
        Some((Whereabouts::Archived, path)) => {
            ways.push(format!("the data as {from} left it lies in the archive, {path}, what {to} made of it in {userdata}"));
        }
        None => ways.push(format!("no custody of {} was found; what is there of the data is in {userdata}", bump.id)),
    }
    if let Some(salvage) = &bump.salvage {
        ways.push(format!("what {to} wrote lies in {}", salvage.path.display()));
    }
    if let Some(snapshot) = bump.snapshot.as_ref().filter(|snapshot| snapshot.path.exists()) {
        ways.push(format!("a verified copy of the old data lies in {}, too", snapshot.path.display()));
    }
    ways
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::domain::BumpId;

    #[test]
    fn the_real_paths_of_both_copies_are_told() {
        let bump = crate::engine::bump::sample(BumpId(7), "alice");
        let path = "/home/.t3pin/alice/b000007";
        let seen = |originals| CustodySeen { bump: bump.id, version: bump.from.clone(), originals, path: path.into() };
        let told = ways_out(&bump, Some(&seen(Whereabouts::InCustody))).join("\n");
        for part in
            ["t3pin rollback alice", "/home/.t3pin/alice/b000007/original", "/home/alice/.t3/userdata", "../versions/0.0.24"]
        {
            assert!(told.contains(part), "{part}: {told}");
        }
        let told = ways_out(&bump, Some(&seen(Whereabouts::Back))).join("\n");
        assert!(told.contains("is in its place, /home/alice/.t3/userdata") && !told.contains("cp -a"), "{told}");
    }
}
