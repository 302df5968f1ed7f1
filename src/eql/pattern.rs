//! Wildcard patterns of `:`, `like` and `like~`.
//!
//! `*` stands for any number of characters, `?` for exactly one, both also for
//! `/`; nothing escapes them, and the whole text must match.

/// A pattern, prepared for matching.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// UTF-8; neighbouring stars are one star.
    bytes: Box<[u8]>,
    fold: bool,
}

impl Pattern {
    /// Prepares a pattern. `fold` ignores the case of ASCII letters.
    #[must_use]
    pub fn new(pattern: &str, fold: bool) -> Self {
        let mut bytes = Vec::with_capacity(pattern.len());
        for byte in pattern.bytes() {
            if byte != b'*' || bytes.last() != Some(&b'*') {
                bytes.push(byte);
            }
        }
        Self {
            bytes: bytes.into(),
            fold,
        }
    }

    /// True if the whole text matches. Goes back to the last star only, so
    /// that the cost is at most the product of both lengths, and no memory.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (&*self.bytes, text.as_bytes());
        let (mut p, mut t) = (0, 0);
        // The place after the last star, and where its rest began in the text.
        let mut retry: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    p += 1;
                    if p == pattern.len() {
                        return true;
                    }
                    retry = Some((p, t));
                }
                Some(b'?') => {
                    p += 1;
                    t += width(text[t]);
                }
                Some(&byte) if self.same(byte, text[t]) => {
                    p += 1;
                    t += 1;
                }
                _ => {
                    let Some((after, began)) = retry else {
                        return false;
                    };
                    // Whole characters, so that `?` never meets half of one.
                    t = began + width(text[began]);
                    // What stands behind the star begins with this byte, and a
                    // byte that begins a character is found nowhere else.
                    if let Some(&first) = pattern.get(after)
                        && first != b'?'
                        && first != b'*'
                    {
                        match text[t.min(text.len())..]
                            .iter()
                            .position(|&byte| self.same(first, byte))
                        {
                            Some(distance) => t += distance,
                            None => return false,
                        }
                    }
                    p = after;
                    retry = Some((after, t));
                }
            }
        }
        pattern[p..].iter().all(|&byte| byte == b'*')
    }

    /// True if some text that starts with `prefix` matches.
    #[must_use]
    pub fn could_start_with(&self, prefix: &str) -> bool {
        // All places of the pattern that the prefix read so far can lead to.
        let mut places = vec![false; self.bytes.len() + 1];
        places[0] = true;
        let text = prefix.as_bytes();
        let mut t = 0;
        while t < text.len() {
            let step = width(text[t]).min(text.len() - t);
            let character = &text[t..t + step];
            let mut next = vec![false; places.len()];
            for p in 0..self.bytes.len() {
                if !places[p] {
                    continue;
                }
                match self.bytes[p] {
                    b'*' => {
                        places[p + 1] = true;
                        next[p] = true;
                    }
                    b'?' => next[p + 1] = true,
                    _ => {
                        let end = p + step;
                        if end <= self.bytes.len()
                            && self.bytes[p..end]
                                .iter()
                                .zip(character)
                                .all(|(&left, &right)| self.same(left, right))
                        {
                            next[end] = true;
                        }
                    }
                }
            }
            places = next;
            t += step;
        }
        // What is left of a pattern can always be satisfied by some text.
        places.contains(&true)
    }

    fn same(&self, pattern: u8, text: u8) -> bool {
        pattern == text || (self.fold && pattern.eq_ignore_ascii_case(&text))
    }
}

/// Length in bytes of the UTF-8 character that starts with `first`.
fn width(first: u8) -> usize {
    match first {
        0..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_documented() {
        let cases = [
            ("doc*", "doc", true),
            ("doc*", "document", true),
            ("doc*", "dos", false),
            ("*doc", "asciidoc", true),
            ("d*c", "disc", true),
            ("doc?", "docs", true),
            ("doc?", "doc", false),
            ("doc?", "document", false),
            ("?doc", "adoc", true),
            ("?doc", "asciidoc", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("?", "", false),
            ("*?*", "", false),
            ("a**b", "ab", true),
            ("a*b*c", "a/b/b/c", true),
            ("a*b*c", "a/b/b/cd", false),
            ("/home/*/.ssh/*", "/home/a/b/.ssh/c/d", true),
            ("/home/*/.ssh/*", "/home/.ssh/x", false),
            ("/home/*/.ssh/*", "/home//.ssh/", true),
            (r"*\red\x.*", r"C:\red\x.exe", true),
            ("[a]", "[a]", true),
            ("[a]", "a", false),
            ("?", "ü", true),
            ("??", "ü", false),
            ("*?", "aü", true),
            ("*?x", "üüx", true),
            ("a*", "A", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                Pattern::new(pattern, false).matches(text),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn folding_is_ascii_only() {
        assert!(Pattern::new("*.SSH/ID_*", true).matches("/x/.ssh/id_rsa"));
        assert!(!Pattern::new("Ü", true).matches("ü"));
        // The Kelvin sign folds to k in Unicode.
        assert!(!Pattern::new("k", true).matches("\u{212a}"));
    }

    #[test]
    fn hostile_patterns_cost_no_more_than_the_product() {
        let pattern = Pattern::new(&"*a".repeat(100), false);
        assert!(!pattern.matches(&format!("{}b", "a".repeat(20_000))));
    }

    #[test]
    fn prefixes_of_possible_matches() {
        let cases = [
            ("/home/*/.ssh/*", "/home/", true),
            ("/home/*/.ssh/*", "/home/x/.ssh/", true),
            ("/home/*/.ssh/*", "/etc/ssh/", false),
            ("/etc/ssh/*", "/etc/ssh/", true),
            ("/etc/ssh", "/etc/ssh/", false),
            ("*.service", "/root/.ssh/", true),
            ("?root/*", "/root/.ssh/", true),
            ("/ROOT/*", "/root/", false),
            ("", "/", false),
            ("ü*", "ü", true),
        ];
        for (pattern, prefix, expected) in cases {
            assert_eq!(
                Pattern::new(pattern, false).could_start_with(prefix),
                expected,
                "{pattern} {prefix}"
            );
        }
        assert!(Pattern::new("/ROOT/*", true).could_start_with("/root/"));
    }
}
