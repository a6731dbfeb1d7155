//! `openclawctl top` on a pseudo-terminal of its own session, and what a terminal would show of it.

use std::{
    fs::File,
    io::{Read, Write},
    num::NonZero,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    pty::{Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, tcgetattr},
    },
    unistd::Pid,
};
use supervisor_proto::v1::*;
use tonic::Code;

use crate::{
    ctl::{finish, pause},
    fake::{Fake, instance, refusal, seconds_ago, status},
};

/// As long as a loaded machine may need.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a terminal of a person says.
pub(crate) const USUAL: [(&str, &str); 2] = [("TERM", "xterm-256color"), ("LANG", "C.UTF-8")];

/// `top`, or another command, on a terminal.
pub(crate) struct Top {
    child: Child,
    /// The terminal's side.
    side: File,
    /// The program's side. It says in which state it was left.
    end: Option<File>,
    emulator: Arc<Mutex<Emulator>>,
    reader: Option<JoinHandle<()>>,
}

/// What the terminal makes of what is written.
struct Emulator {
    parser: vt100::Parser,
    /// All of it, as it came.
    written: Vec<u8>,
}

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

impl Top {
    /// On a terminal of 80x24.
    fn start(fake: &Fake) -> Self {
        Self::start_with(fake, &[], &USUAL)
    }

    fn start_with(fake: &Fake, args: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_as(fake, &[&["top"], args].concat(), variables)
    }

    /// Another command.
    pub(crate) fn start_as(fake: &Fake, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let end = || Stdio::from(pair.slave.try_clone().unwrap());
        // The terminal has to be that of its session: only then a new size is a signal. setsid(1) becomes the program.
        let known = fake.command(args);
        let mut command = Command::new("setsid");
        command.arg("-c").arg(known.get_program()).args(known.get_args()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(known.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.envs(variables.iter().copied());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let parser = vt100::Parser::new(cells(24), cells(80), 0);
        let emulator = Arc::new(Mutex::new(Emulator { parser, written: Vec::new() }));
        let side = File::from(pair.master);
        let (mut reading, shown) = (side.try_clone().unwrap(), Arc::clone(&emulator));
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = reading.read(&mut bytes) {
                let mut emulator = shown.lock().unwrap();
                emulator.parser.process(&bytes[..count]);
                emulator.written.extend(&bytes[..count]);
            }
        });
        Self { child, side, end: Some(pair.slave.into()), emulator, reader: Some(reader) }
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.side.write_all(keys.as_bytes()).unwrap();
    }

    /// The lines of the screen, without the blanks at their ends.
    pub(crate) fn screen(&self) -> String {
        let shown = self.emulator.lock().unwrap().parser.screen().contents();
        shown.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }

    /// Waits until the screen is as it should be, and gives it.
    pub(crate) fn until(&self, what: &str, reached: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if reached(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "{what:?} has not come; it shows:\n{screen}");
            pause();
        }
    }

    /// Waits until this is on the screen.
    pub(crate) fn shows(&self, part: &str) -> String {
        self.until(part, |screen| screen.contains(part))
    }

    /// Waits until this is no longer on the screen.
    fn hides(&self, part: &str) -> String {
        self.until(part, |screen| !screen.contains(part))
    }

    /// The terminal has another size.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        self.emulator.lock().unwrap().parser.screen_mut().set_size(cells(rows), cells(columns));
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.side, size).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits for its end, asserts that the terminal is as it was, and gives the exit code.
    pub(crate) fn leaves(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        let ended = loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                break ended;
            }
            assert!(Instant::now() < deadline, "it goes on; it shows:\n{}", self.screen());
            pause();
        };
        loop {
            let emulator = self.emulator.lock().unwrap();
            let screen = emulator.parser.screen();
            if !screen.alternate_screen() && !screen.hide_cursor() && !screen.bracketed_paste() {
                break;
            }
            drop(emulator);
            assert!(Instant::now() < deadline, "the screen was left on; it shows:\n{}", self.screen());
            pause();
        }
        let modes = tcgetattr(self.end.as_ref().unwrap()).unwrap().local_flags;
        assert!(modes.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG), "{modes:?}");
        ended.code()
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its last end is closed: the reader has read all.
        self.end = None;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Main has a rescue, and the laboratory has failed.
