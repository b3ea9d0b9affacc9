// The line below the picture: what the server says once a second. It ends with the pictures.

const EVERY = 1000; // milliseconds
const WORDS = { live: "Live", waiting: "Waiting for the source", ended: "Ended" };

const state = document.querySelector("#state");
const figures = document.querySelector("#figures");

function show(name, text) {
  document.body.dataset.state = name;
  if (state.value !== WORDS[name]) state.value = WORDS[name]; // screen readers say each change
  figures.textContent = text;
}

function told(row) {
  if (!row.frames_per_second) return show("waiting", "");
  const rain = row.rain ? `, rain on ${(100 * row.rain.share).toFixed(1)} % of the picture` : "";
  return show("live", `${row.frames_per_second.toFixed(1)} frames a second${rain}`);
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

ask();
