// The pages of the whole fleet.

import { onChange } from "./app.js";
import { call, may } from "./api.js";
import { ago, byTrouble, bytes, clock, el, facts, isTrouble, phase, plot, printable, prose, say, soSince, state, swap, table, when, word } from "./ui.js";

/** Draws now and whenever something has changed. */
function live(place, draw) {
  const again = () => swap(place, ...draw());
  again();
  return onChange(again);
}

/** What was answered, or why nothing was; asked anew when something has changed. Returns what ends that. */
export function load(place, ask, draw) {
  let wanted = true;
  let next = 0; // Not before.
  let drawn = { answer: "", at: 0 };
  const again = async () => {
    if (!wanted || Date.now() < next) return;
    next = Infinity;
    try {
      const answer = await ask();
      const text = JSON.stringify(answer);
      // What is the same is left alone, for who reads or has marked it; but its times go by.
      if (wanted && (text !== drawn.answer || Date.now() > drawn.at + TIMES)) {
        swap(place, ...draw(answer));
        drawn = { answer: text, at: Date.now() };
      }
      next = Date.now() + PAUSE;
    } catch (failure) {
      if (wanted) place.replaceChildren(el("h1", {}, "That did not work"), el("p", { class: "bad" }, failure.message));
      drawn = { answer: "", at: 0 };
      next = 0;
    }
  };
  again();
  const end = onChange(again);
  return () => {
    wanted = false;
    end();
  };
}
/** Between two answers, while much changes; and how long "ago" may be off. */
const PAUSE = 2_000;
const TIMES = 30_000;

const to = (name) => el("a", { href: `#/i/${name}` }, name);

export function fleet(place, known) {
  return live(place, () => {
    const all = [...known.instances.values()].sort(byTrouble);
    const standing = all.filter((instance) => instance.status?.failover?.role === "ROLE_ACTIVE");
    return [
      el("h1", {}, "Fleet"),
      all.length ? el("p", {}, `${all.length} ${all.length === 1 ? "instance" : "instances"}: ${census(all)}.`) : "",
      ...standing.map((rescue) => standIn(rescue, known)),
      all.length ? el("ul", { class: "cards" }, all.map((instance) => card(instance, known)))
        : el("p", {}, "There is none yet. Type ", el("code", {}, "openclawctl up main rescue"), "."),
    ];
  });
}

/** How many are in which phase, the most first. */
function census(all) {
  const counts = Map.groupBy(all, phase);
  return [...counts].sort(([, a], [, b]) => b.length - a.length).map(([word, of]) => `${of.length} ${word}`).join(", ");
}

function standIn(rescue, known) {
  const { activeFor } = rescue.status.failover;
  const { since, reason } = known.instances.get(activeFor[0])?.status.failover ?? {};
  return el("p", { class: "notice" }, to(rescue.name), " stands in for ", activeFor.map((name, at) => [at ? ", " : "", to(name)]),
    since ? [" since ", clock(since), ` (${ago(since)} ago)`] : "", reason ? `: ${reason}.` : ".");
}

function card(instance, known) {
  const { status } = instance;
  const samples = known.samples.get(instance.name) ?? [];
  const role = word(status.failover?.role, "ROLE_");
  return el("li", { class: isTrouble(instance) ? "card trouble" : "card" },
    el("h2", {}, to(instance.name)),
    el("p", {}, state(instance), soSince(instance) ? el("span", { class: "faint" }, ` for ${ago(soSince(instance))}`) : null),
    status.reason && status.reason !== "serves" ? el("p", {}, prose(status.reason)) : null,
    status.hint ? el("p", {}, el("code", {}, status.hint)) : null,
    facts([
      ["role", role === "single" ? "" : role],
      ["port", status.ports?.gateway],
      ["restarts", String(status.restarts)],
      ["uses", status.resources ? `${status.resources.cpuPercent.toFixed(1)} % CPU, ${bytes(status.resources.rssBytes)}` : ""],
    ]),
    samples.length > 1 && status.pid ? plot(samples.map(({ cpu }) => cpu), `Processor of ${instance.name} over the last ${minutes(samples)}`, IDLE) : null);
}

/** Percent of a processor that nobody has to look at. */
export const IDLE = 10;

/** Samples are five seconds apart. */
export const minutes = (samples) => (samples.length < 24 ? `${samples.length * 5} s` : `${Math.round(samples.length / 12)} min`);

