//! Fleet files: read, refused, planned, written.

use proptest::{collection::vec, option, prelude::*};

use supervisor_core::ports::Block;

use super::*;
use crate::spec::{Kind, Runtime, Span, arbitrary};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn parse_among(text: &str, known: &[&str]) -> Result<Fleet, Vec<Problem>> {
    parse_upgraded(text, known, &[])
}

fn parse_upgraded(text: &str, known: &[&str], upgraded: &[(&str, &str)]) -> Result<Fleet, Vec<Problem>> {
    let known = known.iter().map(|text| name(text)).collect();
    let upgraded = upgraded.iter().map(|(text, version)| (name(text), (*version).to_owned())).collect();
    let data_dir = Path::new("/nowhere/data");
    let surroundings = Surroundings { pool: Pool::default(), known: &known, data_dir, upgraded: &upgraded };
    parse(text, "fleet.yaml", &surroundings)
}

fn problems(text: &str) -> Vec<Problem> {
    parse_among(text, &[]).unwrap_err()
}

/// The only problem: its place, path, message and mend.
fn problem(text: &str) -> (String, String, String, String) {
    let found = problems(text);
    assert_eq!(found.len(), 1, "{text}: {found:#?}");
    let Problem { place, path, message, mend, .. } = found[0].clone();
    (place.to_string(), path, message, mend)
}

#[test]
fn a_fleet_is_read_in_its_order_with_defaults_merged() {
    let fleet = parse_among(
        "version: 1\npool: { first: 18789, last: 20000 }\ndefaults: { stop_grace: 30s }\ninstances:\n  main:\n  \
         rescue:\n    rescues: [main]\n    rescue: { standby: warm, on_primary_death: restart, failback: auto }\n    \
         port: 19789\n  a: { runtime: builtin, stop_grace: 5s }\n",
        &[],
    )
    .unwrap();
    assert_eq!(fleet.pool, Some(Pool { first: 18_789, last: 20_000 }));
    let names: Vec<&str> = fleet.instances.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["main", "rescue", "a"]);
    let spec = |index: usize| &fleet.instances[index].1;
    assert_eq!(spec(0), &InstanceSpec { stop_grace: Some(Span::secs(30)), ..InstanceSpec::default() });
    assert_eq!((spec(1).port, spec(1).rescues.as_slice()), (Some(19_789), [name("main")].as_slice()));
    assert_eq!((spec(2).runtime, spec(2).stop_grace), (Some(Runtime::Builtin), Some(Span::secs(5))));
}

#[test]
fn an_empty_fleet_is_a_fleet_and_an_empty_file_is_none() {
    assert_eq!(parse_among("version: 1\n", &[]).unwrap(), Fleet::default());
    assert_eq!(parse_among("version: 1\ninstances: {}\n", &[]).unwrap(), Fleet::default());
    assert_eq!(problem("").2, "the field `version` is missing");
    assert_eq!(problem("version: 2\n").0, "1:10");
    assert_eq!(problem("version: one\n").0, "1:10");
    assert_eq!(problem("- a\n").2, "fields are wanted here");
}

#[test]
fn an_unknown_field_is_refused_with_line_column_and_what_was_meant() {
    let (place, path, message, mend) = problem("version: 1\ninstances:\n  main:\n    prot: 18789\n");
    assert_eq!((place.as_str(), path.as_str()), ("4:5", "instances.main.prot"));
    assert_eq!((message.as_str(), mend.as_str()), ("there is no field `prot` here", "did you mean `port`?"));
    let (place, _, _, mend) = problem("version: 1\ninstanses: {}\n");
    assert_eq!((place.as_str(), mend.as_str()), ("2:1", "did you mean `instances`?"));
    let deep = problem("version: 1\ndefaults:\n  restart:\n    maxdelay: 1s\n");
    assert_eq!((deep.0.as_str(), deep.1.as_str()), ("4:5", "defaults.restart.maxdelay"));
}

