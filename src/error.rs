//! The one error type of the crate: what was being done to what, why it failed, what the user can do now.
//!
//! Library code never prints. It returns an [`Error`]; the command line renders it and turns its [`Kind`] into the
//! exit code that scripts rely on.

use std::fmt;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What exactly failed: stable, and written in kebab-case as `code` in the JSON of every error. `docs/errors.md` lists
/// them.
///
/// Code that has to tell failures apart compares codes; the exit code ([`Kind`]) is for the caller of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// A file or another resource of the operating system could not be used.
    Io,
    /// The medium failed to read, write or flush, or changed under the program.
    Medium,
    /// A server could not be reached, or did not give what was requested.
    Network,
    /// The output could not be written.
    Output,
    /// A program of the user's that is needed is not there.
    NoTool,
    /// A cluster does not answer, refuses, or a pod in it does not do what it is there for.
    Cluster,
    /// A node did not come back after its restart, in the time it was given.
    NodeLost,
    /// A node does not show what the image on its disk holds, or its services do not run.
    NodeDiffers,
    /// A mistake in this program.
    Bug,
    /// The request makes no sense.
    Usage,
    /// A structure breaks the rules of its format.
    Malformed,
    /// A signature is missing, broken, or made by nobody who is trusted.
    Untrusted,
    /// A sound image, and not the one that was requested.
    WrongImage,
    /// The configuration of the nodes does not fit the image.
    ConfigMisfit,
    /// A format, or a part of one, that exists and is not supported here.
    Unsupported,
    /// Refused as unsafe for a reason that has no code of its own.
    Unsafe,
    /// Too little room on the volume or in a directory.
    NoRoom,
    /// Mounted, locked, or held by somebody else.
    Busy,
    /// The medium may not be written.
    ReadOnly,
    /// The file system is damaged.
    Unhealthy,
    /// The partition table contradicts itself, or the volume is part of something larger.
    Layout,
    /// The members of a mirror do not hold the same.
    MembersDiffer,
    /// The board would not start the image that it is meant to start.
    WouldNotBoot,
    /// The new image lacks system extensions that the installed one has.
    ExtensionLoss,
    /// Files that have to fit each other would change one after the other.
    Mixture,
    /// Nobody confirmed.
    Unconfirmed,
    /// A file exists, and replacing it was not asked for.
    Exists,
    /// Something that is no record of this program has the record's name.
    ForeignRecord,
    /// An earlier operation was interrupted.
    Interrupted,
    /// Another version of this program was interrupted, and only that version can finish.
    RecordVersion,
    /// The user stopped the program.
    Cancelled,
}

impl Code {
    /// Every code, in the order of the documentation.
    pub const ALL: &[Self] = &[
        Self::Io,
        Self::Medium,
        Self::Network,
        Self::Output,
        Self::NoTool,
        Self::Cluster,
        Self::NodeLost,
        Self::NodeDiffers,
        Self::Bug,
        Self::Usage,
        Self::Malformed,
        Self::Untrusted,
        Self::WrongImage,
        Self::ConfigMisfit,
        Self::Unsupported,
        Self::Unsafe,
        Self::NoRoom,
        Self::Busy,
        Self::ReadOnly,
        Self::Unhealthy,
        Self::Layout,
        Self::MembersDiffer,
        Self::WouldNotBoot,
        Self::ExtensionLoss,
        Self::Mixture,
        Self::Unconfirmed,
        Self::Exists,
        Self::ForeignRecord,
        Self::Interrupted,
        Self::RecordVersion,
        Self::Cancelled,
    ];

    /// The name in JSON: `no-room`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Medium => "medium",
            Self::Network => "network",
            Self::Output => "output",
            Self::NoTool => "no-tool",
            Self::Cluster => "cluster",
            Self::NodeLost => "node-lost",
            Self::NodeDiffers => "node-differs",
            Self::Bug => "bug",
            Self::Usage => "usage",
            Self::Malformed => "malformed",
            Self::Untrusted => "untrusted",
            Self::WrongImage => "wrong-image",
            Self::ConfigMisfit => "config-misfit",
            Self::Unsupported => "unsupported",
            Self::Unsafe => "unsafe",
            Self::NoRoom => "no-room",
            Self::Busy => "busy",
            Self::ReadOnly => "read-only",
            Self::Unhealthy => "unhealthy",
            Self::Layout => "layout",
            Self::MembersDiffer => "members-differ",
            Self::WouldNotBoot => "would-not-boot",
            Self::ExtensionLoss => "extension-loss",
            Self::Mixture => "mixture",
            Self::Unconfirmed => "unconfirmed",
            Self::Exists => "exists",
            Self::ForeignRecord => "foreign-record",
            Self::Interrupted => "interrupted",
            Self::RecordVersion => "record-version",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether what was read is to blame and not the medium: it breaks the rules of its format, or needs a part of it
    /// that is not supported. Readers that go on without a damaged part ask for this; a medium that fails says nothing
    /// about it.
    #[must_use]
    pub const fn is_bad_content(self) -> bool {
        matches!(self, Self::Malformed | Self::Unsupported)
    }

