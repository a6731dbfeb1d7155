//! Runs a program for what it prints.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, ErrorKind, Read, Seek, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use prost::Message;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, memfd_create},
    io::{Errno, ioctl_fionbio},
    process::{Pid, PidfdFlags, pidfd_open},
};
use supervisor_proto::worker::{EnvironmentVariable, Launch, Walls};
use tokio::sync::oneshot;
use tracing::warn;

use crate::{openclaw::environment::MARK, user::User};

/// What a program has printed on both of its streams, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    /// Its exit status, as a shell tells it.
    pub(crate) status: i32,
    /// All that it printed, mingled as a terminal would show it.
    pub(crate) output: String,
}

/// What runs a program so that its status is the last thing that is printed: whoever reaps all children may reap the
/// shell before it can be asked.
const TELL_STATUS: &str = "\"$@\" 2>&1; printf '\\n%s' \"$?\"";

/// No answer is longer.
const MOST_BYTES: usize = 256 << 10;

/// As much as is kept of what a worker says of itself: a few lines with paths in them.
const MOST_WORDS: usize = 16 << 10;

/// Bytes read at once.
const CHUNK: usize = 16 << 10;

/// The words by which a worker runs a program behind walls that come on its standard input, for so long.
const BEHIND: [&str; 2] = ["behind", "--seconds"];

/// Who keeps the limit asks the program to end, waits a second, and ends it. On a loaded host that takes a while; if it
/// takes longer than this, somebody holds up that one, too.
const HELD_UP: Duration = Duration::from_secs(10);

/// Where a program is run that works on what an agent has written, and may do what it says there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Inside {
    /// The program that builds the walls, and ends all that is started behind them.
    pub(crate) worker: PathBuf,
    /// Those of the agent's gateway.
    pub(crate) walls: Walls,
}

/// A program and all that it is given.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tool {
    /// It.
    pub(crate) program: PathBuf,
    /// Without its own name.
    pub(crate) args: Vec<String>,
    /// All of its environment; `None`: the supervisor's own, and behind walls none.
    pub(crate) environment: Option<BTreeMap<String, String>>,
    /// Where it is run; `None`: where the supervisor is.
    pub(crate) directory: Option<PathBuf>,
    /// Behind which walls; `None`: none.
    pub(crate) inside: Option<Inside>,
}

impl Tool {
    /// A program in the supervisor's own surroundings.
    pub(crate) fn new(program: &Path, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { program: program.to_owned(), args, environment: None, directory: None, inside: None }
    }

    /// Whom it runs as, if that is another user than the supervisor's.
    pub(crate) fn user(&self) -> Option<User> {
        let user = self.inside.as_ref()?.walls.user.as_ref()?;
        Some(User { uid: user.uid, gid: user.gid, groups: user.groups.clone() })
    }

    /// What it prints, without white space around it; `None` if that is nothing, cannot be had, or not within the limit.
    /// Blocks, and not for much longer than the limit, whatever becomes of the program.
    ///
    /// It is ended by its worker or by timeout(1), so that no signal has to be sent from here: the supervisor reaps all
    /// its children at once, and their pids may be others' then.
    pub(crate) fn ask(&self, limit: Duration) -> Option<String> {
        self.answer(limit, |text| Some(text.to_owned()).filter(|text| !text.is_empty()))
    }

    /// What it prints and how it ends; `None` if that cannot be had within the limit, or is too much. Blocks.
    pub(crate) fn run(&self, limit: Duration) -> Option<Ran> {
        let program = self.program.to_str()?.to_owned();
        let args = ["-c".to_owned(), TELL_STATUS.to_owned(), "sh".to_owned(), program];
        let args = args.into_iter().chain(self.args.iter().cloned()).collect();
        Self { program: "/bin/sh".into(), args, ..self.clone() }.answer(limit, |told| {
            let (output, status) = told.rsplit_once('\n').unwrap_or(("", told));
            Some(Ran { status: status.parse().ok()?, output: output.trim_end().to_owned() })
        })
    }

    /// The same as [`ask`](Self::ask) on a thread of its own, for who must neither wait nor keep others from the threads
    /// for file work: core asks for one such thing at a time for each instance.
    pub(crate) async fn ask_aside(self, limit: Duration) -> Option<String> {
        let (tell, answer) = oneshot::channel();
        // Who asked may have gone meanwhile.
        let ask = move || drop(tell.send(self.ask(limit)));
        thread::Builder::new().name("tool".into()).spawn(ask).ok()?;
        answer.await.ok()?
    }

