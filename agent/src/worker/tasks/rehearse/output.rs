//! The last lines of what a candidate prints, without its secrets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::task::JoinSet;

use crate::worker::tasks::redact::excerpt;

/// Lines kept.
const LINES: usize = 40;

/// Characters kept of a line.
const WIDTH: usize = 300;

/// Bytes of a line that are looked at; the rest is dropped.
const MAX_LINE: usize = 4096;

/// Reads a program's outputs for as long as it prints, so that it never blocks, and keeps the end.
#[derive(Debug)]
pub struct Output {
    lines: Arc<Mutex<VecDeque<String>>>,
    readers: JoinSet<()>,
}

impl Output {
    /// Takes both outputs of `child`.
    pub fn of(child: &mut Child) -> Self {
        let mut output = Self { lines: Arc::default(), readers: JoinSet::new() };
        if let Some(stdout) = child.stdout.take() {
            output.readers.spawn(read(stdout, output.lines.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            output.readers.spawn(read(stderr, output.lines.clone()));
        }
        output
    }

    /// Waits until everything has been read, at most for `deadline`.
    pub async fn settle(&mut self, deadline: Duration) {
        let all = async { while self.readers.join_next().await.is_some() {} };
        tokio::time::timeout(deadline, all).await.ok();
    }

    /// Adds a line of our own.
    pub fn note(&self, line: String) {
        keep(&self.lines, line);
    }

    /// The last lines, at most `most`.
    pub fn tail(&self, most: usize) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().skip(lines.len().saturating_sub(most)).cloned().collect()
    }
}

async fn read(mut from: impl AsyncRead + Unpin, lines: Arc<Mutex<VecDeque<String>>>) {
    let (mut line, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        for byte in &chunk[..n] {
            match byte {
                b'\n' => take(&mut line, &lines),
                _ if line.len() < MAX_LINE => line.push(*byte),
                _ => {}
            }
        }
    }
    take(&mut line, &lines);
}

fn take(line: &mut Vec<u8>, lines: &Mutex<VecDeque<String>>) {
    let bytes = std::mem::take(line);
    if !is_picture(&bytes) {
        let text = excerpt(&bytes, WIDTH);
        if !text.is_empty() {
            keep(lines, text);
        }
    }
}

fn keep(lines: &Mutex<VecDeque<String>>, line: String) {
    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() == LINES {
        lines.pop_front();
    }
    lines.push_back(line);
}

/// Whether a line is part of a picture in block characters: the QR code, which holds the startup token (T3-CONTRACT
/// section 2).
fn is_picture(line: &[u8]) -> bool {
    String::from_utf8_lossy(line).chars().filter(|c| ('\u{2580}'..='\u{259f}').contains(c)).count() >= 4
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn tail_of(printed: &[u8]) -> Vec<String> {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read(printed, lines.clone()));
        lines.lock().unwrap().iter().cloned().collect()
    }

    #[test]
    fn the_last_lines_are_kept_and_the_token_is_not() {
        let printed: String =
            (0..50).map(|n| format!("line {n}\n")).collect::<String>() + "Token: ABCD2345EFGH\n\n  ██▀▀▄▄██  \nlast";
        let tail = tail_of(printed.as_bytes());
        assert_eq!(tail.len(), LINES);
        assert_eq!(tail[37..], ["line 49", "Token: ***", "last"]);
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let tail = tail_of(&vec![b'x'; 1 << 20]);
        assert_eq!((tail.len(), tail[0].len()), (1, WIDTH + 3));
    }
}