#[test]
fn an_upgraded_instance_stays_on_its_version_unless_something_else_is_to_run() {
    let version = |of_main: &str| {
        let text = format!("version: 1\ninstances:\n  main: {of_main}\n  lab: {{}}\n");
        let fleet = parse_upgraded(&text, &[], &[("main", "2026.9.6")]).unwrap();
        assert_eq!(fleet.instances[1].1, InstanceSpec::default(), "no upgrade has moved this one");
        fleet.instances[0].1.version.clone()
    };
    for stays in ["", "{ runtime: openclaw, stop_grace: 30s }", "{ version: 2026.9.6 }"] {
        assert_eq!(version(stays).as_deref(), Some("2026.9.6"), "{stays}");
    }
    for leaves in ["{ runtime: builtin }", "{ runtime: command, program: /bin/serve }"] {
        assert_eq!(version(leaves), None, "{leaves}");
    }
}

#[test]
fn a_file_does_not_take_an_upgraded_instance_to_another_version() {
    let refused = |text: &str| {
        let text = format!("version: 1\n{text}\n");
        let found = parse_upgraded(&text, &[], &[("main", "2026.9.6")]).unwrap_err();
        assert_eq!(found.len(), 1, "{found:#?}");
        let Problem { place, path, message, mend, .. } = found[0].clone();
        (place.to_string(), path, message, mend)
    };
    let (place, path, message, mend) = refused("instances:\n  main:\n    version: 2026.2.9");
    assert_eq!((place.as_str(), path.as_str()), ("4:14", "instances.main.version"));
    let expected = "`main` was upgraded to 2026.9.6, with its state; OpenClaw 2026.2.9 may not read that";
    assert_eq!(message, expected);
    let expected =
        "leave this out to stay on 2026.9.6, or run `openclawctl upgrade main --to 2026.2.9` first";
    assert_eq!(mend, expected);
    let (place, path, message, mend) =
        refused("defaults:\n  program: /opt/openclaw\ninstances:\n  main:\n  lab:");
    assert_eq!((place.as_str(), path.as_str()), ("3:12", "defaults.program"));
    assert!(message.ends_with("`/opt/openclaw` may not read that"), "{message}");
    assert!(mend.contains("`openclawctl upgrade main --to VERSION --from /opt/openclaw`"), "{mend}");
}

#[test]
fn the_source_line_is_shown_with_the_place_marked() {
    let shown = problems("version: 1\ninstances:\n  main: { port: many }\n")[0].to_string();
    assert_eq!(
        shown,
        "fleet.yaml:3:17: `instances.main.port`: a whole number from 0 to 65535 is wanted here, not `many`\n \
         3 |   main: { port: many }\n   |                 ^\n   = write a whole number from 0 to 65535"
    );
}

#[test]
fn wrong_types_and_names_are_each_refused_at_their_place() {
    let found = problems(
        "version: 1\ninstances:\n  Main: {}\n  a: { port: -1 }\n  b: { rescues: main }\n  c: { stop_grace: 30 }\n  \
         d: { rescue: { standby: hot } }\n  e: 5\n  f: { env: { PORT_X: 80 } }\n  g: { rescues: [X] }\n",
    );
    let places: Vec<String> =
        found.iter().map(|problem| format!("{} {}", problem.place, problem.path)).collect();
    assert_eq!(
        places,
        [
            "3:3 instances.Main",
            "4:14 instances.a.port",
            "5:17 instances.b.rescues",
            "6:20 instances.c.stop_grace",
            "7:27 instances.d.rescue.standby",
            "8:6 instances.e",
            "9:23 instances.f.env.PORT_X",
            "10:18 instances.g.rescues[0]",
        ]
    );
    assert!(
        found.iter().all(|problem| !problem.mend.is_empty() && !problem.source_line.is_empty()),
        "{found:#?}"
    );
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let (place, _, message, _) = problem("version: 1\ninstances:\n  main: {}\n  rescue: {}\n  main: {}\n");
    assert_eq!(
        (place.as_str(), message.as_str()),
        ("5:3", "`main` stands here for the second time; the first is on line 3")
    );
}

