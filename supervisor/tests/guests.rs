//! What a person runs in an instance, by the real command line: behind its walls, and a job of their shell all the same.
//!
//! Where this kernel cannot build a wall, nothing is tried that the wall would have refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{MetadataExt, PermissionsExt},
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Instant,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{Winsize, openpty},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid, ttyname},
};
use supervisor_proto::v1::{
    DeleteInstanceRequest, InstanceSpec, InstanceStatus, Phase, WallPolicy, wall_status::Kind,
};
use support::{
    Host, PATIENCE,
    agent::{Agent, stand},
    builtin, is_alive, kill_9, program, until,
};

/// Users that no host has.
const ITS_USER: u32 = 54_321;
const ANOTHER: u32 = 54_322;

/// A supervisor with `main` and `lab`, both ready; `None` where the wall around files does not stand.
async fn neighbours() -> (Host, Option<InstanceStatus>) {
    let host = Host::start().await;
    for name in ["main", "lab"] {
        host.create(name, builtin()).await;
        host.up(name).await;
    }
    let status = host.status("lab").await;
    let walled = stand(&status, &[Kind::Files]);
    (host, walled.then_some(status))
}

fn command(host: &Host, args: &[&str]) -> Command {
    let mut command = Command::new(program("openclawctl"));
    command.arg("--data-dir").arg(host.data_dir()).args(args).stdin(Stdio::null());
    command
}

/// `sh -c script`, run in `lab`.
fn run(host: &Host, script: &str) -> Output {
    command(host, &["run", "lab", "--", "sh", "-c", script]).output().unwrap()
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn instance(host: &Host, name: &str) -> PathBuf {
    host.data_dir().join("instances").join(name)
}

/// What `main` alone may read.
fn token_file(host: &Host) -> String {
    instance(host, "main").join("state/openclaw.json").display().to_string()
}

#[tokio::test]
async fn what_is_run_in_an_instance_opens_what_its_gateway_opens_and_no_neighbours_token() {
    let (host, Some(_)) = neighbours().await else { return };
    let token = token_file(&host);
    let script = "pwd; cat $OPENCLAW_STATE_DIR/openclaw.json >/dev/null && echo x >kept && stat -c %a kept";
    let home = instance(&host, "lab").join("home");
    assert_eq!(done(&run(&host, script)), format!("{}\n600\n", home.display()));
    let refused = run(&host, &format!("cat {token}"));
    assert!(!refused.status.success() && said(&refused).contains("ermission denied"), "{refused:?}");
    let outside = command(&host, &["run", "--outside", "lab", "--", "cat", &token]).output().unwrap();
    assert!(done(&outside).contains("token"));
}

#[tokio::test]
async fn settings_that_an_agent_has_planted_do_nothing_for_it_when_a_person_runs_a_shell_there() {
    let (host, Some(_)) = neighbours().await else { return };
    let ctl = program("openclawctl");
    let planted = format!(
        "cat {token} 2>/dev/null; {ctl} --data-dir {data} down main --yes\n",
        token = token_file(&host),
        ctl = ctl.display(),
        data = host.data_dir().display(),
    );
    fs::write(instance(&host, "lab").join("home/.profile"), planted).unwrap();
    let shell = ["lab", "--", "sh", "-lc", "true"];
    let behind = command(&host, &[&["run"], &shell[..]].concat()).output().unwrap();
    assert!(!said(&behind).contains("token"), "{behind:?}");
    assert!(said(&behind).contains("called from inside `lab`"), "{behind:?}");
    assert_eq!(host.status("main").await.phase(), Phase::Ready);
    // Which is what it does without them.
    let outside = command(&host, &[&["run", "--outside"], &shell[..]].concat()).output().unwrap();
    assert!(said(&outside).contains("token"), "{outside:?}");
    host.wait("main", "down", |status| status.phase() == Phase::Stopped).await;
}

#[tokio::test]
async fn what_is_run_in_an_instance_is_traced_to_it_however_it_hides() {
    let (host, _) = neighbours().await;
    let ctl = format!("{} --data-dir {}", program("openclawctl").display(), host.data_dir().display());
    let own = done(&run(&host, &format!("{ctl} status")));
    assert!(own.contains("lab") && !own.contains("main"), "{own}");
    for hidden in ["", "env -i ", "env -i setsid -w ", "env -i OPENCLAWCTL_MARK=x/y setsid -w "] {
        let refused = run(&host, &format!("{hidden}{ctl} status main"));
        assert_eq!(refused.status.code(), Some(7), "{hidden}: {refused:?}");
        assert!(said(&refused).contains("called from inside `lab`"), "{hidden}: {refused:?}");
    }
    // Whose parent has gone.
    let orphan = format!(
        "(env -i setsid sh -c '{ctl} status main >told 2>&1; echo $? >status' &) ; \
                          until [ -s status ]; do sleep 0.05; done; cat status told"
    );
    let told = done(&run(&host, &orphan));
    assert!(told.starts_with("7\n") && told.contains("called from inside `lab`"), "{told}");
    // It is on record who has entered.
    let record = done(&command(&host, &["audit"]).output().unwrap());
    assert!(record.contains("EnterInstance") && record.contains("lab"), "{record}");
}

#[tokio::test]
async fn a_command_that_is_run_behind_walls_ends_as_it_would_alone() {
    let (host, _) = neighbours().await;
    assert_eq!(run(&host, "exit 42").status.code(), Some(42));
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGPIPE] {
        let ended = run(&host, &format!("kill -{} $$", signal as i32));
        assert_eq!(ended.status.signal(), Some(signal as i32), "{ended:?}");
    }
    let missing = command(&host, &["run", "lab", "--", "no-such-program"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");
    assert!(said(&missing).contains("cannot run `no-such-program`"), "{missing:?}");
    let data = command(&host, &["run", "lab", "--", "/etc/passwd"]).output().unwrap();
    assert_eq!(data.status.code(), Some(126), "{data:?}");
}

#[tokio::test]
async fn what_is_piped_into_a_command_reaches_it_and_nothing_it_starts_is_left() {
    let (host, _) = neighbours().await;
    let script = "cat | tr a-z A-Z; setsid sleep 600 </dev/null >/dev/null 2>&1 & echo $! >&2; exit 3";
    let mut running = command(&host, &["run", "lab", "--", "sh", "-c", script]);
    let mut running =
        running.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = running.stdin.take().unwrap();
    // More than a pipe holds, so that both have to go on at once.
    let text = "abcdefg\n".repeat(40_000);
    let sent = text.clone();
    let sender = std::thread::spawn(move || input.write_all(sent.as_bytes()));
    let output = running.wait_with_output().unwrap();
    sender.join().unwrap().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), text.to_uppercase());
    let errors = String::from_utf8_lossy(&output.stderr);
    let left: i32 = errors.lines().last().unwrap().parse().unwrap();
    assert!(!is_alive(left), "process {left} has outlived the command that started it");
}