/** Ports in a row for the same, which nobody holds, as one. */
function together(uses) {
  const rows = [];
  for (const use of uses) {
    const before = rows.at(-1);
    const goesOn = before && !before.pid && !use.pid && before.purpose === use.purpose && before.last === use.port - 1;
    if (goesOn) before.last = use.port;
    else rows.push({ ...use, last: use.port });
  }
  return rows;
}

/** Every block of the pool, drawn in the order of its ports, and told in a table. */
export function ports(place) {
  return load(place, () => call("SystemService/ListPorts"), ({ instances }) => {
    const blocks = instances.toSorted((a, b) => a.base - b.base);
    const [first, last] = [Math.min(...blocks.map(({ base }) => base)), Math.max(...blocks.map(({ last }) => last))];
    const width = Math.max(1, last - first + 1);
    const map = el("svg", { class: "map", viewBox: `0 0 ${width} 40`, width: "100%", height: "40", preserveAspectRatio: "none", role: "img", "aria-label": `${blocks.length} blocks between ports ${first} and ${last}` },
      el("rect", { x: 0, y: 0, width, height: 40 }),
      blocks.map(({ instance, base, last: end }) =>
        el("rect", { class: "held", x: base - first, y: 4, width: end - base + 1, height: 32 }, el("title", {}, `${instance}: ${base} to ${end}`))));
    const rows = blocks.flatMap(({ instance, ports: uses }) => together(uses).map(({ port, last: end, purpose, pid, command, foreign }) => [
      to(instance), port === end ? String(port) : `${port} to ${end}`, purpose.replaceAll("-", " "),
      pid ? `${command} (${pid})` : el("span", { class: "faint" }, "nobody"),
      foreign ? el("strong", { class: "bad" }, "not its own") : pid ? "its own" : "",
    ]));
    return [el("h1", {}, "Ports"), blocks.length ? map : el("p", {}, "No block is held."),
      table(["Instance", "Port", "For", "Held by", "Whose"], rows, "Ports of all instances")];
  });
}

/** Who stands in for whom, and what became of it before. */
export function failover(place, known) {
  const now = el("div");
  const history = el("div");
  place.append(el("h1", {}, "Failover"), now, el("h2", {}, "Incidents"), history);
  const end = load(history, () => call("IncidentService/ListIncidents", { pageSize: 100 }), ({ incidents: all }) => [timeline(all)]);
  const endNow = live(now, () => {
    const primaries = [...known.instances.values()].filter(({ status }) => status?.failover?.rescuedBy?.length);
    if (!primaries.length) return [el("p", {}, "No instance has a rescue. Give one ", el("code", {}, "rescues: [main]"), " in the fleet file.")];
    return [table(["Primary", "State", "Active", "Rescues", "Since", "Why"], primaries.map((primary) => {
      const { failover: of } = primary.status;
      const away = of.active && of.active !== primary.name;
      return [to(primary.name), state(primary), el("span", { class: away ? "busy" : "good" }, of.active || "nobody"),
        of.rescuedBy.map((name) => to(name)), when(of.since), of.reason];
    }), "Primaries and their rescues")];
  });
  return () => {
    end();
    endNow();
  };
}

/** The shortest time that a line shows, in milliseconds. */
const HOUR = 3_600_000;

/** Incidents along a line of time, the newest at the right; the table below says the same. */
function timeline(all) {
  if (!all.length) return el("p", {}, "Nothing has happened that is remembered.");
  const begin = Math.min(Date.now() - HOUR, ...all.map(({ startTime }) => +new Date(startTime)));
  const width = Math.max(1, Date.now() - begin);
  const x = (time) => (((+new Date(time) - begin) / width) * 1000).toFixed(1);
  const bars = all.map(({ number, instance, startTime, endTime }) => {
    const end = endTime ?? new Date().toISOString();
    const wide = Math.max(4, x(end) - x(startTime));
    // A short one that has just begun is not drawn beyond the end.
    return el("rect", { class: endTime ? "held" : "held open", x: Math.min(x(startTime), 1000 - wide), y: 6, width: wide, height: 28 },
      el("title", {}, `${number}: ${instance}, ${new Date(startTime).toLocaleString()}`));
  });
  return el("div", {},
    el("svg", { class: "map", viewBox: "0 0 1000 40", width: "100%", height: "40", preserveAspectRatio: "none", role: "img", "aria-label": `${all.length} incidents since ${new Date(begin).toLocaleString()}` },
      el("rect", { x: 0, y: 0, width: 1000, height: 40 }), bars),
    el("p", { class: "ends faint" }, clock(new Date(begin).toISOString()), el("span", {}, "now")),
    incidentTable(all));
}

