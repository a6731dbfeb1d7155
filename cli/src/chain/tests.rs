use super::*;
use crate::explain;

fn event(
    revision: u64,
    instance: &str,
    incarnation: u64,
    kind: &str,
    severity: Severity,
    message: &str,
) -> Event {
    Event {
        revision,
        instance: instance.into(),
        incarnation,
        r#type: kind.into(),
        severity: severity.into(),
        message: message.into(),
        ..Event::default()
    }
}

/// What happens when main is killed and its rescue stands in, as the supervisor tells it.
fn failover() -> Chain {
    use Severity::{Info, Warning};
    Chain::new([
        event(1, "main", 0, "instance.wished_up", Info, "an operator wants it up"),
        event(2, "main", 1, "instance.started", Info, "started as process 5"),
        event(3, "main", 1, "instance.ready", Info, "ready 5ms after its start"),
        event(4, "other", 1, "instance.exited", Warning, "exited with status 1"),
        event(5, "main", 1, "instance.exited", Warning, "killed by SIGKILL"),
        event(6, "main", 1, "instance.backing_off", Info, "will be started again in 1s"),
        event(7, "main", 1, "failover.began", Warning, "killed by SIGKILL; `rescue` is to stand in"),
        event(8, "rescue", 1, "instance.exited", Info, "exited with status 0"),
        event(9, "rescue", 2, "instance.started", Info, "started as process 6"),
        event(10, "rescue", 2, "instance.ready", Info, "ready 9ms after its start"),
        event(11, "main", 1, "failover.done", Warning, "`rescue` stands in"),
        event(12, "main", 2, "instance.started", Info, "started as process 7"),
        event(13, "main", 2, "instance.ready", Info, "ready 5ms after its start"),
        event(14, "main", 2, "failover.failed_back", Info, "back in its place; `rescue` stands by"),
    ])
}

fn told(steps: &[Step<'_>]) -> Vec<(u64, Link, usize)> {
    steps.iter().map(|step| (step.event.revision, step.link, step.depth)).collect()
}

#[test]
fn a_restart_is_told_because_of_its_exit_and_a_rescue_because_of_the_failover() {
    let chain = failover();
    let causes = |revision| told(&chain.story(&chain.0[&revision]).0);
    assert_eq!(causes(13), [(5, Link::Begin, 0), (6, Link::So, 1), (12, Link::So, 2), (13, Link::So, 3)]);
    assert_eq!(causes(10), [(5, Link::Begin, 0), (7, Link::So, 1), (9, Link::So, 2), (10, Link::So, 3)]);
    assert_eq!(causes(8), [(5, Link::Begin, 0), (7, Link::So, 1), (8, Link::So, 2)]);
    assert_eq!(causes(3), [(1, Link::Begin, 0), (2, Link::So, 1), (3, Link::So, 2)]);
}

#[test]
fn what_came_of_a_death_is_told_across_instances() {
    let chain = failover();
    let (causes, effects) = chain.story(&chain.0[&5]);
    assert_eq!(told(&causes), [(5, Link::Begin, 0)]);
    let revisions: Vec<u64> = effects.iter().map(|step| step.event.revision).collect();
    assert_eq!(revisions, [6, 7, 8, 9, 10, 11, 12, 13, 14]);
}

#[test]
fn a_change_of_the_configuration_is_told_before_a_death_and_not_as_its_cause() {
    use Severity::{Info, Warning};
    let mut chain = Chain::new([
        event(1, "main", 1, "config.changed", Info, "its configuration was changed"),
        event(2, "main", 1, "instance.wished_restart", Info, "an operator wants it restarted"),
        event(3, "main", 2, "instance.started", Info, "started as process 5"),
        event(4, "main", 2, "instance.exited", Warning, "exited with status 78"),
    ]);
    let death = |chain: &Chain| told(&chain.story(&chain.0[&4]).0);
    assert_eq!(death(&chain), [(1, Link::Begin, 0), (4, Link::Then, 1)]);
    // It has proven good meanwhile.
    chain.0.insert(2, event(2, "main", 1, "config.good", Info, "its configuration is good"));
    assert_eq!(death(&chain), [(4, Link::Begin, 0)]);
}

#[test]
fn a_start_that_the_announced_mistake_prevents_is_told_because_of_it() {
    use Severity::{Error, Info, Warning};
    let chain = Chain::new([
        event(
            1,
            "main",
            1,
            "config.broken",
            Warning,
            "its configuration would not survive the next start: no JSON5",
        ),
        event(2, "main", 1, "instance.exited", Info, "exited with status 0"),
        event(3, "main", 1, "instance.launch_failed", Error, "could not be started: no JSON5"),
        event(
            4,
            "main",
            1,
            "config.taken_back",
            Warning,
            "its configuration a is taken back for the last good one, b",
        ),
        event(5, "main", 1, "config.restored", Warning, "its configuration is b again"),
    ]);
    let steps = chain.story(&chain.0[&5]).0;
    let revisions: Vec<u64> = steps.iter().map(|step| step.event.revision).collect();
    assert_eq!(revisions, [1, 3, 4, 5]);
}

#[test]
fn a_killed_gateway_that_hung_is_told_because_of_that() {
    use Severity::{Error, Warning};
    let chain = Chain::new([
        event(1, "main", 1, "instance.unhealthy", Warning, "runs but is not ready"),
        event(2, "main", 1, "instance.hung", Error, "hangs and is killed"),
        event(3, "main", 1, "instance.exited", Warning, "killed by SIGKILL"),
        event(4, "main", 2, "instance.exited", Warning, "killed by SIGKILL"),
    ]);
    assert_eq!(told(&chain.story(&chain.0[&3]).0), [(2, Link::Begin, 0), (3, Link::So, 1)]);
    assert_eq!(told(&chain.story(&chain.0[&4]).0), [(4, Link::Begin, 0)]);
}

#[test]
fn what_has_happened_before_is_counted() {
    let again = |revision| {
        event(revision, "main", revision, "instance.exited", Severity::Warning, "exited with status 1")
    };
    let other = event(3, "other", 3, "instance.exited", Severity::Warning, "exited with status 1");
    let chain = Chain::new([again(1), again(2), other, again(4)]);
    let (count, first) = chain.alike(&chain.0[&4]);
    assert_eq!((count, first.map(|event| event.revision)), (2, Some(1)));
    assert_eq!(chain.alike(&chain.0[&1]), (0, None));
}

#[test]
fn every_word_that_is_looked_for_is_an_event() {
    let words = BECAUSE.iter().flat_map(|(effect, causes)| causes.iter().chain([effect]));
    for word in words.chain(&DEATHS).chain(&STARTS).chain(&ENDS) {
        assert!(explain::page(word).is_some_and(|page| page.kind == explain::Kind::Event), "{word}");
    }
}
