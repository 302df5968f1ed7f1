//! The file on the disk: one transaction a batch, each on the disk when it
//! returns. A crash leaves the state of the last one (redb writes copies, and
//! one checksummed root to choose between them).

use std::cell::{Cell, RefCell};
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use redb::{
    Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _,
    ReadableTableMetadata as _, StorageError, TableDefinition, TableError,
};
use serde::{Deserialize, Serialize};

use super::{Moment, Record, Stat, snapshot};

/// Of what is in the tables. Another one is set aside.
const FORMAT: u32 = 1;
/// What redb may keep of the file in memory, in bytes: the kernel keeps it, too.
const CACHE: usize = 256 << 10;

const FILES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("files");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const META_KEY: &str = "meta";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be made, read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The database says so.
    #[error("{0}")]
    Database(#[from] redb::Error),
    /// What is in it is not what this version writes.
    #[error("{0}")]
    Unreadable(String),
}

impl Error {
    /// Whether the file itself is broken, rather than the way to it.
    fn is_damage(&self) -> bool {
        match self {
            Self::Unreadable(_) => true,
            Self::Io(_) => false,
            Self::Database(error) => {
                matches!(
                    error,
                    redb::Error::Corrupted(_)
                        | redb::Error::UpgradeRequired(_)
                        | redb::Error::RepairAborted
                        | redb::Error::TableTypeMismatch { .. }
                        | redb::Error::TypeDefinitionChanged { .. }
                        | redb::Error::TableIsMultimap(_)
                ) || matches!(error, redb::Error::Io(error) if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput
                ))
            }
        }
    }
}

/// Makes [`Error`] of the many that redb has.
macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Database(error.into())
            }
        })*
    };
}
from_redb!(
    DatabaseError,
    StorageError,
    TableError,
    redb::TransactionError,
    redb::CommitError
);

/// What the store says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub(super) format: u32,
    /// What was watched when stock was taken to its end: patterns, as text.
    /// `None`: it never was.
    pub watched: Option<Vec<String>>,
    /// A comparison with what was there at this time was not brought to its end.
    pub since: Option<Moment>,
    /// Whether the run that wrote it last came to its end; `None`: it did not say.
    #[serde(default)]
    pub ended: Option<bool>,
}

/// How a store was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// There was none.
    New,
    /// As the daemon left it; this is when it last wrote or said that it lives.
    Known(SystemTime),
    /// It could not be read, and is there now.
    SetAside(PathBuf, String),
}

/// What a look at a store has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can be read.
    Sound,
    /// It cannot, for this reason.
    Damaged(String),
}

fn touch(path: &Path, time: SystemTime) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    file.set_modified(time)
}

fn beside(store: &Path, end: &str) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(end);
    PathBuf::from(path)
}

/// The store.
pub struct Store {
    /// `None` after an error of the disk, until it can be opened again: redb reads
    /// and writes nothing after one.
    database: RefCell<Option<Database>>,
    /// Something was written that need not last, and nothing since that does: it
    /// would be gone if the database were opened again.
    is_passing: Cell<bool>,
    path: PathBuf,
}

