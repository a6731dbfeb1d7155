//! The way back: the state is what it was, and then the program.

use supervisor_core::event::Command;

use super::{
    Trouble, Upgrader, aside,
    journal::{Attempt, Journal, Step},
    present,
};

impl Upgrader {
    /// Puts everything back, and remembers the version. What an operator should know is told.
    pub(super) async fn back(&self, journal: &mut Journal) -> Result<Vec<String>, Trouble> {
        let name = journal.name.clone();
        let Some(attempt) = journal.attempt.clone() else { return Ok(Vec::new()) };
        let is_there = || self.handle.view().instances.contains_key(&name);
        let mut notes = Vec::new();
        if attempt.step <= Step::PutBack {
            self.note(journal, Step::PutBack).await?;
            if is_there() {
                self.stop(&name, attempt.backward()).await?;
            }
            notes.extend(self.restore(&attempt).await?);
        }
        self.note(journal, Step::Return).await?;
        if is_there() {
            self.pin(&name, &attempt.from, attempt.backward()).await?;
            if attempt.run {
                let start = Command::Start { name: name.clone(), otherwise: None };
                self.handle.submit_by(attempt.backward(), start).await?;
                notes.push(self.revived(&attempt, &name).await?);
            }
        }
        journal.give_up();
        self.write(journal).await?;
        self.tidy(&attempt, &mut notes).await;
        Ok(notes)
    }

    async fn restore(&self, attempt: &Attempt) -> Result<Option<String>, Trouble> {
        let kept = attempt.kept.clone();
        let restored =
            aside(move || kept.put_back().map(|()| kept.failed())).await.ok_or(Trouble::Interrupted)?;
        let failed =
            restored.map_err(|source| Trouble::Told(format!("its state cannot be put back: {source}")))?;
        Ok(failed.map(|path| format!("what {} has made of its state is in `{}`", attempt.to, path.display())))
    }

    /// How the instance does on what it was on.
    async fn revived(&self, attempt: &Attempt, name: &str) -> Result<String, Trouble> {
        let view = self.handle.view();
        let Some(name) = view.instances.keys().find(|known| &***known == name) else {
            return Ok("it was deleted meanwhile".into());
        };
        present(&view, name)?;
        match self.ready(name).await {
            Ok(_) => Ok(format!("it is ready on {}", attempt.previous)),
            Err(Trouble::Interrupted) => Err(Trouble::Interrupted),
            Err(trouble) => Ok(format!("it was started with {}, but {trouble}", attempt.previous)),
        }
    }
}
