//! The way back: the instance goes, its files stay, the configuration and the service are what they were.

use std::{sync::Arc, time::Duration};

use supervisor_core::{
    event::{Asker, Command, Files, Manner},
    ids::Name,
    instance::Phase,
    record::Wish,
    view::View,
};
use tokio::{
    task,
    time::{self, Instant},
};

use super::{
    Importer, Report, Trouble, has,
    journal::{Journal, Step},
    take::{GONE, state_dir},
};
use crate::openclaw::{config::check::read_plainly, file::Durability, snapshots::content_id};

/// A unit that has been started is active at once, or says why not.
const UP: Duration = Duration::from_secs(30);

/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(100);

impl Importer {
    /// Puts everything back. May be done again and again.
    pub(super) async fn put_back(&self, journal: &Journal) -> Result<Report, Trouble> {
        let mut report = Report::default();
        self.note(&mut journal.clone(), journal.step).await?;
        if has(&self.handle.view(), journal) {
            self.delete(&journal.name, journal.asker()).await?;
            report.steps.push("stopped and deleted the instance; its files are kept".into());
        }
        let of = journal.clone();
        let config = task::spawn_blocking(move || restore(&of)).await.map_err(|_| Trouble::Interrupted)??;
        match config {
            Restored::Put => report.steps.push("put the configuration back as it was".into()),
            Restored::Same => {}
            Restored::Edited => report.notes.push(format!(
                "`{}` was changed meanwhile, and stays as it is now",
                journal.config.path.display()
            )),
        }
        if let Some(unit) = journal.unit.clone().filter(|unit| unit.enabled || unit.active) {
            let name = unit.name.clone();
            task::spawn_blocking(move || bring_back(&unit)).await.map_err(|_| Trouble::Interrupted)??;
            report.steps.push(format!("the unit `{name}` is as it was"));
        } else if journal.running.is_some_and(|running| !running.is_alive()) {
            report.notes.push(format!("its gateway ran without a service: {}", by_hand(journal)));
        }
        Ok(report)
    }

    /// Stops the instance, and deletes it once nothing of it runs.
    async fn delete(&self, name: &Name, by: Asker) -> Result<(), Trouble> {
        let stop = Command::Stop { name: name.clone(), manner: Manner::Graceful };
        self.handle.submit_by(by.clone(), stop).await?;
        self.until(name, "ended", |view| {
            view.instances.get(name).is_none_or(|instance| {
                instance.record().wish == Wish::Down && *instance.phase() == Phase::Stopped
            })
        })
        .await?;
        if self.handle.view().instances.contains_key(name) {
            let delete = Command::Delete { name: name.clone(), generation: None, files: Files::Keep };
            self.handle.submit_by(by, delete).await?;
        }
        self.until(name, "deleted", |view| !view.instances.contains_key(name)).await
    }

    async fn until(&self, name: &Name, what: &str, holds: impl Fn(&View) -> bool) -> Result<(), Trouble> {
        let mut views = self.handle.watch();
        let reached = async {
            loop {
                if holds(&Arc::clone(&views.borrow_and_update())) {
                    return Ok(());
                }
                views.changed().await.map_err(|_| Trouble::Interrupted)?;
            }
        };
        let late = |_| Trouble::told(format!("`{name}` has not {what} after {} s", GONE.as_secs()));
        time::timeout(GONE, reached).await.map_err(late)?
    }
}

/// What became of the configuration.
enum Restored {
    Put,
    Same,
    /// Somebody has changed it since the import was done, which is not undone.
    Edited,
}

fn restore(journal: &Journal) -> Result<Restored, Trouble> {
    let before = &journal.config;
    let config = journal.own_config();
    let now = read_plainly(config).ok().flatten().unwrap_or_default();
    if now == before.content.as_bytes() {
        return Ok(Restored::Same);
    }
    let adopted = journal.adopted.as_deref() == Some(String::from(content_id(&now)).as_str());
    if journal.step == Step::Return && !adopted {
        return Ok(Restored::Edited);
    }
    // It was no link when it was found: one that is there now is an agent's, and is replaced itself.
    config
        .directory_of_link()
        .and_then(|(place, name, _)| {
            place.put(&name, before.content.as_bytes(), before.mode, Durability::Durable)
        })
        .map_err(|source| Trouble::Write { path: before.path.clone(), source })?;
    Ok(Restored::Put)
}

fn bring_back(unit: &super::Unit) -> Result<(), Trouble> {
    unit.bring_back();
    let deadline = Instant::now() + UP;
    while unit.active && unit.is_active() != Some(true) {
        if Instant::now() > deadline {
            let start = unit.typed("start");
            return Err(Trouble::told(format!("`{start}` does not make it active")));
        }
        std::thread::park_timeout(LOOK);
    }
    Ok(())
}

/// How a gateway is started by hand.
fn by_hand(journal: &Journal) -> String {
    let state = state_dir(&journal.spec);
    let profile = state.file_name().and_then(|name| name.to_str()?.strip_prefix(".openclaw-"));
    match profile {
        Some(profile) => format!("`openclaw --profile {profile} gateway run` starts it again"),
        None => "`openclaw gateway run` starts it again".to_owned(),
    }
}
