//! The Image Factory: schematics, downloads, remote images.
//!
//! Everything that talks to a server rests on one small stack: an exchange (`http`: one request and its answer, with
//! clocks and cancelling), a transfer (`transfer`: chunks in order, over broken connections and expired URLs), and on
//! that [`fetch`] to a file, [`HttpSource`] as a block source, and [`stream`] for servers without ranges.
//! All of that is behind the feature `net`; schematics and their IDs are not.

#[cfg(feature = "net")]
mod auth;
#[cfg(feature = "net")]
mod cache;
mod canonical;
#[cfg(feature = "net")]
mod client;
#[cfg(feature = "net")]
mod download;
#[cfg(feature = "net")]
mod forward;
#[cfg(feature = "net")]
mod http;
mod options;
#[cfg(feature = "net")]
mod page;
#[cfg(feature = "net")]
mod remote;
mod schematic;
#[cfg(feature = "net")]
mod sequential;
#[cfg(feature = "net")]
mod transfer;
mod url;

#[cfg(feature = "net")]
pub use auth::Auth;
#[cfg(feature = "net")]
pub use cache::{Cache, Key};
#[cfg(feature = "cli")]
pub(crate) use canonical::to_yaml;
#[cfg(feature = "net")]
pub use client::{Asset, Factory, PUBLIC_FACTORY};
#[cfg(feature = "net")]
pub use download::{Destination, Expected, Fetched, fetch};
pub use options::{Options, TransferEvent};
#[cfg(feature = "net")]
pub(crate) use page::{PAGE_ADVICE, is_page};
#[cfg(feature = "net")]
pub use remote::{HttpSource, SharedEvents, stream};
pub use schematic::{Bootloader, OptionValue, Overlay, Schematic, is_id};
#[cfg(feature = "net")]
pub use sequential::SequentialSource;
pub use url::{is_url, show_url, show_urls_in};
