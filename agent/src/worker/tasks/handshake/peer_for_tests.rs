//! The protocol's other side for unit tests: a server that plays what a test orders, good or evil.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `GET /path`.
    pub line: String,
    /// Header lines, lower-cased names.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

impl Asked {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub enum Play {
    /// An HTTP answer: status, headers, body.
    Answer(u16, Vec<(String, String)>, String),
    /// These bytes, then hang up.
    Raw(&'static str),
    /// The first, then the second again and again.
    Endless(&'static str, &'static str),
    /// Nothing, with the connection open.
    Silence,
}

impl Play {
    /// An answer with a JSON body.
    pub fn json(status: u16, body: &str) -> Self {
        Self::Answer(status, vec![("content-type".to_owned(), "application/json".to_owned())], body.to_owned())
    }

    /// The same with a cookie.
    pub fn with_cookie(self, cookie: &str) -> Self {
        self.with_header("Set-Cookie", cookie)
    }

    /// The same with a header.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer(_, headers, _) = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        TcpStream::connect(self.address).ok();
    }
}

/// Starts a server that answers every request as `play` says.
pub fn serve(play: impl Fn(&Asked) -> Play + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let (ending, play) = (over.clone(), Arc::new(play));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if ending.load(Ordering::Relaxed) {
                break;
            }
            let (play, ending) = (play.clone(), ending.clone());
            std::thread::spawn(move || answer(stream, play.as_ref(), &ending));
        }
    });
    Server { address, over }
}

fn answer(stream: TcpStream, play: &dyn Fn(&Asked) -> Play, over: &AtomicBool) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let line = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(n, _)| n == "content-length").and_then(|(_, v)| v.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    match play(&Asked { line, headers, body: String::from_utf8_lossy(&body).into_owned() }) {
        Play::Answer(status, headers, body) => {
            let headers: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
            write!(writer, "HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).ok()?;
        }
        Play::Raw(bytes) => writer.write_all(bytes.as_bytes()).ok()?,
        Play::Endless(first, again) => {
            writer.write_all(first.as_bytes()).ok()?;
            let again = again.repeat(1024);
            while !over.load(Ordering::Relaxed) {
                writer.write_all(again.as_bytes()).ok()?;
            }
        }
        Play::Silence => {
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    Some(())
}