#[test]
fn overlapping_ports_are_refused_at_the_second_with_a_free_one() {
    let (place, path, message, mend) =
        problem("version: 1\ninstances:\n  a:\n    port: 18789\n  b:\n    port: 18800\n");
    assert_eq!((place.as_str(), path.as_str()), ("6:11", "instances.b.port"));
    assert_eq!(message, "ports 18800-18819 overlap 18789-18808 of `a` (line 4)");
    assert_eq!(mend, "choose another, e.g. 18829, or leave `port` out");
}

#[test]
fn ports_outside_the_pool_are_refused() {
    let (place, _, message, _) =
        problem("version: 1\npool: {first: 20000, last: 20100}\ninstances:\n  a: {port: 18789}\n");
    assert_eq!(
        (place.as_str(), message.as_str()),
        ("4:13", "ports 18789-18808 leave the pool 20000 to 20100")
    );
    assert_eq!(problem("version: 1\npool: {first: 20000, last: 20010}\n").1, "pool");
    assert_eq!(problem("version: 1\npool: {first: 20000}\n").2, "the field `last` is missing");
    assert_eq!(problem("version: 1\ninstances: {a: {port: 80}}\n").1, "instances.a.port");
}

#[test]
fn rescues_of_itself_of_nobody_and_in_a_circle_are_refused() {
    let (place, _, message, _) = problem("version: 1\ninstances:\n  a:\n    rescues: [a]\n");
    assert_eq!((place.as_str(), message.as_str()), ("4:15", "an instance cannot rescue itself"));

    let (place, path, message, mend) =
        problem("version: 1\ninstances:\n  main:\n  b: {rescues: [main, mian]}\n");
    assert_eq!((place.as_str(), path.as_str()), ("4:23", "instances.b.rescues[1]"));
    assert_eq!((message.as_str(), mend.as_str()), ("there is no instance `mian`", "did you mean `main`?"));
    assert!(parse_among("version: 1\ninstances:\n  b: {rescues: [old]}\n", &["old"]).is_ok());

    let (place, path, message, _) = problem(
        "version: 1\ninstances:\n  z: {rescues: [a]}\n  a: {rescues: [b]}\n  b: {rescues: [c]}\n  c: {rescues: [a]}\n",
    );
    assert_eq!((place.as_str(), path.as_str()), ("4:16", "instances.a.rescues"));
    assert_eq!(message, "the rescues form a circle: a rescues b rescues c rescues a");
}

#[test]
fn what_is_wrong_with_the_defaults_is_said_once_and_there() {
    let (place, path, ..) = problem(
        "version: 1\ndefaults:\n  stop_grace: 5h\ninstances:\n  a:\n  b: {}\n  c: {log: {max_files: 3}}\n",
    );
    assert_eq!((place.as_str(), path.as_str()), ("3:15", "defaults.stop_grace"));
    for field in ["port: 18789", "rescues: [a]", "profile: {state_dir: /a}"] {
        let text = format!("version: 1\ndefaults:\n  {field}\ninstances:\n  a:\n");
        let found = problems(&text);
        assert_eq!(found[0].place.to_string(), "3:3", "{found:#?}");
        assert!(found[0].message.starts_with("this cannot be a default"), "{found:#?}");
    }
}

#[test]
fn what_a_spec_may_not_ask_for_is_refused_at_its_field() {
    let (place, path, ..) = problem("version: 1\ninstances:\n  a:\n    env:\n      HOME: /x\n");
    assert_eq!((place.as_str(), path.as_str()), ("5:13", "instances.a.env.HOME"));
    let (place, path, ..) = problem("version: 1\ninstances:\n  a:\n    runtime: command\n");
    assert_eq!(
        (place.as_str(), path.as_str()),
        ("3:3", "instances.a.program"),
        "a missing field, at its group"
    );
}

