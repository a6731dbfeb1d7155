//! Whether the supervisor's own files are its alone.

use super::{
    finding::{Finding, Mend, Severity, typed},
    fix::Fix,
    scene::{Budget, Scene},
};
use crate::custody::{self, Flaw, What};

/// Its directories, its store, its keys and its socket.
pub(super) fn own(scene: &Scene, _: &Budget) -> Vec<Finding> {
    if scene.wanted.is_some() {
        return Vec::new();
    }
    let for_all = scene.patients.iter().any(|patient| patient.spec.user.is_some());
    let socket = custody::look_at_socket(&scene.host.control.socket, for_all);
    let way = custody::look_at_way(scene.data_dir()).into_iter().map(of_way);
    way.chain(custody::look(scene.data_dir()).into_iter().chain(socket).map(finding)).collect()
}

fn of_way(flaw: Flaw) -> Finding {
    match flaw.what {
        What::Foreign(_) | What::Read | What::Loose | What::Shut => finding(flaw),
        What::Changed => {
            let (shown, mode) = (flaw.path.display(), flaw.mode);
            let what = format!("all users may write in `{shown}` (mode {mode:o}), above the data directory");
            let why = "they can move the data directory away and put another there";
            let mend = typed(&format!("chmod {:o}", flaw.should), [&flaw.path]);
            let owner = nix::unistd::geteuid().as_raw();
            let fix = vec![Fix::Close { path: flaw.path.clone(), mode: flaw.should, owner }];
            Finding::new("state.way", Severity::Error, what, why, mend)
                .fixed_by(fix)
                .in_file(&flaw.path, None)
        }
    }
}

fn finding(Flaw { path, what, mode, should }: Flaw) -> Finding {
    let shown = path.display();
    let close = typed(&format!("chmod {should:o}"), [&path]);
    let owner = nix::unistd::geteuid().as_raw();
    let fix = vec![Fix::Close { path: path.clone(), mode: should, owner }];
    match what {
        What::Foreign(owner) => {
            let me = nix::unistd::geteuid();
            let what = format!("`{shown}` belongs to user {owner}, and the supervisor runs as user {me}");
            let why = "that user may change what runs here, and the next supervisor refuses to start";
            let mend = Mend::Type(custody::own(&path, me.as_raw()));
            Finding::new("state.foreign", Severity::Error, what, why, mend)
        }
        What::Changed => {
            let what = format!("`{shown}` can be changed by other users (mode {mode:o})");
            let why = "what it says decides what runs here; see that it is as you left it, for the next supervisor \
                       refuses to start until it is closed";
            Finding::new("state.writable", Severity::Error, what, why, close)
        }
        What::Read => {
            let what = format!("`{shown}` can be read by other users (mode {mode:o})");
            let why = "whoever has read it may use the secrets in it until they are made anew";
            Finding::new("state.readable", Severity::Error, what, why, close).fixed_by(fix)
        }
        What::Shut => {
            let what = format!("the supervisor does not get at `{shown}` (mode {mode:o})");
            let why = "an agent of its user can take that away; the supervisor gives it back within a minute, unless somebody keeps \
                       taking it: then stop that agent";
            Finding::new("state.shut", Severity::Error, what, why, close).fixed_by(fix)
        }
        What::Loose => {
            let what = format!("`{shown}` is open to other users by its mode ({mode:o})");
            let why = "it is as safe as the directories around it, and its copies are not";
            Finding::new("state.open", Severity::Note, what, why, close).fixed_by(fix)
        }
    }
    .in_file(&path, None)
}
