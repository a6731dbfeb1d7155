"""What the stories told with the real OpenClaw share: a host of their own, and the commands typed on it."""

import contextlib
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A cold OpenClaw takes up to a minute on a loaded machine.
START = 300
# No command takes this long unless it hangs.
COMMAND = 900
# Rows and columns of the terminal that commands are shown on.
TERMINAL = (24, 80)

# `openclaw`, with a child of the gateway that does what is put into its home: an agent. It does each thing once, also
# when that restarts it.
AGENT = """\
#!/bin/sh
if [ "$1 $2" = "gateway run" ]; then
  (
    cd "$HOME" || exit
    while kill -0 $$; do
      for order in *.order; do
        [ -e "$order" ] || continue
        mv "$order" "$order.begun"
        sh "$order.begun" >"$order.said" 2>&1
        echo $? >"$order.tmp"
        mv "$order.tmp" "$order.status"
      done
      sleep 0.3
    done
  ) </dev/null >/dev/null 2>&1 &
fi
exec '{openclaw}' "$@"
"""


class NotSo(SystemExit):
    """What should hold does not."""


class Host:
    """One home, one data directory, and the commands in them."""

    def __init__(self, binaries, directory, release="sept"):
        tools = subprocess.run(
            [ROOT / ".ci/openclaw-install", "", release], check=True, stdout=subprocess.PIPE, text=True
        )
        self.binaries, self.directory = binaries, directory
        # What commands are run by.
        self.runner = []
        self.tools = pathlib.Path(tools.stdout.split()[-1]) / "bin"
        self.home, self.data = directory / "home", directory / "data"
        self.home.mkdir()
        (directory / "tmp").mkdir()
        self.environment = {
            "PATH": f"{self.tools}:/usr/bin:/bin",
            "HOME": str(self.home),
            "TMPDIR": str(directory / "tmp"),
            "NO_COLOR": "1",
        }

    def run(self, program, *words, expect=0, quiet=False):
        """Runs a command. Unless it is quiet, it is shown as a terminal would show it."""
        if not quiet:
            print("$", pathlib.Path(program).name, *words, flush=True)
        environment = dict(self.environment)
        if program == "openclawctl":
            environment["OPENCLAWCTL_DATA_DIR"] = str(self.data)
            program = self.binaries / program
        begin = begin_quietly if quiet else begin_on_terminal
        status, said = begin([*self.runner, program, *words], env=environment, cwd=self.home)
        if not quiet or expect not in (None, status):
            print(said, end="" if said.endswith("\n") else "\n" if said else "", flush=True)
        if expect not in (None, status):
            raise NotSo(f"{pathlib.Path(program).name} {' '.join(map(str, words))} ended with {status}, not {expect}")
        return said

    def openclawctl(self, *words, expect=0, quiet=False):
        return self.run("openclawctl", *words, expect=expect, quiet=quiet)

    def status(self, name):
        return json.loads(self.openclawctl("status", name, "-o", "json", quiet=True))["status"]

    def events(self, after=0):
        answer = self.openclawctl("events", "--after", str(after), "-o", "json", quiet=True)
        return json.loads(answer).get("events", [])

    def processes(self):
        """All that was started here and still runs."""
        ours = {f"HOME={self.home}".encode(), f"OPENCLAWCTL_DATA_DIR={self.data}".encode()}
        found = []
        for process in pathlib.Path("/proc").iterdir():
            if process.name.isdigit():
                # It may have ended meanwhile.
                with contextlib.suppress(OSError):
                    if not ours.isdisjoint((process / "environ").read_bytes().split(b"\0")):
                        found.append(int(process.name))
        return found

    def end(self):
        """Ends everything that was started here, and says what the supervisor has left running."""
        self.signal_all(signal.SIGCONT)
        with contextlib.suppress(NotSo):
            self.openclawctl("supervisor", "stop", "--all", "--yes", quiet=True)
        left = self.processes()
        until("all have ended", lambda: not self.signal_all(signal.SIGKILL), 60)
        return left

    def signal_all(self, number):
        found = self.processes()
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return found


class HostWithAgents(Host):
    """With an agent in each gateway, which is behind its walls."""

    def __init__(self, binaries, directory, release):
        super().__init__(binaries, directory, release)
        self.given = 0
        self.agents = directory / "bin"
        self.agents.mkdir()
        self.put_agents(self.tools / "openclaw")
        self.environment["PATH"] = f"{self.agents}:{self.environment['PATH']}"

    def put_agents(self, openclaw):
        (self.agents / "openclaw").write_text(AGENT.format(openclaw=openclaw))
        (self.agents / "openclaw").chmod(0o755)

    def tell(self, name, order):
        """Has the agent in an instance do something, and gives back where its answer will be."""
        print(f"{name}$ {order}", flush=True)
        self.given += 1
        # The walls around an agent leave it its home.
        path = self.data / "instances" / name / "home" / f"{self.given}.order"
        path.with_suffix(".new").write_text(order)
        path.with_suffix(".new").chmod(0o644)
        path.with_suffix(".new").rename(path)
        return path

    def answer(self, path):
        """How it ended, and what it said."""
        status = until("the agent has done it", lambda: read(path, ".status"))
        said = read(path, ".said")
        print(said, end="" if said.endswith("\n") else "\n" if said else "", flush=True)
        return int(status), said

    def told(self, path):
        return self.answer(path)[0]


def read(path, suffix):
    with contextlib.suppress(FileNotFoundError):
        return pathlib.Path(f"{path}{suffix}").read_text()
    return ""


def begin_quietly(command, **options):
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND, check=False, **options
    )
    return done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr


def begin_on_terminal(command, **options):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *TERMINAL, 0, 0))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, **options)
    os.close(theirs)
    said, deadline = b"", time.monotonic() + COMMAND
    # The end of a terminal that nobody has open any more is an error.
    with contextlib.suppress(OSError):
        while select.select([ours], [], [], max(0, deadline - time.monotonic()))[0]:
            said += os.read(ours, 1 << 16)
    os.close(ours)
    if time.monotonic() >= deadline:
        process.kill()
    # What is drawn anew is gone when it is over.
    return process.wait(), re.sub(r"(?m)^.*\r\x1b\[K", "", said.decode(errors="replace").replace("\r\n", "\n"))


def until(what, found, seconds=START):
    """Waits for a level."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        if time.monotonic() > deadline:
            raise NotSo(f"{what}: not within {seconds} s")
        time.sleep(0.1)
    return answer


def check(what, holds):
    if not holds:
        raise NotSo(what)
    print(f"-- {what}", flush=True)


def free_port(*wanted):
    """The first port of a block that nobody uses: one that is wanted, or any below the kernel's ephemeral range."""
    for base in (*wanted, *range(24_000, 32_000, 20)):
        try:
            for port in range(base, base + 20):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
    raise NotSo("no block of ports is free")


@contextlib.contextmanager
def lent(prefix, make):
    """A host for one story. Nothing of it is left when that is over, however it ends."""
    # So that it is cleaned up after `timeout`, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    directory = pathlib.Path(tempfile.mkdtemp(prefix=prefix))
    try:
        host = make(directory)
        try:
            yield host
        finally:
            left = host.end()
        check("nothing is left running", not left)
    finally:
        shutil.rmtree(directory)
