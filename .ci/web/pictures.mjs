// The pictures of README.md, from a fleet that really runs: see .ci/screenshots.

import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { DESKTOP, PHONE, Tab, launch, require } from "./browser.mjs";
import { Host, NotSo, ROOT, check, kill, until } from "./host.mjs";
import { Terminal, drawn, escaped } from "./terminal.mjs";

const UPNG = require("upng-js");

/** No picture is larger, in bytes; and so many colours are enough for text on a plain ground. */
const LARGEST = 120_000;
const COLOURS = 96;
/** Rows that no answer fills, and so many that four instances do not leave most of the screen empty. */
const MANY = 100;
const FEW = 14;

const bane = (host) => join(host.data, "instances/main/home/bane");

const fleet = (host) => ({
  main: {
    runtime: "builtin",
    env: { BUILTIN_GATEWAY_MISBEHAVE: `exit=1,while-file=${bane(host)}` },
    restart: { initial_delay: "100ms", max_delay: "200ms", budget: 5 },
    ladder: { deaths: 2, quarantine: true },
    trial: { good_after: "1s" },
  },
  rescue: { runtime: "builtin", rescues: ["main"] },
  research: { runtime: "builtin" },
  support: { runtime: "builtin" },
});

/** Writes a picture with as few colours as it needs. */
function write(to, name, png) {
  const picture = UPNG.decode(png);
  const small = Buffer.from(UPNG.encode(UPNG.toRGBA8(picture), picture.width, picture.height, COLOURS));
  check(small.length <= LARGEST, `${name} has ${small.length} bytes; at most ${LARGEST}`);
  const path = join(to, `${name}.png`);
  writeFileSync(path, small);
  console.log(`${name}.png: ${picture.width}x${picture.height}, ${Math.round(statSync(path).size / 1000)} kB`);
}

class Pictures {
  constructor(host, browser, to) {
    Object.assign(this, { host, browser, to });
  }

  async draw(name, content) {
    const page = await this.browser.newPage();
    await page.setViewport({ width: 900, height: 800, deviceScaleFactor: 2 });
    await page.setContent(drawn(content));
    write(this.to, name, await (await page.$("pre")).screenshot({ omitBackground: true }));
    await page.close();
  }

  /** What a command says. */
  async command(name, words) {
    const terminal = this.begin(words, MANY);
    await terminal.end();
    await this.draw(name, `$ openclawctl ${escaped(words)}\n${terminal.html()}`);
  }

  /** The full screen, once it shows this. */
  async screen(name, text) {
    const terminal = this.begin("top", FEW);
    await terminal.shows(text);
    await this.draw(name, terminal.html());
    terminal.type("q");
    await terminal.end();
  }

  begin(words, rows) {
    return Terminal.run(`${join(this.host.binaries, "openclawctl")} ${words}`, this.host.environment, { rows });
  }

  /** The dashboard, once it shows this and what the instances use. */
  async dashboard(name, view, text) {
    const tab = await Tab.open(this.browser, { view: { deviceScaleFactor: 1.5, ...view } });
    await tab.follow(await this.host.link());
    await tab.shows(text);
    await tab.page.waitForSelector(".plot");
    write(this.to, name, await tab.page.screenshot());
    await tab.close();
  }

  /** All of them, with this at the end of their names. */
  async all(end, { fleetShows, topShows }) {
    await this.command(`status${end}`, "status");
    await this.command(`status-main${end}`, "status main");
    await this.screen(`top${end}`, topShows);
    await Promise.all([
      this.dashboard(`dashboard${end}`, { ...DESKTOP, height: 520 }, fleetShows),
      this.dashboard(`phone${end}`, { ...PHONE, deviceScaleFactor: 2 }, fleetShows),
    ]);
  }
}

const { values: given } = parseArgs({
  options: { bin: { type: "string", default: join(ROOT, "target/debug") }, to: { type: "string", default: join(ROOT, "deploy/images") } },
});
// First, because it ends with this, whatever becomes of the rest.
const browser = await launch();
const host = await Host.start({ binaries: resolve(given.bin), fleet, directory: "/tmp/fleet" });
try {
  mkdirSync(given.to, { recursive: true });
  const pictures = new Pictures(host, browser, given.to);
  await until("its configuration is good", async () => !(await host.openclawctl("status", "main")).includes("on trial"));
  await pictures.all("", { fleetShows: "4 ready", topShows: /support +.*ready/ });
  const { pid } = await host.status("main");
  writeFileSync(bane(host), "");
  kill(pid);
  await until("main is given up, and rescue stands in", async () => (await host.status("main")).phase === "PHASE_FAILED" &&
    (await host.status("rescue")).failover.role === "ROLE_ACTIVE");
  await pictures.all("-incident", { fleetShows: "rescue stands in for main", topShows: /main +.*failed/ });
  rmSync(bane(host));
} catch (wrong) {
  console.error(wrong instanceof NotSo ? `NOT SO: ${wrong.message}` : wrong);
  process.exitCode = 1;
} finally {
  await browser.close();
  await host.end();
}