#[test]
fn shared_directories_are_refused_by_both_names() {
    let (place, path, message, _) = problem(
        "version: 1\ninstances:\n  a:\n    profile: {state_dir: /srv/oc}\n  b:\n    profile:\n      state_dir: /srv/ob\n      workspace: /srv/oc/w\n",
    );
    assert_eq!((place.as_str(), path.as_str()), ("8:18", "instances.b.profile.workspace"));
    assert_eq!(message, "`/srv/oc/w` of `b` lies inside `/srv/oc` of `a`");
}

#[test]
fn only_so_many_problems_are_named() {
    let many: String = (0..500).map(|n| format!("  a{n}: {{x: 1}}\n")).collect();
    assert_eq!(problems(&format!("version: 1\ninstances:\n{many}")).len(), MAX_PROBLEMS);
}

#[test]
fn two_thousand_instances_are_read() {
    let many: String = (0..2_000)
        .map(|n| {
            format!(
                "  i{n}:\n    stop_grace: 30s\n    profile: {{state_dir: /srv/p{n}}}\n    rescues: [i{}]\n",
                (n + 1).min(1_999)
            )
        })
        .collect();
    let text = format!("version: 1\ninstances:\n{many}  last: {{}}\n");
    let found = problems(&text);
    assert_eq!(found.len(), 1, "the last rescues itself: {found:#?}");
}

fn plan_of(current: &[(Name, InstanceSpec)], text: &str, unnamed: Unnamed) -> Vec<Change> {
    let fleet = parse_among(text, &["main", "rescue", "old"]).unwrap();
    plan(&Current { pool: Pool::default(), instances: current }, &fleet, unnamed)
}

#[test]
fn a_plan_says_field_by_field_what_changes() {
    let spec = |text: &str| yaml::parse(text).unwrap().read::<InstanceSpec>().unwrap();
    let current = [
        (name("main"), InstanceSpec::default()),
        (name("old"), InstanceSpec::default()),
        (name("rescue"), spec("rescues: [main]\nrestart: {max_delay: 10s}\nenv: {API_KEY: a, LANG: C}\n")),
    ];
    let text = "version: 1\npool: {first: 18789, last: 30000}\ninstances:\n  new: {port: 20000}\n  main:\n  rescue:\n    \
                rescues: [main, new]\n    stop_grace: 1m30s\n    env: {API_KEY: b, LANG: C}\n";
    let changes = plan_of(&current, text, Unnamed::Keep);
    let field = |path: &str, old: &str, new: &str| FieldChange {
        path: path.into(),
        old: old.into(),
        new: new.into(),
    };
    let Change::Pool { fields, .. } = &changes[0] else { panic!("{changes:#?}") };
    assert_eq!(fields, &[field("last", "32767", "30000")]);
    let Change::Create { name: created, fields, .. } = &changes[1] else { panic!("{changes:#?}") };
    assert_eq!((&**created, fields.as_slice()), ("new", [field("port", "", "20000")].as_slice()));
    assert_eq!(changes[2], Change::Unchanged { name: name("main") });
    let Change::Update { fields, restarts, .. } = &changes[3] else { panic!("{changes:#?}") };
    assert_eq!(
        fields,
        &[
            field("env.API_KEY", "(withheld)", "(withheld)"),
            field("rescues", r#"["main"]"#, r#"["main","new"]"#),
            field("restart.max_delay", "10s", ""),
            field("stop_grace", "", "1m30s"),
        ]
    );
    assert_eq!(*restarts, Restarts::Needed);
    assert_eq!(changes[4], Change::NotInFile { name: name("old") });
    assert_eq!(changes.len(), 5);
    assert_eq!(plan_of(&current, text, Unnamed::Delete)[4], Change::Delete { name: name("old") });
}

#[test]
fn the_supervisors_own_business_needs_no_restart() {
    let current = [(name("main"), InstanceSpec::default())];
    for (field, restarts) in [
        ("stop_grace: 1s", Restarts::NotNeeded),
        ("restart: {budget: 3}", Restarts::NotNeeded),
        ("env: {A: b}", Restarts::Needed),
        ("runtime: builtin", Restarts::Needed),
    ] {
        let changes =
            plan_of(&current, &format!("version: 1\ninstances:\n  main: {{{field}}}\n"), Unnamed::Keep);
        assert!(
            matches!(&changes[0], Change::Update { restarts: found, .. } if *found == restarts),
            "{changes:#?}"
        );
    }
}

#[test]
fn the_example_fleets_are_taken_and_what_they_call_defaults_are_defaults() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let mut read = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let fleet = parse_among(&text, &[]).unwrap_or_else(|found| panic!("{}", found[0]));
            assert!(!fleet.instances.is_empty(), "{}", path.display());
            read += 1;
            if path.ends_with("every-field.yaml") {
                let (main, bare) = (&fleet.instances[0].1, InstanceSpec::default());
                let asked = InstanceSpec { port: None, ..main.clone() };
                assert_eq!(asked.policy(Kind::Openclaw), bare.policy(Kind::Openclaw));
                let block = Block::at(18_789).unwrap();
                assert_eq!(asked.probe_plan(Kind::Openclaw, block), bare.probe_plan(Kind::Openclaw, block));
            }
        }
    }
    assert!(read >= 5, "{read} examples");
}

