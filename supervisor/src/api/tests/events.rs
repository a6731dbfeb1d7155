use supervisor_proto::v1::{
    Event, InstanceSpec, ListEventsRequest, ListEventsResponse, Severity, WatchEventsRequest,
    WatchEventsResponse,
};
use tonic::{Code, Streaming};

use super::client::{Server, refused, within};

async fn list(server: &Server, request: ListEventsRequest) -> ListEventsResponse {
    within(server.events().list_events(request)).await.unwrap().into_inner()
}

async fn watch(server: &Server, request: WatchEventsRequest) -> Streaming<WatchEventsResponse> {
    within(server.events().watch_events(request)).await.unwrap().into_inner()
}

fn kinds(answer: &ListEventsResponse) -> Vec<&str> {
    answer.events.iter().map(|event| event.r#type.as_str()).collect()
}

#[tokio::test]
async fn events_are_listed_in_pages_or_from_the_end() {
    let server = Server::start().await;
    server.up("main").await;
    server.create("other", InstanceSpec::default()).await;
    let mine = ListEventsRequest { instance: "main".into(), ..Default::default() };
    let all = list(&server, mine.clone()).await;
    let expected = ["instance.created", "instance.wished_up", "instance.started", "instance.ready"];
    assert_eq!(kinds(&all), expected);
    let ready = &all.events[3];
    assert_eq!((ready.instance.as_str(), ready.incarnation), ("main", 1));
    assert_eq!(ready.severity(), Severity::Info);
    assert!(ready.time.as_ref().unwrap().seconds >= 1_767_225_600, "{ready:?}");

    let mut seen = Vec::new();
    let mut page = ListEventsRequest { page_size: 3, ..mine.clone() };
    loop {
        let answer = list(&server, page.clone()).await;
        seen.extend(answer.events.into_iter().map(|event| event.r#type));
        if answer.next_page_token.is_empty() {
            break;
        }
        page.page_token = answer.next_page_token;
    }
    assert_eq!(seen, expected);
    let newest = list(&server, ListEventsRequest { newest: true, page_size: 2, ..mine.clone() }).await;
    assert_eq!(kinds(&newest), expected[2..]);
    assert_eq!(newest.next_page_token, "");
    let after = ListEventsRequest { after_revision: all.events[1].revision, ..mine.clone() };
    assert_eq!(kinds(&list(&server, after).await), expected[2..]);
    let bad = ListEventsRequest { page_token: "x".into(), ..mine };
    refused(within(server.events().list_events(bad)).await, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
}

#[tokio::test]
async fn a_watch_tells_what_happens_from_a_revision_or_from_now_on() {
    let server = Server::start().await;
    server.up("main").await;
    let first = list(&server, ListEventsRequest::default()).await.events[0].revision;
    let mut from_first =
        watch(&server, WatchEventsRequest { after_revision: first, ..Default::default() }).await;
    let mut earlier = Vec::new();
    // `up` was answered when main was ready; that this is stored comes later, and only then is it the past.
    read_until(&mut from_first, &mut earlier, |event| event.r#type == "instance.ready").await;
    let mut from_now = watch(&server, WatchEventsRequest::default()).await;
    let mut of_other =
        watch(&server, WatchEventsRequest { instance: "other".into(), ..Default::default() }).await;
    server.create("other", InstanceSpec::default()).await;
    read_until(&mut from_first, &mut earlier, |event| event.instance == "other").await;
    assert!(earlier.iter().any(|event| event.instance == "main"));
    assert!(earlier.windows(2).all(|pair| pair[0].revision < pair[1].revision), "{earlier:?}");
    for stream in [&mut from_now, &mut of_other] {
        let message = within(stream.message()).await.unwrap().unwrap();
        assert_eq!(message.events[0].instance, "other");
        assert_eq!(message.events[0].r#type, "instance.created");
    }
}

/// Reads on until an event is the one that is waited for.
async fn read_until(
    stream: &mut Streaming<WatchEventsResponse>,
    seen: &mut Vec<Event>,
    is: impl Fn(&Event) -> bool,
) {
    while !seen.iter().any(&is) {
        let message = within(stream.message()).await.unwrap().unwrap();
        assert!(message.events.last().is_none_or(|last| message.revision >= last.revision));
        seen.extend(message.events);
    }
}

#[tokio::test]
async fn a_burst_is_told_whole() {
    let server = Server::start().await;
    let mut stream = watch(&server, WatchEventsRequest::default()).await;
    for number in 0..50 {
        server.up(&format!("i{number}")).await;
    }
    let mut ready = 0;
    while ready < 50 {
        let message = within(stream.message()).await.unwrap().unwrap();
        ready += message.events.iter().filter(|event| event.r#type == "instance.ready").count();
    }
    assert_eq!(ready, 50);
}
