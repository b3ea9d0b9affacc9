// One picture or clip on the page, from its sending to its deletion.

import { brush } from "./brush.js";
import { clip } from "./clip.js";
import { API, api } from "./server.js";
import { stage } from "./stage.js";
import { percent, served, translate, word } from "./words.js";

const QUARTERS = 4; // steps in which progress is announced

// A click on a link waits for the changes of the cards' finish.
export function whenFinished(link, cards) {
  let ready = false; // whether this is the click after the wait
  link.addEventListener("click", async (event) => {
    const changes = cards().map((card) => card.finishing).filter(Boolean);
    if (ready || !changes.length) return;
    event.preventDefault();
    await Promise.all(changes);
    setTimeout(() => { // after this click: browsers ignore a click within one by the Enter key
      ready = true;
      link.click();
      ready = false;
    });
  });
}

// `page`: {say, removed, ended} of the page around it.
export function newCard(name, page) {
  const item = document.getElementById("card").content.firstElementChild.cloneNode(true);
  translate(item);
  const part = (selector) => item.querySelector(selector);
  const card = { item, job: { state: "new" }, cancelUpload: null, show, fail, sent, held };
  const picture = stage(item, page.say);
  const protection = brush(item, finish);
  const film = clip(item);
  const [title, bar, cross] = ["h3", "progress", ".delete"].map(part);
  let spoken = 0; // quarters of the work announced so far
  let finishing = Promise.resolve(); // the last change of the finish, which a download waits for
  let waiting = false; // whether that change has yet to begin

  title.textContent = name;
  bar.setAttribute("aria-label", word("progress_of", { name }));
  cross.textContent = word("cancel");
  cross.setAttribute("aria-label", word("cancel_one", { name }));

  function state(text, fraction) {
    part(".state").textContent = text;
    bar.hidden = fraction === null;
    if (fraction !== null) bar.value = fraction;
  }

  function sent(fraction) {
    state(fraction < 1 ? word("sending", { percent: percent(fraction) }) : word("checking"), fraction);
  }

  function held() {
    state(word("held"), 0);
  }

  function show(job) {
    const before = card.job.state;
    card.job = job;
    title.textContent = job.name;
    if (job.state === "waiting") state(job.ahead ? word("waiting", { count: job.ahead }) : word("next"), 0);
    if (job.state === "running") run(job);
    if (job.state === "failed") fail(job.note);
    if (job.state === "done" && before !== "done") finished(job);
  }

  function run(job) {
    state(word("running", { percent: percent(job.fraction) }), job.fraction);
    const quarter = Math.floor(QUARTERS * job.fraction);
    if (quarter > spoken) page.say(word("spoken", { name: job.name, percent: percent(quarter / QUARTERS) }));
    spoken = Math.max(spoken, quarter);
  }

  function finished(job) {
    const base = `${API}/jobs/${job.id}`;
    const isClip = job.kind === "clip";
    state(word("done"), null);
    picture.open(job, base);
    part(".tools").hidden = false;
    for (const selector of [".strength-box", ".zoom", ".protect"]) part(selector).hidden = isClip;
    part(".show-mask").hidden = !job.mask;
    part(".show-mask").setAttribute("aria-label", word("mask_of", { name: job.name }));
    part(".protect").setAttribute("aria-label", word("protect_in", { name: job.name }));
    part(".strength").setAttribute("aria-label", word("strength_of", { name: job.name }));
    if (isClip) {
      tell(job, job.film ? "" : word("first_frame"));
      if (job.film) film.open(job, `${base}/film`, () => tell(job, word("first_frame")));
    } else {
      tell(job);
      protection.open(job);
      if (job.finish?.protect) part(".under").decode().then(() => protection.restore(`${base}/protect`));
    }
    part(".download").href = `${base}/result`;
    part(".download").setAttribute("aria-label", word("download_one", { name: job.result }));
    part(".download").hidden = false;
    cross.textContent = word("delete");
    cross.setAttribute("aria-label", word("delete_one", { name: job.name }));
    page.say(word("spoken_done", { name: job.name }));
    page.ended();
  }

  // Says what of the file the result kept, and what it lost.
  function tell(job, more = "") {
    const kept = job.kept.length ? word("kept", { what: job.kept.map(served).join(", ") }) : "";
    const note = job.note && job.note.charAt(0).toUpperCase() + job.note.slice(1);
    const sentences = [more, kept, note].filter(Boolean).map((text) => (/[.!?]$/.test(text) ? text : `${text}.`));
    part(".note").textContent = sentences.join(" ");
    part(".note").hidden = !sentences.length;
  }

  function fail(text) {
    card.job = { ...card.job, state: "failed" };
    state(word("failed"), null);
    for (const selector of [".stage", ".tools", ".hint", ".download", ".note"]) part(selector).hidden = true;
    // The card already shows the file's name, with which the server's message may begin.
    const prefix = `${title.textContent}: `;
    const why = text.startsWith(prefix) ? text.slice(prefix.length) : text;
    part(".problem").textContent = why.charAt(0).toUpperCase() + why.slice(1);
    part(".problem").hidden = false;
    cross.textContent = word("remove");
    cross.setAttribute("aria-label", word("remove_one", { name: title.textContent }));
    page.say(word("spoken_failed", { name: title.textContent, why: text }));
    page.ended();
  }

  // Asks the server to change the result; one change after the other.
  function finish() {
    if (waiting) return; // the waiting change will include this one
    waiting = true;
    const id = card.job.id;
    finishing = finishing.then(async () => {
      waiting = false;
      const mask = await protection.mask();
      const body = new FormData();
      body.append("strength", Number(part(".strength").value) / 100);
      if (mask) body.append("protect", mask, "protect.png");
      await api(`/jobs/${id}/finish`, { method: "PUT", body });
      part(".problem").hidden = true;
    }).catch((error) => {
      part(".problem").textContent = error.message;
      part(".problem").hidden = false;
    });
    card.finishing = finishing;
  }

  whenFinished(part(".download"), () => [card]);
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
    if (!act || part(".tools").hidden || part(selector).hidden) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });

  document.getElementById("jobs").append(item);
  return card;
}