    /// Whether something outside of the program failed: the operating system, a medium, a server, the output. What was
    /// written last is not known then.
    #[must_use]
    pub const fn is_failed_access(self) -> bool {
        matches!(self, Self::Io | Self::Medium | Self::Network | Self::Output)
    }

    /// The class of the failure, which decides the exit code.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Io
            | Self::Medium
            | Self::Network
            | Self::Output
            | Self::NoTool
            | Self::Cluster
            | Self::NodeLost
            | Self::NodeDiffers
            | Self::Bug => Kind::Io,
            Self::Usage => Kind::Usage,
            Self::Malformed | Self::Untrusted | Self::WrongImage | Self::ConfigMisfit | Self::Unsupported => {
                Kind::Rejected
            }
            Self::Unsafe
            | Self::NoRoom
            | Self::Busy
            | Self::ReadOnly
            | Self::Unhealthy
            | Self::Layout
            | Self::MembersDiffer
            | Self::WouldNotBoot
            | Self::ExtensionLoss
            | Self::Mixture
            | Self::Unconfirmed
            | Self::Exists
            | Self::ForeignRecord => Kind::Unsafe,
            Self::Interrupted | Self::RecordVersion => Kind::Interrupted,
            Self::Cancelled => Kind::Cancelled,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The general code of a class.
impl From<Kind> for Code {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Io => Self::Io,
            Kind::Usage => Self::Usage,
            Kind::Rejected => Self::Malformed,
            Kind::Unsafe => Self::Unsafe,
            Kind::Interrupted => Self::Interrupted,
            Kind::Cancelled => Self::Cancelled,
        }
    }
}

/// What sort of failure it was. Each kind has one exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Reading, writing or the network failed (exit code 1).
    Io,
    /// The request itself makes no sense (exit code 2).
    Usage,
    /// The image is malformed, untrusted, or not what was requested (exit code 3).
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
    code: Code,
    message: String,
    /// What was being done, innermost first.
    context: Vec<String>,
    advice: Option<String>,
    /// Whether the ESP was changed, where that is a question at all.
    esp_changed: Option<bool>,
    source: Option<std::io::Error>,
}

/// What went wrong, what to do, the code and the exit code, for reports in JSON.
impl serde::Serialize for Error {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut s = serializer.serialize_struct("Error", 5)?;
        s.serialize_field("code", &self.code())?;
        s.serialize_field("message", &self.to_string())?;
        s.serialize_field("advice", &self.advice())?;
        s.serialize_field("exit_code", &self.kind().exit_code())?;
        s.serialize_field("esp_changed", &self.esp_changed())?;
        s.end()
    }
}

impl Error {
    /// An error with this code that says what is wrong.
    pub fn new(code: impl Into<Code>, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code: code.into(),
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

    /// What the user can do now, in place of what was said before.
    #[must_use]
    pub fn instead_advise(mut self, advice: impl Into<String>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// Says whether the ESP was changed, or may have been, before this happened. What was said nearest to the cause
    /// stays.
    #[must_use]
    pub fn with_esp_changed(mut self, changed: bool) -> Self {
        self.0.esp_changed.get_or_insert(changed);
        self
    }

    /// The same failure of an operation on a copy of `disk`: whatever was written went to the copy, which is thrown
    /// away, so the ESP of the disk was not changed and nothing is to be recovered.
    #[must_use]
    pub fn on_copy_of(mut self, disk: &std::path::Path) -> Self {
        if self.0.esp_changed.replace(false) == Some(true) {
            self.0.advice =
                Some(format!("nothing is left of the copy, and {} is unchanged: run it again", disk.display()));
        }
        self.while_doing(format!("making a changed copy of {}", disk.display()))
    }

    /// Whether the ESP was changed, or may have been; `None` where nothing was going to change it.
    #[must_use]
    pub fn esp_changed(&self) -> Option<bool> {
        self.0.esp_changed
    }

    /// The same error under another code, for example a malformed ESP that is unsafe to write rather than a bad image.
    #[must_use]
    pub fn with_code(mut self, code: Code) -> Self {
        self.0.code = code;
        self
    }

    /// What exactly failed.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The class of the failure, which decides the exit code.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.code.kind()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_in_the_documentation_with_its_exit_code() {
        let table = include_str!("../docs/errors.md");
        for code in Code::ALL {
            let row = format!("| `{code}` | {} |", code.kind().exit_code());
            assert!(table.contains(&row), "docs/errors.md lacks {row}");
        }
        assert_eq!(table.lines().filter(|l| l.starts_with("| `")).count(), Code::ALL.len());
    }
}