fn usual() -> Fake {
    let mut main = instance("main", Phase::Ready, 18_789);
    let told = status(&mut main);
    told.resources =
        Some(Resources { cpu_percent: 12.34, rss_bytes: 340 << 20, processes: 3, ..Default::default() });
    told.start_time = seconds_ago(9_000);
    told.failover = Some(FailoverStatus {
        role: Role::Primary.into(),
        rescued_by: vec!["rescue".into()],
        active: "main".into(),
        ..Default::default()
    });
    let mut lab = instance("lab", Phase::Failed, 19_789);
    status(&mut lab).reason = "exited with status 1.".into();
    let fake = Fake::start();
    fake.with([main, lab, instance("rescue", Phase::Ready, 20_789)]);
    fake
}

#[test]
fn the_first_screen_shows_the_fleet_at_80_columns_with_trouble_first() {
    let fake = usual();
    let top = Top::start(&fake);
    let screen = top.shows("12.3%");
    let lines: Vec<&str> = screen.lines().collect();
    assert_eq!(lines[0], "2 of 3 ready, 1 not ready");
    assert_eq!(lines[1], "  NAME  ▾STATE       ROLE        CPU   MEM  UPTIME RESTARTS HEALTH");
    assert_eq!(lines[2], "> lab    ✗ failed    -             -     -       -        0 exited with status 1");
    assert_eq!(lines[3], "  main   ● ready     primary   12.3%  340M  2h 30m        0 ok");
    assert!(lines[4].starts_with("  rescue ● ready     -             -     -   3m "), "{screen}");
    assert_eq!(lines[21..23], ["lab has failed: exited with status 1", "  hint: openclawctl logs lab"]);
    let keys = "Enter details  e events  l log  r restart  s stop  u start  f failover  ? help";
    assert_eq!(lines[23], keys);
}

#[test]
fn it_fits_whatever_size_the_terminal_comes_to_have() {
    let fake = usual();
    let top = Top::start(&fake);
    top.shows("12.3%");
    top.resize(60, 15);
    let screen = top.until("the keys at 60x15", |screen| {
        screen.lines().nth(14).is_some_and(|line| line.contains("? help"))
    });
    assert!(screen.lines().all(|line| line.chars().count() <= 60), "{screen}");
    assert!(screen.contains("  main   ● ready     primary   12.3%  340M  2h 30m ok"), "{screen}");
    top.resize(120, 40);
    let screen = top.shows("PORT     PID RUNTIME  HEALTH");
    assert!(screen.contains(" 18789    4789 builtin  ok"), "{screen}");
    top.until("the keys at 120x40", |screen| {
        screen.lines().nth(39).is_some_and(|line| line.contains("q quit"))
    });
    top.resize(19, 4);
    top.until("that it is too small", |screen| screen == "too small: 20x5");
    top.resize(20, 5);
    top.shows("> lab    ✗ failed");
    top.resize(80, 24);
    top.shows("12.3%");
}

