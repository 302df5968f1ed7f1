//! Who started whom, as a tree with the first process on top.
//!
//! Owns the drawing. Must not escape or wrap (`page` does).

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::super::field::{field, scalar, strings, text};
use crate::text::quote_args;

/// Deeper processes are drawn as deep as this one.
const DEEPEST: usize = 8;

/// How many characters of a command line are shown; the writer's own stands in
/// full above.
const LONGEST: usize = 100;

/// One line of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Branch {
    /// Blanks and strokes.
    pub(super) drawn: String,
    /// The process.
    pub(super) text: String,
}

/// The tree from the oldest ancestor down to the writer; empty if nobody before
/// the writer is known.
pub(super) fn lineage(document: &Map<String, Value>, unicode: bool) -> Vec<Branch> {
    let ancestors = field(document, "ssh_keywatch.ancestors").and_then(Value::as_array);
    let mut processes: Vec<&Map<String, Value>> = ancestors
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .collect();
    processes.reverse();
    if processes.is_empty() {
        let parent = field(document, "process.parent").and_then(Value::as_object);
        processes.extend(parent);
    }
    let mut user = None;
    let mut out: Vec<Branch> = Vec::new();
    for process in processes {
        let Some(mut named) = name(process) else {
            continue;
        };
        let own = text(process, "user.name")
            .map(str::to_owned)
            .or_else(|| scalar(process, "user.id").map(|id| format!("uid {id}")));
        // Said where it changes: that is sudo, su, or a login.
        if own.is_some() && own != user {
            let _ = write!(named, " as {}", own.as_deref().unwrap_or_default());
            user = own;
        }
        if let Some(line) = command(process, unicode) {
            let _ = write!(named, ": {line}");
        }
        push(&mut out, named, unicode);
    }
    if !out.is_empty()
        && let Some(process) = field(document, "process").and_then(Value::as_object)
        && let Some(named) = name(process)
    {
        push(&mut out, named, unicode);
    }
    out
}

/// What it was told to do, or what it says that it does: its arguments, or a
/// title in their place (`sshd: ann [priv]`).
fn command(process: &Map<String, Value>, unicode: bool) -> Option<String> {
    let args = strings(process, "args");
    let mut line = match args.as_slice() {
        [title] if title.contains(": ") => (*title).to_owned(),
        [] | [_] => return None,
        args => quote_args(args),
    };
    if let Some((end, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(end);
        line.push_str(if unicode { "…" } else { "..." });
    }
    Some(line)
}

fn push(out: &mut Vec<Branch>, text: String, unicode: bool) {
    let depth = out.len().min(DEEPEST);
    let drawn = match depth.checked_sub(1) {
        None => String::new(),
        Some(above) => {
            let stroke = if unicode { "└─ " } else { "`- " };
            format!("{}{stroke}", "   ".repeat(above))
        }
    };
    out.push(Branch { drawn, text });
}

fn name(process: &Map<String, Value>) -> Option<String> {
    let name = text(process, "executable").or_else(|| text(process, "name"));
    match (name, scalar(process, "pid")) {
        (Some(name), Some(pid)) => Some(format!("{name}[{pid}]")),
        (Some(name), None) => Some(name.to_owned()),
        (None, Some(pid)) => Some(format!("pid {pid}")),
        (None, None) => None,
    }
}