function incidentTable(all) {
  return table(["Number", "Instance", "Began", "Cause", "Outcome"], all.map((one) => [
    el("a", { href: `#/incidents/${one.number}` }, one.number), to(one.instance), when(one.startTime), one.cause,
    el("span", { class: one.outcome === "OUTCOME_OPEN" ? "bad" : "" }, word(one.outcome, "OUTCOME_")),
  ]), "Incidents");
}

export function incidents(place) {
  return load(place, () => call("IncidentService/ListIncidents", { pageSize: 100 }), ({ incidents: all }) => [
    el("h1", {}, "Incidents"),
    all.length ? incidentTable(all) : el("p", {}, "Nothing has happened that is remembered."),
  ]);
}

export function incident(place, _known, number) {
  return load(place, () => call("IncidentService/GetIncident", { number }), ({ incident: one, timeline: events, rollbacks, log }) => [
    el("h1", {}, `Incident ${one.number}: ${one.instance}`),
    facts([["cause", prose(one.cause)], ["began", when(one.startTime)], ["ended", one.endTime ? when(one.endTime) : "not yet"],
      ["outcome", word(one.outcome, "OUTCOME_")], ["stood in", one.rescues.join(", ")]]),
    el("h2", {}, "What happened"), eventTable(events),
    rollbacks.map(({ reason, diff }) => [el("h2", {}, "Configuration taken back"), el("p", {}, prose(reason)), difference(diff)]),
    log.length ? el("h2", {}, "Its log before") : null, log.length ? el("pre", { tabindex: "0" }, log.map(text).join("\n")) : null,
  ].filter(Boolean));
}

/** What is wrong now, and how those do who are told of it. */
export function alerts(place) {
  return load(place, () => call("AlertService/GetAlerts"), ({ alerts: all, sinks }) => [
    el("h1", {}, "Alerts"),
    all.length ? table(["How bad", "What", "Lasts", "Why", "What to type"], all.map((one) => [
      el("span", { class: one.severity === "SEVERITY_ERROR" ? "bad" : "busy" }, word(one.severity, "SEVERITY_")),
      one.instance ? el("a", { href: `#/i/${one.instance}` }, one.title) : one.title,
      `${ago(one.beginTime)}${one.told || !sinks.length ? "" : ", not told yet"}`, prose(one.reason), el("code", {}, one.hint),
    ]), "What is wrong") : el("p", {}, "Nothing is wrong."),
    el("h2", {}, "Who is told"),
    sinks.length ? table(["Name", "Kind", "Told", "Waiting", "State"], sinks.map((sink) => [
      sink.name, sink.kind, when(sink.tellTime), String(sink.waiting),
      sink.failTime ? el("span", { class: "bad" }, `fails for ${ago(sink.failTime)}: ${sink.failure}`) : el("span", { class: "good" }, "ok"),
    ]), "Sinks") : el("p", {}, "Nobody. Name somebody as ", el("code", {}, "alerts.sinks"), " in settings.yaml, then type ",
      el("code", {}, "openclawctl supervisor reload"), "."),
    sinks.length && may("AlertService/TestAlerts") ? el("p", { class: "row" }, el("button", { type: "button", "aria-label": "Send a test", onclick: test }, "Send a test")) : "",
  ]);
}

async function test() {
  say("Sending a test to all.");
  try {
    const { outcomes } = await call("AlertService/TestAlerts");
    say(outcomes.map(({ name, failure }) => `${name}: ${failure || "took it"}`).join("; "));
  } catch (failure) {
    say(failure.message);
  }
}

const decoder = new TextDecoder();

/** A line of a log, without what would order a terminal about. */
export function text(line) {
  const raw = Uint8Array.from(atob(line.text ?? ""), (c) => c.charCodeAt(0));
  return printable(decoder.decode(raw).replace(/\u001b\[[0-9;?]*[ -/]*[@-~]/g, "").replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, ""));
}

export function eventTable(events) {
  const look = { SEVERITY_WARNING: "busy", SEVERITY_ERROR: "bad" };
  return table(["When", "Whose", "How much it matters", "What"], events.map((event) => [
    clock(event.time), event.instance ? to(event.instance) : "supervisor",
    el("span", { class: look[event.severity] ?? "" }, word(event.severity, "SEVERITY_")), prose(event.message),
  ]), "Events", true);
}

export function difference(diff) {
  return el("pre", { class: "diff", tabindex: "0" }, diff.split("\n").map((line) =>
    el("span", { class: line.startsWith("+") ? "add" : line.startsWith("-") ? "del" : null }, `${line}\n`)));
}
