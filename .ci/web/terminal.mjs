// What a program writes to a terminal of 80 columns, as that terminal shows it.

import { spawn } from "node:child_process";
import { require } from "./browser.mjs";
import { until } from "./host.mjs";

const { Terminal: Emulator } = require("@xterm/headless");

export const COLUMNS = 80;
export const ROWS = 24;

/** Black, red, green, yellow, blue, magenta, cyan, white; then the bright ones. All are read well on the ground. */
const PALETTE = ["#3a424b", "#ff8f86", "#5fd38a", "#f0b449", "#8ab4f8", "#d7a8f5", "#6fd3d8", "#d5dae0",
  "#8b949e", "#ffaba4", "#86e3a7", "#ffd074", "#abc9fb", "#e4c4fa", "#97e4e7", "#ffffff"];
const INK = "#d5dae0";
const GROUND = "#14171a";
/** The levels of the 6x6x6 cube of 256 colours. */
const CUBE = [0, 95, 135, 175, 215, 255];

const indexed = (index) => {
  if (index < 16) return PALETTE[index];
  const grey = 8 + (index - 232) * 10;
  const of = index - 16;
  const [r, g, b] = index >= 232 ? [grey, grey, grey] : [CUBE[Math.floor(of / 36)], CUBE[Math.floor(of / 6) % 6], CUBE[of % 6]];
  return `rgb(${r} ${g} ${b})`;
};

/** A program on a terminal of its own. */
export class Terminal {
  static run(command, environment, { rows = ROWS } = {}) {
    const terminal = new Terminal();
    terminal.emulator = new Emulator({ cols: COLUMNS, rows, allowProposedApi: true });
    // `script` lends it a terminal, whose size `stty` says.
    const typed = `stty rows ${rows} cols ${COLUMNS}; exec ${command}`;
    terminal.program = spawn("script", ["--quiet", "--return", "--command", typed, "/dev/null"], {
      env: { ...environment, TERM: "xterm-256color", COLORTERM: "" }, cwd: "/", stdio: ["pipe", "pipe", "inherit"],
    });
    terminal.program.stdout.on("data", (data) => terminal.emulator.write(data));
    terminal.ended = new Promise((done) => terminal.program.once("close", done));
    return terminal;
  }

  /** All that is seen, without its colours. */
  get text() {
    const { active } = this.emulator.buffer;
    return Array.from({ length: active.length }, (_, row) => active.getLine(row).translateToString(true)).join("\n").trimEnd();
  }

  shows(text) {
    return until(`the terminal shows ${text}`, () => (text instanceof RegExp ? text.test(this.text) : this.text.includes(text)), undefined, () => this.text);
  }

  type(keys) {
    this.program.stdin.write(keys);
  }

  /** Waits for the program's end, and for its last word to be drawn. */
  async end() {
    await this.ended;
    await new Promise((drawn) => this.emulator.write("", drawn));
  }

  /** Lines of spans, as HTML. */
  html() {
    const { active } = this.emulator.buffer;
    const lines = this.text.split("\n").length;
    return Array.from({ length: lines }, (_, row) => line(active.getLine(row))).join("\n");
  }
}

/** One line, its neighbours of one look together. */
function line(cells) {
  const runs = [];
  for (let column = 0; column < COLUMNS; column += 1) {
    const cell = cells.getCell(column);
    if (cell.getWidth() === 0) continue;
    const look = lookOf(cell);
    if (runs.at(-1)?.look !== look) runs.push({ look, text: "" });
    runs.at(-1).text += cell.getChars() || " ";
  }
  return runs.map(({ look, text }) => `<span style="${look}">${escaped(text)}</span>`).join("");
}

export const escaped = (text) => text.replace(/[&<>]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[sign]);

function lookOf(cell) {
  const colour = (isDefault, isIndexed, value, usual) => {
    if (isDefault) return usual;
    return isIndexed ? indexed(value) : `#${value.toString(16).padStart(6, "0")}`;
  };
  let ink = colour(cell.isFgDefault(), cell.isFgPalette(), cell.getFgColor(), INK);
  let ground = colour(cell.isBgDefault(), cell.isBgPalette(), cell.getBgColor(), "transparent");
  if (cell.isInverse()) [ink, ground] = [ground === "transparent" ? GROUND : ground, ink];
  return [`color:${ink}`, ground !== "transparent" && `background:${ground}`, cell.isBold() && "font-weight:bold",
    cell.isDim() && "opacity:.7", cell.isItalic() && "font-style:italic", cell.isUnderline() && "text-decoration:underline",
  ].filter(Boolean).join(";");
}

/** A page with what was typed and what came of it, for the browser to draw. */
export const drawn = (content) => `<!doctype html><meta charset="utf-8"><style>
body { margin: 0; background: transparent; }
pre { display: inline-block; margin: 0; padding: 12px 16px; border-radius: 8px; background: ${GROUND}; color: ${INK};
  font: 14px/18px "DejaVu Sans Mono", "Liberation Mono", monospace; min-width: ${COLUMNS}ch; }
span { display: inline-block; height: 18px; }
</style><pre>${content}</pre>`;
