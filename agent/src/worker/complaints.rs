//! What a worker says besides its answer: when it panics, mostly.
//!
//! It goes through a pipe of the worker's own. Our standard error is a line to the system's journal in root's name, or root's terminal,
//! and whoever has a worker's ids can have its descriptors (ptrace(2)).

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;

use crate::domain::UserName;

/// So much of it is passed on.
const MOST: u64 = 4 << 10;
/// What it said last comes this soon after its end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Passes on what comes, until [`Complaints::end`].
#[derive(Debug)]
pub struct Complaints(Option<JoinHandle<()>>);

impl Complaints {
    /// Listens to the standard error of a worker of `user`'s.
    pub fn of(user: &UserName, from: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let user = user.clone();
        Self(from.map(|mut from| {
            tokio::spawn(async move {
                let mut said = Vec::new();
                (&mut from).take(MOST).read_to_end(&mut said).await.ok();
                for line in plain(&said) {
                    eprintln!("<4>the worker of {user} says: {line}");
                }
                // It shall not stand still because nobody listens any more.
                tokio::io::copy(&mut from, &mut tokio::io::sink()).await.ok();
            })
        }))
    }

    /// Once the worker has ended.
    pub async fn end(mut self) {
        if let Some(listening) = self.0.as_mut() {
            tokio::time::timeout(LAST_WORDS, listening).await.ok();
        }
    }
}

impl Drop for Complaints {
    fn drop(&mut self) {
        if let Some(listening) = &self.0 {
            listening.abort();
        }
    }
}

/// Its lines, with nothing in them that steers a terminal or begins another line.
fn plain(said: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(said);
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| line.chars().map(|c| if c.is_control() { '?' } else { c }).collect()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_on_is_plain_text() {
        assert_eq!(plain(b"a\x1b[2J\n\n<0>b\xff\r\n"), ["a?[2J", "<0>b\u{fffd}"]);
    }

    #[tokio::test]
    async fn who_talks_without_end_is_heard_out_and_let_go() {
        let (mut talks, hears) = tokio::io::duplex(1024);
        let complaints = Complaints::of(&"alice".parse().unwrap(), Some(hears));
        tokio::io::AsyncWriteExt::write_all(&mut talks, &[b'x'; 100_000]).await.unwrap();
        complaints.end().await;
        let still = tokio::io::AsyncWriteExt::write_all(&mut talks, &[b'x'; 100_000]);
        assert!(still.await.is_err(), "nobody listens any more");
    }
}
