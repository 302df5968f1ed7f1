//! `ssh-keywatch inventory`: every key in the watched places, with facts and origin.
//!
//! Owns its options and the two forms of an item: a row for a person, and a
//! line of JSON. What there is comes from [`crate::inventory`], who made it from
//! `origin`. Ends with 1 where there is no key, or where something could not be
//! looked at.

mod origin;
mod table;

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use serde_json::{Map, Value, json};

use self::origin::{Origin, Origins};
use super::{Common, color, fail};
use crate::config::Color;
use crate::daemon::{Accounts, Fatal, Plan};
use crate::exit::Exit;
use crate::inventory::{self, Inventory, Item, Limits, What};
use crate::key::{CertificateFacts, Identity, Moment, Pair};
use crate::text::{escape_path, json_line, printable};

/// List every key in the watched places.
#[derive(Args, Clone, Debug)]
pub struct InventoryArgs {
    /// One JSON document a line
    #[arg(long)]
    json: bool,
    /// Look up in this alert log who made a key
    #[arg(long, value_name = "FILE", env = "SSH_KEYWATCH_LOG")]
    log: Option<PathBuf>,
}

/// An item and all that is said about it.
struct Entry<'a> {
    item: &'a Item,
    owner: Option<String>,
    origin: Option<Origin>,
}

/// Runs the command.
pub fn run(args: &InventoryArgs, common: &Common) -> Exit {
    let plan = common
        .config()
        .map_err(Fatal::from)
        .and_then(|config| Plan::new(config, common.builtin()));
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => return fail(&error),
    };
    let inventory = inventory::take(&plan.patterns, Limits::default());
    let log = args.log.as_ref().unwrap_or(&plan.config.log.file);
    let mut origins = Origins::of(log, &inventory.items).unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound || args.log.is_some() {
            let log = escape_path(log);
            eprintln!("ssh-keywatch: who made a key is unknown: cannot read {log}: {error}");
        }
        Origins::default()
    });
    if let Err(error) = origins.remember(&plan.config.state.directory, &inventory.items) {
        let state = escape_path(&plan.config.state.directory);
        let error = printable(&error);
        eprintln!("ssh-keywatch: the baseline in {state} cannot be read: {error}");
    }
    let mut accounts = match Accounts::new() {
        Ok(accounts) => accounts,
        Err(error) => {
            return fail(&Fatal::System {
                what: "cannot start threads".to_owned(),
                source: error,
            });
        }
    };
    let entries: Vec<Entry<'_>> = inventory
        .items
        .iter()
        .map(|item| Entry {
            item,
            owner: accounts.user(item.uid),
            origin: origins.find(item),
        })
        .collect();
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if args.json {
        json_lines(&mut out, &entries)
    } else {
        let colour = color::wanted(common.color.unwrap_or(Color::Auto), &io::stdout());
        let page = table::render(&entries, width(), colour);
        out.write_all(page.as_bytes())
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("ssh-keywatch: cannot write: {error}");
            return Exit::Internal;
        }
        _ => {}
    }
    tell(&inventory);
    if inventory.items.is_empty() && inventory.gaps.iter().any(|gap| gap.denied) {
        Exit::NoPermission
    } else if inventory.items.is_empty() || !inventory.gaps.is_empty() {
        Exit::Found
    } else {
        Exit::Ok
    }
}

/// What was not looked at goes to standard error, in either form.
fn tell(inventory: &Inventory) {
    for gap in &inventory.gaps {
        let reason = printable(&gap.reason);
        eprintln!("ssh-keywatch: {}: {reason}", escape_path(&gap.path));
    }
    if inventory.more_gaps > 0 {
        eprintln!("ssh-keywatch: and {} more such places", inventory.more_gaps);
    }
}

/// The terminal's width; no bound where it is none.
fn width() -> usize {
    if !io::stdout().is_terminal() {
        return usize::MAX;
    }
    let columns = std::env::var("COLUMNS").ok();
    columns
        .and_then(|columns| columns.parse().ok())
        .or_else(|| terminal_size::terminal_size().map(|(width, _)| width.0.into()))
        .unwrap_or(80)
}