    /// What `read` makes of what it prints. Should that be nothing, the log says what is known of why.
    fn answer<T>(&self, limit: Duration, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let program = self.program.display();
        let seconds = limit.as_secs().max(1);
        let heard = self.spawn(seconds).and_then(|mut child| {
            let heard = hear(&mut child, Instant::now() + Duration::from_secs(seconds) + HELD_UP);
            // It may have been reaped already.
            let _ = child.try_wait();
            heard
        });
        let heard = match heard {
            Ok(heard) => heard,
            Err(error) => {
                warn!(%program, "cannot be run: {error}");
                return None;
            }
        };
        if !heard.has_ended {
            warn!(%program, "is held up beyond its limit of {seconds} s, and not waited for any more");
        }
        let answer = std::str::from_utf8(&heard.output).ok().and_then(|text| read(text.trim()));
        if answer.is_none()
            && let Some(words) = heard.last_words()
        {
            warn!(%program, "no answer: {words}");
        }
        answer
    }

    fn spawn(&self, seconds: u64) -> io::Result<Child> {
        let seconds = seconds.to_string();
        let mut command = match &self.inside {
            None => {
                let mut command = Command::new("timeout");
                command.args(["-k", "1", &seconds]).stdin(Stdio::null()).stderr(Stdio::null());
                if let Some(environment) = &self.environment {
                    command.env_clear().envs(environment);
                }
                if let Some(directory) = &self.directory {
                    command.current_dir(directory);
                }
                command
            }
            Some(inside) => {
                let mut command = Command::new(&inside.worker);
                command.args(BEHIND).arg(&seconds).stdin(self.launch(&inside.walls)?).stderr(Stdio::piped());
                // No variable of an instance changes how the worker itself is loaded. Its mark says whose it is.
                command.env_clear();
                if let Some(mark) = self.environment.as_ref().and_then(|environment| environment.get(MARK)) {
                    command.env(MARK, mark);
                }
                command
            }
        };
        command.arg(&self.program).args(&self.args).stdout(Stdio::piped()).spawn()
    }

    /// What its worker reads: a file, as a pipe is waited for by who writes to it.
    fn launch(&self, walls: &Walls) -> io::Result<File> {
        let variables = self.environment.iter().flatten();
        let launch = Launch {
            environment: variables
                .map(|(name, value)| EnvironmentVariable { name: name.clone(), value: value.clone() })
                .collect(),
            working_directory: self
                .directory
                .as_ref()
                .map_or_else(String::new, |directory| directory.to_string_lossy().into_owned()),
            walls: Some(walls.clone()),
            ..Launch::default()
        };
        let mut file = File::from(memfd_create("launch", MemfdFlags::CLOEXEC)?);
        file.write_all(&launch.encode_to_vec())?;
        file.rewind()?;
        Ok(file)
    }
}

/// What has come of a program.
#[derive(Debug)]
struct Heard {
    output: Vec<u8>,
    /// What its worker says of itself.
    words: Vec<u8>,
    has_ended: bool,
}

impl Heard {
    /// Its worker's last line. A path in it may have been chosen by an agent.
    fn last_words(&self) -> Option<String> {
        let words = String::from_utf8_lossy(&self.words);
        let last = words.lines().rfind(|line| !line.trim().is_empty())?;
        Some(last.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }
}

/// Takes what comes of `child` until it has ended, and no longer than `until`. Whoever else holds its pipes then, or has
/// been handed them, is not waited for.
fn hear(child: &mut Child, until: Instant) -> io::Result<Heard> {
    let end = end_of(child)?;
    let mut output = Pipe::new(child.stdout.take(), MOST_BYTES)?;
    let mut words = Pipe::new(child.stderr.take(), MOST_WORDS)?;
    let has_ended = loop {
        let mut fds: Vec<PollFd<'_>> =
            [&output, &words].into_iter().filter_map(|pipe| Some(readable(pipe.end.as_ref()?))).collect();
        match &end {
            End::Past => break true,
            // Nothing else is known of its end.
            End::Unseen if fds.is_empty() => break true,
            End::Unseen => {}
            End::ToCome(pidfd) => fds.push(readable(pidfd)),
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break false;
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_over = matches!(end, End::ToCome(_)) && fds.last().is_some_and(|fd| !fd.revents().is_empty());
        if is_over {
            break true;
        }
        output.take();
        words.take();
    };
    // What it has left in the pipes.
    while output.take() {}
    while words.take() {}
    Ok(Heard { output: output.kept, words: words.kept, has_ended })
}

/// How the end of a child is learned of.
enum End {
    Past,
    ToCome(OwnedFd),
    /// There are no pidfds here: the kernel is older than 5.3, or a filter of a container's is.
    Unseen,
}

/// By a descriptor of whoever has its pid, which was its own a moment ago: should it have been reaped since, and another
/// have the pid, that one is waited for within the same limit.
fn end_of(child: &Child) -> io::Result<End> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    match pidfd_open(pid.ok_or(ErrorKind::InvalidData)?, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(End::ToCome(pidfd)),
        Err(Errno::SRCH) => Ok(End::Past),
        Err(_) => Ok(End::Unseen),
    }
}

fn readable(end: &impl AsFd) -> PollFd<'_> {
    PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN)
}

