//! The rules that come with the program, carried in the binary, so that it also
//! runs without being installed.

/// Where the shipped rules are installed.
pub const DIRECTORY: &str = "/usr/share/ssh-keywatch/rules";

/// The set that shipped rules belong to (`rule.ruleset`).
pub const RULESET: &str = "ssh-keywatch";

/// A rule and its cases have the same file name, in two directories.
macro_rules! shipped {
    ($($name:literal,)*) => {
        /// File name and text of each shipped rule.
        pub(super) const RULES: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../packaging/rules/", $name))),)*
        ];

        /// File name and text of the cases of each shipped rule.
        pub(super) const CASES: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../packaging/rules/tests/", $name))),)*
        ];
    };
}

shipped! {
    "ssh_client_configuration_changed.toml",
    "ssh_directory_flooded.toml",
    "ssh_file_written_by_hidden_program.toml",
    "ssh_host_key_replaced.toml",
    "ssh_key_added_to_authorized_keys.toml",
    "ssh_key_appeared_unseen.toml",
    "ssh_key_generated_via_ssh_keygen.toml",
    "ssh_key_removed_from_authorized_keys.toml",
    "ssh_login_script_or_environment_changed.toml",
    "ssh_private_key_exposed.toml",
    "ssh_private_key_placed.toml",
    "ssh_private_key_read.toml",
    "sshd_configuration_changed.toml",
}