#[tokio::test]
async fn a_signal_to_what_stands_around_a_command_reaches_the_command() {
    let (host, _) = neighbours().await;
    let script = "trap 'exit 5' TERM; echo $$ >mine; while :; do sleep 0.05; done";
    let mut running = command(&host, &["run", "lab", "--", "sh", "-c", script]).spawn().unwrap();
    let mine = instance(&host, "lab").join("home/mine");
    until("it runs", async || fs::read_to_string(&mine).ok().filter(|text| text.ends_with('\n'))).await;
    kill(pid(&running), Signal::SIGTERM).unwrap();
    let ended = end_of(&mut running).await;
    assert_eq!(ended.code(), Some(5));
}

#[tokio::test]
async fn a_command_dies_with_what_stands_around_it_and_what_it_left_running_is_still_the_instances() {
    let (host, _) = neighbours().await;
    let script =
        "setsid sleep 600 </dev/null >/dev/null 2>&1 & echo $! $$ >pids; while :; do sleep 0.05; done";
    let mut running = command(&host, &["run", "lab", "--", "sh", "-c", script]).spawn().unwrap();
    let pids = instance(&host, "lab").join("home/pids");
    let text = until("it runs", async || fs::read_to_string(&pids).ok().filter(|text| text.ends_with('\n')));
    let pids: Vec<i32> = text.await.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    let [left, inner] = pids[..] else { panic!("{pids:?}") };
    running.kill().unwrap();
    running.wait().unwrap();
    until("the command is dead", async || (!is_alive(inner)).then_some(())).await;
    // Nobody stands around that any more, who would have heard of it. It has its walls and its mark.
    assert!(is_alive(left), "it has ended, and the help says that it goes on");
    let read = |file: &str| fs::read(format!("/proc/{left}/{file}")).unwrap();
    let walled = |status: Vec<u8>| String::from_utf8(status).unwrap().contains("NoNewPrivs:\t1");
    assert!(walled(read("status")));
    let mark = |variable: &[u8]| variable.starts_with(b"OPENCLAWCTL_MARK=") && variable.ends_with(b"/lab");
    assert!(read("environ").split(|byte| *byte == 0).any(mark));
    // By which it is ended where its worker has died.
    kill_9(host.status("lab").await.worker_pid);
    until("it is dead", async || (!is_alive(left)).then_some(())).await;
}

