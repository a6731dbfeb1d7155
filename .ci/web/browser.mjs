// A headless Chromium, and the looks at a page that tests and pictures share.

import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { NotSo, until } from "./host.mjs";

/** Where `.ci/web/install` has put everything. */
const INSTALLED = process.env.WEB_DIR;
if (!INSTALLED) throw new Error("run .ci/web/run or .ci/screenshots, which install what this needs");
export const require = createRequire(join(INSTALLED, "package.json"));

export const DESKTOP = { width: 1280, height: 800 };
export const PHONE = { width: 390, height: 844, isMobile: true, hasTouch: true };

/** What a page says while the supervisor is gone, or does not know its session yet, and at no other time. */
const GONE = /net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING|SOCKET_NOT_CONNECTED)|status of 401/;

export async function launch() {
  const libraries = join(INSTALLED, "browser/al2023/lib");
  const fonts = join(INSTALLED, "browser/fonts");
  return require("puppeteer-core").launch({
    // Another one can be tried.
    executablePath: process.env.CHROMIUM ?? join(INSTALLED, "browser/chromium"),
    headless: process.env.CHROMIUM ? true : "shell",
    env: {
      ...process.env,
      ...(existsSync(libraries) && { LD_LIBRARY_PATH: libraries }),
      ...(existsSync(fonts) && { FONTCONFIG_PATH: fonts }),
    },
    // It shows pages of ours alone, and often runs as root, or where no namespace can be made.
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--font-render-hinting=none", "--force-color-profile=srgb"],
  });
}

/** A page with an eye on what it asks for and complains of. */
export class Tab {
  /** In a window of its own, which shares nothing with others. */
  static async open(browser, { view = DESKTOP, scheme = "light" } = {}) {
    const tab = new Tab();
    Object.assign(tab, { addresses: [], asked: [], complaints: [], isGone: false });
    tab.window = await browser.createBrowserContext();
    tab.page = await tab.window.newPage();
    await tab.size(view);
    await tab.scheme(scheme);
    tab.page.on("request", (request) => tab.asked.push(request.url()));
    tab.page.on("pageerror", (error) => tab.complaints.push(String(error)));
    tab.page.on("console", (message) => {
      const text = `${message.text()} ${message.location().url ?? ""}`.trim();
      if (!["error", "warn"].includes(message.type()) || (tab.isGone && GONE.test(text))) return;
      tab.complaints.push(text);
    });
    return tab;
  }

  size(view) {
    this.view = view;
    return this.page.setViewport(view);
  }

  scheme(scheme) {
    return this.page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  }

  /** Does it in the page. */
  run(work, ...given) {
    return this.page.evaluate(work, ...given);
  }

  /** All text of the first element that the selector finds. */
  text(selector = "body") {
    return this.run((selector) => document.querySelector(selector)?.innerText ?? "", selector);
  }

  /** Waits for text in an element. */
  async shows(text, selector = "main", limit = undefined) {
    const has = (seen) => (text instanceof RegExp ? text.test(seen) : seen.includes(text));
    let seen = "";
    return until(`\`${selector}\` shows ${text}`, async () => has((seen = await this.text(selector))) && seen, limit,
      () => seen.replace(/\s+/g, " ").slice(-400));
  }

  /** Opens the dashboard by a link. */
  async follow(link) {
    this.addresses.push(new URL(link).origin);
    await this.page.goto(link, { waitUntil: "domcontentloaded" });
  }

  /** Goes to a page of the dashboard. */
  async go(hash, text) {
    await this.run((hash) => {
      location.hash = hash;
    }, hash);
    await this.shows(text, "main");
  }

  /** Clicks what has this accessible name. */
  async click(name) {
    await (await this.page.waitForSelector(`aria/${name}`, { timeout: 10_000 })).click();
  }

  /** What axe finds wrong with what is shown. */
  async violations() {
    // Not through the page, which rightly refuses scripts of others.
    const session = await this.page.createCDPSession();
    const evaluate = async (expression) => {
      const { result, exceptionDetails } = await session.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
      if (exceptionDetails) throw new NotSo(`axe: ${exceptionDetails.exception?.description}`);
      return result.value;
    };
    try {
      if (!(await evaluate("typeof axe === 'object'"))) await evaluate(AXE);
      return await evaluate(
        "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations.map(({ id, nodes }) => " +
        "`${id} at ${nodes.map(({ target }) => target.join(' ')).slice(0, 3).join(', ')}: ${nodes[0].failureSummary}`))");
    } finally {
      await session.detach();
    }
  }

  /** Why what is shown cannot be read by everybody: what axe finds, what is no words, and what is beyond the window. */
  async faults(what) {
    const found = (await this.violations()).map((fault) => fault.replace(/\s+/g, " "));
    const slip = (await this.text()).match(/.{0,40}(\[object |undefined|NaN|Invalid Date|null).{0,40}/)?.[0];
    if (slip) found.push(`it says \`${slip}\``);
    // A telephone shows what is too wide smaller, and then says that its window is wider.
    const wide = await this.run(() => document.documentElement.scrollWidth);
    if (wide > this.view.width) found.push(`${wide} px wide in a window of ${this.view.width} px`);
    return found.map((fault) => `${what}: ${fault}`);
  }

  /** What was asked of anybody else. */
  strangers() {
    const isOurs = (url) => this.addresses.some((address) => url.startsWith(`${address}/`)) || url === "about:blank";
    return this.asked.filter((url) => !isOurs(url));
  }

  close() {
    return this.window.close();
  }
}

const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
