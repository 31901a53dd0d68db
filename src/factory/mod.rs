//! The Image Factory: schematics, downloads, remote images.
//!
//! Everything that talks to a server rests on one small stack: an exchange (`http`: one request and its answer, with
//! clocks and cancelling), a transfer (`transfer`: chunks in order, over broken connections and expired URLs), and on
//! that [`fetch`] to a file, [`HttpSource`] as a block source, and [`stream`] for servers without ranges.

mod cache;
mod canonical;
mod client;
mod download;
mod http;
mod options;
mod remote;
mod schematic;
mod sequential;
mod transfer;

pub use cache::{Cache, Key};
pub use client::{Asset, Factory, PUBLIC_FACTORY};
pub use download::{Fetched, fetch};
pub use options::{Auth, Event, Options, is_url};
pub use remote::{HttpSource, SharedEvents, stream};
pub use schematic::{Bootloader, OptionValue, Overlay, Schematic, is_id};
pub use sequential::SequentialSource;
