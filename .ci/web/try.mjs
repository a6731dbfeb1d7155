// Tries the dashboard as people use it: every page, by keyboard alone, on a phone, with a supervisor that dies.

import { createRequire } from "node:module";
import { rmSync, writeFileSync } from "node:fs";
import { World, browser, fleet, incident, text, until } from "./world.mjs";

const AXE = text(createRequire(import.meta.url).resolve("axe-core/axe.min.js"));
const PAGES = ["#/", "#/ports", "#/failover", "#/incidents", "#/i/main"];
const DESKTOP = { width: 1280, height: 800 };
const PHONE = { width: 390, height: 844, isMobile: true, hasTouch: true };

let failed = 0;

async function step(what, work) {
  const begun = Date.now();
  try {
    const said = await work();
    console.log(`ok      ${what}${said ? `: ${said}` : ""} (${Date.now() - begun} ms)`);
  } catch (error) {
    failed += 1;
    console.log(`NOT SO  ${what}: ${error.message}`);
  }
}

function same(found, wanted, what) {
  const [is, should] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (is !== should) throw new Error(`${what} is ${is}, and should be ${should}`);
}

const world = new World();
const chromium = await browser();
const page = await chromium.newPage();
const complaints = [];
// While nobody listens, the browser says so of each trial.
let isAlone = false;
page.on("console", (message) => {
  const isOfNobody = isAlone && /ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET/.test(message.text());
  if (["error", "warn"].includes(message.type()) && !isOfNobody) complaints.push(message.text());
});
page.on("pageerror", (error) => complaints.push(error.message));
const foreign = [];
page.on("request", (request) => {
  if (!request.url().startsWith(origin) && !request.url().startsWith("data:")) foreign.push(request.url());
});
let origin = "";

const shows = (words) => until(`the page shows ${words}`, () => page.evaluate((words) => document.body.innerText.includes(words), words));
const go = (address) => page.evaluate((address) => { location.hash = address; }, address);

/** What axe has against the page as it is. */
async function faults() {
  const devtools = await page.createCDPSession();
  // By the debugger, which the page's own protection does not concern.
  await devtools.send("Runtime.evaluate", { expression: AXE });
  const expression = "axe.run(document).then(({ violations }) => violations.map(({ id, nodes }) => `${id} at ${nodes[0].target}`))";
  const { result } = await devtools.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
  await devtools.detach();
  return result.value;
}

/** Goes on with the Tab key until this element is reached. */
async function tabTo(label) {
  for (let at = 0; at < 60; at += 1) {
    const reached = await page.evaluate(() => document.activeElement?.textContent?.trim());
    if (reached === label) return;
    await page.keyboard.press("Tab");
  }
  throw new Error(`no Tab leads to ${label}`);
}

try {
  await page.setViewport(DESKTOP);
  await world.start();
  world.apply(fleet(world));
  world.done("up", "main", "rescue", "research", "support", "--wait");
  const link = world.link();
  origin = new URL(link).origin;

  await step("the link opens the fleet", async () => {
    const begun = Date.now();
    await page.goto(link);
    await until("there are four cards", async () => (await page.$$(".card")).length === 4);
    const seen = Date.now() - begun;
    const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
    return `painted after ${Math.round(paint)} ms, all cards there after ${seen} ms`;
  });
  await step("the link is not in the address any more", async () => same(await page.evaluate(() => location.hash), "#/", "the address"));
  await step("the link opens nothing a second time", async () => {
    const other = await (await chromium.createBrowserContext()).newPage();
    await other.goto(link);
    await until("it is refused", () => other.evaluate(() => document.body.innerText.includes("followed already")));
    await other.close();
  });

  for (const [size, of] of [[DESKTOP, "a desktop"], [PHONE, "a phone"]]) {
    await page.setViewport(size);
    for (const scheme of ["light", "dark"]) {
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      for (const address of PAGES) {
        await step(`${address} on ${of}, ${scheme}`, async () => {
          await go(address);
          await until("it is there", () => page.evaluate(() => document.querySelector("main h1") !== null));
          same(await faults(), [], "what axe has against it");
          const [needs, has] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
          if (needs > has) throw new Error(`it is ${needs} wide in a window of ${has}`);
        });
      }
    }
  }
  await page.setViewport(DESKTOP);

  await step("a restart by the keyboard alone", async () => {
    const before = world.status("research").incarnation;
    await go("#/i/research");
    await tabTo("Restart");
    await page.keyboard.press("Enter");
    await until("it asks", () => page.$("dialog[open]"));
    same(await page.evaluate(() => document.activeElement.textContent), "Cancel", "what is chosen at first");
    await tabTo("Restart");
    await page.keyboard.press("Enter");
    await shows("Restart: done.");
    same(world.status("research").incarnation, String(Number(before) + 1), "its life");
  });
  await step("the log and the events go on by themselves", async () => {
    await shows("wants it restarted");
    world.done("restart", "research");
    await until("a second restart is told", () => page.evaluate(() => document.body.innerText.split("wants it restarted").length > 2));
  });
  await step("a configuration is compared and put back", async () => {
    const file = world.config("support");
    const good = text(file);
    await go("#/i/support");
    await until("a snapshot is listed", () => page.$('button[aria-label^="Diff of"]'));
    writeFileSync(file, good.replace("{", '{ "note": "mine",'));
    await until("the change is seen", () => world.status("support").config.content !== world.status("support").config.running);
    await go("#/");
    await go("#/i/support");
    const button = await until("it can be put back", () => page.$('button[aria-label^="Roll back to"]'));
    const diff = await page.$$('button[aria-label^="Diff of"]');
    await diff.at(-1).click();
    await shows('"note": "mine"');
    await button.click();
    await (await until("it asks", () => page.$("dialog[open] button.danger"))).click();
    await shows("Rolled back.");
    same(text(file), good, "the configuration");
  });
  await step("main fails, and its rescue stands in", async () => {
    await go("#/");
    await incident(world);
    await shows("stands in for main");
    await shows("exited with status 1");
    await go("#/incidents");
    await until("the incident is listed", () => page.$('a[href^="#/incidents/"]'));
    await page.click('a[href^="#/incidents/"]');
    await shows("What happened");
    same(await faults(), [], "what axe has against it");
  });
  await step("the supervisor dies, and the page is live again by itself", async () => {
    await go("#/");
    isAlone = true;
    await world.kill();
    await shows("Not connected since");
    await world.start();
    await until("it is live", () => page.evaluate(() => document.getElementById("link-state").textContent === "Live"));
    isAlone = false;
    rmSync(world.trip);
    await until("main is ready again", () => page.evaluate(() => [...document.querySelectorAll(".card")].some((card) => card.innerText.startsWith("main") && card.innerText.includes("ready"))));
  });
  await step("nothing was asked of anybody else", async () => same(foreign, [], "what was asked for"));
  await step("the browser had nothing to complain of", async () => same(complaints, [], "what it said"));
} finally {
  await chromium.close();
  world.end();
}
console.log(failed ? `${failed} steps failed` : "all well");
process.exit(failed ? 1 : 0);
