//! The trial at the start: does this host let us see and name what we promise?
//!
//! Owns a private directory, processes that make and rename a file in it and
//! exit at once, and a pipeline of its own, built as the daemon's is. What it
//! says is a list of what did not come as promised; it never stops the daemon.
//!
//! ```text
//! trial ──directory──► actor ──► child that makes a file, child that renames one
//!   ▲                    │pids
//!   └── events ◄── pipeline
//! ```
//!
//! The actor is started before there is a permission group: no process of ours
//! may ever have inherited one.

use crate::queue::{self, Receiver};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::watching::Command;
use super::{Message, Mode, build};
use crate::config::Config;
use crate::event::Event;
use crate::resolve::identify::Identifier;
use crate::resolve::proc::Proc;
use crate::resolve::{Attribution, Image};
use crate::watch::home::Limits;
use crate::watch::pattern::Pattern;
use crate::watch::tree::Scope;

/// The hidden command that the actor and its children are.
pub const ACTOR: &str = "self-test-actor";
/// How long what should come at once is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// A machine so busy that one trial fails may pass the next.
const TRIES: u32 = 3;
/// Far more events than a trial makes.
const EVENTS: usize = 64;

/// A process that waits to act.
pub struct Actor {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Actor {
    /// Starts it.
    ///
    /// # Errors
    /// The program cannot be run again.
    pub fn start() -> io::Result<Self> {
        // What runs, wherever its file is by now.
        let mut child = Program::new("/proc/self/exe")
            .arg(ACTOR)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let answers = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self {
            child,
            answers: BufReader::new(answers),
        })
    }

