//! A bounded run of the fuzz targets, with any toolchain: the committed corpus,
//! and variations of it that are the same in every run.
//!
//! `fuzz/run` runs them under libFuzzer, which finds more.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Variations of each file of the corpus.
const VARIATIONS: u64 = 150;
/// No input of this size may take so long, even on a busy machine.
const MOST: Duration = Duration::from_secs(5);

/// A generator of numbers that need not be good, but the same every time
/// (Marsaglia's xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).expect("less than a usize")
    }
}

/// Changes bytes, cuts, repeats, and puts in words that mean something.
fn varied(seed: &[u8], words: &[&str], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        let length = numbers.below((bytes.len() - at).min(16) + 1);
        match numbers.below(5) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..at + length)),
            2 => {
                let piece = bytes[at..at + length].repeat(numbers.below(40));
                bytes.splice(at..at, piece);
            }
            3 => {
                let word = words[numbers.below(words.len())].bytes();
                bytes.splice(at..at, word);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = u8::try_from(numbers.below(256)).expect("less than 256");
                }
            }
        }
    }
    bytes
}

#[test]
fn the_corpus_and_its_variations_break_nothing() {
    let words = [
        "not ",
        "(",
        ")",
        "[",
        "{",
        "}",
        "\"",
        "\\",
        "*",
        "?",
        "==",
        " and ",
        " or ",
        "null",
        "`",
        "|",
        "/*",
        "//",
        "\u{e4}",
        "\u{0}",
        "\n",
        "0x",
        "1e9",
        "-",
        "regex~",
        "\"\"\"",
        "'''",
        "_source",
        "hits",
        "\u{1f511}",
    ];
    for (name, target) in targets::ALL {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(name);
        let mut files: Vec<_> = fs::read_dir(&corpus)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(files.len() >= 3, "the corpus of {name} is too small");
        for file in files {
            let seed = fs::read(&file).unwrap();
            let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
            for variation in 0..VARIATIONS {
                let input = if variation == 0 {
                    seed.clone()
                } else {
                    varied(&seed, &words, &mut numbers)
                };
                let start = Instant::now();
                target(&input);
                assert!(
                    start.elapsed() < MOST,
                    "{name} {} {variation}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn hostile_sizes_are_refused_or_decided_in_time() {
    let deep = |open: &str, close: &str| {
        format!(
            "file where {}true{}",
            open.repeat(50_000),
            close.repeat(50_000)
        )
    };
    let stars = format!("{}\n{}", "*a".repeat(2_000), "a".repeat(50_000) + "b");
    let start = Instant::now();
    for query in [
        deep("(", ")"),
        deep("not ", ""),
        deep("(not ", ")"),
        "file where a == ".to_owned() + &"-".repeat(100_000) + "1",
    ] {
        targets::query(query.as_bytes());
    }
    targets::pattern(stars.as_bytes());
    targets::rule(format!("a = {}", "[".repeat(100_000)).as_bytes());
    targets::replay(("[".repeat(200_000) + "\n").as_bytes());
    targets::replay(("{\"a\":".repeat(200_000) + "\n").as_bytes());
    assert!(start.elapsed() < 4 * MOST, "{:?}", start.elapsed());
}
