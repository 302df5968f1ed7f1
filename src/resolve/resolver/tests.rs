//! What is remembered of ancestors.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::resolve::proc::Proc;

#[test]
fn arguments_that_were_not_read_in_time_are_read_later() {
    let proc = Arc::new(Proc::open(Path::new("/proc")).unwrap());
    let identifier = Identifier::new(proc).unwrap();
    let mut resolver = Resolver::new(identifier.clone());
    let pid = nix::unistd::getpid().as_raw();
    let process = identifier.brief(pid).unwrap();
    assert_eq!(process.args, None);
    let start = process.start_ticks.unwrap();
    let checked = Instant::now();
    let snapshot = Snapshot { process, checked };
    resolver.ancestors.insert((pid, start), snapshot);
    // Nor is it certain on a busy machine that they are read in time now.
    let until = Instant::now() + Duration::from_secs(60);
    let args = loop {
        let known = resolver.ancestor(pid, start).unwrap();
        if known.args.is_some() || Instant::now() > until {
            break known.args;
        }
    };
    assert_eq!(args, Some(std::env::args_os().collect::<Vec<_>>()));
}
