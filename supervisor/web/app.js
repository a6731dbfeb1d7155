// The page: who is looked at, and what is known of the fleet.

import { Failure, call, follow, isOpen, learn, open, resume } from "./api.js";
import { el, isTrouble } from "./ui.js";
import { alerts, failover, fleet, incident, incidents, ports } from "./pages.js";
import { instance } from "./instance.js";

/** So many samples of what an instance uses, five seconds apart: ten minutes. */
const SAMPLES = 120;
const EVERY = 5_000;

/** What is known. */
export const known = { instances: new Map(), samples: new Map(), revision: "0", stale: null };

const main = document.getElementById("main");
let leave = () => {};
let shown = "";

const routes = [
  [/^#?\/?$/, fleet],
  [/^#\/i\/([a-z0-9-]+)$/, instance],
  [/^#\/ports$/, ports],
  [/^#\/failover$/, failover],
  [/^#\/alerts$/, alerts],
  [/^#\/incidents$/, incidents],
  [/^#\/incidents\/(\d+)$/, incident],
];

/** Shows the page that the address names; goes to its beginning if it is another than before. */
function show() {
  const address = location.hash;
  const found = routes.map(([pattern, page]) => [address.match(pattern), page]).find(([match]) => match);
  leave();
  leave = () => {};
  const place = el("div");
  main.replaceChildren(place);
  for (const link of document.querySelectorAll("nav a")) {
    const is = link.getAttribute("href") === (address || "#/");
    is ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  if (!found) {
    place.append(el("h1", {}, "No such page"), el("p", {}, el("a", { href: "#/" }, "To the fleet")));
  } else {
    const [match, page] = found;
    leave = page(place, known, ...match.slice(1)) ?? leave;
  }
  if (shown !== address) main.focus({ preventScroll: true });
  shown = address;
}

function ask(why) {
  leave();
  main.replaceChildren(
    el("h1", {}, "This page is closed"),
    el("p", {}, why),
    el("p", {}, "On the supervisor's host, type:"),
    el("pre", {}, "openclawctl web"),
    el("p", {}, "and open the link that it prints."),
  );
}

const listeners = new Set();

/** Is told each time that something is known anew. Returns what ends that. */
export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function changed() {
  const trouble = [...known.instances.values()].filter(isTrouble).length;
  // Who has other windows open sees it there.
  document.title = `${trouble ? `(${trouble}) ` : ""}OpenClaw fleet`;
  listeners.forEach((listener) => listener());
}

function take({ revision, snapshot, changed: one, deleted }) {
  known.revision = revision;
  if (snapshot) {
    known.instances = new Map(snapshot.instances.map((instance) => [instance.name, instance]));
    // Who was away may have another role now. Until it is known, nothing is offered that was not before.
    learn().then(changed, () => {});
  }
  if (one) known.instances.set(one.name, one);
  if (deleted) known.instances.delete(deleted) && known.samples.delete(deleted);
  changed();
}

function tell(failure) {
  known.stale = failure ? (known.stale ?? new Date()) : null;
  const place = document.getElementById("link-state");
  place.textContent = failure ? `Not connected since ${known.stale.toLocaleTimeString()}; trying again.` : "Live";
  if (["Unauthenticated", "PermissionDenied"].includes(failure?.code)) {
    place.textContent = "";
    ask(failure.message);
  }
}

/** What the instances use is not part of the watch. */
async function sample() {
  if (!document.hidden && isOpen()) {
    try {
      const { instances } = await call("InstanceService/ListInstances", { pageSize: 1000 });
      for (const { name, status } of instances) {
        const of = known.samples.get(name) ?? [];
        of.push({ cpu: status.resources?.cpuPercent ?? 0, rss: Number(status.resources?.rssBytes ?? 0) });
        known.samples.set(name, of.slice(-SAMPLES));
        const before = known.instances.get(name);
        if (before) before.status.resources = status.resources;
      }
      changed();
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
    }
  }
  setTimeout(sample, EVERY);
}

async function begin() {
  const ticket = location.hash.match(/^#link=(.+)$/)?.[1];
  if (ticket) {
    // Not to stay in the browser's history.
    history.replaceState(null, "", "/#/");
    try {
      await open(ticket);
    } catch (error) {
      return ask(error.message);
    }
  } else if (isOpen()) {
    try {
      await resume();
    } catch (error) {
      return ask(error.message);
    }
  }
  if (!isOpen()) return ask("Nobody has opened it here yet.");
  follow("InstanceService/WatchInstances", () => ({}), take, tell);
  addEventListener("hashchange", show);
  show();
  sample();
}

begin();
