//! `ssh-keywatch run`: watch and alert in the foreground.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;

use super::{Common, color, fail};
use crate::config::{Backend, Config, Hold, Stdout};
use crate::daemon::{self, Fatal, Outlets, Plan};
use crate::exit::Exit;
use crate::sink::{Format, Sink, Terminal};

/// Watch, and raise alerts, in the foreground.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// Write alerts to this file
    #[arg(long, value_name = "FILE", env = "SSH_KEYWATCH_LOG")]
    log: Option<PathBuf>,
    /// Keep the lock, and what outlives a run, in this directory
    #[arg(long, value_name = "DIR", env = "SSH_KEYWATCH_STATE")]
    state: Option<PathBuf>,
    /// Alerts on stdout: text, json or none
    #[arg(long, value_name = "FORMAT", env = "SSH_KEYWATCH_STDOUT")]
    stdout: Option<Stdout>,
    /// Send no alerts to the journal
    #[arg(long, env = "SSH_KEYWATCH_NO_JOURNAL")]
    no_journal: bool,
    /// The kernel interface
    #[arg(long, value_name = "BACKEND", env = "SSH_KEYWATCH_BACKEND")]
    backend: Option<Backend>,
    /// Which writers the kernel holds while they are identified
    #[arg(long, value_name = "WHOM", env = "SSH_KEYWATCH_HOLD")]
    hold: Option<Hold>,
    /// Answer `status` on this socket
    #[arg(long, value_name = "FILE", env = "SSH_KEYWATCH_CONTROL")]
    control: Option<PathBuf>,
    /// Debug beside a running daemon: alerts on stdout alone; no lock, log, journal, state or
    /// control socket is touched
    #[arg(long)]
    dry: bool,
}

impl RunArgs {
    fn apply(&self, config: &mut Config) -> Result<(), Fatal> {
        let absolute = |path: &PathBuf| {
            std::path::absolute(path).map_err(|source| Fatal::System {
                what: format!("cannot find {}", path.display()),
                source,
            })
        };
        if let Some(log) = &self.log {
            config.log.file = absolute(log)?;
        }
        if let Some(state) = &self.state {
            config.state.directory = absolute(state)?;
        }
        if let Some(control) = &self.control {
            config.control.socket = absolute(control)?;
        }
        if self.dry {
            // There is no other place that they could stand in.
            config.output.stdout = Stdout::Text;
        }
        if let Some(stdout) = self.stdout {
            config.output.stdout = stdout;
        }
        if self.no_journal {
            config.journal.enabled = false;
        }
        if let Some(backend) = self.backend {
            config.watch.backend = backend;
        }
        if let Some(hold) = self.hold {
            config.watch.hold = hold;
        }
        Ok(())
    }
}

/// Runs the command.
pub fn run(args: &RunArgs, common: &Common) -> Exit {
    let dry = args.dry;
    let (args, common) = (args.clone(), common.clone());
    let verbose = common.verbose > 0;
    let plan = move || {
        let mut config = common.config()?;
        args.apply(&mut config)?;
        Plan::new(config, common.builtin())
    };
    let outlets = Outlets {
        sinks: Box::new(move |config| terminal(config, verbose)),
        plan: Box::new(plan),
        dry,
    };
    match daemon::run(&outlets) {
        Ok(()) => Exit::Ok,
        Err(error) => fail(&error),
    }
}

fn terminal(config: &Config, verbose: bool) -> Vec<Box<dyn Sink>> {
    let stdout = io::stdout();
    let format = match config.output.stdout {
        Stdout::None => return Vec::new(),
        Stdout::Auto if !stdout.is_terminal() => return Vec::new(),
        Stdout::Json => Format::Json,
        Stdout::Auto | Stdout::Text => Format::Text,
    };
    let style = color::style(config.output.color, &stdout);
    let terminal = Terminal::new(stdout, format, style);
    vec![Box::new(terminal.with_building_blocks(verbose))]
}
