//! The one exit for untrusted text: file names, process arguments, comments of
//! keys, and whatever else somebody else chose.
//!
//! Owns which characters may reach a terminal, the journal or the log as they
//! are, and how the others are written. Must not know what a text means, nor
//! shorten it. Never fails: every byte has a spelling.
//!
//! Four spellings, by what the reader does with them:
//!
//! | function | for | reversible |
//! |---|---|---|
//! | [`escape_path`] | a path as a value (`file.path`) | yes |
//! | [`printable`], [`printable_ascii`] | a person's eyes: messages, terminal, journal fields | no |
//! | [`quote_args`] | a command line that can be read, and pasted into bash | yes |
//! | [`json_line`] | the log: the exact text, with `\u` where a terminal would obey | yes |

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::Serialize as _;
use serde_json::{Map, Value};

/// Whether a character must not reach a terminal as it is: it would be obeyed
/// (C0, DEL, C1), would reorder what stands beside it (bidi controls), break
/// the line (U+2028, U+2029), or not be seen at all (other format controls and
/// blank fillers), so that two different names would look the same.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Writes the escape of an unsafe character or a backslash: `\n`, `\t`, `\r`,
/// `\\`, `\x1b` for a byte below 0x80, `\u{9b}` beyond.
fn push_escape(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        '\\' => out.push_str("\\\\"),
        _ => {
            let code = u32::from(c);
            // Writing to a String cannot fail.
            let _ = if code < 0x80 {
                write!(out, "\\x{code:02x}")
            } else {
                write!(out, "\\u{{{code:x}}}")
            };
        }
    }
}

