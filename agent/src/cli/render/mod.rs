//! Rendering for people: readable without colour, aligned, and with nothing of what others wrote taken for terminal commands.

mod table;
mod words;

pub use table::{fitted, table};
pub use words::{ago, clock, lasting, now_ms, plain, plain_lines, size, version_or_dash};
