// Calls of the contract, as proto JSON, and its streams as server-sent events.

const KEY = "openclaw-session";
/** Good for as long as the supervisor lives. Whoever had its port could have been sent this, and could read it here. */
let session = sessionStorage.getItem(KEY);
/** Signs each call, and gets this page a session of the next supervisor; kept nowhere, and sent to nobody. */
let secret = null;
/** Calls that this session has signed. */
let count = 0;
let renewal = null;
/** Whoever has the port while the supervisor is away can leave what answers in its place later, and reads all that is sent. */
const others = navigator.serviceWorker;
let taken = false;
others?.addEventListener("controllerchange", () => {
  taken = true;
  close();
});

/** What went wrong, with the contract's name for it. */
export class Failure extends Error {
  constructor({ code = "Unavailable", reason = "", message = "The supervisor does not answer." }) {
    super(message);
    this.code = code;
    this.reason = reason;
  }
}

export const isOpen = () => session !== null;

async function post(path, body = "", signal) {
  for (let tries = 0; ; tries += 1) {
    const shown = session;
    const answer = await send(path, body, signal);
    if (answer.ok) return answer;
    const said = await answer.json().catch(() => ({ message: `It answered ${answer.status}.` }));
    if (said.code === "Unauthenticated") {
      if (said.again && tries < AGAIN) continue;
      if (said.life && path !== "renew" && (await renew(shown, said.life))) continue;
      if (session === shown) close();
    }
    throw new Failure(said);
  }
}
/** A browser sends anew what broke off, which counts for one that was made before. */
const AGAIN = 3;

async function send(path, body, signal) {
  if (taken) throw new Failure({ code: "Unauthenticated", message: "Another program has answered here in the supervisor's place." });
  const headers = { "content-type": "application/json", "x-openclaw-page": "1" };
  if (session) headers.authorization = `Bearer ${session}`;
  if (session && secret) {
    const number = (count += 1);
    headers["x-openclaw-proof"] = `${number}.${await signed(`call ${session} ${path} ${number}\n${body}`)}`;
  }
  try {
    return await fetch(`/api/${path}`, { method: "POST", headers, body, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure({});
  }
}

const signed = async (text) => base64(new Uint8Array(await crypto.subtle.sign("HMAC", secret, new TextEncoder().encode(text))));

/** Has a session of this life of the supervisor, if the page had this one of an earlier. All calls wait for the same. */
async function renew(shown, life) {
  if (session !== shown) return session !== null;
  if (!secret || (await others?.getRegistrations())?.length) return false;
  renewal ??= (async () => take(await post("renew", await signed(`life ${life}`))))().finally(() => (renewal = null));
  await renewal;
  return true;
}

async function take(answer) {
  const given = await answer.json();
  if (given.secret) secret = await crypto.subtle.importKey("raw", bytes(given.secret), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  [session, count] = [given.session, 0];
  sessionStorage.setItem(KEY, session);
}

const base64 = (raw) => btoa(String.fromCharCode(...raw)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));

function close() {
  session = null;
  secret = null;
  sessionStorage.removeItem(KEY);
}

/** Goes on with the session that was here before the page was loaded anew. */
export const resume = async () => take(await post("renew"));

/** Makes a session of a link's ticket. */
export const open = async (ticket) => take(await post("session", ticket));

/** Learns which calls this session may make. */
export async function learn() {
  rights = new Set((await (await post("rights")).json()).may);
}
let rights = new Set();

/** Whether it may make this one: what would be refused is not offered. */
export const may = (method) => rights.has(method);

/** Calls a method, e.g. `call("InstanceService/ListInstances", { pageSize: 10 })`. */
export async function call(method, request = {}) {
  return (await post(method, JSON.stringify(request))).json();
}

/** A request id, so that a repeat after a broken connection is none. */
export const once = () => crypto.randomUUID();

/** How long a silent stream is waited for: the supervisor says every ten seconds that it is there. */
const SILENCE = 25_000;

/** Reads one stream to its end. */
async function read(method, request, onMessage, signal) {
  const ended = new AbortController();
  const end = () => ended.abort();
  signal.addEventListener("abort", end);
  let silent = setTimeout(end, SILENCE);
  try {
    const answer = await post(method, JSON.stringify(request), ended.signal);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ; ) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(silent);
      silent = setTimeout(end, SILENCE);
      const parts = (text + value).split("\n\n");
      text = parts.pop();
      for (const part of parts) {
        const field = (name) => part.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
        if (field("event") === "message") onMessage(JSON.parse(field("data")));
        if (field("event") === "end") {
          const failure = JSON.parse(field("data"));
          if (failure) throw new Failure(failure);
        }
      }
    }
  } finally {
    clearTimeout(silent);
    signal.removeEventListener("abort", end);
  }
}

/**
 * Follows a stream for as long as it is wanted, and begins anew when it breaks. `request` is asked for each time,
 * `onState` is told whether it flows. Returns what ends it.
 */
export function follow(method, request, onMessage, onState = () => {}) {
  const wanted = new AbortController();
  const { signal } = wanted;
  (async () => {
    for (let pause = 250; !signal.aborted; pause = Math.min(pause * 2, 5_000)) {
      const flows = (message) => {
        pause = 125;
        onState(null);
        onMessage(message);
      };
      let why = new Failure({ message: "The stream has ended." });
      try {
        await read(method, request(), flows, signal);
      } catch (error) {
        if (signal.aborted) return;
        why = error instanceof Failure ? error : new Failure({});
        if (["Unauthenticated", "PermissionDenied", "NotFound", "InvalidArgument"].includes(why.code)) {
          return onState(why);
        }
      }
      onState(why);
      await new Promise((go) => setTimeout(go, pause));
    }
  })();
  return () => wanted.abort();
}
