// The line below the picture: what the server says once a second. It ends with the pictures.

import { language, word } from "./page/words.js";

const EVERY = 1000; // milliseconds
const STATES = { live: word("live_now"), waiting: word("live_waiting"), ended: word("live_ended") };

const state = document.querySelector("#state");
const figures = document.querySelector("#figures");

const tenths = (number) => number.toLocaleString(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 });

function show(name, text) {
  document.body.dataset.state = name;
  if (state.value !== STATES[name]) state.value = STATES[name]; // screen readers say each change
  figures.textContent = text;
}

function told(row) {
  if (!row.frames_per_second) return show("waiting", "");
  const parts = [word("live_rate", { frames: tenths(row.frames_per_second) })];
  if (row.rain) parts.push(word("live_rain", { share: tenths(100 * row.rain.share) }));
  show("live", parts.join(", "));
}

async function ask() {
  try {
    const answer = await fetch("live.json", { cache: "no-store" });
    if (document.body.dataset.state === "ended") location.reload(); // begun again: with new pictures
    told(await answer.json());
  } catch {
    show("ended", "");
  }
  setTimeout(ask, EVERY);
}

document.querySelector("img").alt = word("live_picture");
ask();
