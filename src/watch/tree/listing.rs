//! What is there, in little memory: there may be tens of thousands of files, and
//! most of them are of no interest a moment later.
//!
//! Owns how names are kept: one behind the other, each directory's path once.

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::hash::BuildHasher as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::entries::{often, often_called};
use crate::sys::stat::Version;

/// Which version of a file was there; 0: it was not looked at. Equal for equal
/// versions, and nobody without the key can make others equal.
#[must_use]
pub fn digest(key: &RandomState, version: &Version) -> u64 {
    key.hash_one(version).max(1)
}

/// Files by directory.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// For each directory its path, names each with a digest, and an empty name. NUL
    /// ends paths and names; a name that is often found is [`OFTEN`] and its number.
    bytes: Vec<u8>,
    /// Where the path of the last directory begins, and where it ends.
    last: Option<(usize, usize)>,
    count: usize,
}

/// No name begins so.
const OFTEN: u8 = b'/';

/// What stands for one file besides its name.
const DIGEST: usize = size_of::<u64>();

impl Listing {
    /// Adds a file. Files of one directory should come one after the other.
    pub fn push(&mut self, directory: &Path, name: &OsStr, digest: u64) {
        let path = directory.as_os_str().as_bytes();
        let is_open = self
            .last
            .is_some_and(|(from, to)| self.bytes[from..to] == *path);
        if is_open {
            // The empty name that ended it.
            self.bytes.pop();
        } else {
            let from = self.bytes.len();
            self.bytes.extend_from_slice(path);
            self.last = Some((from, self.bytes.len()));
            self.bytes.push(0);
        }
        if let Some(number) = often(name) {
            self.bytes.extend_from_slice(&[OFTEN, number]);
        } else {
            self.bytes.extend_from_slice(name.as_bytes());
            self.bytes.push(0);
        }
        self.bytes.extend_from_slice(&digest.to_ne_bytes());
        self.bytes.push(0);
        self.count += 1;
    }

    /// How many files there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each file: its directory, its name, and its digest.
    #[must_use]
    pub fn iter(&self) -> Files<'_> {
        Files {
            rest: &self.bytes,
            directory: None,
        }
    }
}

impl<'a> IntoIterator for &'a Listing {
    type Item = (&'a Path, &'a OsStr, u64);
    type IntoIter = Files<'a>;

    fn into_iter(self) -> Files<'a> {
        self.iter()
    }
}

/// The files of a [`Listing`].
#[derive(Debug)]
pub struct Files<'a> {
    rest: &'a [u8],
    directory: Option<&'a Path>,
}

impl<'a> Files<'a> {
    fn text(&mut self) -> Option<&'a OsStr> {
        let end = self.rest.iter().position(|byte| *byte == 0)?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Some(OsStr::from_bytes(text))
    }

    fn name(&mut self) -> Option<&'a OsStr> {
        if let [OFTEN, number, rest @ ..] = self.rest {
            self.rest = rest;
            return Some(often_called(*number));
        }
        self.text()
    }
}

impl<'a> Iterator for Files<'a> {
    type Item = (&'a Path, &'a OsStr, u64);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(directory) = self.directory else {
                self.directory = Some(Path::new(self.text()?));
                continue;
            };
            let name = self.name()?;
            if name.is_empty() {
                self.directory = None;
                continue;
            }
            let (digest, rest) = self.rest.split_first_chunk::<DIGEST>()?;
            self.rest = rest;
            return Some((directory, name, u64::from_ne_bytes(*digest)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_comes_out() {
        let mut listing = Listing::default();
        assert_eq!(listing.iter().count(), 0);
        let files = [
            ("/a/.ssh", "id", 0),
            ("/a/.ssh", "id.pub", u64::MAX),
            ("/a/.ssh", "id_rsa.pub", u64::MAX),
            ("/a/.ssh", "agent", 0),
            ("/a/.ssh/d", "\n", 256),
            ("/a/.ssh", "config", 7),
            ("/a", "x", 1),
            ("/a/.ssh", "y", 2),
        ];
        for (directory, name, digest) in files {
            listing.push(Path::new(directory), OsStr::new(name), digest);
        }
        let shown = |(directory, name, digest): (&Path, &OsStr, u64)| {
            (
                directory.to_str().unwrap().to_owned(),
                name.to_str().unwrap().to_owned(),
                digest,
            )
        };
        let found: Vec<_> = listing.iter().map(shown).collect();
        let expected =
            files.map(|(directory, name, digest)| (directory.to_owned(), name.to_owned(), digest));
        assert_eq!(found, expected);
        assert_eq!(listing.len(), files.len());
    }
}
