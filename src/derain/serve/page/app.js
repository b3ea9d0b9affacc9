// The page: takes files, sends them one after the other, follows their jobs.

import { newCard, whenReady } from "./card.js";
import { dropped, folderOf, sorted } from "./files.js";
import { API, api, chunks, jobsOf, send, whenLocked } from "./server.js";
import { offerLanguages, served, told, translate, word } from "./words.js";

const byId = (id) => document.getElementById(id);
const KEPT = "derain-cards"; // [id, name, folder] of each in the tab's storage, so that a reload loses nothing
const MOST = 500; // jobs that one request may name
const RETRY = 5; // seconds
const WATCH = 15; // seconds
const LONGEST = 2 ** 31 - 1; // milliseconds that browsers can wait
const cards = new Map(); // job id -> card
const queue = []; // cards whose files wait to be sent
const early = []; // files that came before the login
let limits = null;
let sending = false;
let following = null;
let lost = false; // whether the server did not answer to `watch`
let wake = null; // ends the pause of the sender

const say = (text) => { byId("spoken").textContent = text; };
const around = { say, removed: remove, ended, stillThere };
const isOpen = (card) => ["waiting", "running"].includes(card.job.state);
const allDone = () => [...cards.values()].filter((card) => card.job.state === "done");

// Following jobs

function follow() {
  following?.close();
  following = null;
  const open = [...cards.values()].filter(isOpen).slice(0, MOST);
  if (!open.length) return reached(true);
  const query = new URLSearchParams(open.map((card) => ["id", card.job.id]));
  following = new EventSource(`${API}/events?${query}`);
  following.addEventListener("job", (event) => {
    const job = JSON.parse(event.data);
    reached(true);
    const card = cards.get(job.id);
    card?.show(job);
    if (card && !isOpen(card)) {
      follow();
      wake?.();
    }
  });
  following.addEventListener("gone", (event) => {
    reached(true);
    cards.get(JSON.parse(event.data).id)?.gone();
    follow();
  });
  following.onerror = () => {
    if (following?.readyState === EventSource.CLOSED) refresh(open);
    else reached(false); // the browser tries again
  };
}

// After a refusal: some of the jobs are gone, or the server was restarted or is behind a proxy and down.
async function refresh(open) {
  const problems = await look(open);
  if (problems.some((error) => error.status === 401)) return; // goes on after the login
  if (!problems.length) return follow();
  reached(false);
  setTimeout(follow, 1000 * RETRY);
}

// Shows how the jobs of some cards are now; the errors of those of which that is not known.
async function look(some) {
  const problems = [];
  for (const [card, found] of await jobsOf(some, (one) => one.job.id)) {
    if (!(found instanceof Error)) card.show(found);
    else if (found.status === 404) card.gone();
    else problems.push(found);
  }
  return problems;
}

function reached(yes) {
  if (byId("connection").hidden === yes) return;
  byId("connection").textContent = word("trying");
  byId("connection").hidden = yes;
}

// While no job is followed, nothing else would tell that the server, and with it the results, are gone.
async function watch() {
  if (document.hidden || following || !allDone().length) return;
  const was = lost;
  lost = !await fetch("/health").then((answer) => answer.ok, () => false);
  if (lost) return reached(false);
  if (!was) return;
  reached(true);
  look(allDone()); // another server does not have them
}

// Whether all results of some finished cards can be downloaded, with their last changes; tells if not.
async function stillThere(some) {
  await Promise.all(some.map((card) => card.finished));
  const problems = await look(some);
  if (problems.length) tell(problems[0].message);
  else reached(true);
  return !problems.length && some.every((card) => card.job.state === "done");
}

// A card has ended, one way or another; its result is looked for when it should have been deleted.
function ended(card) {
  overview();
  if (card.job.state !== "done") return;
  const due = 1000 * (limits.keep_seconds + 1);
  setTimeout(() => card.job.state === "done" && card.item.isConnected && look([card]), Math.min(due, LONGEST));
}

