// Takes the pictures of README.md from a real run: terminals of 80 columns and the dashboard, well and in an incident.
//
// Needs tmux, which is the terminal.

import { spawnSync } from "node:child_process";
import { mkdirSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { World, browser, fleet, incident, until } from "./world.mjs";

const directory = resolve(process.argv[2] ?? ".");
const TMUX = ["-L", `openclaw-pictures-${process.pid}`, "-f", "/dev/null"];
/** Of the 16 colours that terminals have by number; light ones, on dark ground. */
const COLOURS = ["#1d2127", "#f47067", "#8ddb8c", "#e6c07b", "#6cb6ff", "#dcbdfb", "#76e3ea", "#c9d1d9",
  "#8b949e", "#ff938a", "#b4f1b4", "#eac55f", "#96d0ff", "#e2c5ff", "#b3f0ff", "#ffffff"];

mkdirSync(directory, { recursive: true });

function tmux(...args) {
  const { status, stdout, stderr } = spawnSync("tmux", [...TMUX, ...args], { encoding: "utf8" });
  if (status !== 0) throw new Error(`tmux ${args[0]}: ${stderr}`);
  return stdout;
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** What a terminal shows, as HTML: the colours and weights that SGR sequences say (ECMA-48). */
function html(screen) {
  let look = {};
  return screen.split(/(\u001b\[[0-9;]*m)/).map((part) => {
    const codes = part.match(/^\u001b\[([0-9;]*)m$/)?.[1];
    if (codes === undefined) {
      const { colour, ground, strong, faint, turned } = look;
      const [front, back] = turned ? [ground ?? COLOURS[0], colour ?? COLOURS[7]] : [colour, ground];
      const style = [front && `color:${front}`, back && `background:${back}`, strong && "font-weight:700", faint && "opacity:.65"];
      return `<span style="${style.filter(Boolean).join(";")}">${escaped(part)}</span>`;
    }
    const numbers = codes.split(";").map(Number);
    for (let at = 0; at < numbers.length; at += 1) {
      const code = numbers[at];
      if (code === 0) look = {};
      else if (code === 1) look.strong = true;
      else if (code === 2) look.faint = true;
      else if (code === 7) look.turned = true;
      else if (code === 22) look.strong = look.faint = false;
      else if (code === 27) look.turned = false;
      else if (code >= 30 && code <= 37) look.colour = COLOURS[code - 30];
      else if (code === 39) look.colour = undefined;
      else if (code >= 40 && code <= 47) look.ground = COLOURS[code - 40];
      else if (code === 49) look.ground = undefined;
      else if (code >= 90 && code <= 97) look.colour = COLOURS[code - 82];
      else if (code === 38 || code === 48) {
        look[code === 38 ? "colour" : "ground"] = COLOURS[numbers[at + 2]];
        at += 2;
      }
    }
    return "";
  }).join("");
}

async function terminal(page, world, name, rows, args, isThere) {
  const { program, data } = world.terminal();
  const command = `clear; ${program} --data-dir ${data} ${args}; exec sleep 60`;
  tmux("new-session", "-d", "-x", "80", "-y", String(rows), "-s", name, "env", "-i", `PATH=${process.env.PATH}`,
    "TERM=screen-256color", "LANG=C.UTF-8", `HOME=${world.directory}`, "sh", "-c", command);
  const screen = await until(`${args} shows what it should`, () => {
    const shown = tmux("capture-pane", "-e", "-p", "-t", name);
    return isThere(shown.replace(/\u001b\[[0-9;]*m/g, "")) && shown;
  });
  tmux("kill-session", "-t", name);
  const style = `margin:0;display:inline-block;padding:14px 16px;font:14px/1.35 "DejaVu Sans Mono",monospace;background:${COLOURS[0]};color:${COLOURS[7]}`;
  await page.setViewport({ width: 900, height: 900 });
  await page.setContent(`<body style="margin:0"><pre style='${style}'>${html(screen.trimEnd())}</pre>`);
  await (await page.$("pre")).screenshot({ path: join(directory, `${name}.png`) });
}

async function dashboard(page, size, name, isThere) {
  await page.setViewport(size);
  await until(`${name} is drawn`, () => page.evaluate(isThere));
  await page.screenshot({ path: join(directory, `${name}.png`) });
}

const world = new World();
const chromium = await browser();
try {
  await world.start();
  world.apply(fleet(world));
  world.done("up", "main", "rescue", "research", "support", "--wait");
  const page = await chromium.newPage();
  const other = await chromium.newPage();
  await page.goto(world.link());
  const desktop = { width: 1100, height: 640 };
  const phone = { width: 390, height: 780, isMobile: true, hasTouch: true };
  const all = () => document.querySelectorAll(".card").length === 4 && document.body.innerText.includes("CPU");
  const well = (screen) => screen.includes("support");
  const away = (screen) => screen.includes("rescued") && screen.includes("backoff");
  await terminal(other, world, "status", 16, "status", well);
  await terminal(other, world, "top", 24, "top", (screen) => well(screen) && /[0-9] MiB|[0-9]M/.test(screen));
  await dashboard(page, desktop, "dashboard", all);
  await dashboard(page, phone, "phone", all);
  await incident(world);
  await terminal(other, world, "status-incident", 24, "status", (screen) => screen.includes("stands in"));
  await terminal(other, world, "top-incident", 24, "top", (screen) => away(screen) && /[0-9] MiB|[0-9]M/.test(screen));
  const standing = () => document.body.innerText.includes("stands in for main");
  await dashboard(page, desktop, "dashboard-incident", standing);
  await dashboard(page, phone, "phone-incident", standing);
} finally {
  await chromium.close();
  world.end();
  spawnSync("tmux", [...TMUX, "kill-server"]);
}
for (const name of ["status", "top", "dashboard", "phone"].flatMap((name) => [name, `${name}-incident`])) {
  console.log(`${name}.png: ${Math.ceil(statSync(join(directory, `${name}.png`)).size / 1000)} kB`);
}
