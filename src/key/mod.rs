//! What a key file is: private or public, which key, encrypted or not, whom an
//! `authorized_keys` lets in.
//!
//! Owns the formats (OpenSSH, PEM, PKCS#8, `.ppk`, RFC 4716, certificates, lists
//! of keys), read as far as no passphrase is needed, and what a list had before.
//! Must not own paths: a name only says what a file is expected to be. Must not
//! decrypt, sign or verify. Nothing that is secret leaves: facts hold the public
//! part and the comment, and every buffer that held more is wiped.
//!
//! Fails softly. Whatever the bytes are, the answer comes in time and memory
//! proportional to at most [`LIMIT`] bytes, with what could be told; what is
//! broken says so in [`Facts::damage`].
//!
//! | part | what it reads |
//! |---|---|
//! | `read` | a verified descriptor, bounded, without waiting |
//! | `armor` | PEM and its relatives: labels, headers, base64 |
//! | `private`, `asn1`, `putty` | private keys |
//! | `line`, `list` | one public key a line, with options or hosts |
//! | `certificate`, `wire` | the SSH wire format |
//! | `known` | what changed in a list |

mod armor;
mod asn1;
mod certificate;
mod known;
mod line;
mod list;
mod private;
mod putty;
mod read;
mod role;
mod wire;

#[cfg(test)]
mod tests;

pub use certificate::{CertificateFacts, Moment};
pub use known::{Change, Known, Look, Stamp};
pub use list::{Entry, List};
pub use read::{Content, Inspection, LIMIT, Pair, inspect, read};
pub use role::{Role, pair_name};

/// The longest text taken from a file into a fact: comments, principals.
const TEXT_LIMIT: usize = 1024;

/// What a file is (`ssh_keywatch.key.kind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A private key.
    Private,
    /// A private key under the name of a host key.
    Host,
    /// A public key.
    Public,
    /// A certificate of OpenSSH (PROTOCOL.certkeys).
    Certificate,
    /// A list of keys that may log in (sshd(8) `AUTHORIZED_KEYS` FILE FORMAT).
    AuthorizedKeys,
    /// A list of hosts' keys (sshd(8) `SSH_KNOWN_HOSTS` FILE FORMAT).
    KnownHosts,
}

impl Kind {
    /// The value of `ssh_keywatch.key.kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Host => "host",
            Self::Public => "public",
            Self::Certificate => "certificate",
            Self::AuthorizedKeys => "authorized_keys",
            Self::KnownHosts => "known_hosts",
        }
    }

    /// Whether whoever reads the file has the key.
    #[must_use]
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Private | Self::Host)
    }
}

/// How a file is written (`ssh_keywatch.key.format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// OpenSSH's own: `openssh-key-v1`, or a line of type, base64 and comment.
    OpenSsh,
    /// PEM with the structure of the algorithm (RFC 8017, RFC 5915).
    Pem,
    /// PKCS#8 (RFC 5958), or a `SubjectPublicKeyInfo`.
    Pkcs8,
    /// The `.ppk` of puttygen, version 1 to 3.
    Putty,
    /// RFC 4716, and ssh.com's private keys that look like it.
    SshCom,
    /// The format of SSH 1.
    Ssh1,
}

impl Format {
    /// The value of `ssh_keywatch.key.format`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenSsh => "openssh",
            Self::Pem => "pem",
            Self::Pkcs8 => "pkcs8",
            Self::Putty => "putty",
            Self::SshCom => "ssh.com",
            Self::Ssh1 => "ssh1",
        }
    }
}

/// Which key it is, as far as that can be told without a passphrase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The type as OpenSSH names it: `ssh-ed25519`.
    pub algorithm: Option<String>,
    /// The size as `ssh-keygen -l` prints it.
    pub bits: Option<u32>,
    /// `SHA256:…`, as `ssh-keygen -l` prints it. Of a certificate: its key's.
    pub fingerprint: Option<String>,
    /// The public key itself.
    pub public: Public,
}

/// A public key in wire format (RFC 4253 section 6.6), as it is written. It says
/// nothing that a fingerprint does not, so that all are alike.
#[derive(Clone, Debug, Default)]
pub struct Public(Option<Box<[u8]>>);

impl Public {
    /// Its bytes, where they are known.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        self.0.as_deref()
    }
}

