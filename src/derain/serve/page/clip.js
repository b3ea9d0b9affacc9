// A clip before and after. The server sends both in one film, side by side, so they stay in step; each
// frame is drawn as one picture, cut where the slider stands.

import { word } from "./words.js";

export function clip(item) {
  const part = (selector) => item.querySelector(selector);
  const [canvas, button, seek, figure] = [".film", ".play", ".seek", ".stage"].map(part);
  const film = document.createElement("video");
  Object.assign(film, { muted: true, loop: true, playsInline: true, preload: "auto" });
  const pen = canvas.getContext("2d");

  function draw() {
    const [width, height] = [film.videoWidth / 2, film.videoHeight];
    if (!width) return;
    const cut = (Number(part(".compare").value) / 100) * width;
    pen.drawImage(film, width, 0, width, height, 0, 0, width, height);
    if (cut) pen.drawImage(film, 0, 0, cut, height, 0, 0, cut, height);
  }

  function follow() {
    draw();
    if (film.duration) seek.value = (1000 * film.currentTime) / film.duration;
    if (!film.paused) requestAnimationFrame(follow);
  }

  function showState() {
    button.textContent = word(film.paused ? "play" : "pause");
    button.setAttribute("aria-pressed", String(!film.paused));
    follow();
  }

  const toggle = () => (film.paused ? film.play().catch(() => {}) : film.pause());

  // Shows a finished clip; `failed` is called if the browser cannot play it.
  function open(address, name, failed) {
    film.addEventListener("loadeddata", () => {
      [canvas.width, canvas.height] = [film.videoWidth / 2, film.videoHeight];
      canvas.hidden = false;
      part(".playing").hidden = false;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", word("alt_film", { name }));
      draw();
    }, { once: true });
    film.addEventListener("error", failed, { once: true });
    film.src = address;
  }

  for (const event of ["play", "pause", "seeked"]) film.addEventListener(event, showState);
  button.addEventListener("click", toggle);
  seek.addEventListener("input", () => { film.currentTime = (seek.value / 1000) * (film.duration || 0); });
  figure.addEventListener("slide", draw);

  return { open, toggle, stop: () => film.pause() };
}