fn json_lines(out: &mut impl Write, entries: &[Entry<'_>]) -> io::Result<()> {
    for entry in entries {
        if let Value::Object(document) = document(entry) {
            writeln!(out, "{}", json_line(&document))?;
        }
    }
    Ok(())
}

/// An item as JSON: nothing that is not known is in it.
fn document(entry: &Entry<'_>) -> Value {
    let item = entry.item;
    let paths =
        |paths: &[PathBuf]| -> Vec<String> { paths.iter().map(|path| escape_path(path)).collect() };
    let mut document = Map::new();
    let mut set = |key: &str, value: Value| {
        let empty = match &value {
            Value::Null => true,
            Value::Array(values) => values.is_empty(),
            _ => false,
        };
        if !empty {
            document.insert(key.to_owned(), value);
        }
    };
    set("path", escape_path(&item.path).into());
    set("path_raw", raw(&item.path).into());
    set("kind", item.kind().into());
    match &item.what {
        What::Key {
            facts,
            pair,
            borrowed,
        } => {
            set("format", facts.format.as_str().into());
            identity(&facts.identity, &mut set);
            set("comment", facts.comment.clone().into());
            if let Some(protection) = &facts.protection {
                set("encrypted", protection.encrypted.into());
                set("cipher", protection.cipher.clone().into());
                set("kdf", protection.kdf.clone().into());
                set("rounds", protection.rounds.into());
            }
            set(
                "certificate",
                facts.certificate.as_ref().map(certificate).into(),
            );
            set(
                "damage",
                facts.damage.map(crate::key::Damage::as_str).into(),
            );
            if let Some((path, pair)) = pair {
                let word = match pair {
                    Pair::Same => "same",
                    Pair::Different => "different",
                    Pair::Unknown => "unknown",
                };
                set("pair", json!({ "path": escape_path(path), "key": word }));
            }
            if *borrowed {
                // Without its passphrase the private key does not say which it is.
                set("identity_from", "public_key".into());
            }
        }
        What::Login {
            entry,
            number,
            active,
        } => {
            identity(&entry.identity, &mut set);
            set("comment", entry.comment.clone().into());
            set("options", entry.options.clone().into());
            set(
                "certificate",
                entry.certificate.as_deref().map(certificate).into(),
            );
            set("entry", (*number).into());
            set("active", (*active).into());
        }
        What::Link(target) => set("target", escape_path(target).into()),
    }
    set("owner", json!({ "id": item.uid, "name": entry.owner }));
    set("group", json!({ "id": item.gid }));
    set("mode", format!("{:04o}", item.mode).into());
    set("modified", time(item.modified).into());
    set("refused", item.refused.clone().into());
    set("authorized_in", paths(&item.authorized_in).into());
    set("origin", entry.origin.as_ref().map(Origin::to_json).into());
    Value::Object(document)
}

fn identity(identity: &Identity, set: &mut impl FnMut(&str, Value)) {
    set("type", identity.algorithm.clone().into());
    set("bits", identity.bits.into());
    set("fingerprint", identity.fingerprint.clone().into());
}

fn certificate(facts: &CertificateFacts) -> Value {
    json!({
        "role": facts.role,
        "key_id": facts.key_id,
        "serial": facts.serial,
        "principals": facts.principals,
        "valid_after": moment(facts.valid_after),
        "valid_before": moment(facts.valid_before),
        "options": facts.options,
        "extensions": facts.extensions,
        "authority": facts.authority.fingerprint,
    })
}

/// A moment as RFC 3339; none is no bound.
fn moment(moment: Moment) -> Option<String> {
    let Moment::At(seconds) = moment else {
        return None;
    };
    let seconds = i64::try_from(seconds).ok()?;
    Some(jiff::Timestamp::from_second(seconds).ok()?.to_string())
}

fn time(time: SystemTime) -> Option<String> {
    Some(jiff::Timestamp::try_from(time).ok()?.to_string())
}

/// The exact path in base64, where it is not text.
fn raw(path: &Path) -> Option<String> {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = path.as_os_str().as_bytes();
    str::from_utf8(bytes)
        .is_err()
        .then(|| data_encoding::BASE64.encode(bytes))
}
