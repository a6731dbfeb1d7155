//! The fleet as it was last told: all instances, and the order in which they are shown.

use std::{
    cmp::{Ordering, Reverse},
    collections::BTreeMap,
};

use supervisor_proto::v1::{
    Instance, Phase, Role, WatchInstancesResponse, Wish, watch_instances_response::Change,
};

use crate::view;

/// By what instances are ordered. What is equal there is ordered by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Name,
    /// Trouble first.
    State,
    /// Who stands in, or is stood in for, first.
    Role,
    /// Most first, as with the next two.
    Cpu,
    Memory,
    /// The youngest first: what has just been started is what somebody looks for.
    Uptime,
    Restarts,
}

/// The orders, as `<` and `>` go through them: that of the columns.
const ORDERS: [Order; 7] =
    [Order::Name, Order::State, Order::Role, Order::Cpu, Order::Memory, Order::Uptime, Order::Restarts];

impl Order {
    /// The one of the next column, or of the one before; the outermost ones have none.
    pub(crate) fn beside(self, next: bool) -> Self {
        let here = ORDERS.iter().position(|order| *order == self).unwrap_or_default();
        let there = if next { (here + 1).min(ORDERS.len() - 1) } else { here.saturating_sub(1) };
        ORDERS[there]
    }

    fn compare(self, a: &Instance, b: &Instance) -> Ordering {
        match self {
            Self::Name => Ordering::Equal,
            Self::State => trouble(a).cmp(&trouble(b)),
            Self::Role => involvement(a).cmp(&involvement(b)),
            Self::Cpu => cpu(b).total_cmp(&cpu(a)),
            Self::Memory => memory(b).cmp(&memory(a)),
            Self::Uptime => started(a).cmp(&started(b)),
            Self::Restarts => Reverse(view::status(a).restarts).cmp(&Reverse(view::status(b).restarts)),
        }
    }
}

/// What needs a look first. What is on its way comes before what has arrived, so that whoever is counted as not ready
/// is seen without a search.
fn trouble(instance: &Instance) -> u8 {
    match view::status(instance).phase() {
        Phase::Failed => 0,
        Phase::Unhealthy => 1,
        Phase::Backoff | Phase::Repairing => 2,
        Phase::Adopting | Phase::Spawning | Phase::Starting | Phase::Stopping => 3,
        Phase::Unspecified | Phase::Stopped | Phase::Ready => 4,
    }
}

fn involvement(instance: &Instance) -> u8 {
    match view::failover(instance).role() {
        Role::Active | Role::Promoting => 0,
        Role::Rescued => 1,
        Role::Primary => 2,
        Role::Standby => 3,
        Role::Single | Role::Unspecified => 4,
    }
}

fn cpu(instance: &Instance) -> f64 {
    view::status(instance).resources.as_ref().map_or(-1.0, |used| used.cpu_percent)
}

fn memory(instance: &Instance) -> u64 {
    view::status(instance).resources.as_ref().map_or(0, |used| used.rss_bytes)
}

/// When it was started, the latest first; what does not run comes last.
fn started(instance: &Instance) -> Reverse<(i64, i32)> {
    let status = view::status(instance);
    let start = status.start_time.as_ref().filter(|_| status.pid != 0);
    Reverse(start.map_or((i64::MIN, 0), |start| (start.seconds, start.nanos)))
}

/// How many of the fleet are as they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Count {
    /// They serve.
    pub(crate) ready: usize,
    /// They should, and do not.
    pub(crate) lacking: usize,
    /// Nobody wishes that they did.
    pub(crate) down: usize,
}

/// All instances, and which are shown in which order.
#[derive(Debug)]
pub(crate) struct Fleet {
    instances: BTreeMap<String, Instance>,
    order: Order,
    filter: String,
    /// The names that are shown.
    shown: Vec<String>,
    /// They were put in order before the last change.
    stale: bool,
    /// A snapshot has come.
    known: bool,
}

impl Fleet {
    /// Before anything is known.
    pub(crate) fn new() -> Self {
        Self {
            instances: BTreeMap::new(),
            order: Order::State,
            filter: String::new(),
            shown: Vec::new(),
            stale: false,
            known: false,
        }
    }

