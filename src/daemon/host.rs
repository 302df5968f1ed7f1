//! What is said of this host in every document.

use std::fs::read_to_string;

use crate::alert::{Host, Origin};

/// This host, and this daemon watching in `mode`.
#[must_use]
pub fn origin(mode: &str) -> Origin {
    let trimmed = |path: &str| {
        read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    let name = nix::sys::utsname::uname().ok();
    let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
    let hostname = name
        .as_ref()
        .map(|name| text(name.nodename()))
        .unwrap_or_default();
    let release = read_to_string("/etc/os-release")
        .or_else(|_| read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    Origin {
        host: Host {
            id: trimmed("/etc/machine-id"),
            name: hostname.clone(),
            hostname,
            architecture: name.as_ref().map(|name| text(name.machine())),
            os_kernel: name.as_ref().map(|name| text(name.release())),
            os_name: release_field(&release, "NAME"),
            os_version: release_field(&release, "VERSION_ID"),
            os_platform: release_field(&release, "ID"),
        },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mode: mode.to_owned(),
        degraded: Vec::new(),
        boot_id: trimmed("/proc/sys/kernel/random/boot_id"),
    }
}

/// A field of os-release(5), without its quotes.
fn release_field(text: &str, field: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(field)?.strip_prefix('=')?.trim();
        Some(value.trim_matches(['"', '\'']).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_os_release_are_read_by_their_whole_name() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='12'\nID=debian\n";
        assert_eq!(release_field(text, "NAME").unwrap(), "Debian GNU/Linux");
        assert_eq!(release_field(text, "VERSION_ID").unwrap(), "12");
        assert_eq!(release_field(text, "ID").unwrap(), "debian");
        assert_eq!(release_field(text, "VARIANT"), None);
    }
}
