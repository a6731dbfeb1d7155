// The dashboard in a browser, against a supervisor that really runs: see .ci/web/run.

import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { DESKTOP, PHONE, Tab, launch } from "./browser.mjs";
import { Host, LIMIT, NotSo, ROOT, check, kill, until } from "./host.mjs";
import { Squatter } from "./squatter.mjs";

const NAMES = ["main", "rescue", "research", "support"];
/** A user that no host has. */
const VIEWER = 54_321;
/** A page notices within this that the supervisor is there again: the longest pause between two tries, and some. */
const RECONNECT = 15_000;

/** Why a step is not taken here. */
class LeftOut extends Error {}

/** Faults that are told, of many. */
const SHOWN = 6;

/** As long as this file is there, main dies at once. */
const bane = (host) => join(host.data, "instances/main/home/bane");

const fleet = (host) => ({
  main: {
    runtime: "builtin",
    env: { BUILTIN_GATEWAY_MISBEHAVE: `exit=1,while-file=${bane(host)}` },
    restart: { initial_delay: "100ms", max_delay: "200ms", budget: 5 },
    ladder: { deaths: 2, quarantine: true },
    trial: { good_after: "1s" },
  },
  rescue: { runtime: "builtin", rescues: ["main"], rescue: { failback: "auto", failback_after: "2s" } },
  research: { runtime: "builtin" },
  support: { runtime: "builtin" },
});

/** The pages, and what says that each is drawn. */
const PAGES = [
  ["#/", /support[\s\S]*restarts/],
  ["#/ports", /support[\s\S]*cdp/],
  ["#/failover", "main"],
  ["#/incidents", "Incidents"],
  ["#/alerts", "Who is told"],
  ["#/i/main", /process[\s\S]*Snapshot/],
];

/** Each page as everybody sees it: by day and by night, at a desk and under way. */
async function looks(tab, pages) {
  let seen = 0;
  const wrong = [];
  for (const [size, view] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
    await tab.size(view);
    for (const scheme of ["light", "dark"]) {
      await tab.scheme(scheme);
      for (const [hash, text] of pages) {
        await tab.go(hash, text);
        wrong.push(...(await tab.faults(`${hash}, ${scheme}, ${size}`)));
        seen += 1;
      }
    }
  }
  await tab.size(DESKTOP);
  await tab.scheme("light");
  // Most of them are one mistake, seen again.
  check(!wrong.length, `${wrong.length} faults, such as\n${wrong.filter((_, at) => at % Math.ceil(wrong.length / SHOWN) === 0).join("\n")}`);
  return `${seen} looks`;
}

/** Presses Tab until what has the focus is called this. */
async function tabTo(tab, name) {
  const passed = [];
  for (let at = 0; at < 40; at += 1) {
    await tab.page.keyboard.press("Tab");
    const on = await tab.run(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent.trim());
    if (on === name) return;
    passed.push(on);
  }
  throw new NotSo(`the Tab key never comes to ${name}, but to ${passed.join(", ")}`);
}

const pidOf = async (host, name) => (await host.status(name)).pid;