    /// Takes in one message of the watch.
    pub(crate) fn observe(&mut self, message: WatchInstancesResponse) {
        match message.change {
            Some(Change::Snapshot(snapshot)) => {
                let mut before = std::mem::take(&mut self.instances);
                let named = snapshot.instances.into_iter().map(|mut instance| {
                    let known = before.remove(&instance.name);
                    keep_figures(&mut instance, known);
                    (instance.name.clone(), instance)
                });
                self.instances = named.collect();
                self.known = true;
            }
            Some(Change::Changed(mut instance)) => {
                let known = self.instances.remove(&instance.name);
                keep_figures(&mut instance, known);
                self.instances.insert(instance.name.clone(), *instance);
            }
            Some(Change::Deleted(name)) => {
                self.instances.remove(&name);
            }
            Some(Change::Bookmark(_)) | None => return,
        }
        self.stale = true;
    }

    /// Takes in what processes use, and nothing else: what else such an answer says may be older than what the watch
    /// has told since.
    pub(crate) fn measure(&mut self, measured: Vec<Instance>) {
        for each in measured {
            let Some(status) = self.instances.get_mut(&each.name).and_then(|known| known.status.as_mut())
            else {
                continue;
            };
            if let Some(seen) = each.status.filter(|seen| seen.incarnation == status.incarnation) {
                status.resources = seen.resources;
            }
        }
        self.stale |= matches!(self.order, Order::Cpu | Order::Memory);
    }

    /// Whether it is known what there is.
    pub(crate) fn is_known(&self) -> bool {
        self.known
    }

    /// Another order.
    pub(crate) fn order_by(&mut self, order: Order) {
        self.order = order;
        self.stale = true;
    }

    /// The order.
    pub(crate) fn order(&self) -> Order {
        self.order
    }

    /// Only those with this in their names; all if it is empty.
    pub(crate) fn filter_by(&mut self, filter: String) {
        self.filter = filter;
        self.stale = true;
    }

    /// What names must have in them.
    pub(crate) fn filter(&self) -> &str {
        &self.filter
    }

    /// Puts what is shown in order, if anything has changed since that was done.
    pub(crate) fn arrange(&mut self) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        let mut shown: Vec<&Instance> =
            self.instances.values().filter(|instance| instance.name.contains(&self.filter)).collect();
        // By name they are already, and equal ones stay as they are.
        shown.sort_by(|a, b| self.order.compare(a, b));
        self.shown = shown.into_iter().map(|instance| instance.name.clone()).collect();
    }

    /// The names that are shown, in order.
    pub(crate) fn shown(&self) -> &[String] {
        &self.shown
    }

    /// One instance.
    pub(crate) fn get(&self, name: &str) -> Option<&Instance> {
        self.instances.get(name)
    }

    /// All instances, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.instances.len()
    }

    /// How many are as they should be.
    pub(crate) fn count(&self) -> Count {
        let mut count = Count::default();
        for status in self.all().map(view::status) {
            let (phase, wish) = (status.phase(), status.wish());
            // A cold standby is stopped, and that is what it should be.
            let rests = phase == Phase::Stopped && (wish != Wish::Up || status.settled);
            let counted = match (phase == Phase::Ready, rests) {
                (true, _) => &mut count.ready,
                (false, true) => &mut count.down,
                (false, false) => &mut count.lacking,
            };
            *counted += 1;
        }
        count
    }
}

/// A watch tells figures only as far as somebody has looked at them; what is known of the same life stays.
fn keep_figures(instance: &mut Instance, before: Option<Instance>) {
    let Some(before) = before.and_then(|before| before.status) else { return };
    if let Some(status) = &mut instance.status
        && status.resources.is_none()
        && status.pid != 0
        && status.incarnation == before.incarnation
    {
        status.resources = before.resources;
    }
}

#[cfg(test)]
mod tests {
    use supervisor_proto::v1::{
        FailoverStatus, InstanceStatus, Resources,
        watch_instances_response::{Bookmark, Snapshot},
    };

    use super::*;

    fn instance(name: &str, phase: Phase) -> Instance {
        let status = InstanceStatus { phase: phase.into(), pid: 7, incarnation: 1, ..Default::default() };
        Instance { name: name.into(), status: Some(status), ..Default::default() }
    }

    fn told(change: Change) -> WatchInstancesResponse {
        WatchInstancesResponse { revision: 1, change: Some(change) }
    }

    fn fleet(instances: Vec<Instance>) -> Fleet {
        let mut fleet = Fleet::new();
        fleet.observe(told(Change::Snapshot(Snapshot { instances })));
        fleet
    }

