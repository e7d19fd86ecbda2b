//! Which tag is the highest: by semantic versioning, or else by name.

use std::cmp::Ordering;

/// A tag's name as something that can be compared.
#[derive(Debug, PartialEq, Eq)]
struct Rank<'a> {
    version: Option<Version<'a>>,
    name: &'a str,
}

#[derive(Debug, PartialEq, Eq)]
struct Version<'a> {
    numbers: [u64; 3],
    pre_release: Option<&'a str>,
}

impl<'a> Version<'a> {
    /// Reads `v1.2.3`, `1.2`, `release-1.2.3-rc.1+build`, `prod/v7`: whatever stands before the first digit is no part of it.
    fn of(name: &'a str) -> Option<Self> {
        let start = name.find(|c: char| c.is_ascii_digit())?;
        let text = name.get(start..)?.split('+').next()?;
        let (core, pre_release) = match text.split_once('-') {
            Some((core, pre)) => (core, Some(pre)),
            None => (text, None),
        };
        let mut numbers = [0; 3];
        let parts: Vec<&str> = core.split('.').collect();
        if parts.len() > 3 {
            return None;
        }
        for (number, part) in numbers.iter_mut().zip(&parts) {
            *number = part.parse().ok()?;
        }
        Some(Self { numbers, pre_release })
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre_release, other.pre_release) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(ours), Some(theirs)) => compare_pre_releases(ours, theirs),
        })
    }
}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Field by field: numbers as numbers and below words, words as text, and more fields above fewer.
fn compare_pre_releases(ours: &str, theirs: &str) -> Ordering {
    let (mut ours, mut theirs) = (ours.split('.'), theirs.split('.'));
    loop {
        let order = match (ours.next(), theirs.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => a.cmp(b),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

impl Ord for Rank<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.version.cmp(&other.version).then_with(|| self.name.cmp(other.name))
    }
}

impl PartialOrd for Rank<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Whether the glob asks for pre-releases: a `-` behind its first digit or wildcard, ranges like `[0-9]` aside.
fn asks_for_pre_releases(glob: &str) -> bool {
    let (mut in_range, mut in_version) = (false, false);
    for c in glob.chars() {
        match c {
            '[' => (in_range, in_version) = (true, true),
            ']' => in_range = false,
            '-' if in_version && !in_range => return true,
            '*' | '?' | '{' => in_version = true,
            digit if digit.is_ascii_digit() => in_version = true,
            _ => {}
        }
    }
    false
}

/// The highest of the tags (in their short form) that match the glob; `Err` says why there is none.
pub(super) fn highest<'a>(tags: impl Iterator<Item = &'a str>, glob: &str) -> Result<&'a str, String> {
    let matcher = globset::GlobBuilder::new(glob)
        .literal_separator(false)
        .build()
        .map_err(|error| format!("`{glob}` is not a glob: {error}"))?
        .compile_matcher();
    let with_pre_releases = asks_for_pre_releases(glob);
    let mut passed_over = 0_usize;
    let mut best: Option<Rank<'a>> = None;
    for name in tags.filter(|name| matcher.is_match(name)) {
        let rank = Rank { version: Version::of(name), name };
        if !with_pre_releases && rank.version.as_ref().is_some_and(|version| version.pre_release.is_some()) {
            passed_over += 1;
        } else if best.as_ref().is_none_or(|best| rank > *best) {
            best = Some(rank);
        }
    }
    best.map(|rank| rank.name).ok_or_else(|| match passed_over {
        0 => format!("no tag matches `{glob}`"),
        count => format!("only pre-releases match `{glob}` ({count}); a glob like `v*-rc*` asks for them"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_tag_wins() {
        for (tags, glob, wanted) in [
            (&["v1.9.0", "v1.10.0", "v1.2.0"][..], "v*", Ok("v1.10.0")),
            (&["v1.0.0", "v2.0.0-rc.1"], "v*", Ok("v1.0.0")),
            (&["v1.0.0", "v2.0.0-rc.1", "v2.0.0-rc.11", "v2.0.0-rc.2"], "v*-rc*", Ok("v2.0.0-rc.11")),
            (&["v2.0.0-rc.1"], "v*", Err("only pre-releases")),
            (&["v2.0.0-rc.1", "v1.0.0"], "v[0-9]*", Ok("v1.0.0")),
            (&["release-1.2.3", "release-1.10"], "release-*", Ok("release-1.10")),
            (&["prod/v7", "prod/v10", "staging/v11"], "prod/*", Ok("prod/v10")),
            (&["alpha", "beta", "v0.0.1"], "*", Ok("v0.0.1")),
            (&["alpha", "beta"], "*", Ok("beta")),
            (&["v1.0.0", "v1.0"], "v*", Ok("v1.0.0")),
            (&["2026.11.20", "2026.9.30"], "*", Ok("2026.11.20")),
            (&["v99999999999999999999.0.0", "v1.0.0"], "v*", Ok("v1.0.0")),
            (&["x"], "v*", Err("no tag matches")),
            (&["x"], "[", Err("is not a glob")),
        ] {
            let found = highest(tags.iter().copied(), glob);
            match wanted {
                Ok(name) => assert_eq!(found, Ok(name), "{glob} in {tags:?}"),
                Err(part) => assert!(found.as_ref().is_err_and(|text| text.contains(part)), "{glob}: {found:?}"),
            }
        }
    }
}
