//! Configurations: what each holds, what becomes of a gateway that is started with that, and who changes it.

use std::{collections::BTreeMap, time::Duration};

use supervisor_core::{
    event::{Command, Event, ExitStatus, Files, LaunchFailure, Sighting},
    ids::{ConfigId, Credential, Incarnation},
    instance::Goal,
    policy::Startup,
};

use crate::{
    agenda::Next,
    chance::{ALWAYS, Lot, NOBODY, Swarm},
    fence::draw_token,
    host::{Doom, Serial, Turn},
    world::World,
};

/// How soon a change is noticed, usually.
const NOTICED: Duration = Duration::from_millis(200);

/// How soon when things are bad.
const LATE: Duration = Duration::from_secs(20);

/// How long it takes to keep a content.
const KEPT: Duration = Duration::from_millis(50);

/// How long a gateway lives, at most, that ends because of its configuration.
const DOOMED: Duration = Duration::from_millis(900);

/// How long a repair takes, at most.
const REPAIR: Duration = Duration::from_secs(3);

/// Snapshots kept beside those that are needed: more than are made until core has heard of a launch.
const SPARE: usize = 8;

/// What becomes of a gateway that is started with a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nature {
    /// It serves.
    Good,
    /// It is not even started.
    Refused,
    /// It says that another start would not help.
    Fatal,
    /// It dies.
    Crashing,
    /// It hangs.
    Hanging,
}

const BAD: &[Nature] = &[Nature::Refused, Nature::Fatal, Nature::Crashing, Nature::Hanging];

/// The configuration of one instance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// What it holds; `None` until the first start makes one.
    content: Option<ConfigId>,
    /// Everything it ever held.
    natures: BTreeMap<ConfigId, Nature>,
    /// The tokens in those that name one.
    tokens: BTreeMap<ConfigId, Credential>,
    /// What can be put back, the newest last.
    snapshots: Vec<ConfigId>,
    /// What was kept and was deleted with all the files of a namesake.
    purged: Vec<ConfigId>,
    /// What the supervisor saw when it looked last.
    known: Option<ConfigId>,
    /// What each life was started with.
    pub(crate) started: BTreeMap<Incarnation, ConfigId>,
}

impl Config {
    fn nature(&self, content: ConfigId) -> Nature {
        self.natures.get(&content).copied().unwrap_or(Nature::Good)
    }

    /// Whether a gateway could serve with what it holds.
    pub(crate) fn is_bad(&self) -> bool {
        self.content.is_some_and(|content| self.nature(content) != Nature::Good)
    }

    /// How a gateway ends that is started now.
    pub(crate) fn doom(&self) -> Option<Doom> {
        match self.nature(self.content?) {
            Nature::Good => None,
            Nature::Fatal => Some(Doom::Ends(ExitStatus::Code(78))),
            Nature::Crashing => Some(Doom::Ends(ExitStatus::Code(1))),
            // Nobody starts one that is refused.
            Nature::Refused | Nature::Hanging => Some(Doom::Hangs),
        }
    }

    /// The token in what it holds.
    pub(crate) fn token(&self) -> Option<Credential> {
        self.content.and_then(|content| self.token_in(content))
    }

    /// What cannot be read names none.
    fn token_in(&self, content: ConfigId) -> Option<Credential> {
        self.tokens.get(&content).copied().filter(|_| self.nature(content) != Nature::Refused)
    }

    /// A content that nothing ever held, with a name that tells its nature.
    fn make(&mut self, nature: Nature, token: Option<Credential>) -> ConfigId {
        let tag: [u8; 2] = match nature {
            Nature::Good => [0x60, 0x0d],
            Nature::Refused => [0x0b, 0xad],
            Nature::Fatal => [0xfa, 0x7a],
            Nature::Crashing => [0xde, 0xad],
            Nature::Hanging => [0xda, 0x2e],
        };
        let number = u32::try_from(self.natures.len() + 1).unwrap_or(u32::MAX);
        let mut digest = [0; 32];
        digest[..2].copy_from_slice(&tag);
        digest[2..6].copy_from_slice(&number.to_be_bytes());
        let content = ConfigId::of_digest(&digest);
        self.natures.insert(content, nature);
        self.tokens.extend(token.map(|token| (content, token)));
        content
    }

