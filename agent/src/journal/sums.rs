//! Checksums of the journal's records, and their sum over the whole file.
//!
//! SQLite says whether its pages hang together, not whether a record still says what was written. So every record carries a
//! checksum of its own, and one more record carries the exclusive or of all of them: a record that is gone, old or altered is
//! noticed wherever it is. This guards against disks, cables and half-done restores, not against people.

use std::fmt;

/// 128 bits of BLAKE3 over the fields of one record; the exclusive or of several is the [`Sum`] of them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum(u128);

impl Sum {
    /// The checksum of a record of `table` with these fields.
    pub fn of(table: &str, fields: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for field in std::iter::once(&table).chain(fields) {
            // With its length before it no field can be taken for the end of the one before.
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field.as_bytes());
        }
        let mut half = [0; 16];
        half.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(u128::from_le_bytes(half))
    }

    /// With `other` added or, as that is the same, taken away.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_apart_and_sums_are_read_back() {
        assert_ne!(Sum::of("t", &["ab", "c"]), Sum::of("t", &["a", "bc"]));
        assert_ne!(Sum::of("t", &["a"]), Sum::of("u", &["a"]));
        let (one, two) = (Sum::of("t", &["a"]), Sum::of("t", &["b"]));
        assert_eq!(one.with(two).with(two), one);
        assert_eq!(Sum::parse(&one.to_string()), Some(one));
        assert_eq!(Sum::parse("zz"), None);
    }
}
