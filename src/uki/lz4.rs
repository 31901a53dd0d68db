//! lz4's legacy format, as the kernel reads it: a magic number, then blocks of a length word and at most 8 MiB of
//! content each. There is no end mark: the input ends, or a length of 0 follows, which is padding.
//!
//! Source: `lib/decompress_unlz4.c` of Linux; `doc/lz4_Frame_format.md` of lz4, "Legacy frame". The crate's frame
//! reader knows the newer format only, which the kernel does not, so the blocks are walked here and unpacked by the
//! crate.

use super::tally::Tally;
use crate::Error;
use std::io::{self, BufRead, Read};

const MAGIC: u32 = 0x184C_2102;
/// What a block unpacks to, at most.
const BLOCK: usize = 8 << 20;
/// What it may be packed in: incompressible content grows a little (`LZ4_compressBound`).
const MAX_PACKED: usize = BLOCK + BLOCK / 255 + 16;

/// Unpacks from where `input` stands.
pub(super) struct Lz4Legacy<'a, R> {
    input: &'a mut Tally<R>,
    packed: Vec<u8>,
    block: Vec<u8>,
    at: usize,
    /// The magic number has come.
    begun: bool,
    /// A block has come.
    filled: bool,
}

impl<'a, R: BufRead> Lz4Legacy<'a, R> {
    pub(super) fn new(input: &'a mut Tally<R>) -> Self {
        Self { input, packed: Vec::new(), block: Vec::new(), at: 0, begun: false, filled: false }
    }

    pub(super) fn input(&self) -> &Tally<R> {
        self.input
    }

    pub(super) fn into_input(self) -> &'a mut Tally<R> {
        self.input
    }

    /// The next block; false at the end.
    fn next(&mut self) -> io::Result<bool> {
        loop {
            let Some(word) = self.input.peek(4)?.first_chunk().map(|word| u32::from_le_bytes(*word)) else {
                return self.end();
            };
            if word == 0 {
                return self.end();
            }
            self.input.consume(4);
            if word == MAGIC {
                self.begun = true;
                continue;
            }
            if !self.begun {
                return Err(bad("not a legacy lz4 stream, the only kind that the kernel accepts (lz4 -l)".into()));
            }
            let bytes = usize::try_from(word).unwrap_or(usize::MAX);
            if bytes > MAX_PACKED {
                return Err(bad(format!(
                    "a block of {bytes} bytes: after lz4 blocks the kernel reads whatever is not zero as one more"
                )));
            }
            self.packed.resize(bytes, 0);
            self.input.read_exact(&mut self.packed)?;
            self.block.resize(BLOCK, 0);
            let n = lz4_flex::block::decompress_into(&self.packed, &mut self.block).map_err(|e| bad(e.to_string()))?;
            self.block.truncate(n);
            self.at = 0;
            self.filled = true;
            if n > 0 {
                return Ok(true);
            }
        }
    }

    fn end(&self) -> io::Result<bool> {
        if self.filled { Ok(false) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl<R: BufRead> Read for Lz4Legacy<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() && !self.next()? {
            return Ok(0);
        }
        let rest = &self.block[self.at..];
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        self.at += n;
        Ok(n)
    }
}

fn bad(why: String) -> io::Error {
    Error::rejected(why).into()
}