/// A path as text: UTF-8 stays as it is, except that control, bidi and
/// invisible characters, bytes that are not UTF-8, and the backslash itself are
/// escaped (`\n`, `\x1b`, `\u{202e}`, `\xff`, `\\`).
///
/// Unambiguous: `\x80` to `\xff` stand for bytes that are no UTF-8 and for
/// nothing else, so that two different paths never have the same spelling.
#[must_use]
pub fn escape_path(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || is_unsafe(c) {
                push_escape(&mut out, c);
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Text that is safe to show: nothing in it moves the cursor, sets a title or
/// the clipboard, reorders or hides what stands beside it, or starts a new line.
///
/// A backslash stays as it is, because paths come here already escaped by
/// [`escape_path`]; the result is for eyes, not for comparing.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(is_unsafe) else {
        return Cow::Borrowed(text);
    };
    let (clean, rest) = text.split_at(first);
    let mut out = String::with_capacity(text.len() + 8);
    out.push_str(clean);
    for c in rest.chars() {
        if is_unsafe(c) {
            push_escape(&mut out, c);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// As [`printable`], for a terminal that has no more than ASCII.
#[must_use]
pub fn printable_ascii(text: &str) -> Cow<'_, str> {
    let is_foreign = |c: char| is_unsafe(c) || !c.is_ascii();
    if !text.contains(is_foreign) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_foreign(c) {
            push_escape(&mut out, c);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// A command line as bash would take it back: plain words as they are, others
/// in single quotes, and words with unsafe characters or bytes that are not
/// UTF-8 as `$'…'`.
#[must_use]
pub fn quote_args<S: AsRef<OsStr>>(args: &[S]) -> String {
    let mut out = String::new();
    for (index, arg) in args.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        quote_arg(&mut out, arg.as_ref(), index == 0);
    }
    out
}

/// A word that every POSIX shell takes as exactly these bytes, whatever they
/// are, and that is safe to show. Plain words stay as they are, others stand in
/// single quotes, and what is unsafe is spelled for printf(1), because `$'…'` is
/// not known to all: to some it would end at a quote in the name. `None` for a
/// word that ends with a newline, which a command substitution removes.
#[must_use]
pub fn posix_word(word: &OsStr) -> Option<String> {
    let mut out = String::new();
    match word.to_str() {
        Some(text) if !text.contains(is_unsafe) => quote_arg(&mut out, word, true),
        _ if word.as_bytes().ends_with(b"\n") => return None,
        _ => {
            out.push_str("\"$(printf '");
            for byte in word.as_bytes() {
                match byte {
                    b'/' | b'.' | b'_' => out.push(char::from(*byte)),
                    byte if byte.is_ascii_alphanumeric() => out.push(char::from(*byte)),
                    byte => {
                        let _ = write!(out, "\\{byte:03o}");
                    }
                }
            }
            out.push_str("')\"");
        }
    }
    Some(out)
}

fn quote_arg(out: &mut String, arg: &OsStr, is_command: bool) {
    match arg.to_str() {
        Some("") => out.push_str("''"),
        Some(text) if text.chars().all(|c| is_plain(c, is_command)) => out.push_str(text),
        Some(text) if !text.contains(is_unsafe) => {
            out.push('\'');
            // The one character that single quotes cannot hold.
            out.push_str(&text.replace('\'', r"'\''"));
            out.push('\'');
        }
        _ => quote_ansi_c(out, arg.as_bytes()),
    }
}

/// Whether a shell takes the character literally anywhere in a word. The first
/// word with a `=` would be an assignment.
fn is_plain(c: char, is_command: bool) -> bool {
    match c {
        '=' => !is_command,
        '@' | '%' | '+' | ':' | ',' | '.' | '/' | '-' | '_' => true,
        _ => c.is_alphanumeric() && !is_unsafe(c),
    }
}

/// bash(1) QUOTING, `$'string'`. A `\x` there takes at most two digits and a
/// `\U` at most eight, so what follows them cannot be taken for a digit more.
fn quote_ansi_c(out: &mut String, bytes: &[u8]) {
    out.push_str("$'");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let code = u32::from(c);
            match c {
                '\'' => out.push_str("\\'"),
                '\\' | '\n' | '\t' | '\r' => push_escape(out, c),
                _ if !is_unsafe(c) => out.push(c),
                _ if code < 0x80 => push_escape(out, c),
                _ => {
                    let _ = write!(out, "\\U{code:08x}");
                }
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('\'');
}

/// A document as one line of JSON, without the newline at its end.
///
/// The value is exact; the characters that [`is_unsafe`] names are spelled
/// `\uXXXX`, so that `cat` and `less -R` on the log are safe too.
#[must_use]
pub fn json_line(document: &Map<String, Value>) -> String {
    let mut bytes = Vec::with_capacity(8192);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, SafeFormatter);
    // Maps with string keys into memory: there is nothing that could fail.
    let done = document.serialize(&mut serializer);
    debug_assert!(done.is_ok());
    String::from_utf8(bytes).unwrap_or_default()
}

/// `serde_json`'s compact form with more characters escaped.
struct SafeFormatter;

impl serde_json::ser::Formatter for SafeFormatter {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut rest = fragment;
        // Nearly all of it is: looking at bytes is much cheaper.
        if fragment.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return writer.write_all(fragment.as_bytes());
        }
        while let Some(at) = rest.find(is_unsafe) {
            let (clean, tail) = rest.split_at(at);
            writer.write_all(clean.as_bytes())?;
            let mut chars = tail.chars();
            if let Some(c) = chars.next() {
                // RFC 8259 §7: beyond the basic plane as a surrogate pair.
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    fn path(bytes: &[u8]) -> String {
        escape_path(Path::new(OsStr::from_bytes(bytes)))
    }

    /// Undoes `escape_path`, independently of how it was written.
    fn unescape(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            if c != '\\' {
                out.extend(c.to_string().bytes());
                continue;
            }
            let kind = rest.as_bytes()[0];
            rest = &rest[1..];
            match kind {
                b'n' => out.push(b'\n'),
                b't' => out.push(b'\t'),
                b'r' => out.push(b'\r'),
                b'\\' => out.push(b'\\'),
                b'x' => {
                    out.push(u8::from_str_radix(&rest[..2], 16).unwrap());
                    rest = &rest[2..];
                }
                b'u' => {
                    let end = rest.find('}').unwrap();
                    let code = u32::from_str_radix(&rest[1..end], 16).unwrap();
                    out.extend(char::from_u32(code).unwrap().to_string().bytes());
                    rest = &rest[end + 1..];
                }
                other => panic!("unknown escape {other}"),
            }
        }
        out
    }

    #[test]
    fn leaves_honest_names_alone() {
        let name = "/home/zoë/.ssh/id_ключ 鍵.pub";
        assert_eq!(path(name.as_bytes()), name);
        assert!(matches!(printable(name), Cow::Borrowed(same) if same == name));
    }

    #[test]
    fn strips_osc52_clipboard_payload() {
        let attack = "id\x1b]52;c;cm0gLXJmIC8=\x07";
        assert_eq!(printable(attack), r"id\x1b]52;c;cm0gLXJmIC8=\x07");
        assert_eq!(path(attack.as_bytes()), r"id\x1b]52;c;cm0gLXJmIC8=\x07");
    }

    #[test]
    fn a_terminal_of_ascii_gets_ascii() {
        assert_eq!(printable_ascii("zoë\x1b鍵"), r"zo\u{eb}\x1b\u{9375}");
        assert!(matches!(printable_ascii("zoe"), Cow::Borrowed("zoe")));
    }

    #[test]
    fn strips_csi_that_erases_the_line_above() {
        assert_eq!(printable("\x1b[1A\x1b[2Kok"), r"\x1b[1A\x1b[2Kok");
    }

    #[test]
    fn strips_eight_bit_csi() {
        assert_eq!(printable("a\u{9b}2Jb"), r"a\u{9b}2Jb");
        // The bare byte is not UTF-8, and is not confused with U+009B.
        assert_eq!(path(b"a\x9b2Jb"), r"a\x9b2Jb");
        assert_eq!(path("a\u{9b}2Jb".as_bytes()), r"a\u{9b}2Jb");
    }

    #[test]
    fn strips_bidi_override_that_turns_a_name_around() {
        assert_eq!(printable("id_\u{202e}bup.asr"), r"id_\u{202e}bup.asr");
        assert_eq!(
            printable("\u{2066}x\u{2069}\u{61c}"),
            r"\u{2066}x\u{2069}\u{61c}"
        );
    }

    #[test]
    fn shows_names_that_differ_only_in_invisible_characters() {
        for hidden in [
            '\u{200b}',
            '\u{ad}',
            '\u{2060}',
            '\u{3164}',
            '\u{e0061}',
            '\u{fe0f}',
        ] {
            let name = format!("authorized{hidden}_keys");
            assert_ne!(printable(&name), name, "{hidden:?}");
        }
    }

    #[test]
    fn a_newline_cannot_forge_a_second_alert() {
        assert_eq!(
            printable("x\n2027-01-01 HIGH all is well"),
            r"x\n2027-01-01 HIGH all is well"
        );
        assert_eq!(printable("a\u{2028}b\u{85}c\rd"), r"a\u{2028}b\u{85}c\rd");
    }

    #[test]
    fn a_written_out_escape_is_not_a_real_one() {
        assert_eq!(path(b"a\\x1b"), r"a\\x1b");
        assert_eq!(path(b"a\x1b"), r"a\x1b");
    }

    #[test]
    fn a_command_line_shows_where_each_argument_ends() {
        assert_eq!(
            quote_args(&["ssh-keygen", "-N", "", "-C", "a b"]),
            "ssh-keygen -N '' -C 'a b'"
        );
        assert_eq!(
            quote_args(&["sh", "-c", "echo 'hi' $HOME"]),
            r"sh -c 'echo '\''hi'\'' $HOME'"
        );
        assert_eq!(quote_args(&["A=b", "A=b"]), "'A=b' A=b");
        assert_eq!(
            quote_args(&["x", "\x1b]0;t\x07\u{202e}"]),
            r"x $'\x1b]0;t\x07\U0000202e'"
        );
        assert_eq!(
            quote_args(&[OsString::from_vec(b"\xff'\\".to_vec())]),
            r"$'\xff\'\\'"
        );
        assert_eq!(quote_args::<&str>(&[]), "");
    }

    #[test]
    fn bash_reads_a_quoted_command_line_back() {
        let words = [
            "a'b",
            "\x1bf",
            "\u{202e}12",
            "~",
            "#x",
            "a\\b\n",
            "é",
            "\u{9b}0",
            "*",
        ];
        let script = format!("printf '%s\\0' {}", quote_args(&words));
        let Ok(output) = std::process::Command::new("bash")
            .env("LC_ALL", "C.UTF-8")
            .args(["-c", &script])
            .output()
        else {
            return; // No bash on this machine.
        };
        let expected: String = words.iter().flat_map(|word| [word, "\0"]).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }

    #[test]
    fn json_keeps_the_value_and_hides_the_command() {
        let mut document = Map::new();
        document.insert(
            "k\u{9b}".into(),
            "a\x1b[2J\u{9b}2J\u{202e}\n\u{e0061}\"é".into(),
        );
        let line = json_line(&document);
        assert!(!line.contains(is_unsafe), "{line}");
        assert!(
            line.contains("\\u009b2J\\u202e\\n\\udb40\\udc61\\\"é"),
            "{line}"
        );
        assert_eq!(
            serde_json::from_str::<Map<String, Value>>(&line).unwrap(),
            document
        );
    }

    proptest! {
        #[test]
        fn an_escaped_path_can_be_read_back(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let text = path(&bytes);
            prop_assert!(!text.contains(is_unsafe));
            prop_assert_eq!(unescape(&text), bytes);
        }

        /// The shells themselves say what they take.
        #[test]
        fn a_word_is_exactly_its_bytes_to_a_shell(
            bytes in prop::collection::vec(prop_oneof![
                1..=255u8,
                prop::sample::select(&b"'\"\\$`;&|!%*?~# \n\t-0{}<>()"[..]),
            ], 0..24)
        ) {
            let word = OsString::from_vec(bytes.clone());
            let Some(quoted) = posix_word(&word) else {
                prop_assert!(bytes.ends_with(b"\n"));
                return Ok(());
            };
            prop_assert!(!quoted.contains(is_unsafe));
            for shell in ["sh", "bash"] {
                let output = std::process::Command::new(shell)
                    .args(["-c", &format!("printf '<%s>' {quoted}")])
                    .output()
                    .unwrap();
                let expected = [b"<", &bytes[..], b">"].concat();
                prop_assert_eq!(&output.stdout, &expected, "{} of {}", quoted, shell);
                prop_assert!(output.stderr.is_empty());
            }
        }

        #[test]
        fn nothing_unsafe_leaves(text in any::<String>()) {
            prop_assert!(!printable(&text).contains(is_unsafe));
            prop_assert!(!quote_args(&[text.as_str()]).contains(is_unsafe));
        }
    }
}