impl From<&[u8]> for Public {
    fn from(bytes: &[u8]) -> Self {
        Self(Some(bytes.into()))
    }
}

impl PartialEq for Public {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Public {}

impl std::hash::Hash for Public {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

impl Identity {
    fn of_algorithm(name: &str) -> Self {
        Self {
            algorithm: Some(name.to_owned()),
            ..Self::default()
        }
    }
}

/// Whether and how a private key is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// Whether a passphrase is needed.
    pub encrypted: bool,
    /// The cipher in the words of the file's format.
    pub cipher: Option<String>,
    /// What makes a key of the passphrase: `bcrypt`, `pbkdf2`, `scrypt`,
    /// `argon2id`, `md5` (the one round of PEM's own encryption), `sha1`.
    pub kdf: Option<String>,
    /// Its rounds, iterations or passes.
    pub rounds: Option<u64>,
    /// Its memory, in KiB.
    pub memory: Option<u64>,
}

/// What a key file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What it is.
    pub kind: Kind,
    /// How it is written.
    pub format: Format,
    /// Which key.
    pub identity: Identity,
    /// The comment, where it can be read and is not empty.
    pub comment: Option<String>,
    /// Of a private key.
    pub protection: Option<Protection>,
    /// Of a certificate.
    pub certificate: Option<CertificateFacts>,
    /// Of a list.
    pub list: Option<List>,
    /// What is broken: a stable name.
    pub damage: Option<Damage>,
}

/// What is broken in a key file (`ssh_keywatch.key.damage`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Damage {
    /// It ends too early.
    Truncated,
    /// It is not what its head says.
    Malformed,
    /// The public key in it is not the one of its private key.
    Mismatch,
}

impl Damage {
    /// The value of `ssh_keywatch.key.damage`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::Mismatch => "mismatch",
        }
    }
}

impl Facts {
    fn new(kind: Kind, format: Format) -> Self {
        Self {
            kind,
            format,
            identity: Identity::default(),
            comment: None,
            protection: None,
            certificate: None,
            list: None,
            damage: None,
        }
    }
}

/// What `content` is, where its name says `role`; `None` if it is no key file.
/// Of a file that was not read to its end, the list is incomplete: the caller
/// knows, and says so.
#[must_use]
pub fn examine(content: &[u8], role: Role) -> Option<Facts> {
    if role.is_list() {
        let list = list::parse(content, role);
        if list.entries.is_empty()
            && let Some(facts) = private::examine(content, role)
        {
            return Some(facts);
        }
        let kind = match role {
            Role::KnownHosts => Kind::KnownHosts,
            _ => Kind::AuthorizedKeys,
        };
        let mut facts = Facts::new(kind, Format::OpenSsh);
        facts.list = Some(list);
        return Some(facts);
    }
    private::examine(content, role)
        .or_else(|| armor::public(content))
        .or_else(|| lines(content))
}

/// Lines of public keys under a name that does not say what they are for.
fn lines(content: &[u8]) -> Option<Facts> {
    let list = list::parse(content, Role::AuthorizedKeys);
    let (first, more) = list.entries.split_first()?;
    let role = list::guess(&list.entries);
    if role == Role::KnownHosts {
        return examine(content, role);
    }
    if !more.is_empty() || !first.options.is_empty() || list.dropped > 0 {
        return examine(content, Role::AuthorizedKeys);
    }
    let kind = if first.certificate.is_some() {
        Kind::Certificate
    } else {
        Kind::Public
    };
    let mut facts = Facts::new(kind, Format::OpenSsh);
    let [entry] = <[Entry; 1]>::try_from(list.entries).ok()?;
    facts.identity = entry.identity;
    facts.comment = entry.comment;
    facts.certificate = entry.certificate.map(|certificate| *certificate);
    Some(facts)
}

/// Text of a file as a fact: replacement characters for what is not UTF-8, and
/// an ellipsis for what is too much. Escaping is the business of [`crate::text`].
fn text(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(TEXT_LIMIT)];
    let mut text = String::from_utf8_lossy(cut).into_owned();
    if cut.len() < bytes.len() {
        text.push('…');
    }
    text
}

/// The same, if there is something.
fn some_text(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.trim_ascii();
    (!bytes.is_empty()).then(|| text(bytes))
}
