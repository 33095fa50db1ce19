//! `engines.node` of a package: npm's range syntax, as far as packages use it (node-semver, "Ranges").
//!
//! `||` separates alternatives; in one, blanks separate comparators that must all hold; a partial version such as `22.16`
//! means `22.16.x`; `1.2 - 2.3` is a span. Cargo's syntax, which the semver crate reads, wants commas and takes a bare
//! version for a caret, so every comparator is rewritten.

use semver::{Comparator, Op, VersionReq};

/// Whether node `version` (`v24.1.0`) is in `range`. `None` when either cannot be read.
pub(super) fn fits(range: &str, version: &str) -> Option<bool> {
    let mut version = semver::Version::parse(version.trim().trim_start_matches('v')).ok()?;
    // npm looks at a prerelease of node as at its release (`includePrerelease`).
    version.pre = semver::Prerelease::EMPTY;
    let mut fits = false;
    for alternative in range.split("||") {
        fits |= requirement(alternative)?.matches(&version);
    }
    Some(fits)
}

fn requirement(alternative: &str) -> Option<VersionReq> {
    let mut comparators = Vec::new();
    if let Some((low, high)) = alternative.split_once(" - ") {
        comparators.extend(comparator(&format!(">={}", low.trim()))?);
        comparators.extend(comparator(&format!("<={}", high.trim()))?);
        return Some(VersionReq { comparators });
    }
    let mut operator = String::new();
    for word in alternative.split_whitespace() {
        // `>= 24` is written with a blank, too.
        if word.chars().all(|c| "<>=^~".contains(c)) {
            operator.push_str(word);
            continue;
        }
        comparators.extend(comparator(&format!("{operator}{word}"))?);
        operator.clear();
    }
    operator.is_empty().then_some(VersionReq { comparators })
}

/// One comparator; `Some(None)` when everything fits (`*`).
fn comparator(word: &str) -> Option<Option<Comparator>> {
    let digits = word.find(|c: char| !"<>=^~".contains(c))?;
    let (operator, version) = word.split_at(digits);
    let op = match operator {
        "" | "=" => Op::Exact,
        ">" => Op::Greater,
        ">=" => Op::GreaterEq,
        "<" => Op::Less,
        "<=" => Op::LessEq,
        "^" => Op::Caret,
        "~" | "~>" => Op::Tilde,
        _ => return None,
    };
    let version = version.trim_start_matches('v');
    let version = version.split_once('+').map_or(version, |(version, _)| version);
    let (numbers, pre) = version.split_once('-').unwrap_or((version, ""));
    let mut parts = Vec::new();
    for part in numbers.split('.') {
        if matches!(part, "x" | "X" | "*") {
            break;
        }
        parts.push(part.parse::<u64>().ok()?);
    }
    match *parts.as_slice() {
        // Nothing is smaller or greater than everything.
        [] => (!matches!(op, Op::Less | Op::Greater)).then_some(None),
        [major] => Some(Some(partial(op, major, None, None, pre)?)),
        [major, minor] => Some(Some(partial(op, major, Some(minor), None, pre)?)),
        [major, minor, patch] => Some(Some(partial(op, major, Some(minor), Some(patch), pre)?)),
        _ => None,
    }
}

fn partial(op: Op, major: u64, minor: Option<u64>, patch: Option<u64>, pre: &str) -> Option<Comparator> {
    Some(Comparator { op, major, minor, patch, pre: semver::Prerelease::new(pre).ok()? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_t3_takes_exactly_the_nodes_it_names() {
        let range = "^22.16 || ^23.11 || >=24.10";
        for (node, expected) in [
            ("v18.19.0", false),
            ("v22.15.9", false),
            ("v22.16.0", true),
            ("v22.99.1", true),
            ("v23.10.0", false),
            ("v23.11.1", true),
            ("v24.9.0", false),
            ("v24.10.0", true),
            ("v26.0.0", true),
            ("v24.10.0-nightly20260101", true),
        ] {
            assert_eq!(fits(range, node), Some(expected), "{node}");
        }
    }

    #[test]
    fn the_forms_that_packages_use_are_read_as_npm_reads_them() {
        for (range, node, expected) in [
            ("*", "v20.0.0", true),
            ("", "v20.0.0", true),
            ("x", "v20.0.0", true),
            ("22", "v22.3.0", true),
            ("22", "v23.0.0", false),
            ("22.x", "v22.3.0", true),
            ("22.16", "v22.17.0", false),
            ("22.16.x", "v22.16.4", true),
            (">=18 <21", "v20.1.0", true),
            (">=18 <21", "v21.0.0", false),
            (">= 18 < 21", "v17.0.0", false),
            (">= 18 < 21", "v18.0.0", true),
            ("18.0.0 - 20.2", "v20.2.9", true),
            ("18.0.0 - 20.2", "v20.3.0", false),
            (">20", "v20.9.0", false),
            (">20", "v21.0.0", true),
            ("<=20", "v20.9.0", true),
            ("~20.1", "v20.1.9", true),
            ("~20.1", "v20.2.0", false),
            ("=v20.1.0", "v20.1.0", true),
            ("^20.1.0-rc.1", "v20.1.0", true),
            ("||22", "v1.0.0", true),
        ] {
            assert_eq!(fits(range, node), Some(expected), "{range} {node}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_guessed() {
        for (range, node) in
            [("lts", "v20.0.0"), (">=", "v20.0.0"), ("1.2.3.4", "v20.0.0"), (">=20", "not node"), ("<*", "v1.0.0")]
        {
            assert_eq!(fits(range, node), None, "{range} {node}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(range in ".{0,64}", node in ".{0,32}") {
            let _ = fits(&range, &node);
        }
    }
}