async function remove(card) {
  const next = card.item.nextElementSibling ?? card.item.previousElementSibling;
  card.cancelUpload?.();
  if (queue.includes(card)) queue.splice(queue.indexOf(card), 1);
  card.item.remove();
  (next?.querySelector(".delete") ?? byId("choose")).focus();
  say(word("spoken_removed", { name: card.name }));
  cards.delete(card.job.id);
  keep();
  overview();
  if (card.job.id) {
    await api(`/jobs/${card.job.id}`, { method: "DELETE" }).catch(() => {}); // being gone is fine
    follow();
    wake?.(); // there is room in the store
  }
}

function overview() {
  const done = allDone();
  const parts = done.length < 2 ? [] : chunks(done, MOST);
  const links = byId("archives");
  byId("bar").hidden = !byId("jobs").children.length;
  while (links.children.length < parts.length) links.append(archive());
  [...links.children].forEach((link, i) => {
    link.hidden = !parts[i];
    if (!parts[i]) return;
    link.href = `${API}/results.zip?${new URLSearchParams(parts[i].map((card) => ["id", card.job.id]))}`;
    link.textContent = parts.length === 1
      ? word("download_all")
      : word("download_part", { first: i * MOST + 1, last: i * MOST + parts[i].length });
  });
}

// A link to an archive; `overview` says of which results.
function archive() {
  const link = Object.assign(document.createElement("a"), { className: "button", download: "" });
  whenReady(link, async () => {
    await stillThere(allDone()); // without those that are gone, there may be fewer archives
    return !link.hidden && byId("connection").hidden;
  });
  return link;
}

// Sending

function take(files) {
  if (byId("work").hidden) {
    early.push(...files);
    byId("early").textContent = word("early", { count: early.length });
    byId("early").hidden = !early.length;
    return;
  }
  const { wanted, others } = sorted(files, limits.formats.flatMap((format) => format.extensions));
  for (const file of wanted) {
    const card = newCard(file.name, folderOf(file), around);
    if (file.size > limits.upload_bytes) {
      card.fail(word("too_large", { size: megabytes(limits.upload_bytes) }));
      continue;
    }
    card.file = file;
    card.model = byId("model").value;
    card.sent(0);
    queue.push(card);
  }
  byId("passed").hidden = !others;
  byId("passed").textContent = word("passed_over", { count: others });
  if (others) say(byId("passed").textContent);
  overview();
  if (!sending) sendAll();
}

async function sendAll() {
  sending = true;
  while (queue.length) {
    const card = queue.shift();
    card.sent(0);
    const upload = send(card.file, card.folder, card.model, card.sent);
    card.cancelUpload = upload.cancel;
    try {
      const job = await upload.done;
      cards.set(job.id, card);
      card.show(job);
      keep();
      follow();
    } catch (error) {
      if (!card.item.isConnected) continue;
      card.cancelUpload = null;
      if ([401, 429, 503].includes(error.status)) {
        card.held(error.status === 503 ? told(error.message) : "");
        queue.unshift(card);
        if (error.status === 401) { // goes on after the login
          askForToken();
          break;
        }
        await pause(error.wait); // until a job has ended, or for as long as the server asked
        continue;
      }
      card.fail(error.message);
    }
    card.cancelUpload = null;
    card.file = null;
  }
  sending = false;
}

function pause(seconds) {
  return new Promise((resolve) => {
    wake = resolve;
    setTimeout(resolve, 1000 * seconds);
  });
}

// Helpers

const megabytes = (bytes) => word("megabytes", { count: Math.round(bytes / 1e6) });
const keep = () =>
  sessionStorage.setItem(KEPT, JSON.stringify([...cards].map(([id, { name, folder }]) => [id, name, folder])));

// What concerns no single card.
function tell(text) {
  byId("connection").textContent = told(text);
  byId("connection").hidden = false;
}

function time(seconds) {
  if (seconds < 120) return word("seconds", { count: Math.round(seconds) });
  return seconds < 7200
    ? word("minutes", { count: Math.round(seconds / 60) })
    : word("hours", { count: Math.round(seconds / 3600) });
}

