use supervisor_proto::v1::{
    FailoverStatus, InstanceSpec, InstanceStatus, Phase,
    watch_instances_response::{Change, Snapshot},
};

use super::*;
use crate::{error::Cause, error::Operation, render::style::Marks};

fn instance(name: &str, phase: Phase) -> Instance {
    let status = InstanceStatus { phase: phase.into(), ..Default::default() };
    Instance { name: name.into(), status: Some(status), ..Default::default() }
}

fn in_role(name: &str, role: Role, rescues: &[&str], active_for: &[&str]) -> Instance {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut instance = instance(name, Phase::Ready);
    instance.spec = Some(InstanceSpec { rescues: owned(rescues), ..Default::default() });
    let failover = FailoverStatus { role: role.into(), active_for: owned(active_for), ..Default::default() };
    instance.status.as_mut().unwrap().failover = Some(failover);
    instance
}

fn told(change: Change) -> News {
    News::Watched(Box::new(WatchInstancesResponse { revision: 1, change: Some(change) }))
}

fn changed(instance: Instance) -> News {
    told(Change::Changed(Box::new(instance)))
}

/// A model that has seen these, and was drawn with so many rows.
fn model(instances: Vec<Instance>, rows: usize) -> Model {
    let mut model = Model::new(Look { marks: Marks::Shown, colored: false });
    model.take(told(Change::Snapshot(Snapshot { instances }))).unwrap();
    model.body = (80, rows);
    model.arrange(rows);
    model
}

fn fleet(names: &[&str]) -> Model {
    model(names.iter().map(|name| instance(name, Phase::Ready)).collect(), 3)
}

/// Presses keys, and draws after each.
fn press(model: &mut Model, keys: impl IntoIterator<Item = Key>) -> Option<Effect> {
    let mut last = None;
    for key in keys {
        last = model.key(&key);
        model.arrange(model.body.1);
    }
    last
}

fn type_in(model: &mut Model, text: &str) -> Option<Effect> {
    press(model, text.chars().map(Key::Char))
}

fn chosen(model: &Model) -> &str {
    model.selected().map_or("", |instance| &instance.name)
}

fn notice(model: &Model) -> &str {
    model.notice.as_ref().map_or("", |(_, text)| text)
}

#[test]
fn a_row_is_chosen_by_name_and_stays_chosen_wherever_it_goes() {
    let mut model = fleet(&["a", "b", "c", "d", "e"]);
    press(&mut model, [Key::Down, Key::Char('j'), Key::Down]);
    assert_eq!((chosen(&model), model.first), ("d", 1));
    model.take(changed(instance("d", Phase::Failed))).unwrap();
    model.arrange(3);
    assert_eq!((chosen(&model), model.row, model.first), ("d", 0, 0));
    press(&mut model, [Key::End]);
    assert_eq!((chosen(&model), model.first), ("e", 2));
    press(&mut model, [Key::PageUp]);
    assert_eq!(chosen(&model), "b");
    press(&mut model, [Key::Home, Key::Char('k')]);
    assert_eq!(chosen(&model), "d");
    // It goes, and who comes there is chosen.
    model.take(told(Change::Deleted("d".into()))).unwrap();
    model.arrange(3);
    assert_eq!(chosen(&model), "a");
}

#[test]
fn until_somebody_chooses_it_is_the_first_row_whoever_that_is() {
    let mut model = fleet(&["a", "b"]);
    assert_eq!(chosen(&model), "a");
    model.take(changed(instance("b", Phase::Backoff))).unwrap();
    model.arrange(3);
    assert_eq!(chosen(&model), "b");
}

#[test]
fn a_key_means_the_row_that_was_drawn_and_not_who_has_come_there_since() {
    let mut model = fleet(&["a", "b"]);
    model.take(changed(instance("b", Phase::Failed))).unwrap();
    model.key(&Key::Char('r'));
    assert_eq!(model.prompt, Prompt::Ask(Verb::Restart, "a".into()));
    // And it is this one that stays chosen while it is asked about.
    model.arrange(3);
    assert_eq!(chosen(&model), "a");
}

