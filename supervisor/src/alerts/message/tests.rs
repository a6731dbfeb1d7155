use super::*;
use crate::alerts::trouble::Trouble;

/// 2026-11-21T10:00:00Z.
const AT: u64 = 1_795_255_200_000_000_000;

fn notice(instance: &str, turn: Turn, title: &str, why: &str) -> Notice {
    let trouble = Trouble {
        instance: instance.into(),
        weight: Weight::Error,
        title: title.into(),
        why: why.into(),
        hint: format!("openclawctl status {instance}"),
        at_once: true,
    };
    Notice { key: format!("instance/{instance}"), turn, trouble, since_ns: AT, at_ns: AT + 125_000_000_000 }
}

#[test]
fn a_message_says_what_happened_what_was_done_and_what_to_type() {
    let one = notice("main", Turn::Began, "main is down, rescue stands in", "killed by SIGKILL");
    let deeds = BTreeMap::from([("main".to_owned(), vec![(AT, "`rescue` stands in".to_owned())])]);
    let message = compose(&[one], &deeds, "alpha");
    assert_eq!(message.title, "main is down, rescue stands in (alpha)");
    let lines: Vec<&str> = message.text.lines().collect();
    assert_eq!((lines[0], lines[2]), ("killed by SIGKILL.", "To do: openclawctl status main"));
    assert!(lines[1].ends_with("  `rescue` stands in"), "{}", lines[1]);
    assert!(!message.is_over);
    let shown = &message.json["alerts"][0];
    assert_eq!(
        (shown["state"].as_str(), shown["to_do"].as_str(), shown["since"].as_str()),
        (Some("began"), Some("openclawctl status main"), Some("2026-11-21T10:00:00Z"))
    );
    assert_eq!(shown["done"][0]["what"], "`rescue` stands in");
}

#[test]
fn an_end_says_how_long_it_was() {
    let end = notice("main", Turn::Ended, "main is down", "");
    let message = compose(std::slice::from_ref(&end), &BTreeMap::new(), "alpha");
    assert_eq!(message.title, "main is well again (alpha)");
    assert!(message.text.starts_with("It was not for 2m5s.\n"), "{}", message.text);
    assert!(message.is_over);
    // What began and ended while nobody could be reached.
    let began = notice("main", Turn::Began, "main is down", "");
    let message = compose(&[began, end], &BTreeMap::new(), "alpha");
    assert_eq!(message.title, "main is well again; it was not for 2m5s (alpha)");
}

#[test]
fn several_are_one_message() {
    let began = |name: &str| notice(name, Turn::Began, &format!("{name} is down"), "why");
    let many: Vec<Notice> = (0..12).map(|number| began(&format!("a{number}"))).collect();
    let message = compose(&many, &BTreeMap::new(), "alpha");
    assert_eq!(message.title, "12 things went wrong (alpha)");
    assert!(message.text.ends_with("… and 2 more: openclawctl status"), "{}", message.text);
    assert_eq!(message.json["alerts"].as_array().unwrap().len(), 12);
}

#[test]
fn what_a_gateway_wrote_is_text_of_a_bounded_length() {
    let why = format!("\u{1b}[31mred\u{202e}\r\n{}", "ä".repeat(10_000));
    let message =
        compose(&[notice("main", Turn::Began, "main is down\n\u{7}", &why)], &BTreeMap::new(), "a\nb");
    assert!(message.title.chars().chain(message.text.chars()).all(|c| c == '\n' || !c.is_control()));
    assert!(!message.text.contains('\u{202e}') && message.text.len() < LONGEST_LINE + 100);
    assert_eq!(message.title.lines().count(), 1);
}

#[test]
fn whatever_gateways_make_it_say_a_message_fits_into_a_programs_environment() {
    let long = "\"ä".repeat(1_000);
    let notices: Vec<_> = (0..100).map(|at| notice(&format!("i{at}"), Turn::Began, &long, &long)).collect();
    let done = || vec![(0, long.clone()); 100];
    let deeds = (0..100).map(|at| (format!("i{at}"), done())).collect();
    let message = compose(&notices, &deeds, "host");
    assert!(message.json.to_string().len() < 128 << 10, "{}", message.json.to_string().len());
    let told = message.json["alerts"].as_array().unwrap().len();
    assert!(told > 5 && message.json["more"] == 100 - told, "{told}");
    assert!(message.title.len() < 1_000 && message.text.len() < 2 * LONGEST);
}

#[test]
fn what_an_agent_has_written_ends_no_line_and_turns_none_around() {
    let why = "a\u{2028}To do: b\u{202e}c\u{61c}d\u{85}e\r\nf";
    let message = compose(&[notice("main", Turn::Began, "main\u{2029}x", why)], &BTreeMap::new(), "host");
    assert_eq!(message.title, "main x (host)");
    assert!(message.text.starts_with("a To do: b c d e  f.\nTo do: "), "{:?}", message.text);
    assert_eq!(message.json["alerts"][0]["why"], "a To do: b c d e  f");
}
