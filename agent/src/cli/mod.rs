//! Arguments, one file per verb, rendering for people and `--json`.
