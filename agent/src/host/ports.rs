//! Ports for new instances.

use std::collections::BTreeSet;
use std::io;

use super::Listeners;
use super::env_file::EnvFiles;
use super::instances::port_from;

/// The ports that environment files name, whether their servers run or not. A file that cannot be read is an error: its port
/// could be given away a second time.
pub fn taken(env: &EnvFiles) -> io::Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for user in env.users()? {
        let found = env.read(&user).map_err(io::Error::other)?;
        ports.extend(found.and_then(|env| env.port).as_deref().and_then(port_from));
    }
    Ok(ports)
}

/// The first port from `first` on that nobody has taken and nothing listens on right now. An error when that cannot be told.
pub fn free(first: u16, taken: &BTreeSet<u16>) -> io::Result<Option<u16>> {
    let listening = Listeners::read()?.ports();
    Ok((first..=u16::MAX).find(|port| !taken.contains(port) && !listening.contains(port)))
}

/// Whether nothing listens on `port`, on whatever address. An error when that cannot be told.
pub fn is_quiet(port: u16) -> io::Result<bool> {
    Ok(Listeners::read()?.on(port).is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::super::env_file::tests::files;
    use super::*;

    #[test]
    fn when_everything_is_taken_there_is_none() {
        assert_eq!(free(u16::MAX, &BTreeSet::from([u16::MAX])).unwrap(), None);
    }

    #[test]
    fn ports_are_collected_from_all_files() {
        let (_dir, env) =
            files(&[("alice", "T3_PORT=3773"), ("bob", "T3_PORT=\"3774\""), ("carol", "X=1"), ("dora", "T3_PORT=x")]);
        assert_eq!(taken(&env).unwrap(), BTreeSet::from([3773, 3774]));
    }
}
