//! Modes of files: an agent changes those of its own, and nobody else's of its user.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{
    AtFlags, CWD, MemfdFlags, Mode, OFlags, chmod, chmodat, chown, chownat, fchmod, fchown, memfd_create,
    open,
};
use rustix::io::Errno;

use super::*;

/// Everybody but root, whom no mode keeps out.
fn as_everybody_but_root(test: impl Fn(Who)) {
    as_everybody(|who| {
        if who == Who::Nobody || !getuid().is_root() {
            test(who);
        }
    });
}

/// fchmodat2(2), which C libraries imitate where they do not know it.
fn chmodat2(at: BorrowedFd<'_>, path: &CStr, flags: i32) -> rustix::io::Result<()> {
    attack::fchmodat2(at.as_raw_fd(), path, 0o666, flags)
}

/// Opens `target` to all users of the host, in every way there is. It is outside, but for `readable`, which may be read.
pub(super) fn open_up(targets: &str) -> std::io::Result<()> {
    let (target, readable) = targets.split_once(' ').unwrap();
    let group = Some(rustix::process::getegid());
    let all = Mode::from_raw_mode(0o666);
    let (directory, name) = target.rsplit_once('/').unwrap();
    let held: OwnedFd = open(target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let directory: OwnedFd = open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let read: OwnedFd = open(readable, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let _ = std::fs::remove_file("leads-out");
    symlink(target, "leads-out")?;
    let held_by_number = format!("/proc/{}/fd/{}", std::process::id(), held.as_raw_fd());
    let outcomes = [
        ("chmod", chmod(target, all)),
        ("through itself", chmod(format!("/proc/self/root{target}"), all)),
        ("by a link", chmod("leads-out", all)),
        ("by a way around", chmod(format!("../home/../../../../../../../..{target}"), all)),
        ("in its directory", chmodat(&directory, name, all, AtFlags::empty())),
        ("held, by /proc", chmod(format!("/proc/self/fd/{}", held.as_raw_fd()), all)),
        ("held, by its number", chmod(held_by_number, all)),
        ("held, by /dev", chmod(format!("/dev/fd/{}", held.as_raw_fd()), all)),
        ("held", chmodat2(held.as_fd(), c"", libc::AT_EMPTY_PATH)),
        ("read", fchmod(&read, all)),
        ("to its group", chown(target, None, group)),
        ("to its group, by a link", chown("leads-out", None, group)),
        ("to its group, in its directory", chownat(&directory, name, None, group, AtFlags::SYMLINK_NOFOLLOW)),
        ("to its group, held", chownat(&held, "", None, group, AtFlags::EMPTY_PATH)),
        ("to its group, read", fchown(&read, None, group)),
        ("what is above", chmod("..", Mode::from_raw_mode(0o777))),
    ];
    let refused = |(way, outcome): &(&str, rustix::io::Result<()>)| {
        eprintln!("{way}: {outcome:?}");
        matches!(*outcome, Err(Errno::PERM | Errno::LOOP | Errno::ACCESS))
    };
    attack::all_or_none(outcomes.iter().filter(|outcome| refused(outcome)).count(), outcomes.len())
}

/// Opens what `target` was to all users of the host, once something else has its name.
pub(super) fn open_up_replaced(target: &str) -> std::io::Result<()> {
    let held: OwnedFd = open(target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    std::fs::write("held", "")?;
    eventually("the file is replaced", || rustix::fs::fstat(&held).unwrap().st_nlink == 0);
    chmodat2(held.as_fd(), c"", libc::AT_EMPTY_PATH)?;
    Ok(())
}

/// What every program does with modes of its own files.
pub(super) fn own() -> std::io::Result<()> {
    let mode = |path: &str| std::fs::metadata(path).map(|found| found.permissions().mode() & 0o7777);
    std::fs::create_dir_all("tree/within")?;
    std::fs::write("tree/file", "#!/bin/sh\nexit 0\n")?;
    let _ = std::fs::remove_file("leads-in");
    symlink("tree/file", "leads-in")?;
    let tree: OwnedFd = open("tree", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let file = File::open("tree/file")?;
    let absolute = std::fs::canonicalize("tree/file")?;
    let at = |bits| Mode::from_raw_mode(bits);
    chmod("tree/file", at(0o755))?;
    assert_eq!(mode("tree/file")?, 0o755);
    assert!(Command::new("./tree/file").status()?.success());
    chmod(&absolute, at(0o640))?;
    assert_eq!(mode("tree/file")?, 0o640);
    chmodat(&tree, "file", at(0o700), AtFlags::empty())?;
    assert_eq!(mode("tree/file")?, 0o700);
    chmod("leads-in", at(0o644))?;
    assert_eq!(mode("tree/file")?, 0o644);
    fchmod(&file, at(0o600))?;
    assert_eq!(mode("tree/file")?, 0o600);
    chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), at(0o604))?;
    assert_eq!(mode("tree/file")?, 0o604);
    chmodat(CWD, "tree/within", at(0o1755), AtFlags::empty())?;
    assert_eq!(mode("tree/within")?, 0o1755);
    let groups = rustix::process::getgroups()?.into_iter().chain([rustix::process::getegid()]);
    for group in groups.filter(|group| group.as_raw() != u32::MAX) {
        chown("tree/file", Some(rustix::process::geteuid()), Some(group))?;
        fchown(&file, None, Some(group))?;
        chownat(&tree, "file", None, Some(group), AtFlags::empty())?;
        chownat(CWD, "leads-in", None, Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        for path in ["tree/file", "leads-in"] {
            assert_eq!(std::fs::symlink_metadata(path)?.gid(), group.as_raw(), "{path}");
        }
    }
    std::env::set_current_dir("tree/within")?;
    chmod("..", at(0o711))?;
    assert_eq!(mode("..")?, 0o711);
    std::env::set_current_dir("../..")?;
    let nameless = memfd_create("memory", MemfdFlags::CLOEXEC)?;
    fchmod(&nameless, at(0o700))?;
    std::fs::remove_file("tree/file")?;
    fchmod(&file, at(0o400))?;
    let odd = OsStr::from_bytes(b"tree/\xff");
    std::fs::write(odd, "")?;
    chmod(odd, at(0o600))?;
    let long = format!("{}tree/within", "./".repeat(2_000));
    chmod(&long, at(0o700))?;
    assert_eq!(mode("tree/within")?, 0o700);
    assert_eq!(chmod(format!("{}{long}", "./".repeat(100)), at(0o700)), Err(Errno::NAMETOOLONG));
    let missing = [chmod("tree/file", at(0o600)), chmod("tree/within/x/y", at(0o600)), chmod("", at(0o600))];
    assert_eq!(missing, [Err(Errno::NOENT); 3]);
    assert_eq!(chmodat2(CWD, c"tree", 0x4000), Err(Errno::INVAL));
    let link = chmodat2(CWD, c"leads-in", libc::AT_SYMLINK_NOFOLLOW);
    assert_eq!(link, Err(Errno::OPNOTSUPP));
    Ok(())
}

#[test]
fn an_agent_that_opens_files_of_its_user_to_all_users_is_refused_in_every_way() {
    as_everybody_but_root(|who| {
        let (attacker, victim) = (Home::of(who), Home::of(who));
        let (state, granted) = (victim.file("state"), victim.file("granted"));
        let mut walls = attacker.walls();
        walls.read.push(granted.clone());
        let attack = format!("open-up {state} {granted}");
        let modes = || {
            [&state, &granted, &victim.place.path().to_str().unwrap().to_owned()]
                .map(|path| fs::metadata(path).unwrap().permissions().mode() & 0o066)
        };
        let outcome = attacker.outcome(&attack, Some(walls));
        assert_eq!(outcome, Some(How::Code(libc::EPERM)), "{who:?}: {}", attacker.place.captured());
        assert_eq!(modes(), [0, 0, modes()[2]]);
        assert_eq!(attacker.outcome(&attack, None), Some(How::Code(0)), "{}", attacker.place.captured());
        assert_eq!(modes()[..2], [0o066, 0o066]);
    });
}

#[test]
fn an_agent_that_opens_what_a_neighbours_file_was_before_it_was_replaced_is_refused() {
    as_everybody_but_root(|who| {
        let (attacker, victim) = (Home::of(who), Home::of(who));
        for (walls, code) in [(Some(attacker.walls()), libc::EPERM), (None, 0)] {
            let (state, held) = (victim.file("state"), attacker.place.home().join("held"));
            let opened = File::open(&state).unwrap();
            let launch = attacker.attack(&format!("open-up-replaced {state}"), walls);
            let (_worker, mut link, _) = attacker.start(launch);
            eventually("it holds the file", || held.exists());
            fs::remove_file(held).unwrap();
            fs::rename(victim.file("state.new"), &state).unwrap();
            assert_eq!(link.exited().how, Some(How::Code(code)), "{}", attacker.place.captured());
            let mode = opened.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, if code == 0 { 0o666 } else { 0o600 });
        }
    });
}

#[test]
fn a_gateway_of_another_user_changes_modes_of_its_own_files_alone() {
    let Some((home, user)) = report::passable() else { return };
    let user = User { groups: vec![4711], ..user };
    std::os::unix::fs::chown(home.place.home(), Some(user.uid), Some(user.gid)).unwrap();
    // Only a group of that user's may go there.
    std::os::unix::fs::chown(home.place.path(), Some(4712), Some(4711)).unwrap();
    let victim = Home::of(Who::Nobody);
    for (path, mode) in [(victim.place.path(), 0o755), (home.place.path(), 0o710)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let (state, granted) = (victim.file("state"), victim.file("granted"));
    let mut walls = Walls { user: Some(user), ..home.walls() };
    walls.read.push(granted.clone());
    let outcome = |attack: &str| home.outcome(attack, Some(walls.clone()));
    assert_eq!(outcome("own-modes"), Some(How::Code(0)), "{}", home.place.captured());
    let attack = format!("open-up {state} {granted}");
    assert_eq!(outcome(&attack), Some(How::Code(libc::EPERM)), "{}", home.place.captured());
    for path in [&state, &granted] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o077, 0, "{path}");
    }
}

#[test]
fn an_agent_changes_the_modes_of_its_own_files_as_ever() {
    as_everybody(|who| {
        let home = Home::of(who);
        for walls in [Some(home.walls()), None] {
            let outcome = home.outcome("own-modes", walls);
            assert_eq!(outcome, Some(How::Code(0)), "{who:?}: {}", home.place.captured());
        }
    });
}
