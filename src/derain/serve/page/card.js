// One picture or clip on the page, from its sending to its deletion.

import { brush } from "./brush.js";
import { clip } from "./clip.js";
import { API, api } from "./server.js";
import { stage } from "./stage.js";
import { note, percent, served, told, translate, word } from "./words.js";

const QUARTERS = 4; // steps in which progress is announced

const SMALL = 60_000; // bytes that a browser sends even if the page is left meanwhile, less a margin for the form

// A click on a link to the results of some cards waits for `ready()`: their changes, and whether they are still there.
export function whenReady(link, ready) {
  let isReady = false; // whether this is the click after the wait
  link.addEventListener("click", async (event) => {
    if (isReady) return;
    event.preventDefault();
    if (!await ready()) return;
    setTimeout(() => { // after this click: browsers ignore a click within one by the Enter key
      isReady = true;
      link.click();
      isReady = false;
    });
  });
}

// A name as the server writes it at the start of a message, without its extension, which follows the content.
const stem = (name) => name.replace(/\.[^.]*$/, "").replace(/[<>:"/\\|?*]/g, "_");

// `name` and `folder`: of the file; `page`: {say, removed, ended, stillThere} of the page around it.
export function newCard(name, folder, page) {
  const item = document.getElementById("card").content.firstElementChild.cloneNode(true);
  translate(item);
  const part = (selector) => item.querySelector(selector);
  const card = {
    ...{ item, name, folder, show, fail, gone, sent, held },
    job: { state: "new" },
    cancelUpload: null,
    finished: Promise.resolve(), // once the last change is in the result; downloads wait for it
  };
  const picture = stage(item, page.say);
  const protection = brush(item, finish);
  const film = clip(item);
  const [title, bar, cross] = ["h3", "progress", ".delete"].map(part);
  let spoken = 0; // quarters of the work announced so far
  let waiting = false; // whether that change has yet to begin

  title.textContent = name;
  part(".folder").textContent = folder;
  part(".folder").hidden = !folder;
  bar.setAttribute("aria-label", word("progress_of", { name }));
  cross.textContent = word("cancel");
  cross.setAttribute("aria-label", word("cancel_one", { name }));

  function state(text, fraction) {
    part(".state").textContent = text;
    bar.hidden = fraction === null;
    if (fraction !== null) bar.value = fraction;
  }

  function problem(text) {
    part(".problem").textContent = text;
    part(".problem").hidden = !text;
  }

  function sent(fraction) {
    problem("");
    state(fraction < 1 ? word("sending", { percent: percent(fraction) }) : word("checking"), fraction);
  }

  // Waits to be sent; `why` if the user can do something about it.
  function held(why = "") {
    state(word("held"), 0);
    problem(why);
  }

  function show(job) {
    const before = card.job.state;
    card.job = job;
    if (job.state === "waiting") state(job.ahead ? word("waiting", { count: job.ahead }) : word("next"), 0);
    if (job.state === "running") run(job);
    if (job.state === "failed") fail(job.note);
    if (job.state === "done" && before !== "done") finished(job);
  }

  function run(job) {
    state(word("running", { percent: percent(job.fraction) }), job.fraction);
    const quarter = Math.floor(QUARTERS * job.fraction);
    if (quarter > spoken) page.say(word("spoken", { name, percent: percent(quarter / QUARTERS) }));
    spoken = Math.max(spoken, quarter);
  }

  function finished(job) {
    const base = `${API}/jobs/${job.id}`;
    const isClip = job.kind === "clip";
    state(word("done"), null);
    picture.open(job, base, name);
    if (sessionStorage.getItem(pending()) !== null) picture.setStrength(sessionStorage.getItem(pending()));
    sessionStorage.removeItem(pending());
    part(".tools").hidden = false;
    for (const selector of [".strength-box", ".zoom", ".protect"]) part(selector).hidden = isClip;
    part(".show-mask").hidden = !job.mask;
    part(".show-mask").setAttribute("aria-label", word("mask_of", { name }));
    part(".protect").setAttribute("aria-label", word("protect_in", { name }));
    part(".strength").setAttribute("aria-label", word("strength_of", { name }));
    if (isClip) {
      tell(job, job.film ? "" : word("first_frame"));
      if (job.film) film.open(`${base}/film`, name, () => tell(job, word("first_frame")));
    } else {
      tell(job);
      protection.open(job, name);
      if (job.finish?.protect) part(".under").decode().then(() => protection.restore(`${base}/protect`));
    }
    part(".download").href = `${base}/result`;
    part(".download").setAttribute("aria-label", word("download_one", { name: job.result }));
    part(".download").hidden = false;
    cross.textContent = word("delete");
    cross.setAttribute("aria-label", word("delete_one", { name }));
    page.say(word("spoken_done", { name }));
    page.ended(card);
  }

  // Says what of the file the result kept, and what it lost.
  function tell(job, more = "") {
    const kept = job.kept.length ? `${word("kept", { what: job.kept.map(served).join(", ") })}.` : "";
    const sentences = [more, kept, note(job.note)].filter(Boolean).join(" ");
    part(".note").textContent = sentences;
    part(".note").hidden = !sentences;
  }

  function fail(text) {
    card.job = { ...card.job, state: "failed" };
    state(word("failed"), null);
    for (const selector of [".stage", ".tools", ".hint", ".download", ".note"]) part(selector).hidden = true;
    const why = told(withoutName(text));
    problem(why);
    onlyRemove();
    page.say(word("spoken_failed", { name, why }));
    page.ended(card);
  }

  // The card already shows the file's name, with which the server's message may begin.
  function withoutName(text) {
    const [first, ...rest] = text.split(": ");
    return rest.length && stem(name).startsWith(stem(first)) ? rest.join(": ") : text;
  }

  function onlyRemove() {
    cross.textContent = word("remove");
    cross.setAttribute("aria-label", word("remove_one", { name }));
  }

  // The job has been deleted on the server; what a finished one has loaded can still be looked at.
  function gone() {
    if (card.job.state === "gone") return;
    if (card.job.state !== "done") return fail(word("gone"));
    card.job = { ...card.job, state: "gone" };
    state(word("expired"), null);
    problem(word("gone"));
    picture.keepLoaded();
    protection.close();
    for (const control of [".strength", ".show-mask", ".protect"]) part(control).disabled = true;
    part(".download").hidden = true;
    onlyRemove();
    page.say(word("spoken_gone", { name }));
    page.ended(card);
  }

  // Where the tab keeps a strength that was asked for: after a reload, the server may still be at it.
  const pending = () => `derain-strength-${card.job.id}`;

  // Asks the server to change the result; one change after the other.
  function finish() {
    if (waiting) return; // the waiting change will include this one
    waiting = true;
    const id = card.job.id;
    sessionStorage.setItem(pending(), part(".strength").value);
    card.finished = card.finished.then(async () => {
      waiting = false;
      const mask = await protection.mask();
      const body = new FormData();
      body.append("strength", Number(part(".strength").value) / 100);
      if (mask) body.append("protect", mask, "protect.png");
      const keepalive = (mask?.size ?? 0) < SMALL; // is not lost if the page is left at once
      await api(`/jobs/${id}/finish`, { method: "PUT", body, keepalive });
      problem("");
    }).catch((error) => (error.status === 404 ? gone() : problem(told(error.message)))).finally(() => {
      if (!waiting) sessionStorage.removeItem(pending());
    });
  }

  whenReady(part(".download"), () => page.stillThere([card]));
  part(".strength").addEventListener("input", (event) => picture.setStrength(event.target.value));
  part(".strength").addEventListener("change", finish);
  part(".show-mask").addEventListener("click", () => picture.toggleMask(`${API}/jobs/${card.job.id}/mask`));
  cross.addEventListener("click", () => {
    film.stop();
    page.removed(card);
  });

  // Keyboard shortcuts, wherever in the card the focus is.
  const KEYS = {
    "+": [".zoom", picture.closer],
    "-": [".zoom", picture.farther],
    0: [".zoom", picture.fit],
    m: [".show-mask", () => part(".show-mask").click()],
    p: [".protect", () => protection.toggle()],
    k: [".playing", film.toggle],
  };
  item.addEventListener("keydown", (event) => {
    const [selector, act] = KEYS[event.key.toLowerCase()] ?? [];
    if (!act || part(".tools").hidden || part(selector).hidden || part(selector).disabled) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });

  document.getElementById("jobs").append(item);
  return card;
}