#[tokio::test]
async fn what_was_run_in_an_instance_is_no_guest_of_the_next_one_of_its_name() {
    let (host, _) = neighbours().await;
    let script = "echo $$ >pids; while :; do sleep 0.05; done";
    let mut running = command(&host, &["run", "lab", "--", "sh", "-c", script]).spawn().unwrap();
    let pids = instance(&host, "lab").join("home/pids");
    let text = until("it runs", async || fs::read_to_string(&pids).ok().filter(|text| text.ends_with('\n')));
    let inner: i32 = text.await.trim().parse().unwrap();
    host.down("lab").await;
    assert!(is_alive(inner), "a stop is none of it");
    let delete = DeleteInstanceRequest { name: "lab".into(), ..Default::default() };
    host.instances().await.delete_instance(delete).await.unwrap();
    host.create("lab", builtin()).await;
    host.up("lab").await;
    assert!(!is_alive(inner));
    assert!(!end_of(&mut running).await.success());
}

async fn end_of(child: &mut Child) -> ExitStatus {
    until("it has ended", async || child.try_wait().unwrap()).await
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// A terminal, and whoever sits at it.
struct Terminal {
    side: File,
    name: String,
    shown: String,
    read: usize,
}

impl Terminal {
    /// Runs `command` as the leader of a session that has this terminal.
    fn run(command: &Command) -> (Self, Child) {
        let size = Winsize { ws_row: 31, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let end = || -> OwnedFd { pair.slave.try_clone().unwrap() };
        let mut leader = Command::new("setsid");
        leader.arg("--ctty").arg(command.get_program()).args(command.get_args());
        let child = leader.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let name = ttyname(&pair.slave).unwrap().to_str().unwrap().to_owned();
        (Self { side: File::from(pair.master), name, shown: String::new(), read: 0 }, child)
    }

    fn type_in(&mut self, text: &str) {
        self.side.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until this is shown, behind what has been waited for before.
    fn shows(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown[self.read..].find(text) {
                self.read += at + text.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap();
            let ready = poll(&mut [PollFd::new(self.side.as_fd(), PollFlags::POLLIN)], timeout);
            assert_eq!(ready, Ok(1), "`{text}` is not shown: {}", self.shown);
            let mut bytes = [0; 1024];
            let length = self.side.read(&mut bytes);
            let length = length.unwrap_or_else(|error| panic!("{error}; `{text}` is not in {}", self.shown));
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    }
}

#[tokio::test]
async fn a_command_has_the_terminal_its_size_and_its_interrupt() {
    let (host, _) = neighbours().await;
    let script = "stty size; read line; echo \"got $line\"; \
                  trap 'echo caught; exit 9' INT; echo go on; while :; do sleep 0.05; done";
    let (mut terminal, mut leader) =
        Terminal::run(&command(&host, &["run", "lab", "--", "sh", "-c", script]));
    terminal.shows("31 97");
    terminal.type_in("hello\r");
    terminal.shows("got hello");
    terminal.shows("go on");
    terminal.type_in("\x03");
    terminal.shows("caught");
    assert_eq!(end_of(&mut leader).await.code(), Some(9));
    // Without a trap it ends by the signal, as its shell has to know.
    let script = "echo go on; while :; do sleep 0.05; done";
    let (mut terminal, mut leader) =
        Terminal::run(&command(&host, &["run", "lab", "--", "sh", "-c", script]));
    terminal.shows("go on");
    terminal.type_in("\x03");
    assert_eq!(end_of(&mut leader).await.signal(), Some(Signal::SIGINT as i32));
}

#[tokio::test]
async fn a_command_gets_nothing_of_the_terminal_that_it_could_hand_on() {
    let (host, _) = neighbours().await;
    let script = "echo at; readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2; echo done; \
                  ps -o sid= -p $$; stty -echo; echo asks >/dev/tty; read word </dev/tty; echo \"got $word\"";
    let (mut terminal, mut leader) =
        Terminal::run(&command(&host, &["run", "lab", "--", "sh", "-c", script]));
    terminal.shows("asks");
    terminal.type_in("secret\r");
    terminal.shows("got secret");
    assert!(end_of(&mut leader).await.success());
    let (_, shown) = terminal.shown.split_once("at\r\n").unwrap();
    let (streams, session) = shown.split_once("done\r\n").unwrap();
    let streams: Vec<&str> = streams.lines().collect();
    assert!(streams.len() == 3 && streams.iter().all(|stream| stream.starts_with("/dev/pts/")), "{shown}");
    assert!(streams.iter().all(|stream| *stream != terminal.name), "{shown}");
    let session: u32 = session.lines().next().unwrap().trim().parse().unwrap();
    assert_ne!(session, leader.id(), "nor does /dev/tty lead to it");
    assert_eq!(
        terminal.shown.matches("secret").count(),
        1,
        "what is typed is not shown where the command says so"
    );
}

#[tokio::test]
async fn a_command_is_suspended_and_goes_on_as_a_job_of_the_shell() {
    let (host, _) = neighbours().await;
    // By the terminal, and by itself where its signals reach nobody outside the walls, as editors do it.
    let script = "echo one; read line; echo \"got $line\"; kill -TSTP $$; echo three; exit 4";
    let inner = format!(
        "set -m; {} --data-dir {} run lab -- sh -c '{script}'; echo first $(($? > 128)); \
         fg >/dev/null; echo second $(($? > 128)); fg >/dev/null; echo ended $?",
        program("openclawctl").display(),
        host.data_dir().display()
    );
    let mut shell = Command::new("bash");
    shell.args(["--norc", "-c", &inner]);
    let (mut terminal, mut leader) = Terminal::run(&shell);
    terminal.shows("one");
    terminal.type_in("\x1a");
    terminal.shows("first 1");
    terminal.type_in("words\r");
    terminal.shows("got words");
    terminal.shows("second 1");
    terminal.shows("three");
    terminal.shows("ended 4");
    assert!(end_of(&mut leader).await.success());
}

#[tokio::test]
async fn a_command_that_stops_again_at_once_is_not_sent_on_its_way_but_by_the_shell() {
    let (host, _) = neighbours().await;
    let stops = 200;
    let script = format!("i=0; while [ $i -lt {stops} ]; do i=$((i + 1)); kill -STOP $$; done; exit 4");
    let inner = format!(
        "set -m; {} --data-dir {} run lab -- sh -c '{script}'; status=$?; stopped=0; \
         while [ $status -gt 128 ]; do stopped=$((stopped + 1)); fg >/dev/null; status=$?; done; \
         echo stopped $stopped, ended $status",
        program("openclawctl").display(),
        host.data_dir().display()
    );
    let mut shell = Command::new("bash");
    shell.args(["--norc", "-c", &inner]);
    let (mut terminal, mut leader) = Terminal::run(&shell);
    terminal.shows(&format!("stopped {stops}, ended 4"));
    assert!(end_of(&mut leader).await.success());
}

#[tokio::test]
async fn a_command_runs_as_the_user_of_its_instance_or_not_at_all() {
    if !geteuid().is_root() {
        eprintln!("nothing is tried here: it takes root to run something as another user");
        return;
    }
    let mut host = Host::prepare();
    let settings = host.data_dir().join("settings.yaml");
    let access = format!("access:\n- {{uid: {ANOTHER}, role: operator}}\n");
    fs::write(&settings, fs::read_to_string(&settings).unwrap() + &access).unwrap();
    host.start_supervisor().await;
    fs::set_permissions(host.directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let tools = host.directory.path().join("tools");
    fs::create_dir(&tools).unwrap();
    for tool in ["openclawctl", "gateway-worker"] {
        fs::copy(program(tool), tools.join(tool)).unwrap();
    }
    let spec = InstanceSpec { user: ITS_USER.to_string(), ..Agent::spec(WallPolicy::default()) };
    let _agent = Agent::start(&host, "lab", spec).await;
    let out = host.directory.path().join("out");
    let script = "id -u; id -g; echo mine >$OPENCLAW_STATE_DIR/by-hand";
    let status = command(&host, &["run", "lab", "--", "sh", "-c", script])
        .stdout(File::create(&out).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::read_to_string(&out).unwrap(), format!("{ITS_USER}\n{ITS_USER}\n"));
    assert_eq!(fs::metadata(&out).unwrap().uid(), 0, "what is somebody's own was given away");
    let made = instance(&host, "lab").join("state/by-hand");
    assert_eq!(fs::metadata(made).unwrap().uid(), ITS_USER);

    let mut other = Command::new(tools.join("openclawctl"));
    other.arg("--data-dir").arg(host.data_dir()).uid(ANOTHER).gid(ANOTHER).current_dir("/");
    let refused = other.args(["run", "lab", "--", "true"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(7), "{refused:?}");
    assert!(
        said(&refused).contains(&format!("has to be user {ITS_USER}, and user {ANOTHER} cannot")),
        "{refused:?}"
    );
}
