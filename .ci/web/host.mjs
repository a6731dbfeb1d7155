// A supervisor with built-in gateways in a directory of its own, and what is typed on it.

import { execFile } from "node:child_process";
import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";

export const ROOT = resolve(import.meta.dirname, "../..");

/** What is waited for comes within this on a machine that has much else to do, or not at all. */
export const LIMIT = 20_000;
/** Between two looks at a level. */
const LOOK = 50;

/** Ports that nothing else of these tests uses: blocks of 20 for instances, and the last ones for the dashboard. */
const POOL = { first: 26_000, last: 27_959 };
const BLOCK = 20;
const PAGES = { first: 27_960, last: 27_999 };

const PROGRAMS = ["openclawctl", "openclaw-supervisor", "gateway-worker", "builtin-gateway"];

/** What should hold does not. */
export class NotSo extends Error {}

export function check(holds, seen) {
  if (!holds) throw new NotSo(typeof seen === "function" ? seen() : seen);
}

/** Waits for a level: for `found` to answer something; `seen` says what there was instead. */
export async function until(what, found, limit = LIMIT, seen = () => "") {
  const deadline = Date.now() + limit;
  for (;;) {
    const answer = await found();
    if (answer) return answer;
    if (Date.now() > deadline) {
      const instead = await seen();
      throw new NotSo(`${what}: not within ${limit / 1000} s${instead ? `, but: ${instead}` : ""}`);
    }
    await new Promise((go) => setTimeout(go, LOOK));
  }
}

const isFree = (port) => new Promise((answer) => {
  const probe = createServer().once("error", () => answer(false));
  probe.listen(port, "127.0.0.1", () => probe.close(() => answer(true)));
});

/** The first so many ports in a row that nobody uses. */
async function free(first, last, many, taken = new Set()) {
  for (let base = first; base + many - 1 <= last; base += many) {
    const block = Array.from({ length: many }, (_, at) => base + at);
    if (!taken.has(base) && (await Promise.all(block.map(isFree))).every(Boolean)) return base;
  }
  throw new NotSo(`no ${many} ports between ${first} and ${last} are free`);
}

/** Makes this directory, unless it is somebody's. */
function make(directory) {
  try {
    mkdirSync(directory);
    return directory;
  } catch (error) {
    if (error.code === "EEXIST") return null;
    throw error;
  }
}

export class Host {
  /**
   * `fleet` makes the instances, given the host; `access` is the YAML of who may call; `directory` is where it would best
   * be, for what shows it.
   */
  static async start({ binaries, fleet, access = "[]", directory }) {
    const host = new Host();
    host.directory = (directory && make(directory)) ?? mkdtempSync(join(tmpdir(), "web-"));
    // A viewer of the test gets to the programs and the socket in it, and to nothing else.
    chmodSync(host.directory, 0o711);
    host.data = join(host.directory, "data");
    host.home = join(host.directory, "home");
    host.binaries = join(host.directory, "programs");
    for (const path of [host.data, host.home, host.binaries]) mkdirSync(path);
    chmodSync(host.data, 0o700);
    for (const program of PROGRAMS) copyFileSync(join(binaries, program), join(host.binaries, program));
    // Supervisor and gateways are no children of this, and would outlive it.
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
      process.once(signal, () => host.end().finally(() => process.exit(1)));
    }
    // Nothing of who runs it shows, and nothing of where.
    host.environment = { PATH: "/usr/bin:/bin", HOME: host.home, LANG: "C.UTF-8", TZ: "UTC", OPENCLAWCTL_DATA_DIR: host.data };
    try {
      const port = await free(PAGES.first, PAGES.last, 1);
      host.port = port;
      writeFileSync(join(host.data, "settings.yaml"),
        `pool: { first: ${POOL.first}, last: ${POOL.last} }\nweb: "127.0.0.1:${port}"\n` +
        `listen: [{ unix: ${host.socket}, mode: "0666" }]\naccess: ${access}\n` +
        `alerts: { after: 0s, group_for: 0s, boot_grace: 0s, sinks: [{ name: pager, kind: exec, command: [/usr/bin/true] }] }\n`);
      await host.openclawctl("supervisor", "start");
      await host.apply(fleet(host));
    } catch (failure) {
      await host.end();
      throw failure;
    }
    return host;
  }

  /** The socket that other users call on. */
  get socket() {
    return join(this.directory, "other.sock");
  }

  /** Makes these instances, each on ports that are free, and starts all of them. */
  async apply(instances) {
    const taken = new Set();
    for (const instance of Object.values(instances)) {
      instance.port = await free(POOL.first, POOL.last, BLOCK, taken);
      taken.add(instance.port);
    }
    const file = join(this.home, "fleet.yaml");
    writeFileSync(file, JSON.stringify({ version: 1, instances }));
    await this.openclawctl("apply", "-f", file, "--yes", "--no-start");
    await this.openclawctl("up", ...Object.keys(instances), "--wait=60s");
  }

  /** Runs it, and gives back what it said on stdout. `user` is a user id. */
  async openclawctl(...words) {
    return this.typed({ environment: { NO_COLOR: "1" } }, ...words);
  }

  async typed({ user, environment = {}, any = false }, ...words) {
    const options = { env: { ...this.environment, ...environment }, cwd: "/", maxBuffer: 16 << 20 };
    if (user !== undefined) Object.assign(options, { uid: user, gid: user });
    try {
      return (await promisify(execFile)(join(this.binaries, "openclawctl"), words, options)).stdout;
    } catch (failure) {
      if (any) return failure.stdout;
      throw new NotSo(`openclawctl ${words.join(" ")}: ${failure.stderr || failure.message}`);
    }
  }

  async status(name) {
    return JSON.parse(await this.openclawctl("status", name, "-o", "json")).status;
  }

  /** A link to the dashboard, for this user or who runs this. */
  async link(user) {
    const words = user === undefined ? [] : ["--socket", this.socket];
    return (await this.typed({ user, environment: { NO_COLOR: "1" } }, ...words, "web")).trim();
  }

  /** Kills the supervisor as `kill -9` does, and waits until it is gone. */
  async kill() {
    const { pid } = JSON.parse(await this.openclawctl("supervisor", "status", "-o", "json"));
    kill(pid);
    await until("the supervisor is gone", () => !existsSync(`/proc/${pid}`) || isZombie(pid));
  }

  /** All that was started here and still runs. */
  processes() {
    const ours = [`HOME=${this.home}`, `OPENCLAWCTL_DATA_DIR=${this.data}`];
    return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).filter((name) => {
      try {
        const variables = readFileSync(`/proc/${name}/environ`, "utf8").split("\0");
        return ours.some((one) => variables.includes(one));
      } catch {
        return false; // It has ended meanwhile, or is somebody else's.
      }
    }).map(Number);
  }

  /** Ends everything that was started here; gives back what the supervisor left running. */
  async end() {
    await this.openclawctl("supervisor", "start").catch(() => {});
    await this.openclawctl("supervisor", "stop", "--all", "--yes").catch(() => {});
    const left = this.processes();
    await until("all have ended", () => {
      const running = this.processes();
      running.forEach(kill);
      return !running.length;
    });
    rmSync(this.directory, { recursive: true, force: true });
    return left;
  }

  /** Keeps what is in the data directory, for who looks for the cause of a failure. */
  keep(to) {
    cpSync(this.data, to, { recursive: true, verbatimSymlinks: true, filter: (path) => !path.endsWith(".sock") });
  }
}

/** Kills a process, if it has not ended by itself. */
export function kill(pid) {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
  }
}

const isZombie = (pid) => {
  try {
    return /\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return true;
  }
};
