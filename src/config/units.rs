//! Values of the configuration that are more than a number: modes, sizes, ages.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What stands for "no limit".
const OFF: &str = "off";

/// Permission bits, written as an octal string such as `"0640"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04o}", self.0)
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        octal
            .then(|| u32::from_str_radix(&text, 8).ok())
            .flatten()
            .map(Self)
            .ok_or_else(|| {
                de::Error::custom(format_args!(
                    "`{text}` is not a file mode; write octal digits such as \"0640\""
                ))
            })
    }
}

/// A size in bytes, written with K, M or G (powers of 1024) such as `"50M"`;
/// `"off"` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub Option<u64>);

const SIZES: [(&str, u64); 4] = [("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10), ("", 1)];

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, &SIZES, out)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == OFF {
            return Ok(Self(None));
        }
        let size = read(&text, &SIZES).ok_or_else(|| {
            de::Error::custom(format_args!(
                "`{text}` is not a size; write it as \"50M\" (K, M or G), or \"off\""
            ))
        })?;
        Ok(Self(Some(size)))
    }
}

/// A span of time, written in hours, days or weeks such as `"30d"`; `"off"` is
/// none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age(pub Option<Duration>);

const AGES: [(&str, u64); 3] = [("w", 7 * 24 * 3600), ("d", 24 * 3600), ("h", 3600)];

impl fmt::Display for Age {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0.map(|age| age.as_secs()), &AGES, out)
    }
}

impl Serialize for Age {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == OFF {
            return Ok(Self(None));
        }
        let age = read(&text, &AGES).ok_or_else(|| {
            de::Error::custom(format_args!(
                "`{text}` is not an age; write it as \"30d\" (h, d or w), or \"off\""
            ))
        })?;
        Ok(Self(Some(Duration::from_secs(age))))
    }
}

/// In the greatest unit that divides it.
fn show(value: Option<u64>, units: &[(&str, u64)], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(value) = value else {
        return out.write_str(OFF);
    };
    let unit = units.iter().find(|(_, unit)| value.is_multiple_of(*unit));
    match unit {
        Some((name, unit)) => write!(out, "{}{name}", value / unit),
        None => write!(out, "{value}"),
    }
}

/// Digits and a unit.
fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (_, unit) = units
        .iter()
        .find(|(name, _)| *name == &text[digits.len()..])?;
    // A number as parse() takes it, but without a sign.
    let number: u64 = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())??;
    number.checked_mul(*unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_have_units() {
        for (text, bytes) in [
            ("50M", Some(50 << 20)),
            ("64K", Some(64 << 10)),
            ("3G", Some(3 << 30)),
            ("123", Some(123)),
            ("", None),
            ("M", None),
            ("-1M", None),
            ("+1M", None),
            ("5 M", None),
            ("5T", None),
            ("1.5G", None),
            ("99999999999G", None),
        ] {
            assert_eq!(read(text, &SIZES), bytes, "{text:?}");
        }
        assert_eq!(read("2w", &AGES), Some(14 * 24 * 3600));
        assert_eq!(read("12h", &AGES), Some(12 * 3600));
        assert_eq!(read("12", &AGES), None);
    }

    #[test]
    fn what_is_shown_can_be_read() {
        for bytes in [0, 1, 50 << 20, (3 << 30) + 1] {
            assert_eq!(read(&Size(Some(bytes)).to_string(), &SIZES), Some(bytes));
        }
        assert_eq!(Size(Some(50 << 20)).to_string(), "50M");
        assert_eq!(Size(None).to_string(), "off");
        let month = Duration::from_secs(30 * 24 * 3600);
        assert_eq!(Age(Some(month)).to_string(), "30d");
        assert_eq!(Age(None).to_string(), "off");
    }
}
