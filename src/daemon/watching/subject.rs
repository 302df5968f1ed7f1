//! An attribution as the assembler of events sees it.

use crate::event::assemble::Subject;
use crate::resolve::{Attribution, Method};

impl Subject for Attribution {
    /// Pid and start of the process; device and inode of what it runs.
    type Actor = [Option<u64>; 4];

    fn unknown() -> Self {
        Self::none()
    }

    fn actor(&self) -> Self::Actor {
        let Some(process) = &self.process else {
            return [None; 4];
        };
        let image = process.image.as_ref();
        [
            u64::try_from(process.pid).ok(),
            process.start_ticks,
            image.and_then(|image| image.device),
            image.and_then(|image| image.inode),
        ]
    }

    fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(|process| process.pid)
    }

    fn is_held(&self) -> bool {
        self.method == Method::Held
    }

    fn is_certain(&self) -> bool {
        self.certain
    }

    fn is_weak(&self) -> bool {
        matches!(
            self.method,
            Method::Inferred | Method::Partial | Method::None
        )
    }

    fn weight(&self) -> usize {
        self.weight()
    }

    fn confirmed(self, record: Self) -> Self {
        self.confirmed_by(record)
    }

    fn doubted(self, record: Self) -> Self {
        self.doubted_by(&record)
    }

    fn unsure(self) -> Self {
        Self {
            certain: false,
            ..self
        }
    }

    fn inferred(self, maker: &Self) -> Self {
        self.having_written(maker)
    }

    fn is_key_generator(&self) -> bool {
        let image = self
            .process
            .as_ref()
            .and_then(|process| process.image.as_ref());
        image.is_some_and(|image| {
            image
                .path
                .file_name()
                .is_some_and(|name| name == "ssh-keygen")
        })
    }
}
