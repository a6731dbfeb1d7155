//! The framing of worker messages: a 4-byte big-endian length, then one encoded message.
//!
//! Pure functions over bytes, so that the shim can use them with `poll(2)` and the supervisor with tokio.

use std::fmt;

use prost::Message;

/// The longest message accepted, in bytes. A launch with a large environment is a few hundred KiB.
pub const MAX_FRAME: usize = 1 << 20;

/// Bytes of the length before each message.
pub const HEADER: usize = 4;

/// Why bytes are not a frame. The connection they came from cannot be used further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameError {
    /// The announced length, in bytes, is over [`MAX_FRAME`].
    TooLong(usize),
    /// The message cannot be decoded.
    Malformed(prost::DecodeError),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(length) => {
                write!(f, "a frame of {length} bytes is over the limit of {MAX_FRAME}")
            }
            Self::Malformed(_) => f.write_str("a frame cannot be decoded"),
        }
    }
}

impl std::error::Error for FrameError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TooLong(_) => None,
            Self::Malformed(source) => Some(source),
        }
    }
}

/// Appends `message` to `out` as one frame.
pub fn encode(message: &impl Message, out: &mut Vec<u8>) {
    let length = message.encoded_len();
    out.reserve(HEADER + length);
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    message.encode_raw(out);
}

/// Takes one whole message from the front of `buffer`, or `None` until more bytes have come.
pub fn decode<M: Message + Default>(buffer: &mut Vec<u8>) -> Result<Option<M>, FrameError> {
    let Some(header) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
    let length = u32::from_be_bytes(*header) as usize;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    let Some(body) = buffer.get(HEADER..HEADER + length) else { return Ok(None) };
    let message = M::decode(body).map_err(FrameError::Malformed)?;
    buffer.drain(..HEADER + length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Kill;

    #[test]
    fn a_frame_cut_anywhere_waits_for_the_rest() {
        let mut whole = Vec::new();
        encode(&Kill { incarnation: 7 }, &mut whole);
        for cut in 0..whole.len() {
            let mut part = whole[..cut].to_vec();
            assert_eq!(decode::<Kill>(&mut part), Ok(None));
            assert_eq!(part, whole[..cut]);
        }
        encode(&Kill { incarnation: 8 }, &mut whole);
        assert_eq!(decode(&mut whole), Ok(Some(Kill { incarnation: 7 })));
        assert_eq!(decode(&mut whole), Ok(Some(Kill { incarnation: 8 })));
        assert!(whole.is_empty());
    }

    #[test]
    fn an_announced_length_over_the_limit_is_refused_before_it_is_read() {
        let mut bytes = u32::MAX.to_be_bytes().to_vec();
        assert_eq!(decode::<Kill>(&mut bytes), Err(FrameError::TooLong(u32::MAX as usize)));
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        let mut bytes = vec![0, 0, 0, 1, 0xff];
        assert!(matches!(decode::<Kill>(&mut bytes), Err(FrameError::Malformed(_))));
    }
}