/// The end of a pipe from which so much is kept.
struct Pipe {
    /// Until there is no more to come, or no more is kept.
    end: Option<File>,
    kept: Vec<u8>,
    most: usize,
}

impl Pipe {
    /// Whoever is behind walls may open it, too, and read what poll(2) has promised: it is never waited at.
    fn new(end: Option<impl Into<OwnedFd>>, most: usize) -> io::Result<Self> {
        let end = end.map(|end| File::from(end.into()));
        if let Some(end) = &end {
            ioctl_fionbio(end, true)?;
        }
        Ok(Self { end, kept: Vec::new(), most })
    }

    /// Takes a piece of what has come. Whether there was any, and may be more.
    fn take(&mut self) -> bool {
        let mut chunk = [0; CHUNK];
        let Some(end) = &mut self.end else { return false };
        match end.read(&mut chunk) {
            Ok(length @ 1..) => {
                let room = self.most.saturating_sub(self.kept.len());
                self.kept.extend_from_slice(chunk.get(..length.min(room)).unwrap_or_default());
                if length >= room {
                    self.end = None;
                }
                true
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Ok(0) | Err(_) => {
                self.end = None;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tempfile::TempDir;

    use super::*;

    /// A program in the place of a worker, and a tool that is run by it.
    fn behind(worker: &str) -> (TempDir, Tool) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("worker");
        // No process that another test starts meanwhile has it open for writing, so that it could not be run.
        let write = "cat >\"$0\" && chmod 700 \"$0\"";
        let mut writer =
            Command::new("sh").arg("-c").arg(write).arg(&path).stdin(Stdio::piped()).spawn().unwrap();
        write!(writer.stdin.take().unwrap(), "#!/bin/sh\n{worker}\n").unwrap();
        assert!(writer.wait().unwrap().success());
        let walls = Walls { apart: true, ..Walls::default() };
        let tool = Tool {
            environment: Some(BTreeMap::from([
                ("LD_LIBRARY_PATH".to_owned(), "/of/the/agent".to_owned()),
                (MARK.to_owned(), "store/main".to_owned()),
            ])),
            directory: Some(directory.path().to_owned()),
            inside: Some(Inside { worker: path, walls }),
            ..Tool::new(Path::new("/its/program"), &["and", "words"])
        };
        (directory, tool)
    }

    /// What is logged while `work` is done.
    fn logged(work: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Log(Arc<Mutex<Vec<u8>>>);
        impl Write for Log {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_worker_is_told_all_by_a_file_and_has_nothing_of_the_instances_but_its_mark() {
        let (_directory, tool) = behind(r#"echo "$*"; echo "$LD_LIBRARY_PATH,$HOME,$OPENCLAWCTL_MARK"; cat"#);
        let told = tool.ask(Duration::from_secs(60)).unwrap();
        let mut parts = told.splitn(3, '\n');
        assert_eq!(parts.next(), Some("behind --seconds 60 /its/program and words"));
        assert_eq!(parts.next(), Some(",,store/main"));
        let launch = Launch::decode(parts.next().unwrap().as_bytes()).unwrap();
        let variables: BTreeMap<String, String> =
            launch.environment.into_iter().map(|variable| (variable.name, variable.value)).collect();
        assert_eq!(Some(variables), tool.environment);
        assert_eq!(Path::new(&launch.working_directory), tool.directory.unwrap());
        assert_eq!(launch.walls, tool.inside.map(|inside| inside.walls));
    }

    #[test]
    fn what_keeps_a_program_from_being_asked_is_logged_in_its_workers_words() {
        let (_directory, tool) = behind("echo left out >&2; printf 'no \\033 walls\\n\\n' >&2; exit 1");
        let log = logged(|| assert_eq!(tool.ask(Duration::from_secs(60)), None));
        assert!(log.contains("no answer: no   walls") && log.contains("program=/its/program"), "{log}");
        let log = logged(|| assert_eq!(tool.run(Duration::from_secs(60)), None));
        assert!(log.contains("no answer: no   walls"), "{log}");
        // Who answers may say what it likes.
        let (_directory, tool) = behind("echo left out >&2; echo answer");
        let log = logged(|| assert_eq!(tool.ask(Duration::from_secs(60)).as_deref(), Some("answer")));
        assert_eq!(log, "");
        let missing = Inside { worker: "/nowhere".into(), walls: Walls::default() };
        let tool = Tool { inside: Some(missing), ..tool };
        let log = logged(|| assert_eq!(tool.ask(Duration::from_secs(60)), None));
        assert!(log.contains("cannot be run: No such file or directory"), "{log}");
    }

    #[test]
    fn whoever_holds_up_who_keeps_the_limit_is_not_waited_for() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo here; exec sleep 600"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let heard = hear(&mut child, Instant::now() + Duration::from_secs(2)).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((heard.output.as_slice(), heard.has_ended), (b"here\n".as_slice(), false));
    }

    #[test]
    fn a_pipe_that_was_handed_on_is_not_waited_for() {
        let (_directory, tool) = behind("setsid sleep 600 & echo $!");
        let began = Instant::now();
        let left = tool.ask(Duration::from_secs(300)).unwrap();
        let waited = began.elapsed();
        let left = Pid::from_raw(left.parse().unwrap()).unwrap();
        rustix::process::kill_process(left, rustix::process::Signal::KILL).unwrap();
        assert!(waited < Duration::from_secs(300), "{waited:?}");
    }

    #[test]
    fn of_what_is_printed_without_end_so_much_is_kept() {
        let yes = Tool::new(Path::new("yes"), &[]);
        assert_eq!(yes.ask(Duration::from_secs(60)).unwrap().len(), MOST_BYTES - 1);
    }

    #[test]
    fn a_program_is_asked_for_what_it_prints() {
        let ask =
            |program: &str, args: &[&str]| Tool::new(Path::new(program), args).ask(Duration::from_secs(60));
        assert_eq!(ask("echo", &["v24.21.0"]).as_deref(), Some("v24.21.0"));
        assert_eq!(ask("/nowhere", &[]), None);
        assert_eq!(ask("true", &[]), None);
    }

    #[test]
    fn a_program_that_does_not_end_is_not_waited_for() {
        let asked = Tool::new(Path::new("sleep"), &["600"]).ask(Duration::from_secs(1));
        assert_eq!(asked, None);
    }

    #[test]
    fn what_a_program_prints_and_how_it_ends_are_told_together() {
        let run = |script: &str| Tool::new(Path::new("sh"), &["-c", script]).run(Duration::from_secs(60));
        let ran = |status, output: &str| Some(Ran { status, output: output.into() });
        assert_eq!(run("echo out; echo err >&2; exit 3"), ran(3, "out\nerr"));
        assert_eq!(run("true"), ran(0, ""));
        assert_eq!(Tool::new(Path::new("sleep"), &["600"]).run(Duration::from_secs(1)), None);
    }

    #[tokio::test]
    async fn it_is_asked_aside_as_it_is_asked() {
        let tool = Tool::new(Path::new("echo"), &["here"]);
        assert_eq!(tool.ask_aside(Duration::from_secs(60)).await.as_deref(), Some("here"));
    }

    #[test]
    fn it_has_the_environment_and_the_directory_it_is_given() {
        let tool = Tool {
            environment: Some(BTreeMap::from([
                ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
                ("WHO".to_owned(), "main".to_owned()),
            ])),
            directory: Some("/".into()),
            ..Tool::new(Path::new("sh"), &["-c", "echo $WHO $HOME $PWD"])
        };
        assert_eq!(tool.ask(Duration::from_secs(60)).as_deref(), Some("main /"));
    }
}
