//! Asks runtimes what they can do, and their gateways why they ended. Both take seconds, so only a first start and the
//! instance that ended wait for them.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    path::PathBuf,
    rc::Rc,
    time::{Duration, SystemTime},
};

use supervisor_core::{
    event::{Event, Handoff},
    ids::{Incarnation, Name},
};
use tokio::{sync::watch, task, time};

use super::{Groups, Surroundings, config::Place};
use crate::{
    openclaw::{
        contract::{CAPABILITIES, Contract, capable, consume, left, tool},
        prepare::Refusal,
        reach, runtime,
    },
    spec::Kind,
    tool::Tool,
    user,
};

/// OpenClaw's commands take up to 20 s on a loaded host before they say anything.
const CAPABLE: Duration = Duration::from_secs(120);

/// A first start waits so long for what its runtime can do, and then goes on without. Core waits twice as long for a
/// launch.
pub(super) const FIRST_START: Duration = Duration::from_secs(15);

/// Whether a gateway wants to be run again is asked for this long: less than core waits for it. Until then it is not
/// run, and its rescue is not called. OpenClaw needs 6 s of processor time to answer: 5 s of two idle cores, 12 s of
/// two busy ones. What it left is lost after 60 s.
const ASK: Duration = Duration::from_secs(25);

/// A program as it is now.
type Program = (PathBuf, Option<SystemTime>);

/// What is known of programs; `None` while they are being asked.
#[derive(Debug, Default)]
pub(crate) struct Contracts {
    known: RefCell<HashMap<Program, watch::Receiver<Option<Contract>>>>,
}

impl Contracts {
    /// What the runtime at `place` can do, as far as it is known by then. Asks it if nobody has.
    pub(super) async fn of(
        surroundings: &Rc<Surroundings>,
        place: &Place,
        mark: &str,
        patience: Duration,
    ) -> Contract {
        match place.kind() {
            Kind::Builtin => return Contract::Handoff,
            Kind::Command => return Contract::None,
            Kind::Openclaw => {}
        }
        let of = place.clone();
        let Ok(Some(program)) = task::spawn_blocking(move || program(&of)).await else {
            return Contract::None;
        };
        let mut answer = Self::asked(surroundings, place.clone(), mark.to_owned(), program);
        let known = time::timeout(patience, answer.wait_for(Option::is_some)).await;
        known.ok().and_then(Result::ok).and_then(|known| *known).unwrap_or_default()
    }

    fn asked(
        surroundings: &Rc<Surroundings>,
        place: Place,
        mark: String,
        program: Program,
    ) -> watch::Receiver<Option<Contract>> {
        let mut known = surroundings.contracts.known.borrow_mut();
        if let Some(answer) = known.get(&program) {
            return answer.clone();
        }
        let (tell, answer) = watch::channel(None);
        // Of what it was before it was replaced nobody asks any more.
        known.retain(|(path, _), _| *path != program.0);
        known.insert(program.clone(), answer.clone());
        let surroundings = Rc::clone(surroundings);
        task::spawn_local(async move {
            let args = CAPABILITIES.map(str::to_owned).to_vec();
            let groups = surroundings.groups.clone();
            let ready = move || make_ready(&place).and_then(|()| asking(&place, &groups, &mark, args));
            let said = match task::spawn_blocking(ready).await {
                Ok(Ok(tool)) => tool.ask_aside(CAPABLE).await,
                // What is wrong, the start will say.
                Ok(Err(_)) | Err(_) => None,
            };
            match said {
                Some(said) => drop(tell.send_replace(Some(capable(&said)))),
                // The next start asks again.
                None => drop(surroundings.contracts.known.borrow_mut().remove(&program)),
            }
        });
        answer
    }
}

/// What it would run, as it is now.
fn program(place: &Place) -> Option<Program> {
    let program = runtime::resolve(&place.spec, &place.host).ok()?.program;
    let modified = fs::metadata(&program).and_then(|found| found.modified()).ok();
    Some((program, modified))
}

/// Its runtime's own command line with these arguments.
fn asking(place: &Place, groups: &Groups, mark: &str, args: Vec<String>) -> Result<Tool, Refusal> {
    let neighbours = &place.neighbours;
    let mut tool = tool(&place.host, (&place.name, place.block, mark), (&place.spec, neighbours), args)?;
    if let (Some(inside), Some(group)) = (&mut tool.inside, groups.existing(&place.name)) {
        inside.walls.cgroup = group.to_string_lossy().into_owned();
    }
    Ok(tool)
}

/// It may be the first of all starts. Others of its user's may run by then, so whose its directories are stays as it is.
fn make_ready(place: &Place) -> Result<(), Refusal> {
    let data_dir = &place.host.control.data_dir;
    let user = user::of(place.spec.user.as_ref())?;
    if user.is_some() {
        let _ = reach::let_pass(data_dir);
        reach::open_version(data_dir, &runtime::resolve(&place.spec, &place.host)?)?;
    }
    Ok(place.directories().create_for(data_dir, user.as_ref())?)
}

/// Finds out whether a gateway that ended well wants to be run again, and tells core.
pub(super) fn ask_handoff(
    surroundings: Rc<Surroundings>,
    name: Name,
    incarnation: Incarnation,
    pid: i32,
    contract: Contract,
) {
    task::spawn_local(async move {
        let handoff = match contract {
            Contract::Handoff => handoff(&surroundings, &name, pid).await,
            Contract::None => Handoff::Nothing,
        };
        let _ = surroundings.events.send(Event::Handoff(name, incarnation, handoff)).await;
    });
}

async fn handoff(surroundings: &Surroundings, name: &Name, pid: i32) -> Handoff {
    let Some(place) = Place::of(surroundings, name) else { return Handoff::Nothing };
    let mark = surroundings.mark(name);
    let groups = surroundings.groups.clone();
    let asked = task::spawn_blocking(move || asking(&place, &groups, &mark, consume(pid))).await;
    let Ok(Ok(tool)) = asked else { return Handoff::Unknown("its runtime cannot be asked any more".into()) };
    match tool.ask_aside(ASK).await {
        Some(answer) => left(&answer),
        None => Handoff::Unknown(format!("no answer within {} s", ASK.as_secs())),
    }
}
