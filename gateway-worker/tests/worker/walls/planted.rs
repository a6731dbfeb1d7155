//! What an agent plants in the directory that its worker writes the log to.

use super::*;

/// A gateway whose log is cut into small files, and what must not be written to.
fn scene(who: Who) -> (Home, Home, String) {
    let mut home = Home::of(who);
    home.place.policy.max_file_bytes = 1000;
    home.place.policy.max_files = 1000;
    let victim = Home::of(who);
    let treasure = victim.file("treasure");
    (home, victim, treasure)
}

fn numbers() -> String {
    (1..=2000).map(|number| format!("{number}\n")).collect()
}

#[test]
fn links_planted_in_the_log_directory_lead_the_worker_nowhere() {
    as_everybody(|who| {
        let (home, _victim, treasure) = scene(who);
        let script = format!(
            "cd {log}; for name in gateway-00000002.log gateway-00000003.idx gateway-00000004.log .gateway.log.new; \
             do ln -s {treasure} $name; done; mkdir gateway-00000005.idx; mkfifo gateway-00000006.log; \
             ln -sf {treasure} gateway.log; exec seq 1 2000",
            log = home.place.log().display()
        );
        let launch = Launch { walls: Some(home.walls()), ..home.place.shell(&script) };
        let (_worker, mut link, _) = home.start(launch);
        assert_eq!(link.exited().how, Some(How::Code(0)));
        assert_eq!(fs::read_to_string(&treasure).unwrap(), "secret");
        let mut said = String::new();
        for path in home.place.log_files() {
            if fs::symlink_metadata(&path).unwrap().is_file() {
                said.push_str(&fs::read_to_string(path).unwrap());
            }
        }
        assert_eq!(said, numbers());
        let current = fs::read_link(home.place.log().join("gateway.log")).unwrap();
        assert_eq!(current.to_str().unwrap(), home.place.log_files().last().unwrap().file_name().unwrap());
    });
}

#[test]
fn a_log_that_was_replaced_while_no_worker_ran_is_not_gone_on_with() {
    as_everybody(|who| {
        let (home, _victim, treasure) = scene(who);
        let plants: [&dyn Fn(&Path); 3] = [
            &|log| symlink(&treasure, log).unwrap(),
            &|log| fs::hard_link(&treasure, log).unwrap(),
            &|log| assert!(Command::new("mkfifo").arg(log).status().unwrap().success()),
        ];
        for (nth, plant) in plants.iter().enumerate() {
            let planted = home.place.log().join(format!("gateway-{:08}.log", 100 * (nth + 1)));
            plant(&planted);
            let (_worker, mut link, _) = home.start(home.place.shell("echo here"));
            link.exited();
            assert_eq!(fs::read_to_string(&treasure).unwrap(), "secret");
            let next = home.place.log().join(format!("gateway-{:08}.log", 100 * (nth + 1) + 1));
            assert_eq!(fs::read_to_string(next).unwrap(), "here\n");
        }
    });
}

#[test]
fn a_link_in_the_place_of_the_log_directory_is_not_followed_and_the_gateway_runs() {
    as_everybody(|who| {
        let (home, victim, _treasure) = scene(who);
        fs::remove_dir(home.place.log()).unwrap();
        symlink(victim.place.log(), home.place.log()).unwrap();
        let (_worker, mut link, _) = home.start(home.place.shell("echo here"));
        assert_eq!(link.exited().how, Some(How::Code(0)));
        assert_eq!(fs::read_dir(victim.place.log()).unwrap().count(), 0);
    });
}

#[test]
fn a_log_directory_that_was_deleted_is_made_again() {
    let (home, _victim, _treasure) = scene(Who::Me);
    let log = home.place.log();
    let script = format!(
        "echo before; read line <go; rm -r {0}; seq 1 2000; read line <go; seq 1 2000",
        log.display()
    );
    let go = home.place.fifo("go");
    let (_worker, mut link, _) = home.start(home.place.shell(&script));
    eventually("it has begun", || home.place.captured() == "before\n");
    fs::write(&go, "\n").unwrap();
    let current = || fs::read_to_string(log.join("gateway.log")).unwrap_or_default();
    eventually("there is a log again", || current().contains(" bytes of output lost: "));
    fs::write(&go, "\n").unwrap();
    while !matches!(link.next(), Some(Body::Exited(_))) {}
    assert!(home.place.captured().ends_with("\n1999\n2000\n"));
}
