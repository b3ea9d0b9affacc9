// The page: takes files, sends them one after the other, follows their jobs.

import { newCard, whenFinished } from "./card.js";
import { dropped, folderOf, isKnown } from "./files.js";
import { API, api, send, whenLocked } from "./server.js";
import { offerLanguages, translate, word } from "./words.js";

const byId = (id) => document.getElementById(id);
const KEPT = "derain-jobs"; // ids in the tab's storage, so that a reload loses nothing
const cards = new Map(); // job id -> card
const queue = []; // cards whose files wait to be sent
let limits = null;
let sending = false;
let following = null;
let wake = null; // ends the pause of the sender

const say = (text) => { byId("spoken").textContent = text; };
const around = { say, removed: remove, ended: overview };

// Following jobs

function follow() {
  following?.close();
  following = null;
  const open = [...cards.values()].filter((card) => ["waiting", "running"].includes(card.job.state));
  if (!open.length) return;
  const query = new URLSearchParams(open.map((card) => ["id", card.job.id]));
  following = new EventSource(`${API}/events?${query}`);
  following.addEventListener("job", (event) => {
    const job = JSON.parse(event.data);
    cards.get(job.id)?.show(job);
    if (!["waiting", "running"].includes(job.state)) {
      follow();
      wake?.();
    }
  });
  following.addEventListener("gone", (event) => {
    cards.get(JSON.parse(event.data).id)?.fail(word("gone"));
    follow();
  });
  following.onerror = () => {
    if (following?.readyState === EventSource.CLOSED) refresh(open);
  };
}

// After a refusal: some of the jobs are gone, or the server was restarted.
async function refresh(open) {
  for (const card of open) {
    try {
      card.show(await api(`/jobs/${card.job.id}`));
    } catch (error) {
      card.fail(error.status === 404 ? word("gone") : error.message);
    }
  }
  follow();
}

async function remove(card) {
  const next = card.item.nextElementSibling ?? card.item.previousElementSibling;
  card.cancelUpload?.();
  if (queue.includes(card)) queue.splice(queue.indexOf(card), 1);
  card.item.remove();
  (next?.querySelector(".delete") ?? byId("choose")).focus();
  cards.delete(card.job.id);
  keep();
  overview();
  if (card.job.id) {
    await api(`/jobs/${card.job.id}`, { method: "DELETE" }).catch(() => {}); // being gone is fine
    follow();
  }
}

function overview() {
  const done = [...cards.values()].filter((card) => card.job.state === "done").map((card) => ["id", card.job.id]);
  byId("bar").hidden = !byId("jobs").children.length;
  byId("all").hidden = done.length < 2;
  byId("all").href = `${API}/results.zip?${new URLSearchParams(done)}`;
}

// Sending

function take(files, others = 0) {
  for (const file of files) {
    const card = newCard(file.name, around);
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
    const upload = send(card.file, folderOf(card.file), card.model, card.sent);
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
      if ([401, 429].includes(error.status)) {
        card.held();
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

const megabytes = (bytes) => `${Math.round(bytes / 1e6)} MB`;
const keep = () => sessionStorage.setItem(KEPT, JSON.stringify([...cards.keys()]));

function time(seconds) {
  if (seconds < 120) return word("seconds", { count: Math.round(seconds) });
  return seconds < 7200
    ? word("minutes", { count: Math.round(seconds / 60) })
    : word("hours", { count: Math.round(seconds / 3600) });
}

function askForToken() {
  byId("work").hidden = true;
  byId("login").hidden = false;
  byId("token").focus();
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
    byId("login-problem").textContent = error.message;
    byId("login-problem").hidden = false;
  }
});

// Files can be chosen, dropped anywhere on the page, or pasted.

byId("choose").addEventListener("click", () => byId("files").click());
byId("choose-folder").addEventListener("click", () => byId("folder").click());
for (const list of [byId("files"), byId("folder")]) {
  list.addEventListener("change", () => {
    const all = [...list.files];
    const files = list === byId("folder") ? all.filter(isKnown) : all;
    list.value = "";
    take(files, all.length - files.length);
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
  if (!limits) return;
  const { files, others } = await dropped(event.dataTransfer);
  take(files, others);
});
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (!limits || !files.length) return;
  event.preventDefault();
  take(files);
});

whenFinished(byId("all"), () => [...cards.values()]);

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
  if (event.key === "?" && event.target.closest(".job")) byId("help").showModal();
});

async function start() {
  const [models, allowed] = await Promise.all([api("/models"), api("/limits")]);
  limits = allowed;
  byId("model").replaceChildren(...models.map((model) => new Option(model.title, model.name, false, model.default)));
  byId("limits").textContent = word("limits", {
    size: megabytes(limits.upload_bytes),
    pixels: Math.round(limits.pixels / 1e6),
    time: time(limits.clip_seconds),
  });
  byId("kept").textContent = word("stay", { time: time(limits.keep_seconds) });
  byId("work").hidden = false;
  for (const id of JSON.parse(sessionStorage.getItem(KEPT) ?? "[]")) {
    if (cards.has(id)) continue;
    const job = await api(`/jobs/${encodeURIComponent(id)}`).catch(() => null);
    if (job === null) continue;
    const card = newCard(job.name, around);
    cards.set(id, card);
    card.show(job);
  }
  keep();
  overview();
  follow();
}

translate(document);
offerLanguages(byId("language"));
whenLocked(askForToken);
start().catch((error) => {
  if (error.status !== 401) say(error.message);
});
