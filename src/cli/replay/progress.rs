//! How far replay is, on one line of a terminal that is drawn over.
//!
//! Owns what is counted of the bytes read, and the drawing. Must not print
//! anything but on the terminal it was given. Fails silently: it is a courtesy.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How often it is drawn.
const EVERY: Duration = Duration::from_millis(200);
/// The clock is not asked for each event.
const LOOK_EVERY: u64 = 1024;

pub struct Progress {
    shown: bool,
    read: Arc<AtomicU64>,
    total: Option<u64>,
    start: Instant,
    drawn: Instant,
    asked: u64,
    visible: bool,
}

impl Progress {
    /// Over files of `total` bytes, if that is known; shown on a terminal only.
    pub fn new(total: Option<u64>, wanted: bool) -> Self {
        let now = Instant::now();
        Self {
            shown: wanted && io::stderr().is_terminal(),
            read: Arc::new(AtomicU64::new(0)),
            total: total.filter(|total| *total > 0),
            start: now,
            drawn: now,
            asked: 0,
            visible: false,
        }
    }

    /// The same file, with what is read of it counted.
    pub fn counted<R: Read>(&self, file: R) -> Counted<R> {
        Counted {
            file,
            read: Arc::clone(&self.read),
        }
    }

    /// Since it was made.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Draws it, if it is time to.
    pub fn tick(&mut self, events: u64, alerts: u64) {
        self.asked += 1;
        if !self.shown || !self.asked.is_multiple_of(LOOK_EVERY) || self.drawn.elapsed() < EVERY {
            return;
        }
        self.drawn = Instant::now();
        self.visible = true;
        let line = line(
            self.read.load(Relaxed),
            self.total,
            self.start.elapsed(),
            events,
            alerts,
        );
        let _ = write!(io::stderr(), "\r\x1b[K{line}");
    }

    /// Takes it away, before something else is printed.
    pub fn clear(&mut self) {
        if self.visible {
            self.visible = false;
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(read: u64, total: Option<u64>, elapsed: Duration, events: u64, alerts: u64) -> String {
    const WIDTH: u64 = 24;
    let bar = total.map(|total| {
        let read = read.min(total);
        let cells = usize::try_from(read * WIDTH / total).unwrap_or(0);
        let rest = usize::try_from(WIDTH).unwrap_or(0) - cells;
        format!(
            "[{}{}] {:>3} %  ",
            "#".repeat(cells),
            "-".repeat(rest),
            read * 100 / total
        )
    });
    format!(
        "{}{} events, {}/s, {} alerts",
        bar.unwrap_or_default(),
        grouped(events),
        grouped(per_second(events, elapsed)),
        grouped(alerts)
    )
}

/// Events per second.
pub fn per_second(events: u64, elapsed: Duration) -> u64 {
    let millis = u64::try_from(elapsed.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    events.saturating_mul(1000) / millis
}

/// A number with its thousands set apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// How many bytes the named files have; `None` if one of them cannot say.
pub fn total(files: &[std::path::PathBuf]) -> Option<u64> {
    files
        .iter()
        .map(|file| {
            let facts = File::open(file).and_then(|file| file.metadata()).ok()?;
            facts.is_file().then_some(facts.len())
        })
        .sum()
}

/// A file of which is counted what was read.
pub struct Counted<R> {
    file: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read.fetch_add(count as u64, Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is() {
        let second = Duration::from_secs(1);
        assert_eq!(
            line(50, Some(200), second, 1_234_567, 8),
            "[######------------------]  25 %  1,234,567 events, 1,234,567/s, 8 alerts"
        );
        assert_eq!(
            line(9, Some(3), second * 2, 4, 0),
            format!("[{}] 100 %  4 events, 2/s, 0 alerts", "#".repeat(24))
        );
        assert_eq!(
            line(9, None, Duration::ZERO, 4, 0),
            "4 events, 4,000/s, 0 alerts"
        );
    }

    #[test]
    fn what_is_read_is_counted() {
        let progress = Progress::new(None, false);
        let mut text = String::new();
        progress
            .counted("abc".as_bytes())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(progress.read.load(Relaxed), 3);
    }
}
