//! What a machine boots from this disk, partition or disk image, and why: `cargo run --example what_boots -- DISK`.
//!
//! Reads only. Without EFI variables the answer is that of a machine whose NVRAM was reset.

use bootsurgeon::boot::Variables;
use bootsurgeon::disk::Target;
use bootsurgeon::esp::Inventory;
use std::path::Path;

fn main() -> bootsurgeon::Result<()> {
    let Some(disk) = std::env::args_os().nth(1) else {
        return Err(bootsurgeon::Error::usage("which disk or disk image?"));
    };
    let target = Target::find(Path::new(&disk), None)?;
    let esp = Inventory::read(target.open()?, Variables::default())?;
    let prediction = &esp.predictions.next;
    for (i, entry) in prediction.menu.iter().enumerate() {
        let mark = if prediction.selected == Some(i) { "->" } else { "  " };
        println!("{mark} {}", entry.id);
    }
    match prediction.selected_file() {
        Some(file) => println!("boots EFI/Linux/{file}: {}", prediction.reason),
        None => println!("boots nothing of EFI/Linux: {}", prediction.reason),
    }
    Ok(())
}
