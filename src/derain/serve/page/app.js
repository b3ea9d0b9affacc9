// The page: sends files one after the other, follows their jobs, shows before and after.

const byId = (id) => document.getElementById(id);
const KEPT = "derain-jobs"; // ids in the tab's storage, so that a reload loses nothing
const cards = new Map(); // job id -> card
const queue = []; // cards whose files wait to be sent
let limits = null;
let sending = false;
let following = null;
let wake = null; // ends the pause of the sender

// Server

async function api(path, options = {}) {
  const answer = await fetch(path, options);
  if (answer.status === 401 && path !== "/api/login") askForToken();
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(said.error ?? `the server answered ${answer.status}`), { status: answer.status });
  }
  return answer.status === 204 ? null : answer.json();
}

function send(file, model, progress) {
  const body = new FormData();
  body.append("model", model);
  body.append("file", file);
  const request = new XMLHttpRequest(); // fetch does not tell how much has been sent
  const done = new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onerror = () => reject(new Error("the server cannot be reached."));
    request.onabort = () => reject(new Error("cancelled"));
    request.onload = () => {
      let said = {};
      try { said = JSON.parse(request.responseText); } catch { /* not ours; told below */ }
      if (request.status === 201) resolve(said);
      else {
        const error = new Error(said.error ?? `the server answered ${request.status}.`);
        const wait = Number(request.getResponseHeader("Retry-After")) || 5; // seconds
        reject(Object.assign(error, { status: request.status, wait }));
      }
    };
  });
  request.open("POST", "/api/jobs");
  request.send(body);
  return { done, cancel: () => request.abort() };
}

function follow() {
  following?.close();
  following = null;
  const open = [...cards.values()].filter((card) => ["waiting", "running"].includes(card.job.state));
  if (!open.length) return;
  const query = new URLSearchParams(open.map((card) => ["id", card.job.id]));
  following = new EventSource(`/api/events?${query}`);
  following.addEventListener("job", (event) => {
    const job = JSON.parse(event.data);
    cards.get(job.id)?.show(job);
    if (!["waiting", "running"].includes(job.state)) {
      follow();
      wake?.();
    }
  });
  following.addEventListener("gone", (event) => {
    cards.get(JSON.parse(event.data).id)?.fail("It was deleted on the server.");
    follow();
  });
  following.onerror = () => {
    if (following?.readyState === EventSource.CLOSED) refresh(open);
  };
}

// After a refusal: some of the jobs are gone, or the server is another one.
async function refresh(open) {
  for (const card of open) {
    try {
      card.show(await api(`/api/jobs/${card.job.id}`));
    } catch (error) {
      card.fail(error.status === 404 ? "It was deleted on the server." : error.message);
    }
  }
  follow();
}

// Cards

