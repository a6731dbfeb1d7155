//! What lives on although it was killed. The kernel ends no process that waits for a disk or a file system that does not
//! answer, so its instance cannot be started anew: whoever asks is told for what that waits.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Processes named of one instance.
const NAMED: usize = 5;

/// By the marks of their instances. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Undying(Arc<Mutex<BTreeMap<String, Vec<i32>>>>);

impl Undying {
    /// Of this instance these are left.
    pub(crate) fn note(&self, mark: &str, alive: &[i32]) {
        self.lock().insert(mark.to_owned(), alive.to_vec());
    }

    /// Of this one nothing is, or nobody waits for that any more.
    pub(crate) fn forget(&self, mark: &str) {
        self.lock().remove(mark);
    }

    /// All of them, in words.
    pub(crate) fn alarms(&self) -> Vec<String> {
        self.lock().iter().map(|(mark, alive)| alarm(mark, alive)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<i32>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn alarm(mark: &str, alive: &[i32]) -> String {
    let name = mark.rsplit('/').next().unwrap_or_default();
    let named: Vec<String> = alive.iter().take(NAMED).map(i32::to_string).collect();
    let more = alive.len().checked_sub(NAMED).filter(|more| *more > 0);
    let more = more.map(|more| format!(" and {more} more")).unwrap_or_default();
    let what = if alive.len() == 1 { "Process" } else { "Processes" };
    format!(
        "{what} {}{more} of `{name}` cannot be killed, probably because of a disk or a mount that does not answer; see \
         at which mount `df` stops. `{name}` is not started before that.",
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_killed_is_told_until_it_is_gone() {
        let undying = Undying::default();
        undying.note("store/main", &[7]);
        undying.note("store/lab", &[1, 2, 3, 4, 5, 6, 7]);
        let [lab, main] = undying.alarms().try_into().unwrap();
        assert!(main.starts_with("Process 7 of `main` cannot be killed"), "{main}");
        assert!(lab.starts_with("Processes 1, 2, 3, 4, 5 and 2 more of `lab` cannot be killed"), "{lab}");
        undying.forget("store/main");
        assert_eq!(undying.alarms(), [lab]);
    }
}