    pub(crate) fn can_be_put_back(&self, content: ConfigId) -> bool {
        self.snapshots.contains(&content)
    }

    /// Somebody deleted it after an operator had named it: it belonged to an instance of the same name.
    pub(crate) fn was_purged(&self, content: ConfigId) -> bool {
        self.purged.contains(&content)
    }

    /// Keeps a content, and forgets the oldest of those that nobody needs.
    fn keep(&mut self, content: ConfigId, needed: &[ConfigId]) {
        self.snapshots.retain(|kept| *kept != content);
        self.snapshots.push(content);
        let mut spare = self.snapshots.iter().filter(|kept| !needed.contains(kept)).count();
        self.snapshots.retain(|kept| {
            let forgotten = spare > SPARE && !needed.contains(kept);
            spare -= usize::from(forgotten);
            !forgotten
        });
    }

    /// The instance is deleted.
    fn forget(&mut self, files: Files) {
        self.known = None;
        match files {
            Files::Keep => {}
            Files::Purge => {
                self.content = None;
                self.purged.append(&mut self.snapshots);
            }
        }
    }
}

impl World {
    /// Somebody edits a configuration, and somebody will again.
    pub(crate) fn on_edit(&mut self) {
        self.draw_next(Lot::Edited, Next::Edits);
        let Some(mut swarm) = self.strikes_so(Lot::Edited, NOBODY, ALWAYS) else { return };
        let who = swarm.below(self.configs.len());
        let config = &mut self.configs[who];
        if config.content.is_none() {
            return;
        }
        let earlier: Vec<ConfigId> = config.natures.keys().copied().collect();
        let content = if swarm.often(400) {
            swarm.one_of(&earlier)
        } else {
            let nature = if swarm.often(300) { Nature::Good } else { swarm.one_of(BAD) };
            self.make_config(who, nature)
        };
        self.edit(who, content);
    }

    fn make_config(&mut self, who: usize, nature: Nature) -> ConfigId {
        let token = self.fleet.channels.then(|| draw_token(&mut self.chance.draw(Lot::Token, who)));
        self.configs[who].make(nature, token.flatten())
    }

    fn edit(&mut self, who: usize, content: ConfigId) {
        let (name, nature) = (self.fleet.names[who].clone(), self.configs[who].nature(content));
        self.narrate(|| format!("the configuration of {name} becomes {}, {nature:?}", content.short()));
        self.configs[who].content = Some(content);
        self.note_edit(who);
        self.notice(who);
    }

    /// A change will be noticed, if somebody is there to notice it.
    fn notice(&mut self, who: usize) {
        if self.core.is_none() {
            return;
        }
        let unnoticed = self.strikes(Lot::Unnoticed, who).is_some();
        // Who is kept from a token waits for such news, so there it comes in the end.
        if unnoticed && !self.fleet.channels {
            return;
        }
        let late = unnoticed || self.strikes(Lot::NoticedLate, who).is_some();
        let most = if late { LATE } else { NOTICED };
        let span = self.span(Lot::Config, who, most);
        self.after(span, Next::Noticed(self.epoch, who));
    }

    /// A supervisor looks at each configuration once, and then whenever it changes.
    pub(crate) fn look_at_config(&mut self, who: usize) {
        if self.configs[who].content.is_some() {
            self.notice(who);
        } else if self.fleet.configured {
            self.configs[who].known = None;
            let none = Sighting { content: None, problem: None, credentials: Vec::new(), used_by: None };
            self.tell_in_order(who, Event::ConfigSeen(self.fleet.names[who].clone(), none));
        }
    }

