//! The one error type of the crate: what was being done to what, why it failed, what the user can do now.
//!
//! Library code never prints. It returns an [`Error`]; the command line renders it and turns its [`Kind`] into the
//! exit code that scripts rely on.

use std::fmt;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it was. Each kind has one exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reading, writing or the network failed (exit code 1).
    Io,
    /// The request itself makes no sense (exit code 2).
    Usage,
    /// The image is malformed, untrusted, or not what was asked for (exit code 3).
    Rejected,
    /// Going on would be unsafe: device busy, FAT unhealthy, no room, the board would not boot (exit code 4).
    Unsafe,
    /// An earlier operation was interrupted and `recover` has to run first (exit code 5).
    Interrupted,
    /// The user stopped the program (exit code 130).
    Cancelled,
}

impl Kind {
    /// The process exit code of this kind of failure.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Io => 1,
            Self::Usage => 2,
            Self::Rejected => 3,
            Self::Unsafe => 4,
            Self::Interrupted => 5,
            Self::Cancelled => 130,
        }
    }
}

/// A failure with its context, innermost cause first.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    message: String,
    /// What was being done, innermost first.
    context: Vec<String>,
    advice: Option<String>,
    /// Whether the ESP was changed, where that is a question at all.
    esp_changed: Option<bool>,
    source: Option<std::io::Error>,
}

/// What went wrong, what to do, and the exit code, for reports in JSON.
impl serde::Serialize for Error {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut s = serializer.serialize_struct("Error", 4)?;
        s.serialize_field("message", &self.to_string())?;
        s.serialize_field("advice", &self.advice())?;
        s.serialize_field("exit_code", &self.kind().exit_code())?;
        s.serialize_field("esp_changed", &self.esp_changed())?;
        s.end()
    }
}

impl Error {
    /// An error of `kind` that says what is wrong.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            context: Vec::new(),
            advice: None,
            esp_changed: None,
            source: None,
        }))
    }

    /// The image or its identity is not acceptable.
    pub fn rejected(message: impl Into<String>) -> Self {
        Self::new(Kind::Rejected, message)
    }

    /// It could be done, but a board might not come back.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsafe, message)
    }

    /// The request makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Reading, writing or the network failed without an operating system error behind it.
    pub fn io(message: impl Into<String>) -> Self {
        Self::new(Kind::Io, message)
    }

    /// A structure of some on-disk format breaks its rules; `offset` is in bytes from the start of what is parsed.
    pub fn malformed(structure: &str, offset: u64, why: impl fmt::Display) -> Self {
        Self::rejected(format!("{structure} at byte {offset} (0x{offset:x}): {why}"))
    }

    /// What was being done when it failed, for example `reading the partition table of disk.img`.
    #[must_use]
    pub fn while_doing(mut self, what: impl Into<String>) -> Self {
        self.0.context.push(what.into());
        self
    }

    /// What the user can do now. The advice nearest to the cause stays.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.0.advice.get_or_insert_with(|| advice.into());
        self
    }

    /// Says whether the ESP was changed, or may have been, before this happened. What was said nearest to the cause stays.
    #[must_use]
    pub fn with_esp_changed(mut self, changed: bool) -> Self {
        self.0.esp_changed.get_or_insert(changed);
        self
    }

    /// The same failure of an operation on a copy of `disk`: whatever was written went to the copy, which is thrown away, so
    /// the ESP of the disk was not changed and nothing is to be recovered.
    #[must_use]
    pub fn on_copy_of(mut self, disk: &std::path::Path) -> Self {
        if self.0.esp_changed.replace(false) == Some(true) {
            self.0.advice =
                Some(format!("nothing is left of the copy, and {} is as it was: run it again", disk.display()));
        }
        self.while_doing(format!("making a changed copy of {}", disk.display()))
    }

    /// Whether the ESP was changed, or may have been; `None` where nothing was going to change it.
    #[must_use]
    pub fn esp_changed(&self) -> Option<bool> {
        self.0.esp_changed
    }

    /// The same error as another kind, for example a malformed ESP that is unsafe to write rather than a bad image.
    #[must_use]
    pub fn as_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// What sort of failure it was.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The cause alone, without context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What the user can do now, if anything is known to help.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.0.advice.as_deref()
    }

    /// The operating system's error behind it, if there is one.
    #[must_use]
    pub fn io_error(&self) -> Option<&std::io::Error> {
        self.0.source.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for what in self.0.context.iter().rev() {
            write!(f, "{what}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|e| e as _)
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        // An adapter that had to pass one of our own errors through `std::io` hands it back unharmed.
        match e.downcast::<Self>() {
            Ok(ours) => ours,
            Err(e) => {
                let mut error = Self::io(e.to_string());
                error.0.source = Some(e);
                error
            }
        }
    }
}

impl From<Error> for std::io::Error {
    fn from(e: Error) -> Self {
        Self::other(e)
    }
}

/// Adds context to a failed result.
pub trait Context<T> {
    /// Says what was being done; evaluated only on failure.
    ///
    /// # Errors
    /// The same failure, with the context added.
    fn while_doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn while_doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.into().while_doing(what()))
    }
}
