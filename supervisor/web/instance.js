// One instance: how it stands, what it uses, what it says, and what can be done about it.

import { onChange } from "./app.js";
import { call, follow, may, once } from "./api.js";
import { IDLE, difference, eventTable, load, minutes, text } from "./pages.js";
import { ago, ask, bytes, el, facts, phase, plot, prose, say, soSince, state, swap, table, when, word } from "./ui.js";

/** Lines of the log that are shown, and events. */
const LINES = 400;
const EVENTS = 50;
/** Before another try, when the first answer did not come. */
const AGAIN = 3_000;

export function instance(place, known, name) {
  const heading = el("div");
  const events = el("div");
  const log = el("pre", { tabindex: "0", role: "log", "aria-label": `Log of ${name}` });
  const config = el("div");
  const [acts, drawActs] = actions(name, known);
  const details = el("div");
  place.append(heading, acts, details, el("h2", {}, "Events"), events, el("h2", {}, "Log"), log,
    el("h2", {}, "Configuration"), config);
  const draw = () => {
    swap(heading, ...story(name, known));
    swap(details, ...found(name, known));
    drawActs();
  };
  draw();
  const ends = [onChange(draw), followEvents(name, events), followLog(name, log), snapshots(name, config)];
  return () => ends.forEach((end) => end());
}

function story(name, known) {
  const one = known.instances.get(name);
  if (!one) return [el("h1", {}, name), el("p", {}, "There is no such instance.")];
  const { status } = one;
  return [
    el("h1", {}, name),
    el("p", {}, state(one), soSince(one) ? ` for ${ago(soSince(one))}` : ""),
    status.reason && status.reason !== "serves" ? el("p", {}, prose(status.reason)) : "",
    status.hint ? el("p", {}, "What to type: ", el("code", {}, status.hint)) : "",
  ];
}

/** What is known of it beside its state. */
function found(name, known) {
  const status = known.instances.get(name)?.status;
  if (!status) return [];
  const samples = known.samples.get(name) ?? [];
  const exit = status.lastExit;
  const walls = status.walls.filter(({ state: how }) => how !== "STATE_ENFORCED");
  return [
    facts([
      ["wish", word(status.wish, "WISH_")],
      ["role", word(status.failover?.role, "ROLE_")],
      ["health", status.health ? `${status.health.live ? "live" : "not live"}, ${status.health.ready ? "ready" : "not ready"}` : ""],
      ["last probe", status.health?.message],
      ["process", status.pid ? `${status.pid}, worker ${status.workerPid}, incarnation ${status.incarnation}` : "none"],
      ["started", when(status.startTime)],
      ["restarts", String(status.restarts)],
      ["last exit", exit ? el("span", {}, `${exit.message}, `, when(exit.time)) : ""],
      ["runtime", word(status.runtime, "RUNTIME_")],
      ["ports", status.ports ? `${status.ports.base} to ${status.ports.last}` : ""],
      ["uses", status.resources ? `${status.resources.cpuPercent.toFixed(1)} % CPU, ${bytes(status.resources.rssBytes)}, ${status.resources.processes} ${status.resources.processes === 1 ? "process" : "processes"}` : ""],
      ["walls", walls.length ? walls.map(({ kind, state: how, reason }) => `${word(kind, "KIND_")} ${word(how, "STATE_")} (${reason})`).join("; ") : status.walls.length ? "all stand" : ""],
    ]),
    samples.length > 1 ? el("div", { class: "plots" },
      figure("Processor", samples, ({ cpu }) => cpu, (cpu) => `${cpu.toFixed(1)} %`, IDLE),
      figure("Memory", samples, ({ rss }) => rss, bytes)) : "",
  ];
}

/** A plot of the samples, with its numbers in words. */
function figure(what, samples, of, told, least) {
  const values = samples.map(of);
  const says = `${what} over ${minutes(samples)}: now ${told(values.at(-1))}, at most ${told(Math.max(...values))}`;
  return el("figure", {}, el("figcaption", { class: "faint" }, says), plot(values, says, least));
}

/** What can be done with it as it stands, by whoever looks; and what draws that anew. */
function actions(name, known) {
  const place = el("div", { class: "row", role: "group", "aria-label": "What can be done" });
  let drawn = "";
  return [place, () => {
    const one = known.instances.get(name);
    const fitting = one ? ACTS.filter(({ method, fits }) => may(method) && fits(one)) : [];
    const labels = fitting.map(({ label }) => label).join();
    // Left alone, the button that was pressed keeps the focus.
    if (labels === drawn) return;
    drawn = labels;
    const had = place.contains(document.activeElement);
    swap(place, ...fitting.map((act) => button(act, name, known)));
    if (had && !place.contains(document.activeElement)) (place.querySelector("button") ?? place).focus();
  }];
}

const isWanted = ({ status }) => status.wish === "WISH_UP";
const isDown = (one) => ["failed", "backoff", "stopped"].includes(phase(one));
const isAway = ({ name, status: { failover: of } }) => Boolean(of?.active) && of.active !== name && of.rescuedBy?.length > 0;