    pub(crate) fn on_noticed(&mut self, who: usize) {
        let config = &self.configs[who];
        let core = self.core.as_ref().and_then(|core| core.instance(&self.fleet.names[who]));
        if core.is_none() || config.known == config.content {
            return;
        }
        let Some(content) = config.content else { return self.look_at_config(who) };
        self.keep(who, content);
        self.tell_sighting(who, content, None);
    }

    /// An instance is deleted. Somebody may have created one of the same name meanwhile, who was told of what is gone.
    pub(crate) fn forget_config(&mut self, who: usize, files: Files) {
        self.configs[who].forget(files);
        let name = &self.fleet.names[who];
        if self.core.as_ref().is_some_and(|core| core.instance(name).is_some()) {
            self.look_at_config(who);
        }
    }

    fn tell_sighting(&mut self, who: usize, content: ConfigId, used_by: Option<Incarnation>) {
        self.configs[who].known = Some(content);
        let refused = self.configs[who].nature(content) == Nature::Refused;
        let problem = refused.then(|| "line 3: this is not JSON5".into());
        let credentials = self.configs[who].token_in(content).into_iter().collect();
        let sighting = Sighting { content: Some(content), problem, credentials, used_by };
        let event = Event::ConfigSeen(self.fleet.names[who].clone(), sighting);
        match used_by {
            Some(_) => self.tell(Some(who), event),
            // One watch looks at all of them, and tells of one look after the other.
            None => self.tell_in_order(who, event),
        }
    }

    /// What a launch has read may be told after what was seen later. Then it is looked at again.
    pub(crate) fn check_overtaken(&mut self, event: &Event) {
        let Event::ConfigSeen(name, Sighting { used_by: Some(_), content, .. }) = event else { return };
        let Some(who) = self.fleet.index(name) else { return };
        if self.configs[who].known != *content {
            self.configs[who].known = *content;
            self.notice(who);
        }
    }

    /// A launch tells what it found.
    pub(crate) fn tell_of_config(&mut self, who: usize) {
        if let Some(content) = self.configs[who].content {
            self.keep(who, content);
            self.tell_sighting(who, content, None);
        }
    }

    /// What a launch finds, if that keeps it from starting anything. The first launch makes a configuration.
    pub(crate) fn bad_config(&mut self, who: usize, incarnation: Incarnation) -> Option<LaunchFailure> {
        if !self.fleet.configured {
            return None;
        }
        if self.configs[who].content.is_none() {
            let mut swarm = self.chance.draw(Lot::Config, who);
            let nature = if swarm.often(850) { Nature::Good } else { swarm.one_of(BAD) };
            let content = self.make_config(who, nature);
            self.configs[who].content = Some(content);
        }
        let content = self.configs[who].content?;
        if self.configs[who].nature(content) != Nature::Refused {
            return None;
        }
        self.read_config(who, incarnation);
        Some(LaunchFailure::BadConfig("line 3: this is not JSON5".into()))
    }

    /// What a life is started with is kept before it starts, except for the first: there is nothing to go back to.
    pub(crate) fn read_config(&mut self, who: usize, incarnation: Incarnation) {
        let config = &mut self.configs[who];
        let Some(content) = config.content else { return };
        config.started.insert(incarnation, content);
        let (first, same) = (config.snapshots.is_empty(), config.known == Some(content));
        if same {
            return self.tell_sighting(who, content, Some(incarnation));
        }
        if self.strikes(Lot::Unnoticed, who).is_some() {
            return;
        }
        if first {
            let span = self.span(Lot::Config, who, KEPT);
            return self.after(span, Next::Kept(self.epoch, who, content, incarnation));
        }
        self.keep(who, content);
        self.tell_sighting(who, content, Some(incarnation));
    }

    pub(crate) fn on_kept(&mut self, who: usize, content: ConfigId, life: Incarnation) {
        self.keep(who, content);
        self.tell_sighting(who, content, Some(life));
    }

