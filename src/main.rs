//! `ssh-keywatch`: who put which SSH key where.

use std::process::ExitCode;

fn main() -> ExitCode {
    ssh_keywatch::cli::main()
}