#[test]
fn every_verb_is_asked_about_and_only_a_yes_is_one() {
    for (letter, verb) in [('r', Verb::Restart), ('s', Verb::Stop), ('u', Verb::Start), ('f', Verb::FailOver)]
    {
        let mut model = fleet(&["main"]);
        assert_eq!(type_in(&mut model, &letter.to_string()), None);
        assert_eq!(model.prompt, Prompt::Ask(verb, "main".into()));
        assert_eq!(press(&mut model, [Key::Enter]), None);
        assert_eq!((notice(&model), &model.prompt), ("nothing was changed", &Prompt::None));
        assert_eq!(type_in(&mut model, &format!("{letter}y")), Some(Effect::Act(verb, "main".into())));
        assert_eq!(notice(&model), format!("{} main: asked", verb.word()));
    }
}

#[test]
fn pasted_text_does_nothing_to_anybody() {
    let mut model = fleet(&["main"]);
    assert_eq!(press(&mut model, [Key::Pasted("ry\nq".into())]), None);
    assert_eq!(model.prompt, Prompt::None);
    assert_eq!(press(&mut model, [Key::Char('r'), Key::Pasted("y".into())]), None);
    assert_eq!(notice(&model), "nothing was changed");
}

#[test]
fn failing_over_and_back_is_about_the_primary_whichever_row_is_chosen() {
    let asked = |instance: Instance| {
        let mut model = model(vec![instance], 3);
        type_in(&mut model, "f");
        match model.prompt.clone() {
            Prompt::Ask(verb, name) => format!("{} {name}", verb.word()),
            Prompt::None | Prompt::Filter => notice(&model).to_owned(),
        }
    };
    assert_eq!(asked(in_role("main", Role::Primary, &[], &[])), "fail over main");
    assert_eq!(asked(in_role("main", Role::Rescued, &[], &[])), "fail back main");
    assert_eq!(asked(in_role("rescue", Role::Standby, &["main"], &[])), "fail over main");
    assert_eq!(asked(in_role("rescue", Role::Active, &["main", "b"], &["main"])), "fail back main");
    let several = "rescue has several primaries; choose the row of one";
    assert_eq!(asked(in_role("rescue", Role::Standby, &["main", "b"], &[])), several);
    // Whether it can be is the supervisor's to say.
    assert_eq!(asked(in_role("lab", Role::Single, &[], &[])), "fail over lab");
}

#[test]
fn what_comes_of_a_wish_is_said_until_the_next_key_and_wishes_are_bounded() {
    let mut model = fleet(&["main"]);
    for _ in 0..MOST_WISHES {
        assert!(type_in(&mut model, "ry").is_some());
    }
    assert_eq!(type_in(&mut model, "ry"), None);
    assert!(notice(&model).starts_with("16 wishes are under way"));
    model.take(News::Outcome(Err("failed to restart `main`: it is not there".into()))).unwrap();
    assert_eq!(model.notice.as_ref().map(|(tone, _)| *tone), Some(Tone::Bad));
    press(&mut model, [Key::Down]);
    assert_eq!(model.notice, None);
    assert!(type_in(&mut model, "ry").is_some());
    model.take(News::Accepted("restart main: asked; it is stopping".into())).unwrap();
    assert_eq!(notice(&model), "restart main: asked; it is stopping");
}

#[test]
fn a_filter_is_typed_kept_and_taken_away() {
    let mut model = fleet(&["main", "web-1", "web-2"]);
    let shown = |model: &Model| model.fleet.shown().join(" ");
    type_in(&mut model, "/web-");
    assert_eq!(shown(&model), "web-1 web-2");
    press(&mut model, [Key::Down]);
    assert_eq!((chosen(&model), &model.prompt), ("web-2", &Prompt::Filter));
    press(&mut model, [Key::Backspace, Key::Pasted("-\n2".into())]);
    assert_eq!(shown(&model), "web-2");
    // Letters are a part of the name, and then keys again.
    press(&mut model, [Key::Char('q'), Key::Backspace, Key::Enter]);
    assert_eq!((shown(&model).as_str(), &model.prompt), ("web-2", &Prompt::None));
    assert_eq!(press(&mut model, [Key::Esc]), None);
    assert_eq!((shown(&model).as_str(), chosen(&model)), ("main web-1 web-2", "web-2"));
    type_in(&mut model, &format!("/{}", "x".repeat(99)));
    assert_eq!((model.fleet.filter().len(), chosen(&model)), (LONGEST_NAME, ""));
    press(&mut model, [Key::Enter]);
    type_in(&mut model, "r");
    assert_eq!(notice(&model), "there is no instance here");
    press(&mut model, [Key::Char('/'), Key::Esc]);
    assert_eq!(model.fleet.filter(), "");
}

