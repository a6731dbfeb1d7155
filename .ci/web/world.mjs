// A real supervisor on a data directory of its own, and a browser that looks at it.

import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import chromium from "@sparticuz/chromium";
import puppeteer from "puppeteer-core";

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const BIN = resolve(ROOT, process.env.CARGO_TARGET_DIR ?? "target", "debug");

/** Whatever is waited for takes no longer, or does not come. */
const PATIENCE = 30_000;

/** Ports of the instances, and of the dashboard. */
const FIRST = 27_000;
const LAST = 27_399;
const WEB = 27_400;

export const pause = (ms) => new Promise((go) => setTimeout(go, ms));

/** Waits until `look` gives something, and gives that. */
export async function until(what, look) {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${PATIENCE / 1000} s: ${what}`);
    await pause(50);
  }
}

export class World {
  constructor() {
    for (const program of ["openclaw-supervisor", "openclawctl", "gateway-worker", "builtin-gateway"]) {
      if (!existsSync(join(BIN, program))) throw new Error(`${program} is not built; type \`cargo build --workspace\``);
    }
    this.directory = mkdtempSync(join(tmpdir(), "openclaw-web-"));
    this.data = join(this.directory, "data");
    spawnSync("mkdir", ["-m", "700", this.data]);
    writeFileSync(join(this.data, "settings.yaml"), `pool: { first: ${FIRST}, last: ${LAST} }\nweb: "127.0.0.1:${WEB}"\n`);
  }

  /** Starts the supervisor, and waits until it answers. */
  async start() {
    // An agent's marks, should this be run by one, are none of its.
    const env = { PATH: process.env.PATH, HOME: this.directory };
    this.supervisor = spawn(join(BIN, "openclaw-supervisor"), ["--data-dir", this.data], { env, stdio: "ignore" });
    await until("the supervisor answers", () => this.ctl("status").status === 0);
  }

  /** `kill -9`. */
  async kill() {
    const ended = new Promise((end) => this.supervisor.once("exit", end));
    this.supervisor.kill("SIGKILL");
    await ended;
  }

  ctl(...args) {
    const env = { PATH: process.env.PATH, HOME: this.directory, COLUMNS: "80" };
    return spawnSync(join(BIN, "openclawctl"), ["--data-dir", this.data, ...args], { env, encoding: "utf8" });
  }

  done(...args) {
    const { status, stdout, stderr } = this.ctl(...args);
    if (status !== 0) throw new Error(`openclawctl ${args.join(" ")}: ${stderr}`);
    return stdout;
  }

  apply(fleet) {
    const file = join(this.directory, "fleet.yaml");
    writeFileSync(file, fleet);
    this.done("apply", "-f", file, "--yes");
  }

  status(name) {
    const shown = JSON.parse(this.done("status", name, "-o", "json"));
    return (shown.instance ?? shown).status;
  }

  link() {
    return this.done("web").trim();
  }

  config(name) {
    return join(this.data, "instances", name, "state", "openclaw.json");
  }

  terminal() {
    return { program: join(BIN, "openclawctl"), data: this.data };
  }

  end() {
    this.ctl("supervisor", "stop", "--all", "--yes");
    this.supervisor?.kill("SIGKILL");
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** A browser that asks nobody but the supervisor for anything. */
export async function browser() {
  // Root's have no sandbox of their own.
  const args = ["--no-sandbox", "--disable-gpu", "--font-render-hinting=none"];
  return puppeteer.launch({ executablePath: await chromium.executablePath(), args, headless: "shell" });
}

/** Main and its rescue, and two more. Main ends, and does not start, as long as `world.trip` is there. */
export function fleet(world) {
  world.trip = join(world.data, "instances", "main", "state", "trip");
  return `version: 1
defaults: { runtime: builtin }
instances:
  main:
    restart: { initial_delay: 100ms }
    env: { BUILTIN_GATEWAY_MISBEHAVE: "exit=1,while-file=${world.trip}" }
  rescue: { rescues: [main] }
  research: {}
  support: {}
`;
}

/** Main dies, and does not come back. */
export async function incident(world) {
  writeFileSync(world.trip, "");
  await until("the rescue stands in", () => world.status("rescue").failover.role === "ROLE_ACTIVE");
}

export const text = (file) => readFileSync(file, "utf8");