    fn shown(fleet: &mut Fleet) -> String {
        fleet.arrange();
        fleet.shown().join(" ")
    }

    #[test]
    fn trouble_comes_first_and_names_decide_what_is_equal() {
        let mut fleet = fleet(vec![
            instance("d", Phase::Ready),
            instance("c", Phase::Stopped),
            instance("b", Phase::Backoff),
            instance("a", Phase::Unhealthy),
            instance("y", Phase::Starting),
            instance("z", Phase::Failed),
        ]);
        assert_eq!(shown(&mut fleet), "z a b y c d");
        fleet.observe(told(Change::Changed(Box::new(instance("d", Phase::Failed)))));
        fleet.observe(told(Change::Deleted("c".into())));
        fleet.observe(told(Change::Bookmark(Bookmark {})));
        assert_eq!(shown(&mut fleet), "d z a b y");
        fleet.order_by(Order::Name);
        assert_eq!(shown(&mut fleet), "a b d y z");
        fleet.filter_by("z".into());
        assert_eq!(shown(&mut fleet), "z");
    }

    #[test]
    fn each_column_is_an_order_of_its_own() {
        let mut one = instance("one", Phase::Ready);
        let mut two = instance("two", Phase::Ready);
        let figures =
            |cpu_percent, rss_bytes| Some(Resources { cpu_percent, rss_bytes, ..Default::default() });
        let [a, b] = [&mut one, &mut two].map(|each| each.status.as_mut().unwrap());
        (a.resources, a.restarts) = (figures(1.0, 9), 3);
        b.resources = figures(2.0, 5);
        b.failover = Some(FailoverStatus { role: Role::Active.into(), ..Default::default() });
        a.start_time = Some(prost_types::Timestamp { seconds: 50, nanos: 0 });
        b.start_time = Some(prost_types::Timestamp { seconds: 60, nanos: 0 });
        let mut fleet = fleet(vec![one, two]);
        let mut by = |order| {
            fleet.order_by(order);
            shown(&mut fleet)
        };
        assert_eq!(
            ORDERS.map(&mut by),
            ["one two", "one two", "two one", "two one", "one two", "two one", "one two"]
        );
        assert_eq!(Order::Name.beside(false), Order::Name);
        assert_eq!(Order::Name.beside(true), Order::State);
        assert_eq!(Order::Restarts.beside(true), Order::Restarts);
    }

    #[test]
    fn figures_are_of_one_life_and_nothing_else_is_taken_from_where_they_came() {
        let figures = Some(Resources { rss_bytes: 9, ..Default::default() });
        let mut measured = instance("main", Phase::Failed);
        measured.status.as_mut().unwrap().resources = figures;
        let mut fleet = fleet(vec![instance("main", Phase::Ready)]);
        let seen = |fleet: &Fleet| {
            let status = fleet.get("main").unwrap().status.clone().unwrap();
            (status.phase(), status.resources.map_or(0, |used| used.rss_bytes))
        };
        fleet.measure(vec![measured.clone(), instance("unknown", Phase::Ready)]);
        assert_eq!(seen(&fleet), (Phase::Ready, 9));
        fleet.observe(told(Change::Changed(Box::new(instance("main", Phase::Unhealthy)))));
        assert_eq!(seen(&fleet), (Phase::Unhealthy, 9));
        let mut next = instance("main", Phase::Starting);
        next.status.as_mut().unwrap().incarnation = 2;
        fleet.observe(told(Change::Changed(Box::new(next))));
        fleet.measure(vec![measured]);
        assert_eq!(seen(&fleet), (Phase::Starting, 0));
    }

    #[test]
    fn what_should_be_ready_and_is_not_is_counted() {
        let wished = |name: &str, phase, wish: Wish, settled| {
            let mut instance = instance(name, phase);
            let status = instance.status.as_mut().unwrap();
            (status.wish, status.settled) = (wish.into(), settled);
            instance
        };
        let fleet = fleet(vec![
            wished("a", Phase::Ready, Wish::Up, true),
            wished("b", Phase::Backoff, Wish::Up, false),
            wished("c", Phase::Stopped, Wish::Down, true),
            wished("cold", Phase::Stopped, Wish::Up, true),
            wished("soon", Phase::Stopped, Wish::Up, false),
        ]);
        assert_eq!(fleet.count(), Count { ready: 1, lacking: 2, down: 2 });
    }
}
