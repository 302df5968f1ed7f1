//! Who did it, and how surely that is known.
//!
//! Owns how what was found out in several ways is put together. Must not find anything out.

use super::{Image, Process, ProgramFacts};

/// How the writer was found out (`ssh_keywatch.attribution.method`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The kernel held the writer while it was identified.
    Held,
    /// Identified earlier in its life, while held at exec.
    Recorded,
    /// Read from /proc after the fact and verified by pidfd.
    Live,
    /// Taken from the maker of the directory.
    Inferred,
    /// Ids without an executable: it was a zombie, or /proc said no more.
    Partial,
    /// Nothing is known.
    None,
}

impl Method {
    /// The value of `ssh_keywatch.attribution.method`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Recorded => "recorded",
            Self::Live => "live",
            Self::Inferred => "inferred",
            Self::Partial => "partial",
            Self::None => "none",
        }
    }
}

/// Who did it, and how surely that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribution {
    /// How it was found out.
    pub method: Method,
    /// True only where no other program is possible.
    pub certain: bool,
    /// The writer; its image is absent where more than one is possible.
    pub process: Option<Process>,
    /// Its ancestors, nearest first, up to init, as far as they are known.
    pub ancestors: Vec<Process>,
    /// The possible images where there is more than one.
    pub candidates: Vec<Image>,
    /// What else is known of the program.
    pub program: ProgramFacts,
}

impl Attribution {
    /// Nothing is known but, perhaps, a pid.
    #[must_use]
    pub fn none() -> Self {
        Self {
            method: Method::None,
            certain: false,
            process: None,
            ancestors: Vec::new(),
            candidates: Vec::new(),
            program: ProgramFacts::default(),
        }
    }

    /// How much memory it takes (bytes), about, of what is as long as users make it.
    #[must_use]
    pub fn weight(&self) -> usize {
        let processes = self.process.iter().chain(&self.ancestors);
        processes.map(Process::weight).sum()
    }

    /// Of a file that nobody saw being made, while `maker` made its directory,
    /// this is who wrote to it: most probably its maker, but not for certain.
    #[must_use]
    pub fn having_written(mut self, maker: &Self) -> Self {
        let mut images: Vec<Image> = self.images().cloned().collect();
        let Some(process) = self.process.as_mut().filter(|_| !images.is_empty()) else {
            return maker.clone();
        };
        let maker_process = maker.process.as_ref();
        let is_maker = maker_process.is_some_and(|maker| is_same_process(maker, process));
        // The same process ran one program when it made the directory, and
        // perhaps another when it wrote: either can have made the file.
        if is_maker {
            for image in maker.images() {
                if !images.iter().any(|other| other.is_same_file(image)) {
                    images.push(image.clone());
                }
            }
            if images.len() > 1 {
                process.image = None;
                self.candidates = images;
            }
        }
        self.method = Method::Inferred;
        self.certain = false;
        self
    }

    /// Together with a `record` that is certain: what was read during a hold that
    /// could not be made sure holds if it is of the same process and exec: the same
    /// file may be run again, with other arguments, and by another that has made it
    /// another user's.
    #[must_use]
    pub fn confirmed_by(mut self, record: Self) -> Self {
        let (Some(process), Some(known)) = (&mut self.process, &record.process) else {
            return record;
        };
        let mut images = process.image.iter().chain(&self.candidates);
        let known_image = known.image.as_ref();
        let image = images.find(|image| same_file(Some(image), known_image));
        let is_same_exec =
            is_same_process(process, known) && self.program.since == record.program.since;
        let (Some(image), true) = (image.cloned(), is_same_exec) else {
            return record;
        };
        process.image = Some(image);
        self.candidates.clear();
        self.method = record.method;
        self.certain = true;
        self
    }

    /// Together with what the `record` of a name says, if the program that was held
    /// opened it, and another of the same process may have made it.
    #[must_use]
    pub fn doubted_by(mut self, record: &Self) -> Self {
        let mut images: Vec<Image> = Vec::new();
        for image in self.images().chain(record.images()) {
            if !images.iter().any(|other| other.is_same_file(image)) {
                images.push(image.clone());
            }
        }
        if let Some(process) = &mut self.process {
            process.image = None;
        }
        self.candidates = images;
        self.certain = false;
        self
    }

    /// The programs that are possible.
    fn images(&self) -> impl Iterator<Item = &Image> {
        let image = self.process.iter().filter_map(|it| it.image.as_ref());
        image.chain(&self.candidates)
    }
}

/// Whether both can be the same process.
fn is_same_process(one: &Process, other: &Process) -> bool {
    // The table and `/proc` round differently.
    let starts = one.start_ticks.zip(other.start_ticks);
    one.pid == other.pid && starts.is_none_or(|(one, other)| one.abs_diff(other) < 5)
}

pub(super) fn same_file(one: Option<&Image>, other: Option<&Image>) -> bool {
    one.zip(other)
        .is_some_and(|(one, other)| one.is_same_file(other))
}

impl Image {
    /// Whether both are known to be the same file.
    fn is_same_file(&self, other: &Self) -> bool {
        self.inode.is_some() && (self.device, self.inode) == (other.device, other.inode)
    }
}