const ACTS = [
  { label: "Start", method: "InstanceService/StartInstance", fits: (one) => !isWanted(one) || isDown(one), asks: (name) => `Start ${name}?` },
  { label: "Restart", method: "InstanceService/RestartInstance", fits: isWanted,
    asks: (name) => `Restart ${name}? Whoever it serves waits until it is ready again.` },
  { label: "Stop", method: "InstanceService/StopInstance", fits: isWanted, danger: true,
    asks: (name) => `Stop ${name}? It stays down until somebody starts it.` },
  { label: "Fail over", method: "InstanceService/FailOver", danger: true,
    fits: (one) => one.status.failover?.rescuedBy?.length > 0 && !isAway(one), asks: (name) => `Have a rescue stand in for ${name}?` },
  { label: "Fail back", method: "InstanceService/FailBack", fits: isAway, asks: (name) => `Give ${name} its place back?` },
];

function button({ label, method, danger, asks }, name, known) {
  const request = /Fail/.test(method) ? { primary: name } : { name };
  return el("button", { type: "button", "aria-label": label, class: danger ? "danger" : null, onclick: async () => {
    if (!(await ask(asks(name), label, danger))) return;
    say(`${label}: asked for.`);
    try {
      await call(method, { ...request, requestId: once() });
      say(`${label}: done. ${name} is ${phase(known.instances.get(name) ?? {}) || "on its way"}.`);
    } catch (failure) {
      say(`${label}: ${failure.message}`);
    }
  } }, label);
}

function followEvents(name, place) {
  let shown = [];
  const draw = () => place.replaceChildren(shown.length ? eventTable(shown.toReversed()) : el("p", {}, "None yet."));
  let after = "0";
  let end = () => {};
  let wanted = true;
  const begin = () => call("EventService/ListEvents", { instance: name, pageSize: EVENTS, newest: true }).then(({ events }) => {
    if (!wanted) return;
    shown = events;
    after = events.at(-1)?.revision ?? "0";
    draw();
    end = follow("EventService/WatchEvents", () => ({ instance: name, afterRevision: after }), ({ events: more, revision }) => {
      shown = [...shown, ...more].slice(-EVENTS);
      after = revision;
      if (more.length) draw();
    });
  }).catch((failure) => {
    if (!wanted) return;
    place.replaceChildren(el("p", { class: "bad" }, failure.message));
    setTimeout(() => wanted && begin(), AGAIN);
  });
  begin();
  return () => { wanted = false; end(); };
}

function followLog(name, place) {
  let lines = [];
  let cursor = "";
  const request = () => ({ name, follow: true, ...(cursor ? { afterCursor: cursor } : { tail: String(LINES) }) });
  return follow("LogService/ReadLogs", request, ({ lines: more }) => {
    if (!more.length) return;
    // Who has scrolled up reads on there.
    const atEnd = place.scrollTop + place.clientHeight >= place.scrollHeight - 4;
    lines = [...lines, ...more.map(text)].slice(-LINES);
    cursor = more.at(-1).cursor;
    place.textContent = lines.join("\n");
    if (atEnd) place.scrollTop = place.scrollHeight;
  });
}

function snapshots(name, place) {
  const list = el("div");
  const shown = el("div", { "aria-live": "polite" });
  place.append(list, shown);
  const differ = async (id) => {
    try {
      const { diff, problem } = await call("ConfigService/DiffSnapshot", { name, from: id });
      shown.replaceChildren(el("h3", {}, `From ${id.slice(0, 12)} to what is there now`),
        problem ? el("p", { class: "bad" }, problem) : "", diff ? difference(diff) : el("p", {}, "There is no difference."));
    } catch (failure) {
      shown.replaceChildren(el("p", { class: "bad" }, failure.message));
    }
  };
  const rollBack = async (id) => {
    if (!(await ask(`Put the configuration ${id.slice(0, 12)} of ${name} in place of what is there? A running gateway is started anew; what is there is kept.`, "Roll back", true))) return;
    try {
      await call("ConfigService/RollBack", { name, to: id, requestId: once() });
      say("Rolled back.");
      shown.replaceChildren();
    } catch (failure) {
      say(`Roll back: ${failure.message}`);
    }
  };
  const row = ({ id, createTime, standing, current, running, note }) => [
    el("code", {}, id.slice(0, 12)), when(createTime), word(standing, "STANDING_"),
    [current ? "there now" : "", running ? "runs" : "", note].filter(Boolean).join(", "),
    el("div", { class: "row" },
      el("button", { type: "button", "aria-label": `Diff of ${id.slice(0, 12)}`, onclick: () => differ(id) }, "Diff"),
      current || !may("ConfigService/RollBack") ? null
        : el("button", { type: "button", class: "danger", "aria-label": `Roll back to ${id.slice(0, 12)}`, onclick: () => rollBack(id) }, "Roll back")),
  ];
  // The rights are part of the answer: with others other buttons are drawn.
  const request = async () => ({ ...(await call("ConfigService/ListSnapshots", { name, pageSize: 20 })), may: may("ConfigService/RollBack") });
  return load(list, request, ({ snapshots: all }) => [all.length
    ? table(["Snapshot", "Seen", "Standing", "Where it is", "What can be done"], all.map(row), "Snapshots")
    : el("p", {}, "None is kept yet.")]);
}
