// Elements made of text, and words for what the contract says.

/** An element. Text is text: nothing that a gateway has written becomes part of the page. */
export function el(tag, props = {}, ...children) {
  const made = document.createElementNS(SVG.has(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  const wanted = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  made.append(...wanted.map((child) => (child instanceof Node ? child : printable(child))));
  return made;
}
const SVG = new Set(["svg", "path", "rect", "g", "title", "line"]);

/** Text without what would make people take it for another: what orders terminals about or turns the direction of others. */
export const printable = (text) => String(text)
  .replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, "\ufffd");

const MARKS = {
  ready: ["●", "good"],
  starting: ["◐", "busy"],
  spawning: ["◐", "busy"],
  adopting: ["◐", "busy"],
  repairing: ["◐", "busy"],
  stopping: ["◐", "busy"],
  unhealthy: ["▲", "bad"],
  backoff: ["▲", "busy"],
  failed: ["✕", "bad"],
  stopped: ["○", "faint"],
};

/** `PHASE_READY` as `ready`. */
export const word = (name, prefix) => (name ?? "").replace(prefix, "").toLowerCase().replaceAll("_", " ");

export const phase = (instance) => word(instance.status?.phase, "PHASE_");

export function state(instance) {
  const [mark, look] = MARKS[phase(instance)] ?? ["?", "faint"];
  return el("span", { class: look }, el("span", { "aria-hidden": true }, `${mark} `), phase(instance));
}

const TROUBLE = ["failed", "unhealthy", "backoff"];

/** Since when it is as its phase says: one that is tried again and again has not been well since before the last try. */
export const soSince = ({ status }) => (["backoff", "failed"].includes(phase({ status })) && status.troubleTime) || status.phaseTime;

export const isTrouble = (instance) => TROUBLE.includes(phase(instance));

/** Trouble first. */
export function byTrouble(a, b) {
  const rank = (instance) => (isTrouble(instance) ? TROUBLE.indexOf(phase(instance)) : TROUBLE.length);
  return rank(a) - rank(b) || a.name.localeCompare(b.name);
}

export function bytes(text) {
  const value = Number(text ?? 0);
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const unit = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log2(value || 1) / 10)));
  const shown = value / 1024 ** unit;
  return `${shown >= 100 || unit === 0 ? Math.round(shown) : shown.toFixed(1)} ${units[unit]}`;
}

export function ago(time) {
  if (!time) return "";
  const seconds = Math.max(0, (Date.now() - new Date(time)) / 1000);
  const [value, unit] = [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]]
    .map(([size, unit]) => [Math.floor(seconds / size), unit])
    .find(([value]) => value > 0) ?? [0, "s"];
  return `${value} ${unit}`;
}

export function when(time) {
  return time ? el("time", { datetime: time, title: new Date(time).toLocaleString() }, `${ago(time)} ago`) : "";
}

/** When it was by the clock, for what is not drawn anew as time goes by. */
export function clock(time) {
  const at = new Date(time);
  const isToday = at.toDateString() === new Date().toDateString();
  return el("time", { datetime: time }, isToday ? at.toLocaleTimeString() : at.toLocaleString());
}

/** A sentence of the supervisor's: it begins large, has its full stop, and what it quotes is code. */
export function prose(text) {
  const parts = `${text.slice(0, 1).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`.split("`");
  // An odd mark quotes nothing.
  if (parts.length % 2 === 0) return [parts.join("`")];
  return parts.map((part, at) => (at % 2 ? el("code", {}, part) : part));
}

export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== "" && value !== undefined && value !== null);
  return el("dl", { class: "facts" }, shown.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

/**
 * Rows below titles. In a narrow window each row is a paragraph, with the titles before the cells unless they are `plain`
 * without; the roles say that it is a table all the same.
 */
export function table(titles, rows, label, plain = false) {
  const head = el("tr", { role: "row" }, titles.map((title) => el("th", { scope: "col", role: "columnheader" }, title)));
  const cell = (cell, at) => el("td", { role: "cell", "data-title": plain ? null : titles[at] }, cell ?? "");
  const body = rows.map((cells) => el("tr", { role: "row" }, cells.map(cell)));
  const made = el("table", { role: "table", "aria-label": label }, el("thead", { role: "rowgroup" }, head), el("tbody", { role: "rowgroup" }, body));
  return el("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, made);
}

/** A line over time; `says` tells it in words to who does not see it. What stays below `least` is no mountain. */
export function plot(values, says, least = 1e-9) {
  const most = Math.max(...values, least);
  const step = values.length > 1 ? 100 / (values.length - 1) : 100;
  const d = values.map((value, at) => `${at ? "L" : "M"}${(at * step).toFixed(2)} ${(28 - (value / most) * 26).toFixed(2)}`).join("");
  return el("svg", { class: "plot", viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img", "aria-label": says }, el("path", { d }));
}

/** Puts these in place of what is there. Whoever is at one of them with the keyboard stays at it. */
export function swap(place, ...parts) {
  const at = place.contains(document.activeElement) ? document.activeElement : null;
  const name = ["href", "aria-label"].find((name) => at?.hasAttribute(name));
  const again = name && `[${name}="${CSS.escape(at.getAttribute(name))}"]`;
  place.replaceChildren(...parts.flat(Infinity));
  if (again) place.querySelector(again)?.focus({ preventScroll: true });
}

/** Asks; the answer is whether to go on. */
export function ask(question, doIt, danger = false) {
  return new Promise((answer) => {
    const no = el("button", { type: "button", autofocus: true, onclick: () => box.close("no") }, "Cancel");
    const yes = el("button", { type: "button", class: danger ? "danger" : null, onclick: () => box.close("yes") }, doIt);
    const box = el("dialog", { "aria-label": question, onclose: () => (box.remove(), answer(box.returnValue === "yes")) },
      el("p", {}, question), el("div", { class: "row" }, no, yes));
    document.body.append(box);
    box.showModal();
  });
}

/** Tells it below the page, and to screen readers. */
export function say(text) {
  document.getElementById("said").textContent = printable(text);
  clearTimeout(say.later);
  say.later = setTimeout(() => (document.getElementById("said").textContent = ""), 12_000);
}