/** The steps, in their order: each goes on where the one before has left the fleet. */
const steps = {
  async "a link opens the fleet, with a card for each instance"({ host, tab }) {
    tab.link = await host.link();
    check(/^http:\/\/claw-[0-9a-f]+\.localhost:\d+\/#link=[\w.-]+$/.test(tab.link), `the link is ${tab.link}`);
    const began = Date.now();
    await tab.follow(tab.link);
    await tab.page.waitForSelector(".card", { timeout: 10_000 });
    const first = Date.now() - began;
    await tab.shows("4 ready");
    const cards = await tab.run(() => [...document.querySelectorAll(".card h2")].map((card) => card.textContent));
    check(cards.join() === NAMES.toSorted().join(), `there are cards of ${cards}`);
    check((await tab.text("#link-state")) === "Live", `it says that it is ${await tab.text("#link-state")}`);
    const address = await tab.run(() => location.href);
    check(!address.includes("link="), `the address is still ${address}`);
    return `the first card after ${first} ms`;
  },

  async "the link opens nothing for a second time"({ browser, host, tab }) {
    const other = await Tab.open(browser);
    try {
      await other.follow(tab.link);
      await other.shows("This page is closed");
      await other.shows("this link was followed already");
      check(!(await other.run(() => document.querySelector(".card"))), "there are cards");
    } finally {
      await other.close();
    }
  },

  async "every page is accessible and fits, light and dark, on a desktop and a phone"({ tab }) {
    return looks(tab, PAGES);
  },

  async "an instance is restarted by the keyboard alone"({ host, tab }) {
    const before = await pidOf(host, "support");
    await tab.go("#/i/support", `process`);
    await tab.run(() => document.getElementById("main").focus());
    await tabTo(tab, "Restart");
    await tab.page.keyboard.press("Enter");
    await tab.shows("Restart support?", "dialog");
    const safe = await tab.run(() => document.activeElement.textContent);
    check(safe === "Cancel", `the question begins at ${safe}`);
    await tab.page.keyboard.press("Escape");
    await until("Escape closes the question", () => tab.run(() => !document.querySelector("dialog")));
    check((await pidOf(host, "support")) === before, "Escape restarted it");
    check((await tab.run(() => document.activeElement.textContent)) === "Restart", "the focus did not return");
    await tab.page.keyboard.press("Enter");
    await tab.shows("Restart support?", "dialog");
    await tabTo(tab, "Restart");
    await tab.page.keyboard.press("Enter");
    await tab.shows("Restart: done", "#said");
    const after = await until("it has another process", async () => (await pidOf(host, "support")) !== before && pidOf(host, "support"));
    await tab.shows(`${after}, worker`);
    await tab.shows("ready");
  },

  async "lines of the log and events arrive as they happen"({ host, tab }) {
    await tab.go("#/i/research", "process");
    await tab.shows("ready on port", "pre[role=log]");
    const before = { lines: (await tab.text("pre[role=log]")).split("\n").length, process: await pidOf(host, "research") };
    const { length } = tab.asked;
    await host.openclawctl("restart", "research", "--wait=20s");
    const after = await pidOf(host, "research");
    check(after !== before.process, "it has the process of before");
    await until("there are more lines", async () => (await tab.text("pre[role=log]")).split("\n").length > before.lines);
    await tab.shows(`Started as process ${after}`, "[aria-label=Events]");
    const anew = tab.asked.slice(length).filter((url) => /ReadLogs|WatchEvents|WatchInstances/.test(url));
    check(!anew.length, `it asked anew: ${anew}`);
  },

  async "what an agent has written orders no terminal about, is no part of the page and turns nothing around"({ tab }) {
    const shown = await tab.run(async () => {
      const [{ el }, { text }] = await Promise.all([import("./ui.js"), import("./pages.js")]);
      const line = (written) => text({ text: btoa(String.fromCharCode(...new TextEncoder().encode(written))) });
      return [el("p", {}, "a\u202eb\u2028<b>c\u001b[2J").innerHTML, line("a\u202eb\u001b[2Jc\rd\u061c<i>")];
    });
    check(shown[0] === "a\ufffdb\ufffd&lt;b&gt;c\ufffd[2J", `an element has ${JSON.stringify(shown[0])}`);
    check(shown[1] === "a\ufffdbcd\ufffd<i>", `a line has ${JSON.stringify(shown[1])}`);
  },

  async "a snapshot shows its difference and is put back"({ host, tab }) {
    const { directories, pid } = await host.status("main");
    const before = readFileSync(directories.config, "utf8");
    const count = async () => JSON.parse(await host.openclawctl("config", "snapshots", "main", "-o", "json")).snapshots.length;
    const kept = await until("the first one is kept", count);
    // A remark changes nothing for the gateway.
    writeFileSync(directories.config, before.replace("{", "{ // written by hand\n"));
    await until("another one is kept", async () => (await count()) > kept);
    await tab.go("#/i/main", "Snapshot");
    const labels = await until("one can be put back", () => tab.run(() =>
      [...document.querySelectorAll("button.danger[aria-label^='Roll back']")].map((button) => button.getAttribute("aria-label"))));
    check(labels.length, "none can be put back");
    await tab.click(labels[0].replace("Roll back to", "Diff of"));
    await tab.shows("written by hand", "pre.diff");
    await tab.click(labels[0]);
    await tab.shows("Put the configuration", "dialog");
    await tab.click("Roll back");
    await tab.shows("Rolled back", "#said");
    await until("it is as before", () => readFileSync(directories.config, "utf8") === before);
    await until("main is started anew", async () => {
      const now = await host.status("main");
      return now.pid !== pid && now.phase === "PHASE_READY";
    });
  },

  async "main is lost: the page tells the incident and who stands in"({ host, tab }) {
    await tab.go("#/", "4 ready");
    const pid = await pidOf(host, "main");
    writeFileSync(bane(host), "");
    kill(pid);
    await tab.shows("rescue stands in for main");
    await tab.shows(/main\s*✕ failed/);
    const first = await tab.text(".card");
    check(first.startsWith("main"), `the first card is ${first}`);
    await tab.go("#/failover", "rescue");
    await tab.shows(/main\s+✕ failed\s+rescue/);
    await tab.go("#/incidents", /main[\s\S]*given up/);
    const number = await tab.run(() => document.querySelector("main td a").textContent);
    await tab.go(`#/incidents/${number}`, /stands in/);
    await tab.go("#/i/main", /What to type: openclawctl/);
    tab.incident = number;
  },

  async "the alerts tell of it, and the people who are told can be tried"({ tab }) {
    await tab.go("#/alerts", /error[\s\S]*main[\s\S]*openclawctl[\s\S]*pager\s+exec/);
    await tab.click("Send a test");
    await tab.shows("pager: took it", "#said");
  },

  async "and these pages are accessible and fit, too"({ tab }) {
    return looks(tab, [
      ["#/", /✕ failed/], ["#/failover", /✕ failed/], ["#/incidents", "given up"], [`#/incidents/${tab.incident}`, /stands in/],
      ["#/alerts", /pager/], ["#/i/main", /Snapshot/],
    ]);
  },

  async "main is started by a click and gets its place back"({ host, tab }) {
    await tab.go("#/i/main", "What to type");
    rmSync(bane(host));
    await tab.click("Start");
    await tab.shows("Start main?", "dialog");
    await (await tab.page.waitForSelector("dialog button:last-child")).click();
    await tab.shows("Start: done", "#said");
    await tab.go("#/", /4 ready/);
    await until("nobody stands in", async () => !(await tab.text("main")).includes("stands in for"));
    await tab.go("#/incidents", "failed back");
  },

  async "the supervisor is killed: the page says so, and goes on by itself with the next one"({ host, tab }) {
    await tab.go("#/i/support", "process");
    await tab.shows("Live", "#link-state");
    const before = await pidOf(host, "support");
    // As whoever has the port meanwhile could read it, with a page of his own in this browser.
    const seen = await tab.run(() => sessionStorage.getItem("openclaw-session"));
    tab.isGone = true;
    await host.kill();
    await tab.shows("Not connected since", "#link-state", RECONNECT);
    check((await tab.text("main")).includes(`${before}, worker`), "what was known is gone");
    // A page that is opened meanwhile is not stuck with its failure.
    await tab.go("#/ports", "That did not work");
    await host.openclawctl("supervisor", "start");
    await tab.shows("Live", "#link-state", RECONNECT);
    await tab.shows(/support[\s\S]*cdp/, "main", RECONNECT);
    for (const call of ["renew", "InstanceService/ListInstances"]) {
      const headers = { "x-openclaw-page": "1", authorization: `Bearer ${seen}` };
      const { status } = await tab.run((call, headers) => fetch(`/api/${call}`, { method: "POST", headers, body: "{}" }).then(({ status }) => ({ status })), call, headers);
      check(status === 401, `${call} with the session of the last supervisor was answered ${status}`);
    }
    await tab.go("#/i/support", `${before}, worker`);
    await host.openclawctl("restart", "support", "--wait=20s");
    await tab.shows(`Started as process ${await pidOf(host, "support")}`, "[aria-label=Events]", RECONNECT);
    // Loaded anew it does not know what it signs with, and others may know the rest.
    await tab.page.reload();
    await tab.shows("This page is closed");
    await tab.follow(await host.link());
    await tab.shows("Live", "#link-state");
    tab.isGone = false;
    // In the life in which it was opened it goes on.
    await tab.page.reload();
    await tab.shows("Live", "#link-state");
  },

  async "whoever had the port meanwhile has left nothing for the next link, and ends the page that was open"({ browser, host, tab }) {
    const open = await Tab.open(browser);
    const squatter = new Squatter();
    try {
      await open.follow(await host.link());
      await open.shows("Live", "#link-state");
      tab.isGone = true;
      await host.kill();
      await squatter.take(host.port);
      const lured = await open.window.newPage();
      for (const name of [new URL(open.addresses[0]).hostname, "127.0.0.1", "localhost"]) {
        await lured.goto(`http://${name}:${host.port}/`);
        await lured.waitForFunction(() => document.title === "left something", { timeout: LIMIT });
      }
      await open.shows("Another program has answered here");
      await squatter.leave();
      await host.openclawctl("supervisor", "start");
      // Under the old names the browser asks nobody any more.
      await lured.goto(`http://127.0.0.1:${host.port}/`);
      await lured.waitForFunction(() => document.title === "left something", { timeout: LIMIT });
      await open.follow(await host.link());
      await open.shows("Live", "#link-state");
      await open.shows("4 ready");
      await tab.shows("Live", "#link-state", RECONNECT);
      tab.isGone = false;
    } finally {
      await squatter.leave();
      await open.close();
    }
  },

  async "a viewer sees everything and is offered nothing that would be refused"({ browser, host }) {
    if (process.getuid() !== 0) throw new LeftOut("it takes root to be another user");
    const viewer = await Tab.open(browser);
    try {
      await viewer.follow(await host.link(VIEWER));
      await viewer.shows("4 ready");
      await viewer.go("#/i/main", /process[\s\S]*Snapshot/);
      const offered = await viewer.run(() => [...document.querySelectorAll("button")].map((button) => button.textContent));
      check(offered.length && offered.every((label) => label === "Diff"), `it is offered ${offered.join(", ") || "nothing"}`);
      const wrong = [...(await viewer.faults("a viewer's instance")), ...viewer.complaints];
      check(!wrong.length, wrong.join("; "));
    } finally {
      await viewer.close();
    }
  },

  async "nothing was asked of anybody else, and nothing was complained of"({ tab }) {
    check(!tab.strangers().length, `it asked ${tab.strangers().join(", ")}`);
    check(!tab.complaints.length, tab.complaints.join("; "));
    return `${tab.asked.length} requests`;
  },
};

const { values: given } = parseArgs({ options: { bin: { type: "string", default: join(ROOT, "target/debug") }, keep: { type: "string" } } });
const began = Date.now();
const seconds = (since) => `${((Date.now() - since) / 1000).toFixed(1)} s`;
let failed = 0;
let leftOut = 0;
// First, because it ends with this, whatever becomes of the rest.
const browser = await launch();
const host = await Host.start({ binaries: resolve(given.bin), fleet, access: `[{ uid: ${VIEWER}, role: viewer }]` });
try {
  console.log(`a fleet of four and ${await browser.version()}: ${seconds(began)}`);
  const tab = await Tab.open(browser);
  for (const [name, step] of Object.entries(steps)) {
    const since = Date.now();
    try {
      const told = await step({ browser, host, tab });
      console.log(`ok      ${name}${told ? `: ${told}` : ""} (${seconds(since)})`);
    } catch (wrong) {
      if (wrong instanceof LeftOut) {
        leftOut += 1;
        console.log(`--      ${name}: left out, because ${wrong.message}`);
        continue;
      }
      failed += 1;
      console.log(`NOT SO  ${name}: ${wrong instanceof NotSo ? wrong.message : wrong.stack} (${seconds(since)})`);
      if (given.keep) {
        mkdirSync(given.keep, { recursive: true });
        await tab.page.screenshot({ path: join(given.keep, `failed-${failed}.png`) });
      }
    }
  }
} finally {
  await browser.close();
  try {
    if (given.keep && failed) host.keep(given.keep);
  } catch (wrong) {
    // Files come and go while they are copied.
    console.log(`--      not all is kept: ${wrong.message}`);
  }
  const left = await host.end();
  if (left.length) {
    failed += 1;
    console.log(`NOT SO  nothing is left running, but ${left.join(", ")}`);
  }
}
console.log(`${Object.keys(steps).length - failed - leftOut} passed, ${failed} failed, ${leftOut} skipped`);
console.error(`in ${seconds(began)}`);
process.exit(failed ? 1 : 0);