#[test]
fn details_events_and_log_of_one_are_shown_and_the_table_again() {
    let fake = usual();
    let mut world = fake.world();
    let event = |revision, message: &str| Event {
        revision,
        instance: "main".into(),
        message: message.into(),
        time: seconds_ago(3),
        ..Default::default()
    };
    world.events = vec![event(3, "started as process 4789."), event(4, "ready 6ms after its start.")];
    let line = |text: &str| LogLine { text: text.into(), cursor: "c1".into(), ..Default::default() };
    world.logs = [vec![line("ready on port 18789"), line("\x1b]0;title\x07EVIL\x1b[2J\x08")]].into();
    drop(world);
    let mut top = Top::start(&fake);
    top.shows("12.3%");
    top.press("j\r");
    let screen = top.shows("  uses        12.3% CPU, 340 MiB, 3 processes");
    assert!(screen.starts_with("main  ● ready  details\nmain  ● ready for 3m "), "{screen}");
    top.press("G");
    top.shows("info     ready 6ms after its start");
    top.press("e");
    // Those that were, and those that come.
    let screen = top.shows("main  info     came after 4");
    assert!(screen.starts_with("main  ● ready  events, followed\n"), "{screen}");
    assert!(screen.contains("  main  info     started as process 4789\n"), "{screen}");
    top.press("l");
    // The emulator leaves out what stands for each control character.
    let screen = top.shows("\n]0;titleEVIL[2J");
    assert!(screen.starts_with("main  ● ready  log, followed\nready on port 18789\n"), "{screen}");
    top.press("\x1b");
    top.shows("> main   ● ready ");
    top.press("?");
    top.shows("restart, stop, start it; you are asked first");
    top.press("q");
    top.shows("> main   ● ready ");
    top.press("/resc");
    let screen = top.shows("1 of 3 shown: resc");
    assert!(screen.contains("> rescue ● ready ") && screen.contains("\n/resc\n"), "{screen}");
    top.press("\r\x1b");
    top.shows("2 of 3 ready, 1 not ready\n");
    let written = top.emulator.lock().unwrap().written.clone();
    assert!(!String::from_utf8_lossy(&written).contains("\x1b]0;"), "the log was obeyed");
}

#[test]
fn a_restart_is_asked_about_then_done_and_what_came_of_it_is_said() {
    let fake = usual();
    fake.world().reason = "serves.".into();
    let mut top = Top::start(&fake);
    top.shows("12.3%");
    top.press("jr");
    top.shows("restart main? y/n");
    top.press("n");
    top.shows("nothing was changed");
    assert!(!fake.world().calls.iter().any(|(method, _)| *method == "RestartInstance"));
    top.press("ry");
    top.shows("restart main: it is ready: serves");
    let restarts = fake.world().calls.iter().filter(|(method, _)| *method == "RestartInstance").count();
    assert_eq!(restarts, 1);
    // From the details as well; and what is pasted is no yes.
    top.press("\r");
    top.shows("main  ● ready  details");
    top.press("s\x1b[200~y\x1b[201~");
    top.shows("nothing was changed");
    top.press("f");
    top.shows("fail over main? y/n");
    top.press("y");
    top.shows("fail over main: rescue stands in for main since");
    top.press("q");
    top.shows("; rescue stands in for main\n");
    top.press("f");
    top.shows("fail back main? y/n");
}

#[test]
fn a_refusal_is_shown_in_the_supervisors_own_words() {
    let fake = usual();
    fake.refuse(
        "StopInstance",
        refusal(
            Code::PermissionDenied,
            "NOT_PERMITTED",
            "stopping takes the role operator, and you are a viewer.",
        ),
    );
    let mut top = Top::start(&fake);
    top.shows("12.3%");
    top.press("jsy");
    top.shows("failed to stop `main`: stopping takes the role operator, and you are a viewer");
    top.press("k");
    top.hides("failed to stop `main`");
    top.shows("12.3%");
}

#[test]
fn while_the_supervisor_is_away_what_is_shown_is_old_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start_in(directory.path());
    fake.with([instance("main", Phase::Ready, 18_789)]);
    let mut top = Top::start(&fake);
    top.shows("1 of 1 ready");
    top.press("s");
    top.shows("stop main? y/n");
    drop(fake);
    let screen = top.shows("old: no answer since ");
    assert!(screen.contains("shown is what was then") && screen.contains("> main   ● ready "), "{screen}");
    // Nobody is there to do it; that is said, and nothing else happens.
    top.press("y");
    top.shows("failed to stop `main`: ");
    let fake = Fake::start_in(directory.path());
    fake.with([instance("main", Phase::Ready, 18_789), instance("second", Phase::Ready, 19_789)]);
    top.shows("2 of 2 ready");
    top.hides("old: ");
    top.press("q");
    assert_eq!(top.leaves(), Some(0));
}