function newCard(name) {
  const item = byId("card").content.firstElementChild.cloneNode(true);
  const part = (selector) => item.querySelector(selector);
  const card = { item, job: { state: "new" }, cancelUpload: null, show, fail, sent, held };
  const title = part("h3");
  const bar = part("progress");
  const slider = part("input");
  title.textContent = name;
  bar.setAttribute("aria-label", `Progress of ${name}`);
  part(".delete").setAttribute("aria-label", `Cancel ${name}`);
  part(".delete").addEventListener("click", () => remove(card));
  slider.addEventListener("input", slide);
  part(".show-mask").addEventListener("click", toggleMask);

  function state(text, fraction) {
    part(".state").textContent = text;
    bar.hidden = fraction === null;
    if (fraction !== null) bar.value = fraction;
  }

  function sent(fraction) {
    state(fraction < 1 ? `Sending, ${percent(fraction)}` : "Checking", fraction);
  }

  function held() {
    state("Waiting to be sent", 0);
  }

  function show(job) {
    const before = card.job.state;
    card.job = job;
    title.textContent = job.name;
    if (job.state === "waiting") state(job.ahead ? `Waiting, ${job.ahead} ahead` : "Next in line", 0);
    if (job.state === "running") state(`Taking the rain out, ${percent(job.fraction)}`, job.fraction);
    if (job.state === "failed") fail(job.note);
    if (job.state === "done" && before !== "done") finish(job);
  }

  function finish(job) {
    const base = `/api/jobs/${job.id}`;
    state("Done", null);
    part(".before").src = `${base}/before`;
    part(".before").alt = `${job.name} before`;
    part(".after").src = `${base}/after`;
    part(".after").alt = `${job.name} after`;
    slider.setAttribute("aria-label", `Compare ${job.name} before and after`);
    slide();
    part(".stage").hidden = false;
    part(".note").textContent = [job.kind === "clip" ? "The first frame of the clip is shown." : "", job.note]
      .filter(Boolean).join(" ");
    part(".note").hidden = !part(".note").textContent;
    part(".download").href = `${base}/result`;
    part(".download").setAttribute("aria-label", `Download ${job.result}`);
    part(".download").hidden = false;
    part(".show-mask").setAttribute("aria-label", `Rain mask of ${job.name}`);
    part(".show-mask").hidden = !job.mask;
    part(".delete").textContent = "Delete";
    part(".delete").setAttribute("aria-label", `Delete ${job.name}`);
    say(`${job.name} is done.`);
    overview();
  }

  function fail(text) {
    card.job = { ...card.job, state: "failed" };
    state("Not restored", null);
    for (const selector of [".stage", ".download", ".show-mask", ".note"]) part(selector).hidden = true;
    part(".problem").textContent = text.charAt(0).toUpperCase() + text.slice(1);
    part(".problem").hidden = false;
    part(".delete").textContent = "Remove";
    part(".delete").setAttribute("aria-label", `Remove ${title.textContent}`);
    say(`${title.textContent} was not restored: ${text}`);
    overview();
  }

  function slide() {
    part(".stage").style.setProperty("--at", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % before, ${100 - slider.value} % after`);
  }

  function toggleMask() {
    const mask = part(".mask");
    const shown = mask.hidden;
    if (!mask.src) mask.src = `/api/jobs/${card.job.id}/mask`;
    mask.alt = `Where rain was found in ${card.job.name}: the brighter, the more`;
    mask.hidden = !shown;
    part(".show-mask").setAttribute("aria-pressed", String(shown));
    part(".tag.right").textContent = shown ? "Rain mask" : "After";
  }

  byId("jobs").append(item);
  return card;
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
    await api(`/api/jobs/${card.job.id}`, { method: "DELETE" }).catch(() => {}); // gone is what was wanted
    follow();
  }
}

function overview() {
  const done = [...cards.values()].filter((card) => card.job.state === "done").map((card) => ["id", card.job.id]);
  byId("bar").hidden = !byId("jobs").children.length;
  byId("all").hidden = done.length < 2;
  byId("all").href = `/api/results.zip?${new URLSearchParams(done)}`;
}

// Sending

function take(files) {
  for (const file of files) {
    const card = newCard(file.name);
    if (file.size > limits.upload_bytes) {
      card.fail(`It is larger than the ${megabytes(limits.upload_bytes)} that are taken.`);
      continue;
    }
    card.file = file;
    card.model = byId("model").value;
    card.sent(0);
    queue.push(card);
  }
  overview();
  if (!sending) sendAll();
}

async function sendAll() {
  sending = true;
  while (queue.length) {
    const card = queue.shift();
    const upload = send(card.file, card.model, card.sent);
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
        await pause(error.wait); // until there is room: a job has ended, or the server said so long
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

// Small things

const percent = (fraction) => `${Math.floor(100 * fraction)} %`;
const megabytes = (bytes) => `${Math.round(bytes / 1e6)} MB`;
const say = (text) => { byId("spoken").textContent = text; };
const keep = () => sessionStorage.setItem(KEPT, JSON.stringify([...cards.keys()]));

function time(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} seconds`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} minutes` : `${Math.round(seconds / 3600)} hours`;
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
    await api("/api/login", {
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

byId("choose").addEventListener("click", () => byId("files").click());
byId("files").addEventListener("change", () => {
  take([...byId("files").files]);
  byId("files").value = "";
});

// Files may be dropped anywhere on the page.
let inside = 0;
const light = (by) => byId("drop").classList.toggle("over", (inside = Math.max(0, inside + by)) > 0);
document.addEventListener("dragenter", (event) => { event.preventDefault(); light(1); });
document.addEventListener("dragleave", () => light(-1));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  light(-inside);
  if (limits) take([...event.dataTransfer.files]);
});

async function start() {
  const [models, allowed] = await Promise.all([api("/api/models"), api("/api/limits")]);
  limits = allowed;
  byId("model").replaceChildren(...models.map((model) => {
    const option = new Option(model.title === model.name ? model.name : `${model.name}: ${model.title}`, model.name);
    option.selected = model.default;
    return option;
  }));
  byId("limits").textContent =
    `PNG, JPEG, WebP, TIFF, BMP, AVIF; MP4, MOV, MKV, WebM, AVI, GIF. Up to ${megabytes(limits.upload_bytes)} ` +
    `and ${Math.round(limits.pixels / 1e6)} megapixels each; clips of up to ${time(limits.clip_seconds)}.`;
  byId("kept").textContent =
    `Pictures stay on this server and are deleted ${time(limits.keep_seconds)} after they are done.`;
  byId("work").hidden = false;
  for (const id of JSON.parse(sessionStorage.getItem(KEPT) ?? "[]")) {
    if (cards.has(id)) continue;
    const job = await api(`/api/jobs/${encodeURIComponent(id)}`).catch(() => null);
    if (job === null) continue;
    const card = newCard(job.name);
    cards.set(id, card);
    card.show(job);
  }
  keep();
  overview();
  follow();
}

start().catch((error) => {
  if (error.status !== 401) say(error.message);
});
