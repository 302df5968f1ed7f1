//! Which processors there are, and whether one may have gone and come again meanwhile.
//!
//! Must not know what is done on them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Processors that are online, as a list such as `0-3,8` (`cpuset(7)`, "List format").
const ONLINE: &str = "/sys/devices/system/cpu/online";
/// How many events of devices the kernel has told of, among them the coming and going of
/// processors (`KOBJ_ONLINE`, drivers/base/core.c).
const UEVENTS: &str = "/sys/kernel/uevent_seqnum";

/// The processors.
#[derive(Debug)]
pub(super) struct Processors {
    online: File,
    list: String,
    uevents: Option<(File, String)>,
}

/// What may have become of them since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// They are the same.
    None,
    /// They are the same, but one may have been away.
    Perhaps,
    /// Others are online.
    Others,
}

impl Processors {
    /// Those that are online.
    ///
    /// # Errors
    /// There is no sysfs.
    pub(super) fn open() -> io::Result<Self> {
        // First, so that what happens meanwhile shows at the next look.
        let uevents = File::open(UEVENTS).and_then(|file| {
            let count = read(&file)?;
            Ok((file, count))
        });
        let online = File::open(ONLINE)?;
        Ok(Self {
            list: read(&online)?,
            online,
            uevents: uevents.ok(),
        })
    }

    /// Their numbers.
    pub(super) fn numbers(&self) -> Vec<i32> {
        parse(&self.list)
    }

    /// Looks again.
    pub(super) fn look(&mut self) -> News {
        let mut news = News::None;
        if let Some((file, count)) = &mut self.uevents
            && let Ok(now) = read(file)
            && now != *count
        {
            *count = now;
            news = News::Perhaps;
        }
        if let Ok(now) = read(&self.online)
            && now != self.list
        {
            self.list = now;
            news = News::Others;
        }
        news
    }
}

fn read(file: &File) -> io::Result<String> {
    let mut buffer = [0u8; 1024];
    let length = file.read_at(&mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn parse(list: &str) -> Vec<i32> {
    let mut all = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse()) {
            all.extend(first..=last);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_list_of_processors_is_read() {
        assert_eq!(parse("0\n"), [0]);
        assert_eq!(parse("0-2,5,7-8\n"), [0, 1, 2, 5, 7, 8]);
        assert_eq!(parse(""), [] as [i32; 0]);
        assert!(!Processors::open().unwrap().numbers().is_empty());
    }

    #[test]
    fn a_processor_that_has_come_again_may_have_been_away() {
        let file = |text: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file
        };
        let write = |file: &tempfile::NamedTempFile, text: &str| {
            std::fs::write(file.path(), text).unwrap();
        };
        let (online, uevents) = (file("0-1\n"), file("70\n"));
        let mut processors = Processors {
            online: online.reopen().unwrap(),
            list: "0-1\n".into(),
            uevents: Some((uevents.reopen().unwrap(), "70\n".into())),
        };
        assert_eq!(processors.look(), News::None);
        write(&uevents, "71\n");
        assert_eq!(processors.look(), News::Perhaps);
        assert_eq!(processors.look(), News::None);
        write(&online, "0\n");
        assert_eq!(processors.look(), News::Others);
        assert_eq!(processors.numbers(), [0]);
        assert_eq!(processors.look(), News::None);
    }
}
