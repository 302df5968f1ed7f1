//! Passphrases in arguments: `ssh-keygen -N secret` shows one to everybody who
//! looks at the process, but a log keeps it.
//!
//! Owns which options take a passphrase. Pure. An empty passphrase stays: that
//! a key has none is worth knowing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::{Attribution, KnownAs, Process};

/// What the file of ssh-keygen is called.
const NAME: &str = "ssh-keygen";
/// What stands in place of a passphrase.
const HIDDEN: &[u8] = b"(hidden)";
/// A shorter word is too common to be looked for in other arguments.
const SHORTEST: usize = 4;
/// The options of ssh-keygen that take an argument (its getopt(3) string), and
/// those of them whose argument is a passphrase.
const WITH_ARGUMENT: &[u8] = b"CDEFIMNOPRVYZabfgmnrstwz";
const PASSPHRASES: &[u8] = b"NP";

/// Hides the passphrases that ssh-keygen was given, in its own arguments and
/// in those of its ancestors, such as a shell's `-c`. To be called when it is
/// known which program the writer is, whatever its file is called.
pub fn hide(attribution: &mut Attribution) {
    let mut secrets: Vec<Vec<u8>> = Vec::new();
    let known = attribution.program.known.as_ref();
    let is_known = known.is_some_and(is_known_as_ssh_keygen);
    let writer = attribution.process.iter_mut();
    let writer = writer.map(|process| (process, is_known));
    let ancestors = attribution.ancestors.iter_mut();
    for (process, is_known) in writer.chain(ancestors.map(|process| (process, false))) {
        if is_known || is_ssh_keygen(process) {
            take(
                process.args.as_deref_mut().unwrap_or_default(),
                &mut secrets,
            );
        }
    }
    secrets.retain(|secret| secret.len() >= SHORTEST);
    if secrets.is_empty() {
        return;
    }
    for ancestor in &mut attribution.ancestors {
        for arg in ancestor.args.iter_mut().flatten() {
            for secret in &secrets {
                *arg = replace(arg, secret);
            }
        }
    }
}

fn is_known_as_ssh_keygen(known: &KnownAs) -> bool {
    known.path.file_name() == Some(OsStr::new(NAME))
}

fn is_ssh_keygen(process: &Process) -> bool {
    let name = OsStr::new(NAME);
    let image = process
        .image
        .as_ref()
        .and_then(|image| image.path.file_name());
    // Where the image is unknown, what it calls itself.
    image.map_or(process.name.as_deref() == Some(name), |image| image == name)
}

/// Takes the passphrases out of ssh-keygen's arguments.
fn take(args: &mut [OsString], secrets: &mut Vec<Vec<u8>>) {
    let mut args = args.iter_mut().skip(1);
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        if bytes == b"--" {
            return;
        }
        let Some(cluster) = bytes.strip_prefix(b"-") else {
            continue;
        };
        // The first option of a cluster that takes an argument ends it.
        let Some(index) = cluster
            .iter()
            .position(|option| WITH_ARGUMENT.contains(option))
        else {
            continue;
        };
        let secret = PASSPHRASES.contains(&cluster[index]);
        let attached = cluster.len() > index + 1;
        if attached && secret {
            secrets.push(cluster[index + 1..].to_vec());
            let mut shown = bytes[..index + 2].to_vec();
            shown.extend_from_slice(HIDDEN);
            *arg = OsString::from_vec(shown);
        } else if !attached
            && let Some(value) = args.next()
            && secret
            && !value.is_empty()
        {
            secrets.push(value.as_bytes().to_vec());
            *value = OsString::from_vec(HIDDEN.to_vec());
        }
    }
}

fn replace(text: &OsStr, secret: &[u8]) -> OsString {
    let mut rest = text.as_bytes();
    let mut shown = Vec::with_capacity(rest.len());
    while let Some(at) = rest
        .windows(secret.len())
        .position(|window| window == secret)
    {
        shown.extend_from_slice(&rest[..at]);
        shown.extend_from_slice(HIDDEN);
        rest = &rest[at + secret.len()..];
    }
    shown.extend_from_slice(rest);
    OsString::from_vec(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::{Image, KnownBy, ProgramFacts};

    fn taken(args: &[&str]) -> (Vec<String>, usize) {
        let mut args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let mut secrets = Vec::new();
        take(&mut args, &mut secrets);
        let shown = args.into_iter().map(|arg| arg.into_string().unwrap());
        (shown.collect(), secrets.len())
    }

    #[test]
    fn passphrases_are_hidden_however_they_are_given() {
        for (args, shown) in [
            (
                &["ssh-keygen", "-N", "secret", "-f", "x"][..],
                &["ssh-keygen", "-N", "(hidden)", "-f", "x"][..],
            ),
            (&["ssh-keygen", "-qNsecret"], &["ssh-keygen", "-qN(hidden)"]),
            (
                &["ssh-keygen", "-p", "-P", "old", "-N", "new"],
                &["ssh-keygen", "-p", "-P", "(hidden)", "-N", "(hidden)"],
            ),
        ] {
            assert_eq!(taken(args).0, shown);
        }
    }

    #[test]
    fn what_is_no_passphrase_stays() {
        for args in [
            &["ssh-keygen", "-N", "", "-f", "x"][..],
            // -C takes the next word, -N there is a comment.
            &["ssh-keygen", "-C", "-N", "-f", "N"],
            &["ssh-keygen", "-tN", "file"],
            &["ssh-keygen", "--", "-N", "file"],
            &["ssh-keygen", "-N"],
        ] {
            assert_eq!(
                taken(args),
                (args.iter().map(ToString::to_string).collect(), 0)
            );
        }
    }

    /// A writer with these arguments, started by a shell that spells them.
    fn writer(image: &str, known: Option<&str>) -> Attribution {
        let process = |image: &str, args: &[&str]| Process {
            image: Some(Image {
                path: image.into(),
                device: None,
                inode: None,
                generation: None,
                state: None,
            }),
            args: Some(args.iter().map(OsString::from).collect()),
            ..Process::default()
        };
        let known = known.map(|path| KnownAs {
            path: path.into(),
            by: KnownBy::Content,
        });
        Attribution {
            process: Some(process(image, &[image, "-N", "s3cret", "-f", "x"])),
            ancestors: vec![process("/bin/sh", &["sh", "-c", "$0 -N s3cret -f x"])],
            program: ProgramFacts {
                known,
                ..ProgramFacts::default()
            },
            ..Attribution::none()
        }
    }

    #[test]
    fn ssh_keygen_under_another_name_does_not_show_it() {
        for (image, known, hidden) in [
            ("/usr/bin/ssh-keygen", None, true),
            ("/tmp/kgen", Some("/usr/bin/ssh-keygen"), true),
            ("/tmp/kgen", Some("/usr/bin/puttygen"), false),
            ("/tmp/kgen", None, false),
        ] {
            let mut writer = writer(image, known);
            hide(&mut writer);
            let shown = format!("{:?}{:?}", writer.process, writer.ancestors);
            assert_eq!(!shown.contains("s3cret"), hidden, "{shown}");
            assert_eq!(shown.matches("(hidden)").count() == 2, hidden, "{shown}");
        }
    }

    #[test]
    fn an_ancestor_that_spells_it_does_not_show_it() {
        assert_eq!(
            replace(OsStr::new("ssh-keygen -N secret -C secret"), b"secret"),
            "ssh-keygen -N (hidden) -C (hidden)"
        );
    }
}
