//! Where reading begins.

use super::{
    Follow, LogError, Request,
    cursor::Place,
    segment::{Directory, Segment},
};

/// Bytes looked at at once on the way back from the end.
const BLOCK: usize = 64 << 10;

/// Where to begin, and whether that is in the middle of a line nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) place: Place,
    pub(super) first: First,
}

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// Wanted.
    Wanted,
    /// The rest of a line that is not wanted.
    Rest,
}

/// The place after the last byte there is.
pub(super) fn end(directory: &Directory, numbers: &[u64]) -> Result<Place, LogError> {
    for &file in numbers.iter().rev() {
        if let Some(segment) = directory.open(file)? {
            return Ok(Place { file, offset: segment.size()? });
        }
    }
    Ok(Place::default())
}

/// Where what `request` asks for begins.
pub(super) fn find(directory: &Directory, numbers: &[u64], request: &Request) -> Result<Start, LogError> {
    if let Some(cursor) = request.after {
        let wanted = Start { place: cursor.place, first: First::Wanted };
        return check(directory, numbers, cursor.place).map(|()| wanted);
    }
    let oldest = Place { file: numbers.first().copied().unwrap_or(0), offset: 0 };
    let place = match request.tail {
        Some(lines) => tail(directory, numbers, lines, request.follow)?,
        None => oldest,
    };
    let tail = Start { place, first: First::Wanted };
    let Some(since_ms) = request.since_ms else { return Ok(tail) };
    let since = since(directory, numbers, since_ms)?;
    Ok(if since.place > tail.place { since } else { tail })
}

/// A cursor names a place that is there, or was.
fn check(directory: &Directory, numbers: &[u64], place: Place) -> Result<(), LogError> {
    let newest = numbers.last().copied().ok_or(LogError::InvalidCursor)?;
    let size = directory.open(place.file)?.map(|segment| segment.size()).transpose()?;
    match size {
        Some(size) if place.offset > size => Err(LogError::InvalidCursor),
        None if place.file >= newest => Err(LogError::InvalidCursor),
        Some(_) | None => Ok(()),
    }
}

/// Where the first line since `since_ms` begins.
fn since(directory: &Directory, numbers: &[u64], since_ms: u64) -> Result<Start, LogError> {
    for &file in numbers {
        let Some(segment) = directory.open(file)? else { continue };
        if let Some(offset) = segment.index.since(since_ms) {
            // A damaged index may name any place.
            let offset = offset.min(segment.size()?);
            let first = if segment.begins_line(offset)? { First::Wanted } else { First::Rest };
            return Ok(Start { place: Place { file, offset }, first });
        }
    }
    Ok(Start { place: end(directory, numbers)?, first: First::Wanted })
}

/// Where the last `lines` lines begin. A line also ends where its file does.
fn tail(directory: &Directory, numbers: &[u64], lines: u64, follow: Follow) -> Result<Place, LogError> {
    // Ends of lines still to be found on the way back; `None` until the last line has been seen.
    let mut missing = None;
    let mut place = Place::default();
    for &file in numbers.iter().rev() {
        let Some(segment) = directory.open(file)? else { continue };
        let size = segment.size()?;
        let terminated = segment.begins_line(size)?;
        missing = match missing {
            None if size == 0 => None,
            // An unfinished line counts as one, but only where it will be given out.
            None if terminated || follow == Follow::Yes => Some(lines.saturating_add(1)),
            None => Some(lines),
            Some(1) if !terminated => return Ok(place),
            Some(missing) if !terminated => Some(missing - 1),
            Some(missing) => Some(missing),
        };
        place = Place { file, offset: if missing.is_none() { size } else { 0 } };
        let Some(ends) = missing else { continue };
        match back(&segment, size, ends)? {
            Found::At(offset) => return Ok(Place { file, offset }),
            Found::Fewer(found) => missing = Some(ends - found),
        }
    }
    Ok(place)
}

/// How far back the wanted ends of lines reach.
enum Found {
    /// To here.
    At(u64),
    /// Beyond the file's beginning; it has only this many.
    Fewer(u64),
}

/// The place after the `ends`th end of line, counted back from `size`.
fn back(segment: &Segment, size: u64, ends: u64) -> Result<Found, LogError> {
    let mut found = 0;
    let mut block = [0; BLOCK];
    let mut from = size;
    if ends == 0 {
        return Ok(Found::At(size));
    }
    while from > 0 {
        let length = from.min(BLOCK as u64);
        from -= length;
        let wanted = usize::try_from(length).unwrap_or(BLOCK);
        let read = segment.read_at(block.get_mut(..wanted).unwrap_or_default(), from)?;
        let bytes = block.get(..read).unwrap_or_default();
        for (at, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            found += 1;
            if found == ends {
                return Ok(Found::At(from + at as u64 + 1));
            }
        }
    }
    Ok(Found::Fewer(found))
}
