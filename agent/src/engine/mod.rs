//! The decisions: pure, no I/O, no clock, no await.
