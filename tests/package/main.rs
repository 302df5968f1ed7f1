//! The Debian package, installed in a Debian of its own under a real systemd.
//!
//! Each test has a container (`systemd-nspawn`) that boots a copy of a root made by
//! mmdebstrap, which is kept under `target/package`. The package is the one that
//! `packaging/build-deb` builds. `SSH_KEYWATCH_TEST_SUITE=trixie` takes another
//! Debian, `SSH_KEYWATCH_TEST_MIRROR` another mirror.
//!
//! Needs root; `tests/run` installs the programs. What cannot run fails and says
//! what is missing. The kernel is the machine's own: the daemon of a container
//! holds openers in the container's files alone, and ends with it
//! ([`machine::Machine`]), whatever happens to the test.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics and says where"
)]

mod built;
mod freeze;
mod image;
mod install;
mod machine;
mod readme;
mod remove;
mod root;
mod session;
mod upgrade;
