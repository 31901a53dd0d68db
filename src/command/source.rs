//! Where the image of a swap comes from.

use super::ImageRequest;
#[cfg(feature = "net")]
use super::from_factory::FactoryImage;
use crate::doctor::quoted;
use crate::factory::is_url;
#[cfg(feature = "net")]
use crate::factory::show_url;

/// Where the image comes from.
#[derive(Debug, Clone)]
pub enum ImageSource {
    /// It was named.
    Named(ImageRequest),
    /// The factory is asked for it.
    #[cfg(feature = "net")]
    Factory(FactoryImage),
}

impl ImageSource {
    /// What adds extensions to the schematic of the image and prints it; `None` where no command reaches that
    /// schematic.
    /// `schematic`: the one that the factory is asked for.
    pub(super) fn edit_command(&self, schematic: Option<&str>) -> Option<String> {
        #[cfg(not(feature = "net"))]
        let _ = schematic;
        let from = match self {
            // Of a URL the credentials are not shown, and of several images in a file none is the only one.
            // Nor does a pipe hold what came by.
            Self::Named(request) if is_url(&request.image) || request.uki.is_some() || request.is_stream() => {
                return None;
            }
            Self::Named(request) => format!("--from {}", quoted(&request.image)),
            #[cfg(feature = "net")]
            Self::Factory(from) => match schematic? {
                id if crate::factory::is_id(id) => {
                    let usual = from.url == crate::factory::PUBLIC_FACTORY;
                    let factory =
                        if usual { String::new() } else { format!(" --factory {}", quoted(&show_url(&from.url))) };
                    return Some(format!("bootsurgeon schematic show {id}{factory} | bootsurgeon schematic edit -"));
                }
                file => quoted(file),
            },
        };
        Some(format!("bootsurgeon schematic edit {from}"))
    }

    /// Host and port of the factory that was asked for the image.
    pub(super) fn factory_host(&self) -> Option<String> {
        let url = match self {
            #[cfg(feature = "net")]
            Self::Factory(from) => &from.url,
            // `https://HOST/image/SCHEMATIC/VERSION/FILE` is how factories name their images.
            Self::Named(request) if request.image.contains("/image/") => &request.image,
            Self::Named(_) => return None,
        };
        // Credentials stand before the host.
        let authority = url.split_once("://")?.1.split('/').next()?;
        authority.rsplit('@').next().map(str::to_owned)
    }
}
