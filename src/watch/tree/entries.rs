//! The names in a directory, in little memory: most directories have few, and
//! there are many directories.
//!
//! Up to [`FEW`] names stand in a list that is as long as it needs to be; more
//! are hashed, for one who makes many must not make each search long. Names that
//! nearly every directory has take no memory of their own.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::hash::{Hash, Hasher};

/// So many are searched one by one.
const FEW: usize = 16;

/// What is often found in a `.ssh`, and that itself. At most 256.
const OFTEN: [&str; 19] = [
    ".ssh",
    "agent",
    "authorized_keys",
    "authorized_keys2",
    "config",
    "environment",
    "id_dsa",
    "id_dsa.pub",
    "id_ecdsa",
    "id_ecdsa.pub",
    "id_ecdsa_sk",
    "id_ecdsa_sk.pub",
    "id_ed25519",
    "id_ed25519.pub",
    "id_rsa",
    "id_rsa.pub",
    "known_hosts",
    "known_hosts.old",
    "rc",
];

/// A name. Each is kept in one way: what is in [`OFTEN`] is never `Rare`.
#[derive(Clone, Debug)]
pub(super) enum Name {
    /// Its place in [`OFTEN`].
    Often(u8),
    Rare(Box<OsStr>),
}

impl From<&OsStr> for Name {
    fn from(name: &OsStr) -> Self {
        match often(name) {
            Some(place) => Self::Often(place),
            None => Self::Rare(name.into()),
        }
    }
}

/// The number of a name that is often found.
pub(super) fn often(name: &OsStr) -> Option<u8> {
    let place = OFTEN.binary_search(&name.to_str()?).ok()?;
    u8::try_from(place).ok()
}

/// The name with this number; empty if none has it.
pub(super) fn often_called(place: u8) -> &'static OsStr {
    OsStr::new(OFTEN.get(usize::from(place)).copied().unwrap_or_default())
}

impl std::ops::Deref for Name {
    type Target = OsStr;

    fn deref(&self) -> &OsStr {
        match self {
            Self::Often(place) => often_called(*place),
            Self::Rare(name) => name,
        }
    }
}

impl Borrow<OsStr> for Name {
    fn borrow(&self) -> &OsStr {
        self
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

/// What is known of each name.
#[derive(Debug)]
pub(super) enum Entries<T> {
    Few(Vec<(Name, T)>),
    #[expect(clippy::box_collection, reason = "few directories have many names")]
    Many(Box<HashMap<Name, T>>),
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<T> Entries<T> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(map) => map.len(),
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn iter(&self) -> Box<dyn Iterator<Item = (&OsStr, &T)> + '_> {
        match self {
            Self::Few(list) => Box::new(list.iter().map(|(name, value)| (&**name, value))),
            Self::Many(map) => Box::new(map.iter().map(|(name, value)| (&**name, value))),
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.iter().map(|(name, _)| name)
    }

    pub(super) fn get(&self, name: &OsStr) -> Option<&T> {
        match self {
            Self::Few(list) => {
                let found = list.iter().find(|(known, _)| **known == *name);
                found.map(|(_, value)| value)
            }
            Self::Many(map) => map.get(name),
        }
    }

    pub(super) fn get_mut(&mut self, name: &OsStr) -> Option<&mut T> {
        match self {
            Self::Few(list) => {
                let found = list.iter_mut().find(|(known, _)| **known == *name);
                found.map(|(_, value)| value)
            }
            Self::Many(map) => map.get_mut(name),
        }
    }

    pub(super) fn insert(&mut self, name: &OsStr, value: T) {
        if let Some(known) = self.get_mut(name) {
            *known = value;
            return;
        }
        match self {
            Self::Few(list) if list.len() < FEW => {
                list.reserve_exact(1);
                list.push((name.into(), value));
            }
            Self::Few(list) => {
                let mut map: HashMap<_, _> = list.drain(..).collect();
                map.insert(name.into(), value);
                *self = Self::Many(Box::new(map));
            }
            Self::Many(map) => drop(map.insert(name.into(), value)),
        }
    }

    pub(super) fn remove(&mut self, name: &OsStr) -> Option<T> {
        match self {
            Self::Few(list) => {
                let place = list.iter().position(|(known, _)| **known == *name)?;
                Some(list.swap_remove(place).1)
            }
            Self::Many(map) => {
                let removed = map.remove(name);
                if map.is_empty() {
                    self.clear();
                }
                removed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_are_known_alike() {
        assert!(OFTEN.is_sorted());
        let rare = (0..3 * FEW).map(|number| format!("n{number}"));
        let names: Vec<String> = rare.chain(OFTEN.map(str::to_owned)).collect();
        let mut entries = Entries::default();
        for (number, name) in names.iter().enumerate() {
            assert_eq!(entries.get(name.as_ref()), None);
            entries.insert(name.as_ref(), 0);
            entries.insert(name.as_ref(), number);
            assert_eq!(entries.len(), number + 1);
            for (number, name) in names[..=number].iter().enumerate() {
                assert_eq!(entries.get(name.as_ref()), Some(&number));
            }
        }
        assert!(matches!(entries, Entries::Many(_)));
        *entries.get_mut("n1".as_ref()).unwrap() = 99;
        let mut found: Vec<&OsStr> = entries.names().collect();
        found.sort();
        let mut expected: Vec<&OsStr> = names.iter().map(AsRef::as_ref).collect();
        expected.sort();
        assert_eq!(found, expected);
        assert_eq!(entries.remove("n1".as_ref()), Some(99));
        assert_eq!(entries.remove("n1".as_ref()), None);
        for name in &names {
            entries.remove(name.as_ref());
        }
        assert_eq!(entries.len(), 0);
        assert!(matches!(entries, Entries::Few(_)));
        entries.insert("n1".as_ref(), 1);
        assert_eq!(entries.remove("n1".as_ref()), Some(1));
        assert_eq!(entries.iter().count(), 0);
    }
}