    /// Has the files made; returns who made and who renamed one.
    fn act(&mut self, directory: &Path) -> io::Result<[i32; 2]> {
        let to = self.child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(to, "{}", directory.display())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let mut pids = line.split_whitespace().map(str::parse);
        match (pids.next(), pids.next()) {
            (Some(Ok(maker)), Some(Ok(mover))) => Ok([maker, mover]),
            _ => Err(io::Error::other("its processes could not act")),
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // The end of its input is its end.
        self.child.stdin = None;
        let _ = self.child.wait();
    }
}

/// What the hidden command does: acts for whoever started it, or, with a path, is one act.
///
/// # Errors
/// The act failed.
pub fn act(paths: &[PathBuf]) -> io::Result<()> {
    match paths {
        [] => {
            for line in io::stdin().lock().lines() {
                let directory = PathBuf::from(line?);
                let child = |paths: &[PathBuf]| -> io::Result<u32> {
                    let mut child = Program::new("/proc/self/exe")
                        .arg(ACTOR)
                        .args(paths)
                        .spawn()?;
                    child.wait()?;
                    Ok(child.id())
                };
                let (made, renamed) = names(&directory);
                let source = directory.join("source");
                fs::write(&source, "")?;
                let pids = [child(&[made])?, child(&[source, renamed])?];
                println!("{} {}", pids[0], pids[1]);
            }
            Ok(())
        }
        [made] => fs::write(made, "trial\n"),
        [from, to, ..] => fs::rename(from, to),
    }
}

fn names(directory: &Path) -> (PathBuf, PathBuf) {
    let watched = directory.join("watched");
    (watched.join("made"), watched.join("renamed"))
}

/// Tries what `config` promises; each entry of the result is a promise that this
/// host does not let us keep.
#[must_use]
pub fn run(config: &Config, actor: io::Result<Actor>) -> Vec<String> {
    let mut actor = match actor {
        Ok(actor) => actor,
        Err(error) => return vec![format!("no trial was possible: {error}")],
    };
    let mut problems = Vec::new();
    for _ in 0..TRIES {
        problems = match trial(config, &mut actor) {
            Ok(problems) => problems,
            Err(error) => vec![format!("the trial failed: {error}")],
        };
        if problems.is_empty() {
            break;
        }
    }
    problems
}

/// A directory that goes with this value.
struct Place(PathBuf);

impl Place {
    fn make(config: &Config) -> io::Result<Self> {
        let name = format!("self-test.{}", std::process::id());
        let mut result = Err(io::ErrorKind::NotFound.into());
        for parent in [Path::new("/run/ssh-keywatch"), &config.state.directory] {
            let path = parent.join(&name);
            // Left by a killed daemon of the same pid.
            let _ = fs::remove_dir_all(&path);
            let mut private = fs::DirBuilder::new();
            private.mode(0o700);
            result = fs::create_dir_all(parent)
                .and_then(|()| private.create(&path))
                .and_then(|()| private.create(path.join("watched")))
                .map(|()| Self(path));
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn trial(config: &Config, actor: &mut Actor) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let place = Place::make(config)?;
    let (made, renamed) = names(&place.0);
    let mut config = config.clone();
    // Key tools are the daemon's own business.
    config.watch.key_tools.clear();
    let identifier = Identifier::new(Arc::new(Proc::open(Path::new("/proc"))?))?;
    let (messages, events) = queue::bounded(EVENTS);
    let scope = Scope {
        patterns: vec![Pattern::literal(&place.0.join("watched"))?],
        limit: config.watch.max_directories as usize,
        homes: Limits {
            directories: config.watch.home_directories as usize,
            files: config.watch.home_files as usize,
        },
        opens: Box::new(|_| false),
        stock: None,
    };
    let build::Pipeline {
        watching,
        hold,
        mode,
        orders,
        ..
    } = build::pipeline(&config, scope, &identifier, &messages, &[])?;
    drop(messages);
    let thread = build::spawn("self-test", move || watching.run());
    let outcome = actor.act(&place.0).map(|pids| {
        let until = Instant::now() + PATIENCE;
        let seen = collect(&events, [&made, &renamed], until);
        judge(mode, pids, &seen)
    });
    if let Some(hold) = hold {
        hold.end();
    }
    orders.give(Command::Stop);
    if thread?.join().is_err() {
        return Err("its thread ended in a panic".into());
    }
    Ok(outcome?)
}

/// Waits for the events on both paths.
fn collect(
    events: &Receiver<Message>,
    paths: [&Path; 2],
    until: Instant,
) -> [Option<Attribution>; 2] {
    let mut seen = [None, None];
    while seen.iter().any(Option::is_none) {
        let left = until.saturating_duration_since(Instant::now());
        match events.recv_timeout(left) {
            Ok(Message::Event(assembled, _)) => {
                let Event { path, writer, .. } = assembled.event;
                if let Some(index) = paths.iter().position(|wanted| path == *wanted) {
                    seen[index].get_or_insert(writer);
                }
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    seen
}

fn judge(mode: Mode, pids: [i32; 2], seen: &[Option<Attribution>; 2]) -> Vec<String> {
    let own = fs::metadata("/proc/self/exe").ok();
    let own = own.map(|own| (own.dev(), own.ino()));
    let is_own = |image: &Image| own == image.device.zip(image.inode);
    let held = matches!(mode, Mode::Held | Mode::HeldTable);
    let table = matches!(mode, Mode::HeldTable | Mode::FanotifyTable);
    let acts = ["made", "renamed into place"];
    let promised = [held || table, table];
    let mut problems = Vec::new();
    for (((act, pid), writer), promised) in acts.iter().zip(pids).zip(seen).zip(promised) {
        let Some(writer) = writer else {
            problems.push(format!("a file that was {act} was not seen"));
            continue;
        };
        let process = writer.process.as_ref();
        let image = process.and_then(|process| process.image.as_ref());
        match process.map(|process| process.pid) {
            Some(named) if named != pid => problems.push(format!(
                "a file was {act} by process {pid}, but process {named} was named"
            )),
            _ if image.is_some_and(|image| !is_own(image)) => problems.push(format!(
                "a file was {act} by this program, but another was named"
            )),
            None if promised => problems.push(format!("who had {act} a file was not named")),
            // Where the machine is so busy that more than one is possible, they are listed.
            Some(_) if promised && image.is_none() && !writer.candidates.iter().any(is_own) => {
                problems.push(format!("which program had {act} a file was not named"));
            }
            _ => {}
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::{Method, Process};

    const MAKER: i32 = 100;
    const MOVER: i32 = 200;

    fn own() -> Image {
        let own = fs::metadata("/proc/self/exe").unwrap();
        Image {
            path: "/usr/bin/ssh-keywatch".into(),
            device: Some(own.dev()),
            inode: Some(own.ino()),
            generation: None,
            state: None,
        }
    }

    fn by(pid: i32, image: Option<Image>) -> Attribution {
        Attribution {
            method: Method::Held,
            certain: true,
            process: Some(Process {
                pid,
                image,
                ..Process::default()
            }),
            ..Attribution::none()
        }
    }

    fn said(
        mode: Mode,
        made: impl Into<Option<Attribution>>,
        renamed: impl Into<Option<Attribution>>,
    ) -> String {
        judge(mode, [MAKER, MOVER], &[made.into(), renamed.into()]).join("; ")
    }

    #[test]
    fn what_is_seen_and_rightly_named_is_no_problem() {
        let good = said(
            Mode::HeldTable,
            by(MAKER, Some(own())),
            by(MOVER, Some(own())),
        );
        assert_eq!(good, "");
    }

    #[test]
    fn what_is_not_seen_is_a_problem_in_every_mode() {
        for mode in [Mode::HeldTable, Mode::Fanotify, Mode::Inotify] {
            assert_eq!(
                said(mode, None, by(MOVER, Some(own()))),
                "a file that was made was not seen"
            );
        }
    }

    #[test]
    fn a_wrong_name_is_a_problem_in_every_mode() {
        for mode in [Mode::HeldTable, Mode::Fanotify] {
            let pid = said(mode, by(7, Some(own())), by(MOVER, Some(own())));
            assert!(pid.contains("process 7 was named"), "{pid}");
            let mut other = own();
            other.inode = Some(0);
            let image = said(mode, by(MAKER, Some(own())), by(MOVER, Some(other)));
            assert!(
                image.contains("renamed into place by this program, but another"),
                "{image}"
            );
        }
    }

    #[test]
    fn who_is_not_named_is_a_problem_where_it_was_promised() {
        let nobody = Attribution::none;
        assert_eq!(said(Mode::Fanotify, nobody(), nobody()), "");
        assert_eq!(said(Mode::Held, by(MAKER, Some(own())), nobody()), "");
        assert_eq!(
            said(Mode::HeldTable, nobody(), nobody()),
            "who had made a file was not named; who had renamed into place a file was not named"
        );
        let mut several = by(MOVER, None);
        assert_eq!(
            said(Mode::HeldTable, by(MAKER, Some(own())), several.clone()),
            "which program had renamed into place a file was not named"
        );
        several.candidates = vec![own()];
        assert_eq!(said(Mode::HeldTable, by(MAKER, Some(own())), several), "");
    }
}
