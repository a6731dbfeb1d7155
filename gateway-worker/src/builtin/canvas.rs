//! The canvas: the files under `<state dir>/canvas`, and nothing else on this machine.
//!
//! Every step of a path is opened relative to the step before and never through a symbolic link, so there is
//! no moment between a check and its use, and no link, however placed, leads outside. OpenClaw refuses links
//! too.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{HeaderValue, LOCATION};
use hyper::{Request, Response, StatusCode};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use tokio::fs::File;
use tokio::io::{AsyncRead, ReadBuf};

use crate::http::is_read;
use crate::reply::{self, Body};

/// Read and sent at a time: large enough for speed, and all the memory that one download takes.
const CHUNK: usize = 64 * 1024;
/// Where OpenClaw serves the canvas on its own port; links made for it work here too.
const PREFIX: &str = "/__openclaw__/canvas";
const INDEX: &str = "index.html";
const FIRST_PAGE: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
    <title>Canvas</title>\n\
    <h1>Canvas</h1>\n<p>Files in this directory are served here.</p>\n</html>\n";

/// Makes the directory, and a first page where there is none.
pub(crate) fn prepare(state_dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
    let state = open_at(CWD, state_dir.as_os_str(), Step::Trusted)?;
    match rustix::fs::mkdirat(&state, "canvas", Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let canvas = open_at(&state, "canvas", Step::Directory)?;
    let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&canvas, INDEX, new, Mode::RUSR | Mode::WUSR) {
        Ok(page) => io::Write::write_all(&mut std::fs::File::from(page), FIRST_PAGE.as_bytes()),
        Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Answers at base+4.
pub(crate) async fn answer(state_dir: &Path, request: &Request<Incoming>) -> Response<Body> {
    if !is_read(request.method()) {
        return reply::method_not_allowed();
    }
    let path = request.uri().path();
    let below =
        path.strip_prefix(PREFIX).filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path);
    let Some(steps) = steps(below) else { return not_found() };
    let state_dir: PathBuf = state_dir.to_owned();
    let slash = below.is_empty() || below.ends_with('/');
    // The disk may be slow or hang; the loop that answers the health endpoints must not wait for it.
    let found = tokio::task::spawn_blocking(move || find(&state_dir, &steps, slash)).await;
    match found {
        Ok(Ok(Found::File { file, length, content_type })) => {
            let body = FileBody { file: File::from_std(file), left: length, spare: Vec::new() };
            reply::reply(StatusCode::OK, content_type, Body::File(body))
        }
        Ok(Ok(Found::Directory)) => see_directory(path),
        Ok(Err(_)) | Err(_) => not_found(),
    }
}

fn not_found() -> Response<Body> {
    reply::text(StatusCode::NOT_FOUND, "Not Found")
}

/// Sends the client to the directory's own name, so that relative links in its index work.
fn see_directory(path: &str) -> Response<Body> {
    let mut reply = reply::text(StatusCode::MOVED_PERMANENTLY, "Moved Permanently");
    // One leading slash: two would name another host.
    match HeaderValue::try_from(format!("/{}/", path.trim_start_matches('/'))) {
        Ok(location) => {
            reply.headers_mut().insert(LOCATION, location);
            reply
        }
        Err(_) => not_found(),
    }
}

/// The parts of a path, decoded, or `None` where one of them is no name of a file below.
fn steps(path: &str) -> Option<Vec<String>> {
    path.split('/')
        .filter(|part| !part.is_empty())
        .map(|part| decoded(part).filter(|name| is_name(name)))
        .collect()
}

fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            let digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(digits)?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// What a path leads to.
enum Found {
    File { file: std::fs::File, length: u64, content_type: &'static str },
    Directory,
}

/// How one step of a path is opened.
#[derive(Clone, Copy)]
enum Step {
    /// The state directory, which the operator names and may link.
    Trusted,
    /// A directory on the way.
    Directory,
    /// The file at the end. Without waiting: opening a pipe would wait for a writer.
    File,
}

fn find(state_dir: &Path, steps: &[String], slash: bool) -> io::Result<Found> {
    let state = open_at(CWD, state_dir.as_os_str(), Step::Trusted)?;
    let mut directory = open_at(&state, "canvas", Step::Directory)?;
    let (last, way) = steps.split_last().map_or((None, steps), |(last, way)| (Some(last), way));
    for step in way {
        directory = open_at(&directory, step.as_str(), Step::Directory)?;
    }
    let mut name = INDEX;
    if let Some(last) = last {
        let kind = rustix::fs::statat(&directory, last.as_str(), AtFlags::SYMLINK_NOFOLLOW)?.st_mode;
        match (FileType::from_raw_mode(kind).is_dir(), slash) {
            (true, true) => directory = open_at(&directory, last.as_str(), Step::Directory)?,
            (true, false) => return Ok(Found::Directory),
            (false, true) => return Err(io::ErrorKind::NotADirectory.into()),
            (false, false) => name = last,
        }
    }
    let file = std::fs::File::from(open_at(&directory, name, Step::File)?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(Found::File { file, length: metadata.len(), content_type: content_type(name) })
}

fn open_at(parent: impl std::os::fd::AsFd, name: impl rustix::path::Arg, step: Step) -> io::Result<OwnedFd> {
    let flags = match step {
        Step::Trusted => OFlags::DIRECTORY,
        Step::Directory => OFlags::DIRECTORY | OFlags::NOFOLLOW,
        Step::File => OFlags::NOFOLLOW | OFlags::NONBLOCK,
    };
    Ok(rustix::fs::openat(parent, name, flags | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn content_type(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    match extension.as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json; charset=utf-8",
        "txt" | "md" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "mp4" => "video/mp4",
        "pdf" => "application/pdf",
        _ => "application/octet-stream",
    }
}

/// A file on its way out, a chunk at a time.
pub(crate) struct FileBody {
    file: File,
    left: u64,
    /// The chunk being read, kept from one poll to the next.
    spare: Vec<u8>,
}

impl HttpBody for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        this.spare.resize(CHUNK.min(usize::try_from(this.left).unwrap_or(CHUNK)), 0);
        let mut buffer = ReadBuf::new(&mut this.spare);
        match Pin::new(&mut this.file).poll_read(context, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            // Cut short while it was sent: an error, so that the client does not take the part for the whole.
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())))
            }
            Poll::Ready(Ok(())) => {
                let read = buffer.filled().len();
                let mut chunk = std::mem::take(&mut this.spare);
                chunk.truncate(read);
                this.left -= read as u64;
                Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_never_climbs() {
        assert_eq!(steps("/a%20b//c.html").unwrap(), ["a b", "c.html"]);
        assert_eq!(steps("/%2541").unwrap(), ["%41"]);
        assert!(steps("/").unwrap().is_empty());
        for bad in
            ["/..", "/a/../b", "/%2e%2e/x", "/.%2E", "/a%2fb", "/a%00", "/%zz", "/%4", "/%+1", "/%ff", "/./a"]
        {
            assert_eq!(steps(bad), None, "{bad}");
        }
    }
}