function askForToken() {
  byId("work").hidden = true;
  byId("login").hidden = false;
  if (document.activeElement !== byId("language")) byId("token").focus();
}

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  byId("login-problem").hidden = true;
  try {
    await api("/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token: byId("token").value }),
    });
    byId("token").value = "";
    byId("login").hidden = true;
    await start();
    byId("choose").focus();
    if (!sending) sendAll();
  } catch (error) {
    byId("login-problem").textContent = told(error.message);
    byId("login-problem").hidden = false;
  }
});

// Files can be chosen, dropped anywhere on the page, or pasted.

byId("choose").addEventListener("click", () => byId("files").click());
byId("choose-folder").addEventListener("click", () => byId("folder").click());
for (const list of [byId("files"), byId("folder")]) {
  list.addEventListener("change", () => {
    const files = [...list.files];
    list.value = "";
    take(files);
  });
}

let inside = 0;
const light = (by) => byId("drop").classList.toggle("over", (inside = Math.max(0, inside + by)) > 0);
document.addEventListener("dragenter", (event) => { event.preventDefault(); light(1); });
document.addEventListener("dragleave", () => light(-1));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  light(-inside);
  take(await dropped(event.dataTransfer));
});
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (!files.length) return;
  event.preventDefault();
  take(files);
});

// Keyboard help

const KEYS = [["Ctrl V", "key_paste"], ["← →", "key_compare"], ["+ −", "key_zoom"], ["0", "key_fit"],
  ["M", "key_mask"], ["P", "key_protect"], ["← ↑ ↓ →", "key_brush"], ["␣", "key_paint"], ["Esc", "key_leave"],
  ["K", "key_play"], ["?", "key_help"]];
byId("help-list").replaceChildren(...KEYS.flatMap(([key, meaning]) => {
  const [term, text] = [document.createElement("dt"), document.createElement("dd")];
  term.append(Object.assign(document.createElement("kbd"), { textContent: key }));
  text.textContent = word(meaning);
  return [term, text];
}));
byId("help-open").addEventListener("click", () => byId("help").showModal());
byId("help-close").addEventListener("click", () => byId("help").close());
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("#token, select");
  if (event.key === "?" && !isTyping && !byId("help").open) byId("help").showModal();
});

async function start() {
  const [models, allowed] = await Promise.all([api("/models"), api("/limits")]);
  limits = allowed;
  byId("model").replaceChildren(...models.map((model) => new Option(served(model.title), model.name, false, model.default)));
  byId("files").accept = [...limits.formats.flatMap((format) => format.extensions), "video/*"].join();
  byId("limits").textContent = word("limits", {
    pictures: names("picture"),
    clips: names("clip"),
    size: megabytes(limits.upload_bytes),
    pixels: Math.round(limits.pixels / 1e6),
    time: time(limits.clip_seconds),
  });
  byId("kept").textContent = word("stay", { time: time(limits.keep_seconds) });
  byId("work").hidden = false;
  await restoreCards();
  overview();
  if (document.activeElement === byId("language")) byId("language").scrollIntoView(false); // cards are above it
  follow();
  byId("early").hidden = true;
  if (early.length) take(early.splice(0));
}

// The cards from before a reload, without those whose jobs are gone.
async function restoreCards() {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]").filter(([id]) => !cards.has(id));
  const found = await jobsOf(kept, ([id]) => id);
  const problem = found.find(([, job]) => job instanceof Error && job.status !== 404);
  if (problem) throw problem[1]; // nothing is forgotten
  for (const [[id, name, folder], job] of found) {
    if (job instanceof Error) continue;
    const card = newCard(name, folder, around);
    cards.set(id, card);
    card.show(job);
  }
  keep();
}

// Kinds of files in short: MP4, and not QuickTime but MOV.
function names(kind) {
  const formats = limits.formats.filter((format) => format.kind === kind);
  return formats.map(({ name, extensions }) => {
    const short = extensions[0].slice(1).toUpperCase();
    return kind === "picture" || name.toUpperCase() === short ? served(name) : short;
  }).join(", ");
}

setInterval(watch, 1000 * WATCH);
document.addEventListener("visibilitychange", watch);
translate(document);
offerLanguages(byId("language"));
whenLocked(askForToken);
start().catch((error) => {
  if (error.status !== 401) tell(error.message);
});
