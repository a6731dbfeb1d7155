//! The child: the smallest program that can be seen to be up.
//!
//! It binds the port that it is given, or the one that its directory is named after (so that s6 and its like
//! need no shell in between), and accepts. Given a number of bytes as well, it writes them as lines to standard
//! output as fast as it can, once, after the first connection, which is then closed; and how long the longest
//! write took, in nanoseconds, to the file `stall` where it runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context;

/// Bytes of a line that the child writes, its end included.
pub(crate) const LINE: usize = 128;

const SOURCE: &str = r#"
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 128, LINES = 512 };
static char buffer[LINE * LINES];

static long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000 + t.tv_nsec;
}

static void flood(long bytes) {
  long stall = 0;
  for (long line = 0; line * LINE < bytes; ) {
    long n = 0;
    for (; n < LINES && line * LINE < bytes; n++, line++) {
      char *at = buffer + n * LINE;
      memset(at, 'x', LINE - 1);
      at[LINE - 1] = '\n';
      long number = line;
      for (int digit = 11; digit >= 0; digit--, number /= 10) at[digit] = '0' + number % 10;
    }
    for (long done = 0; done < n * LINE; ) {
      long begun = now(), wrote = write(1, buffer + done, n * LINE - done), took = now() - begun;
      if (wrote < 0) _exit(3);
      if (took > stall) stall = took;
      done += wrote;
    }
  }
  char text[24];
  int length = snprintf(text, sizeof text, "%ld\n", stall), file = open("stall", O_CREAT | O_WRONLY, 0600);
  if (file < 0 || write(file, text, length) != length) _exit(4);
  close(file);
}

int main(int argc, char **argv) {
  char directory[4096] = "";
  if (argc < 2 && !getcwd(directory, sizeof directory)) return 2;
  char *port = argc > 1 ? argv[1] : strrchr(directory, '/') + 1;
  long bytes = argc > 2 ? atol(argv[2]) : 0;
  struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 128)) return 1;
  for (;;) {
    int peer = accept(listener, 0, 0);
    if (peer >= 0) close(peer);
    if (peer >= 0 && bytes) flood(bytes), bytes = 0;
  }
}
"#;

/// Compiles the child into `directory`.
pub(crate) fn compile(directory: &Path) -> anyhow::Result<PathBuf> {
    let (source, program) = (directory.join("child.c"), directory.join("child"));
    fs::write(&source, SOURCE).context("failed to write the child's source")?;
    let status = Command::new("cc")
        .args(["-static", "-Os", "-s", "-o"])
        .args([&program, &source])
        .status()
        .context("failed to run `cc`: the rows with a child need a C compiler")?;
    anyhow::ensure!(status.success(), "`cc` could not compile the child: {status}");
    Ok(program)
}

/// The command that runs the child on `port`, silent.
pub(crate) fn command(program: &Path, port: u16) -> Command {
    let mut command = Command::new(program);
    command.arg(port.to_string()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