#[test]
fn the_terminal_is_left_as_it_was_whatever_ends_it() {
    let fake = usual();
    for key in ["q", "\x1b", "\x03"] {
        let mut top = Top::start(&fake);
        top.shows("12.3%");
        top.press(key);
        assert_eq!(top.leaves(), Some(0), "{key:?}");
    }
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let mut top = Top::start(&fake);
        top.shows("12.3%");
        top.press("\r");
        top.shows("details");
        top.signal(signal);
        assert_eq!(top.leaves(), Some(0), "{signal}");
    }
    // An error is told where the shell goes on.
    fake.refuse(
        "WatchInstances",
        refusal(Code::PermissionDenied, "NOT_PERMITTED", "watching takes the role viewer."),
    );
    let mut top = Top::start(&fake);
    assert_eq!(top.leaves(), Some(7));
    top.shows("error: failed to watch the instances: watching takes the role viewer");
}

#[test]
fn no_colours_and_no_utf8_are_heeded() {
    let sequences = |top: &Top| {
        let written = top.emulator.lock().unwrap().written.clone();
        String::from_utf8_lossy(&written).into_owned()
    };
    // What sets a colour or an attribute, but for putting everything back.
    let looks = |written: &str| {
        let starts = written.split("\x1b[").skip(1).filter_map(|rest| rest.split_once('m'));
        let codes = starts
            .map(|(codes, _)| codes)
            .filter(|codes| codes.chars().all(|c| c.is_ascii_digit() || c == ';'));
        codes
            .filter(|codes| !matches!(*codes, "" | "0" | "39" | "49" | "39;49" | "59"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let fake = usual();
    let top = Top::start(&fake);
    top.shows("12.3%");
    assert!(!looks(&sequences(&top)).is_empty());
    let no_color = [&USUAL[..], &[("NO_COLOR", "1")]].concat();
    for (args, variables) in [(&[][..], &no_color[..]), (&["--color", "never"], &USUAL)] {
        let top = Top::start_with(&fake, args, variables);
        top.shows("> lab    ✗ failed");
        top.shows("12.3%");
        assert_eq!(looks(&sequences(&top)), Vec::<String>::new(), "{args:?}");
    }
    let always = Top::start_with(&fake, &["--color", "always"], &no_color);
    always.shows("12.3%");
    assert!(!looks(&sequences(&always)).is_empty());
    let ascii = Top::start_with(&fake, &[], &[("TERM", "xterm"), ("LANG", "C")]);
    ascii.shows("> lab    x failed");
    let screen = ascii.shows("  main   + ready     primary   12.3%");
    assert!(screen.is_ascii() && screen.contains("  NAME  *STATE "), "{screen}");
}

#[test]
fn without_a_terminal_it_says_what_to_use_instead() {
    let fake = usual();
    let ran = fake.ctl(&["top"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
    assert_eq!(
        ran.err,
        "error: failed to show the fleet: it needs a terminal, for input and for output\n\
         hint: openclawctl status, or with -o json for programs; openclawctl events -f goes on\n"
    );
    let ran = fake.ctl(&["top", "-o", "json"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("a full screen is for people"), "{ran:?}");
    for (variables, code) in
        [(&[("TERM", "dumb")][..], 2), (&[("OPENCLAWCTL_DATA_DIR", "/nowhere"), USUAL[0]], 6)]
    {
        let mut top = Top::start_with(&fake, &[], variables);
        assert_eq!(top.leaves(), Some(code));
        let told = top.shows("error: failed to show the fleet: ");
        assert!(told.contains("hint: "), "{told}");
    }
    let help = finish(fake.command(&["top", "--help"])).done();
    assert!(help.contains("openclawctl top --context lab"), "{help}");
}
