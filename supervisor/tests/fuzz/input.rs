//! Inputs: a file of the corpus, and what chance does to it.

use bolero::{
    TypeGenerator,
    generator::bolero_generator::driver::{ByteSliceDriver, Options},
};
use sha2::{Digest, Sha256};

/// Inputs are not made longer than this: four times the longest file, and deep enough to overflow any stack.
const LONGEST: usize = 64 << 10;

/// Changes of one file: most of what is wrong needs one or two.
const MOST: usize = 6;

/// Digests of which one input is made: none needs a hundred bytes.
const ENOUGH: u8 = 8;

/// One input.
#[derive(Debug, Clone, TypeGenerator)]
pub(crate) struct Input {
    /// Which file.
    file: u8,
    #[generator(bolero::generator::produce::<Vec<Mutation>>().with().len(0..=MOST))]
    mutations: Vec<Mutation>,
}

/// One change. Places are taken modulo the length.
#[derive(Debug, Clone, TypeGenerator)]
enum Mutation {
    /// One bit is another.
    Flip { at: u16, bit: u8 },
    /// Some bytes are gone.
    Remove { at: u16, length: u8 },
    /// The rest is gone.
    Cut { at: u16 },
    /// One byte more.
    Insert { at: u16, byte: u8 },
    /// A word of the language, once or many times over.
    Token { at: u16, which: u8, times: Times },
    /// A piece again, somewhere else, once or many times over.
    Copy { from: u16, length: u8, to: u16, times: Times },
    /// A piece of another file.
    Splice { file: u8, from: u16, length: u16, to: u16 },
    /// A digit is another.
    Digit { at: u16, digit: u8 },
}

#[derive(Debug, Clone, Copy, TypeGenerator)]
enum Times {
    Once,
    Often(u8),
}

impl Times {
    fn count(self) -> usize {
        match self {
            Self::Once => 1,
            // Each magnitude is as likely as any other: thousands say little that hundreds do not, and take long.
            Self::Often(magnitude) => 1 << (magnitude % 15),
        }
    }
}

fn place(at: u16, bytes: &[u8]) -> usize {
    usize::from(at) % (bytes.len() + 1)
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8], times: usize) {
    let room = LONGEST.saturating_sub(bytes.len()) / piece.len().max(1);
    bytes.splice(at..at, piece.repeat(times.min(room)));
}

fn piece(bytes: &[u8], from: u16, length: usize) -> Vec<u8> {
    let from = place(from, bytes);
    bytes[from..(from + length).min(bytes.len())].to_vec()
}

impl Input {
    /// The same for the same number.
    pub(crate) fn number(number: u32) -> Self {
        let block =
            |part: u8| Sha256::new().chain_update(number.to_le_bytes()).chain_update([part]).finalize();
        let chance: Vec<u8> = (0..ENOUGH).flat_map(block).collect();
        Self::generate(&mut ByteSliceDriver::new(&chance, &Options::default())).unwrap()
    }

    pub(crate) fn bytes(&self, corpus: &[Vec<u8>], tokens: &[&str]) -> Vec<u8> {
        let file = |number: u8| &corpus[usize::from(number) % corpus.len()];
        let mut bytes = file(self.file).clone();
        for mutation in &self.mutations {
            mutation.apply(&mut bytes, file, tokens);
        }
        bytes
    }
}

impl Mutation {
    fn apply<'a>(&self, bytes: &mut Vec<u8>, file: impl Fn(u8) -> &'a Vec<u8>, tokens: &[&str]) {
        match *self {
            Self::Flip { at, bit } => {
                let at = place(at, bytes);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (bit % 8));
            }
            Self::Remove { at, length } => {
                let at = place(at, bytes);
                bytes.drain(at..(at + usize::from(length)).min(bytes.len()));
            }
            Self::Cut { at } => bytes.truncate(place(at, bytes)),
            Self::Insert { at, byte } => insert(bytes, place(at, bytes), &[byte], 1),
            Self::Token { at, which, times } => {
                let token = tokens[usize::from(which) % tokens.len()];
                insert(bytes, place(at, bytes), token.as_bytes(), times.count());
            }
            Self::Copy { from, length, to, times } => {
                let piece = piece(bytes, from, length.into());
                insert(bytes, place(to, bytes), &piece, times.count());
            }
            Self::Splice { file: other, from, length, to } => {
                let piece = piece(file(other), from, length.into());
                insert(bytes, place(to, bytes), &piece, 1);
            }
            Self::Digit { at, digit } => {
                let at = place(at, bytes);
                let digits = bytes.iter_mut().skip(at).filter(|byte| byte.is_ascii_digit());
                digits.take(1).for_each(|byte| *byte = b'0' + digit % 10);
            }
        }
    }
}