/// Fleets that [`parse`] takes: specs that are valid by themselves, on ports and with rescues that fit.
fn fleets() -> impl Strategy<Value = Fleet> {
    let pool = option::of((18_000u16..19_000, 40_000u16..41_000))
        .prop_map(|pool| pool.map(|(first, last)| Pool { first, last }));
    (pool, vec((arbitrary::name(), arbitrary::spec()), 0..5)).prop_map(|(pool, instances)| {
        let mut seen = BTreeSet::new();
        let instances: Vec<_> = instances.into_iter().filter(|(name, _)| seen.insert(name.clone())).collect();
        let names: Vec<Name> = instances.iter().map(|(name, _)| name.clone()).collect();
        let fitted = instances.into_iter().enumerate().map(|(index, (name, mut spec))| {
            let offset = u16::try_from(index).unwrap() * 20;
            spec.port = spec.port.map(|_| 20_000 + offset);
            spec.profile = None;
            spec.rescues = names[..index].iter().take(spec.rescues.len()).cloned().collect();
            let spec = if spec.validate().is_empty() {
                spec
            } else {
                InstanceSpec { port: spec.port, rescues: spec.rescues, ..InstanceSpec::default() }
            };
            (name, spec)
        });
        Fleet { pool, instances: fitted.collect() }
    })
}

proptest! {
    #[test]
    fn what_is_exported_is_read_back(fleet in fleets()) {
        let text = export(&fleet).unwrap();
        let read = parse_among(&text, &[]);
        prop_assert_eq!(read.as_ref(), Ok(&fleet), "{}", text);
    }

    #[test]
    fn applying_an_export_changes_nothing(fleet in fleets()) {
        let current = Current { pool: fleet.pool.unwrap_or_default(), instances: &fleet.instances };
        let changes = plan(&current, &fleet, Unnamed::Delete);
        prop_assert!(changes.iter().all(|change| matches!(change, Change::Unchanged { .. })), "{:?}", changes);
    }

    #[test]
    fn no_text_makes_the_reader_fail_without_a_place(text in "[a-z:{}\\[\\]&*!|>'\"# \n-]{0,200}") {
        if let Err(problems) = parse_among(&format!("version: 1\n{text}"), &[]) {
            prop_assert!(problems.iter().all(|problem| !problem.mend.is_empty() && !problem.message.is_empty()));
        }
    }
}
