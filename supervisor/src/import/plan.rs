//! What an import would do, and what is in its way.

use supervisor_core::{
    event::{ApplyMode, Change, Command, Dangling},
    ids::Name,
    ports::Block,
    view::View,
};
use tokio::task;

use super::{Candidate, Importer, Wish, find::Found, journal};
use crate::{
    figures::descendants,
    handle::SubmitError,
    openclaw::{
        config::{
            Wanted,
            check::{check, told},
        },
        layout::{Directories, Neighbour, check_apart, led_by_agents, resolve},
        runtime,
        walls::grants::written_by_others,
    },
    registry,
    settings::ephemeral_ports,
    spec::{InstanceSpec, Runtime},
    typed::word,
};

impl Importer {
    /// What an import of `found` would do, and what the instance would be asked for.
    pub(super) async fn candidate(&self, found: &Found, wish: &Wish) -> (Candidate, InstanceSpec) {
        let spec = InstanceSpec {
            // Never the built-in gateway in the place of a real one.
            runtime: Some(Runtime::Openclaw),
            program: wish.program.clone(),
            port: found.port,
            profile: Some(found.profile()),
            env: found.env.clone(),
            ..InstanceSpec::default()
        };
        let view = self.handle.view();
        let neighbours = registry::neighbours(&view);
        let instance = owner(&neighbours, found);
        let (steps, obstacles) = match &instance {
            Some(_) => (Vec::new(), Vec::new()),
            None => (steps(found), self.obstacles(found, &spec, wish, &view, &neighbours).await),
        };
        let data_dir = self.data_dir().to_owned();
        let name = found.name.clone();
        let known = Name::new(&name).is_ok();
        let imported = known
            && task::spawn_blocking(move || journal::IMPORTS.read::<journal::Journal>(&data_dir, &name))
                .await
                .is_ok_and(|read| read.is_ok_and(|read| read.is_some()));
        let mut notes = found.notes.clone();
        let names: Vec<&str> = found.env.keys().map(String::as_str).collect();
        if !names.is_empty() {
            notes.push(format!("its unit sets {}, and so will the instance", names.join(", ")));
        }
        let candidate = Candidate {
            name: found.name.clone(),
            state: found.state.clone(),
            config: found.config.clone(),
            workspace: found.workspace.clone(),
            port: found.port,
            unit: found.unit.clone(),
            pid: found.running.map(|running| running.pid),
            sessions: found.sessions,
            imported: imported && instance.is_some(),
            instance,
            steps,
            obstacles,
            notes,
        };
        (candidate, spec)
    }

    async fn obstacles(
        &self,
        found: &Found,
        spec: &InstanceSpec,
        wish: &Wish,
        view: &View,
        neighbours: &[Neighbour],
    ) -> Vec<String> {
        let mut obstacles = Vec::new();
        let name = match Name::new(&found.name) {
            Ok(name) => name,
            Err(error) => return vec![format!("{error}; an instance cannot be called so")],
        };
        obstacles.extend(of_system(found, wish));
        obstacles.extend(of_elsewhere(found, wish));
        if let Err(missing) = runtime::resolve(spec, &self.host) {
            obstacles.push(format!("{missing}; {}", missing.mend()));
        }
        if view.instances.contains_key(&name) {
            obstacles.push(format!(
                "an instance `{name}` exists already, and has other directories; \
                 remove it with `openclawctl rm {name}`"
            ));
            return obstacles;
        }
        obstacles.extend(found.port.and_then(in_ephemeral_range));
        let mine = Directories::of(self.data_dir(), &name, spec);
        let others: Vec<(Name, Directories)> = neighbours
            .iter()
            .filter(|other| other.profile.is_some())
            .map(|other| (other.name.clone(), other.directories(self.data_dir())))
            .collect();
        let apart = check_apart(self.data_dir(), (&name, &mine), others.iter().map(|(name, at)| (name, at)));
        if let Err(clash) = apart {
            obstacles.push(format!("{clash}; {}", clash.mend()));
        }
        obstacles.extend(written_by_others(&mine, neighbours));
        obstacles.extend(led_by_agents(self.data_dir(), &found.as_found(), neighbours));
        match self.validate(&name, spec).await {
            Ok(()) => obstacles.extend(self.config_obstacle(found, &name, &mine, neighbours)),
            Err(denied) => obstacles.push(denied),
        }
        obstacles.extend(self.squatter(found).await);
        obstacles
    }

