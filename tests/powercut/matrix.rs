//! The volumes that every operation is tried on.

use crate::geometry::Width;
use crate::volumes::{Room, Shape};

/// FAT12, FAT16, FAT32 × sectors of 512 and 4096 bytes × clusters of 512 bytes to 32 KiB, plain; and on the smaller
/// clusters every way the volume can be awkward.
pub fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for width in [Width::Fat12, Width::Fat16, Width::Fat32] {
        for (sector, clusters) in [(512, &[512, 1024, 4096, 32_768][..]), (4096, &[4096, 32_768][..])] {
            for (i, cluster) in clusters.iter().enumerate() {
                let usual = Shape::usual(width, sector, *cluster);
                shapes.push(usual);
                if i == 0 {
                    shapes.extend(awkward(usual));
                }
            }
        }
    }
    shapes
}

fn awkward(usual: Shape) -> Vec<Shape> {
    let wanted = usual.new.div_ceil(usual.cluster);
    let mut shapes = vec![
        Shape { room: Room::SectorFull, ..usual },
        Shape { room: Room::DirectoryFull, ..usual },
        Shape { room: Room::NameSpansSectors, ..usual },
        Shape { fragmented: true, ..usual },
        Shape { fragmented: true, room: Room::DirectoryFull, ..usual },
        // Room for the new image, a record of the operation, two directories that grow, and nothing else.
        Shape { free: Some(wanted + 4), ..usual },
        Shape { free: Some(wanted + 4), fragmented: true, room: Room::DirectoryFull, ..usual },
        Shape { backup_exists: true, ..usual },
        Shape { old: None, ..usual },
    ];
    if usual.width == Width::Fat32 {
        shapes.push(Shape { room: Room::RootFull, ..usual });
        shapes.push(Shape { active: Some(1), ..usual });
        shapes.push(Shape { active: Some(1), room: Room::SectorFull, fragmented: true, ..usual });
    }
    shapes
}

/// A FAT32 that every reader takes for one: 65,525 clusters or more.
pub fn full_size() -> Shape {
    Shape { clusters: 66_000, ..Shape::usual(Width::Fat32, 512, 512) }
}