#[test]
fn pages_are_opened_changed_and_closed_and_news_of_closed_ones_are_not_shown() {
    let mut model = fleet(&["main"]);
    let details = Subject::Details("main".into());
    assert_eq!(press(&mut model, [Key::Enter]), Some(Effect::Follow(1, details)));
    assert_eq!(model.looking(), Looking::One("main".into()));
    assert_eq!(press(&mut model, [Key::Enter]), None);
    assert_eq!(type_in(&mut model, "e"), Some(Effect::Follow(2, Subject::Events("main".into()))));
    assert_eq!(model.looking(), Looking::Nowhere);
    let trouble = |page| News::Trouble { page, why: format!("of page {page}") };
    model.take(trouble(2)).unwrap();
    model.take(trouble(1)).unwrap();
    assert_eq!(model.page.as_ref().map(|page| page.problem()), Some("of page 2"));
    type_in(&mut model, "s");
    assert_eq!(model.prompt, Prompt::Ask(Verb::Stop, "main".into()));
    assert_eq!(type_in(&mut model, "n"), None);
    assert_eq!(type_in(&mut model, "lq"), Some(Effect::Unfollow));
    assert!(model.page.is_none());
    assert_eq!(model.looking(), Looking::Fleet { many: false });
    model.take(News::Events { page: 2, events: Vec::new(), all: true }).unwrap();
}

#[test]
fn q_and_esc_go_back_before_they_leave_and_ctrl_c_leaves_from_anywhere() {
    for way in ["", "r", "/", "?", "e", "e?"] {
        let mut model = fleet(&["main"]);
        type_in(&mut model, way);
        assert_eq!(press(&mut model, [Key::Ctrl('c')]), Some(Effect::Leave), "{way}");
    }
    let mut model = fleet(&["main"]);
    type_in(&mut model, "e?");
    assert!(model.help.is_some());
    assert_eq!(type_in(&mut model, "jq"), None);
    assert!(model.help.is_none() && model.page.is_some());
    assert_eq!(press(&mut model, [Key::Esc]), Some(Effect::Unfollow));
    assert_eq!(press(&mut model, [Key::Esc]), Some(Effect::Leave));
    assert_eq!(type_in(&mut model, "q"), Some(Effect::Leave));
    assert_eq!(press(&mut model, [Key::Ctrl('z')]), Some(Effect::Suspend));
    assert_eq!(press(&mut model, [Key::Ctrl('l')]), Some(Effect::Redraw));
}

#[test]
fn what_is_shown_is_old_since_the_first_break_until_the_watch_says_otherwise() {
    let mut model = fleet(&["main"]);
    let at = |seconds| Timestamp { seconds, nanos: 0 };
    model.take(News::Broken(at(5), "gone".into())).unwrap();
    model.take(News::Broken(at(9), "still gone".into())).unwrap();
    assert_eq!(model.link, Link::Old(at(5), "still gone".into()));
    model.take(changed(instance("main", Phase::Ready))).unwrap();
    assert_eq!(model.link, Link::Fresh);
}

#[test]
fn an_end_of_it_all_is_an_error() {
    let mut model = fleet(&[]);
    let error = Cause::Removed.during(&Operation::new("watch the instances"));
    assert!(model.take(News::Ended(error)).is_err());
}

#[test]
fn no_key_does_harm_where_there_is_nothing() {
    let every = (' '..='~').map(Key::Char).chain([
        Key::Up,
        Key::Down,
        Key::PageUp,
        Key::PageDown,
        Key::Home,
        Key::End,
        Key::Enter,
        Key::Esc,
        Key::Backspace,
        Key::Ctrl('u'),
        Key::Pasted("x".into()),
    ]);
    let mut model = Model::new(Look { marks: Marks::Hidden, colored: false });
    for key in every {
        let effect = press(&mut model, [key.clone()]);
        assert!(matches!(effect, None | Some(Effect::Leave)), "{key:?}: {effect:?}");
    }
}