impl Store {
    /// Opens the store at `path`, or makes a new one. A file that is broken, or
    /// of another format, is renamed to `….corrupt`; one such is kept.
    ///
    /// What is read is trusted: `health` is what [`Self::check`] has found, in
    /// another process.
    ///
    /// # Errors
    /// The file cannot be used at all.
    pub fn open(path: &Path, health: Health) -> Result<(Self, Opened), Error> {
        let alive = fs::symlink_metadata(path).and_then(|meta| meta.modified());
        let alive = match alive {
            Ok(alive) => alive,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Self::create(path)?, Opened::New));
            }
            Err(error) => return Err(error.into()),
        };
        let reason = match health {
            Health::Damaged(reason) => reason,
            Health::Sound => match Self::existing(path) {
                Ok(store) => return Ok((store, Opened::Known(alive))),
                Err(error) if error.is_damage() => error.to_string(),
                Err(error) => return Err(error),
            },
        };
        let aside = beside(path, ".corrupt");
        fs::rename(path, &aside)?;
        let store = Self::create(path)?;
        Ok((store, Opened::SetAside(aside, reason)))
    }

    /// Reads all of the store at `path`, and repairs what a crash has left. Of
    /// some damage redb panics: that is for a process of its own.
    ///
    /// # Errors
    /// The file cannot be used at all.
    pub fn check(path: &Path) -> Result<Health, Error> {
        // It says when the daemon last lived, and that is to stay.
        let alive = fs::symlink_metadata(path)?.modified()?;
        let checked = Self::existing(path).and_then(|store| {
            if let Some(database) = store.database.borrow_mut().as_mut() {
                database.check_integrity()?;
            }
            // What is in it is looked at too.
            store.paths(|_| false)?;
            Ok(())
        });
        match checked {
            Ok(()) => {
                touch(path, alive)?;
                Ok(Health::Sound)
            }
            Err(error) if error.is_damage() => Ok(Health::Damaged(error.to_string())),
            Err(error) => Err(error),
        }
    }

    fn existing(path: &Path) -> Result<Self, Error> {
        let store = Self {
            database: RefCell::new(Some(Self::database(path, false)?)),
            is_passing: Cell::new(false),
            path: path.to_owned(),
        };
        let meta = store.meta()?;
        if meta.format != FORMAT {
            return Err(Error::Unreadable(format!(
                "it has format {}, and this version reads {FORMAT}",
                meta.format
            )));
        }
        Ok(store)
    }

    fn create(path: &Path) -> Result<Self, Error> {
        let made = Self::database(path, true).and_then(|database| {
            let store = Self {
                database: RefCell::new(Some(database)),
                is_passing: Cell::new(false),
                path: path.to_owned(),
            };
            store.set_meta(Meta::default()).map(|()| store)
        });
        if made
            .as_ref()
            .is_err_and(|error| !matches!(error, Error::Io(_)))
        {
            // Half a store would be taken for a damaged one.
            let _ = fs::remove_file(path);
        }
        made
    }

    /// Has `act` read or write the database, which is opened again if the last time
    /// was an error.
    fn with<R>(&self, act: impl FnOnce(&Database) -> Result<R, Error>) -> Result<R, Error> {
        let mut open = self.database.borrow_mut();
        let database = match open.take() {
            Some(database) => database,
            None if self.is_passing.get() => {
                return Err(Error::Unreadable(
                    "what was taken stock of was lost with its disk: it is taken again at the \
                     next start"
                        .to_owned(),
                ));
            }
            None => Self::database(&self.path, false)?,
        };
        let done = act(&database);
        let is_usable = !matches!(
            done,
            Err(Error::Database(
                redb::Error::Io(_) | redb::Error::PreviousIo
            ))
        );
        *open = is_usable.then_some(database);
        done
    }

    fn database(path: &Path, new: bool) -> Result<Database, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(new)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let is_empty = file.metadata()?.len() == 0;
        if is_empty && !new {
            return Err(Error::Unreadable("it is empty".to_owned()));
        }
        Ok(Database::builder()
            .set_cache_size(CACHE)
            .create_file(file)?)
    }

    /// What the store at `path` knows of the files that `wanted` accepts, also while
    /// a daemon keeps it. Changes nothing.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn look(
        path: &Path,
        mut wanted: impl FnMut(&Path) -> bool,
    ) -> Result<Vec<(PathBuf, Record)>, Error> {
        let copy = snapshot::Copy::of(path)?;
        let database = Database::builder()
            .set_cache_size(CACHE)
            .create_with_backend(copy)?;
        let table = database.begin_read()?.open_table(FILES)?;
        let mut records = Vec::new();
        for entry in table.iter()? {
            let (path, record) = entry?;
            let path = Path::new(OsStr::from_bytes(path.value()));
            if wanted(path)
                && let Ok(record) = serde_json::from_slice(record.value())
            {
                records.push((path.to_owned(), record));
            }
        }
        Ok(records)
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn meta(&self) -> Result<Meta, Error> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(META)?;
            let value = table.get(META_KEY)?;
            let value = value.ok_or_else(|| Error::Unreadable("it says no format".to_owned()))?;
            serde_json::from_slice(value.value())
                .map_err(|error| Error::Unreadable(error.to_string()))
        })
    }

    /// Says it anew.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set_meta(&self, meta: Meta) -> Result<(), Error> {
        let meta = Meta {
            format: FORMAT,
            ..meta
        };
        let text = serde_json::to_vec(&meta).map_err(io::Error::from)?;
        self.with(|database| {
            let write = database.begin_write()?;
            write.open_table(FILES)?;
            write.open_table(META)?.insert(META_KEY, text.as_slice())?;
            write.commit()?;
            self.is_passing.set(false);
            Ok(())
        })
    }

    /// What is known of a file. A record that cannot be read is as good as none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn get(&self, path: &Path) -> Result<Option<Record>, Error> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(FILES)?;
            let value = table.get(path.as_os_str().as_bytes())?;
            Ok(value.and_then(|value| serde_json::from_slice(value.value()).ok()))
        })
    }

    /// How many files are known.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn count(&self) -> Result<usize, Error> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(FILES)?;
            Ok(usize::try_from(table.len()?).unwrap_or(usize::MAX))
        })
    }

    /// Gives each file's path, in order, and what lstat(2) said of it. A record that
    /// cannot be read is passed over.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn stats(&self, mut each: impl FnMut(&Path, &Stat)) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Only {
            stat: Stat,
        }
        self.with(|database| {
            let table = database.begin_read()?.open_table(FILES)?;
            for entry in table.iter()? {
                let (path, record) = entry?;
                if let Ok(Only { stat }) = serde_json::from_slice(record.value()) {
                    each(Path::new(OsStr::from_bytes(path.value())), &stat);
                }
            }
            Ok(())
        })
    }

    /// The paths of all files that `wanted` accepts, in order.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn paths(&self, mut wanted: impl FnMut(&Path) -> bool) -> Result<Vec<PathBuf>, Error> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(FILES)?;
            let mut paths = Vec::new();
            for entry in table.iter()? {
                let (path, _) = entry?;
                let path = Path::new(OsStr::from_bytes(path.value()));
                if wanted(path) {
                    paths.push(PathBuf::from(OsString::from_vec(
                        path.as_os_str().as_bytes().to_vec(),
                    )));
                }
            }
            Ok(paths)
        })
    }

    /// Writes a batch: all of it or nothing. `None` takes a file out. One that need
    /// not last is lost in a crash, with all of its kind since the last other one.
    ///
    /// # Errors
    /// It cannot be written; the state before stays.
    pub fn apply<'a>(
        &self,
        batch: impl IntoIterator<Item = (&'a Path, Option<&'a Record>)>,
        lasting: bool,
    ) -> Result<(), Error> {
        self.with(|database| {
            let mut write = database.begin_write()?;
            if !lasting {
                write
                    .set_durability(Durability::None)
                    .map_err(redb::Error::from)?;
            }
            {
                let mut table = write.open_table(FILES)?;
                for (path, record) in batch {
                    let path = path.as_os_str().as_bytes();
                    if let Some(record) = record {
                        let text = serde_json::to_vec(record).map_err(io::Error::from)?;
                        table.insert(path, text.as_slice())?;
                    } else {
                        table.remove(path)?;
                    }
                }
            }
            write.commit()?;
            self.is_passing.set(!lasting);
            Ok(())
        })
    }

    /// Says that the daemon lives, by the file's time of modification: it costs
    /// no write to the disk of its own.
    ///
    /// # Errors
    /// The errno of open(2) or utimensat(2).
    pub fn touch(&self, now: SystemTime) -> io::Result<()> {
        touch(&self.path, now)
    }
}
