//! Trees as agents might leave them.

use std::{
    fs as std_fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
};

use super::*;

/// Deeper than a thread's stack is, if each level is a call.
const ABYSS: u32 = 30_000;

fn all(_: &CStr) -> bool {
    true
}

fn world() -> (tempfile::TempDir, PathBuf) {
    let world = tempfile::tempdir().unwrap();
    let path = world.path().canonicalize().unwrap();
    std_fs::create_dir(path.join("tree")).unwrap();
    (world, path)
}

/// Directories in one another.
fn dig(tree: &Path, levels: u32) {
    let mut directory = fs::open(tree, DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..levels {
        fs::mkdirat(&directory, c"1", PRIVATE).unwrap();
        directory = below(&directory, c"1").unwrap();
    }
}

#[test]
fn a_tree_that_is_too_deep_for_any_stack_is_removed() {
    let (_world, at) = world();
    dig(&at.join("tree"), ABYSS);
    std_fs::write(at.join("tree/2"), "in the way of what is moved up").unwrap();
    remove(&at.join("tree")).unwrap();
    assert_eq!(std_fs::read_dir(&at).unwrap().count(), 0);
}

#[test]
fn a_tree_that_is_too_deep_is_neither_measured_nor_copied() {
    let (_world, at) = world();
    dig(&at.join("tree"), DEPTH + 1);
    let told = |outcome: io::Result<()>| outcome.unwrap_err().to_string();
    let why = "directories lie in one another more than 128 deep";
    assert_eq!(told(measure(&at.join("tree"), &all).map(drop)), why);
    assert_eq!(told(copy(&at.join("tree"), &at.join("copy"), &all)), why);
}

#[test]
fn what_is_linked_in_a_tree_is_neither_copied_nor_removed() {
    let (_world, at) = world();
    std_fs::create_dir(at.join("outside")).unwrap();
    std_fs::write(at.join("outside/file"), "mine").unwrap();
    symlink(at.join("outside"), at.join("tree/directory")).unwrap();
    symlink(at.join("outside/file"), at.join("tree/file")).unwrap();
    copy(&at.join("tree"), &at.join("copy"), &all).unwrap();
    assert_eq!(std_fs::read_link(at.join("copy/directory")).unwrap(), at.join("outside"));
    assert_eq!(std_fs::read_link(at.join("copy/file")).unwrap(), at.join("outside/file"));
    remove(&at.join("copy")).unwrap();
    assert_eq!(std_fs::read_to_string(at.join("outside/file")).unwrap(), "mine");
    // Nor is a link taken for the tree itself.
    symlink(at.join("outside"), at.join("link")).unwrap();
    assert!(copy(&at.join("link"), &at.join("copy"), &all).is_err());
    remove(&at.join("link")).unwrap();
    assert_eq!(std_fs::read_to_string(at.join("outside/file")).unwrap(), "mine");
}

#[test]
fn a_copy_has_the_owners_and_times_of_the_original_and_runs_as_nobody_else() {
    let (_world, at) = world();
    let file = at.join("tree/file");
    std_fs::write(&file, "text").unwrap();
    if Owner::me().is_root() {
        std::os::unix::fs::chown(&file, Some(54_321), Some(54_321)).unwrap();
    }
    std_fs::set_permissions(&file, std_fs::Permissions::from_mode(0o6755)).unwrap();
    copy(&at.join("tree"), &at.join("copy"), &all).unwrap();
    let (before, after) = (file.metadata().unwrap(), at.join("copy/file").metadata().unwrap());
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
    assert_eq!(after.modified().unwrap(), before.modified().unwrap());
    assert_eq!(after.mode() & 0o7777, 0o755);
}

#[test]
fn a_hole_of_a_terabyte_takes_no_place_and_its_copy_takes_none() {
    use std::os::unix::fs::FileExt;
    const FAR: u64 = 1 << 39;
    let (_world, at) = world();
    let file = File::create(at.join("tree/file")).unwrap();
    for (offset, text) in [(0, "first"), (FAR, "in the middle")] {
        file.write_all_at(text.as_bytes(), offset).unwrap();
    }
    file.set_len(2 * FAR).unwrap();
    assert!(measure(&at.join("tree"), &all).unwrap() < 1 << 20);
    copy(&at.join("tree"), &at.join("copy"), &all).unwrap();
    let copied = File::open(at.join("copy/file")).unwrap();
    let about = copied.metadata().unwrap();
    assert_eq!(about.len(), 2 * FAR);
    assert!(about.blocks() * SECTOR < 1 << 20, "{about:?}");
    for (offset, text) in [(0, "first"), (FAR, "in the middle")] {
        let mut read = vec![0; text.len()];
        copied.read_exact_at(&mut read, offset).unwrap();
        assert_eq!(read, text.as_bytes());
    }
}

#[test]
fn a_file_of_many_names_takes_its_place_once_and_is_one_file_in_the_copy() {
    let (_world, at) = world();
    std_fs::create_dir_all(at.join("tree/deep/er")).unwrap();
    std_fs::write(at.join("tree/file"), vec![7; 1 << 20]).unwrap();
    for number in 0..100 {
        std_fs::hard_link(at.join("tree/file"), at.join(format!("tree/deep/er/{number}"))).unwrap();
    }
    std_fs::hard_link(at.join("tree/file"), at.join("elsewhere")).unwrap();
    assert!(measure(&at.join("tree"), &all).unwrap() < 2 << 20);
    copy(&at.join("tree"), &at.join("copy"), &all).unwrap();
    let about = std_fs::metadata(at.join("copy/file")).unwrap();
    assert_eq!((about.len(), about.nlink()), (1 << 20, 101));
    for name in ["0", "99"] {
        let other = std_fs::metadata(at.join("copy/deep/er").join(name)).unwrap();
        assert_eq!(other.ino(), about.ino());
    }
    assert_eq!(std_fs::metadata(at.join("elsewhere")).unwrap().nlink(), 102, "the copy has none of its own");
}

#[test]
fn what_is_no_file_is_left_out() {
    let (_world, at) = world();
    let _socket = std::os::unix::net::UnixListener::bind(at.join("tree/socket")).unwrap();
    nix::unistd::mkfifo(&at.join("tree/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    copy(&at.join("tree"), &at.join("copy"), &all).unwrap();
    assert_eq!(std_fs::read_dir(at.join("copy")).unwrap().count(), 0);
    remove(&at.join("tree/pipe")).unwrap();
}

#[test]
fn what_is_shared_is_read_and_run_by_all_and_changed_by_nobody_else() {
    let (_world, at) = world();
    let tree = at.join("tree");
    let put = |path: &str, mode: u32| {
        std_fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
        std_fs::write(tree.join(path), "").unwrap();
        std_fs::set_permissions(tree.join(path), std_fs::Permissions::from_mode(mode)).unwrap();
    };
    put("bin/openclaw", 0o700);
    put("bin/runs-as-root", 0o6755);
    put("deep/down/file", 0o600);
    put("for-all", 0o666);
    for directory in ["deep/down", "deep", "bin", ""] {
        std_fs::set_permissions(tree.join(directory), std_fs::Permissions::from_mode(0o700)).unwrap();
    }
    assert!(!is_shared(&tree).unwrap());
    share(&tree).unwrap();
    assert!(is_shared(&tree).unwrap());
    let mode = |path: &str| tree.join(path).metadata().unwrap().mode() & 0o7777;
    assert_eq!(["", "bin", "deep", "deep/down"].map(mode), [0o755; 4]);
    assert_eq!(["bin/openclaw", "bin/runs-as-root"].map(mode), [0o755; 2]);
    assert_eq!(["deep/down/file", "for-all"].map(mode), [0o644; 2]);
}

#[test]
fn what_is_linked_in_a_tree_or_anothers_is_not_shared() {
    let (_world, at) = world();
    let close = |path: &Path, mode| {
        std_fs::set_permissions(path, std_fs::Permissions::from_mode(mode)).unwrap();
    };
    std_fs::create_dir(at.join("outside")).unwrap();
    for file in ["outside/file", "outside/name", "tree/theirs"] {
        std_fs::write(at.join(file), "secret").unwrap();
        close(&at.join(file), 0o600);
    }
    close(&at.join("outside"), 0o700);
    symlink(at.join("outside"), at.join("tree/directory")).unwrap();
    symlink(at.join("outside/file"), at.join("tree/file")).unwrap();
    std_fs::hard_link(at.join("outside/name"), at.join("tree/name")).unwrap();
    if Owner::me().is_root() {
        std::os::unix::fs::chown(at.join("tree/theirs"), Some(54_321), None).unwrap();
    }
    share(&at.join("tree")).unwrap();
    let mode = |path: &str| at.join(path).metadata().unwrap().mode() & 0o7777;
    assert_eq!([mode("outside"), mode("outside/file"), mode("outside/name")], [0o700, 0o600, 0o600]);
    assert_eq!(mode("tree/theirs"), if Owner::me().is_root() { 0o600 } else { 0o644 });
    symlink(at.join("outside"), at.join("link")).unwrap();
    assert!(share(&at.join("link")).is_err());
    assert!(!is_shared(&at.join("link")).unwrap());
    assert_eq!(mode("outside"), 0o700);
}

/// Root is hindered by no mode; as other users this is what keeps a purge from being one.
#[test]
fn what_is_closed_to_its_owner_is_removed_too() {
    let (_world, at) = world();
    let tree = at.join("tree");
    std_fs::create_dir_all(tree.join("closed/inner")).unwrap();
    std_fs::write(tree.join("closed/inner/secret"), "mine").unwrap();
    for (path, mode) in [("closed/inner", 0o000), ("closed", 0o500), ("", 0o000)] {
        std_fs::set_permissions(tree.join(path), std_fs::Permissions::from_mode(mode)).unwrap();
    }
    remove(&tree).unwrap();
    assert!(!tree.exists());
}
