//! The rules that come with the program, carried in the binary, so that it also
//! runs without being installed.

/// Where the shipped rules are installed.
pub const DIRECTORY: &str = "/usr/share/ssh-keywatch/rules";

/// The set that shipped rules belong to (`rule.ruleset`).
pub const RULESET: &str = "ssh-keywatch";

/// File name and text of each shipped rule.
pub(super) const RULES: [(&str, &str); 1] = [(
    "ssh_key_generated_via_ssh_keygen.toml",
    include_str!("../../packaging/rules/ssh_key_generated_via_ssh_keygen.toml"),
)];

/// File name and text of the cases of each shipped rule.
pub(super) const CASES: [(&str, &str); 1] = [(
    "ssh_key_generated_via_ssh_keygen.toml",
    include_str!("../../packaging/rules/tests/ssh_key_generated_via_ssh_keygen.toml"),
)];
