//! The long-running process.