    /// Whether core would take the instance now.
    async fn validate(&self, name: &Name, spec: &InstanceSpec) -> Result<(), String> {
        let definition = registry::definition(name.clone(), spec, Dangling::Refused, &self.host)
            .map_err(|error| error.to_string())?;
        let changes = vec![Change::Put(definition)];
        let command = Command::Apply { changes, pool: None, mode: ApplyMode::Validate };
        match self.handle.submit(command).await {
            Ok(_) => Ok(()),
            Err(SubmitError::Denied(denied)) => {
                Err(format!("{denied}; give it another `gateway.port`, or make room in the pool"))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// What a start would say about the configuration.
    fn config_obstacle(
        &self,
        found: &Found,
        name: &Name,
        directories: &Directories,
        neighbours: &[Neighbour],
    ) -> Option<String> {
        if std::str::from_utf8(&found.content).is_err() {
            return Some(format!("`{}` is not UTF-8 text; save it as such", found.config.display()));
        }
        let block = Block::at(found.port?)?;
        let wanted =
            Wanted { name, directories, block, previous_base: None, data_dir: self.data_dir(), neighbours };
        check(&wanted, &found.content).err().map(|error| told(&error))
    }

    /// Who has the port, unless it is the profile's own gateway.
    async fn squatter(&self, found: &Found) -> Option<String> {
        let port = found.port?;
        let listeners = std::sync::Arc::clone(&self.listeners);
        let listening = task::spawn_blocking(move || listeners(&[port])).await.ok()?;
        let is_its = |pid: i32| {
            // Early versions leave the gateway to a child.
            let family = |own: i32| u32::try_from(pid).is_ok_and(|pid| descendants(own).contains(&pid));
            found.running.is_some_and(|running| running.pid == pid || family(running.pid))
        };
        let stranger = listening.into_iter().find(|one| !one.pid.is_some_and(is_its))?;
        let who = stranger.pid.map_or_else(String::new, |pid| format!(" {pid}"));
        Some(format!(
            "port {port} is held by process{who} ({}), which is not known to be its gateway; end it",
            stranger.command
        ))
    }
}

/// The instance that has the state directory.
fn owner(neighbours: &[Neighbour], found: &Found) -> Option<Name> {
    let state = resolve(&found.state);
    let has = |other: &&Neighbour| {
        let theirs = other.profile.as_ref().and_then(|profile| profile.state_dir.as_ref());
        theirs.is_some_and(|theirs| resolve(theirs) == state)
    };
    neighbours.iter().find(has).map(|other| other.name.clone())
}

/// What the host and its services have against it.
fn of_system(found: &Found, wish: &Wish) -> Vec<String> {
    let mut obstacles = Vec::new();
    let me = nix::unistd::geteuid();
    if found.uid != me.as_raw() {
        let (config, owner) = (found.config.display(), found.uid);
        obstacles.push(format!(
            "`{config}` belongs to user {owner}, not to user {me}; run a supervisor as that user"
        ));
    }
    if let Some(unit) = found.unit.as_ref().filter(|unit| unit.system && !me.is_root()) {
        let stop = unit.typed("disable --now");
        obstacles.push(format!("its unit is of the system; end it yourself with `sudo {stop}`"));
    }
    if found.ocm_runs {
        let name = word(&found.name);
        obstacles.push(format!("OCM runs it, and would start it again; `ocm service stop {name}` ends that"));
    }
    let by_hand = found.running.filter(|_| !found.unit.as_ref().is_some_and(|unit| unit.active));
    if let (Some(running), false, false) = (by_hand, wish.stop_running, found.ocm_runs) {
        obstacles.push(format!(
            "process {} is its gateway, and no unit runs it; `--stop-running` ends it",
            running.pid
        ));
    }
    obstacles
}

/// What lies elsewhere is opened to the agents, and only if people say so: a profile's own word may be an agent's.
fn of_elsewhere(found: &Found, wish: &Wish) -> Vec<String> {
    let [config, workspace] = found.elsewhere();
    let asked = [
        ("is the configuration", "--config", config, &found.config, &wish.config),
        ("is where its agents work", "--workspace", workspace, &found.workspace, &wish.workspace),
    ];
    let mut obstacles = Vec::new();
    for (what, flag, elsewhere, is, named) in asked {
        match (elsewhere, named) {
            (Some(path), named) if named.as_deref() != Some(path) => obstacles.push(format!(
                "`{0}` {what}, as the profile says, which its agents can write; if that is to be opened to them, say so \
                 with `{flag} {0}`",
                path.display()
            )),
            (None, Some(named)) if named != is => {
                obstacles.push(format!("`{}` {what}; leave out `{flag}`", is.display()));
            }
            (_, _) => {}
        }
    }
    obstacles
}

fn in_ephemeral_range(port: u16) -> Option<String> {
    let (first, last) = ephemeral_ports()?;
    let block = Block::at(port)?;
    (block.base <= last && block.last() >= first).then(|| {
        format!(
            "its ports {block} lie in the kernel's ephemeral range {first}-{last}, where any connection may \
             take one; give it a `gateway.port` below"
        )
    })
}

/// What would be done.
fn steps(found: &Found) -> Vec<String> {
    let mut steps = Vec::new();
    match (&found.unit, found.running) {
        (Some(unit), _) if unit.active || unit.enabled => {
            steps.push(format!("end its service: `{}`", unit.typed("disable --now")));
        }
        (_, Some(running)) => steps.push(format!("end its gateway: SIGTERM to process {}", running.pid)),
        (_, None) => {}
    }
    let ports = match found.port.and_then(Block::at) {
        Some(block) => format!("ports {block}"),
        None => "the next free block of ports".to_owned(),
    };
    steps.push(format!("make it the instance `{}` on {ports}, its directories as they are", found.name));
    for elsewhere in found.elsewhere().into_iter().flatten() {
        steps.push(format!("let its agents write `{}`", elsewhere.display()));
    }
    let sessions = match found.sessions {
        0 => String::new(),
        1 => ", and that its session file is there".to_owned(),
        many => format!(", and that its {many} session files are there"),
    };
    steps.push(format!("start it, and see that it is ready, on this state directory{sessions}"));
    steps.push("put everything back if not".to_owned());
    steps
}