    /// An older content is put in place.
    pub(crate) fn put_back(&mut self, who: usize, to: ConfigId) {
        let name = self.fleet.names[who].clone();
        let fails = self.strikes(Lot::RestoreFails, who).is_some();
        if fails || !self.configs[who].can_be_put_back(to) {
            return self.tell(Some(who), Event::RestoreFailed(name, "read-only file system".into()));
        }
        // What was there is kept beside it.
        if let Some(before) = self.configs[who].content.replace(to) {
            self.keep(who, before);
        }
        self.note_edit(who);
        self.notice(who);
        self.tell(Some(who), Event::Restored(name, to));
    }

    /// Keeps a content. What any supervisor may need that begins now, or next, is not forgotten for it.
    fn keep(&mut self, who: usize, content: ConfigId) {
        let needed = self.store.needs(&self.fleet.names[who]);
        self.configs[who].keep(content, &needed);
    }

    /// A life that cannot serve goes on to its end.
    pub(crate) fn draw_doom(&mut self, who: usize, serial: Serial, doom: Doom) {
        match doom {
            Doom::Hangs => {}
            Doom::Ends(status) => {
                let span = self.span(Lot::Config, who, DOOMED);
                self.after(span, Next::Gateway(who, serial, Turn::Ends(status)));
            }
            Doom::Repairs if self.strikes(Lot::RepairHangs, who).is_some() => {}
            Doom::Repairs => {
                let mut swarm = self.chance.draw(Lot::Repair, who);
                let span = swarm.span(REPAIR);
                let status = ExitStatus::Code(swarm.one_of(&[0, 0, 1]));
                if swarm.often(400) {
                    self.after(span / 2, Next::Gateway(who, serial, Turn::Mends));
                }
                self.after(span, Next::Gateway(who, serial, Turn::Ends(status)));
            }
        }
    }

    /// Somebody writes a configuration that a gateway can serve with.
    pub(crate) fn mend_one(&mut self, who: usize) {
        if self.configs[who].is_bad() {
            let content = self.make_config(who, Nature::Good);
            self.edit(who, content);
        }
    }

    /// Once nothing goes wrong any more, somebody mends what cannot help itself.
    pub(crate) fn mend(&mut self) {
        for who in 0..self.configs.len() {
            if self.configs[who].is_bad() && self.is_helpless(who) {
                self.mend_one(who);
            }
        }
    }

    /// Whether `who` should run and has nothing to go back to, or may not, or cannot tell what to go back to.
    fn is_helpless(&self, who: usize) -> bool {
        let core = self.core.as_ref();
        let Some(instance) = core.and_then(|core| core.instance(&self.fleet.names[who])) else {
            return false;
        };
        let (ladder, startup) = (instance.policy().ladder, instance.policy().health.startup);
        let good = instance.record().trial.good();
        let config = &self.configs[who];
        let refuge =
            good.is_some_and(|good| config.nature(good) == Nature::Good && config.can_be_put_back(good));
        // Where a start is over at once, whatever hangs in it is taken for a success.
        let blind = startup == Startup::AtOnce;
        instance.goal() == Goal::Run && (!refuge || !ladder.roll_back || ladder.held || blind)
    }

    /// Back to what could serve, or a word that it is good.
    pub(crate) fn draw_config_command(&self, swarm: &mut Swarm) -> Option<Command> {
        let who = swarm.below(self.configs.len());
        let config = &self.configs[who];
        let kept = config.snapshots.iter().copied();
        let good: Vec<ConfigId> = kept.filter(|content| config.nature(*content) == Nature::Good).collect();
        let content = *good.get(swarm.below(good.len()))?;
        let name = self.fleet.names[who].clone();
        Some(match swarm.often(500) {
            true => Command::RollBack { name, to: content },
            false => Command::MarkGood { name, content },
        })
    }

    /// No supervisor runs: what it saw is forgotten.
    pub(crate) fn forget_sightings(&mut self) {
        self.configs.iter_mut().for_each(|config| config.known = None);
    }
}
