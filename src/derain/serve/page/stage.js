// A picture before and after: the slider between them, zoom, strength, and the rain as a tint.

import { word } from "./words.js";

const LEVELS = [1, 2, 4, 8]; // screen pixels for each of the picture
const LEAST = 240; // CSS pixels; smaller pictures are magnified to at least this much
const HIGHEST = 0.75; // of the window
const [NARROW, LOW] = [220, 90]; // CSS pixels; labels would hide a smaller picture
const NEAR = 28; // CSS pixels around the line that grab the line

export function stage(item, spoken) {
  const part = (selector) => item.querySelector(selector);
  const [figure, view, sheet, slider] = [".stage", ".view", ".sheet", ".compare"].map(part);
  const film = part(".film");
  let size = null; // of the picture, in its pixels
  let zoom = 0; // of LEVELS; 0 fits the picture into the page
  let addresses = null;

  // CSS pixels for each of the picture, where it fits into the page.
  function fitting() {
    const room = Math.min(item.querySelector(".head").clientWidth / size.width, (HIGHEST * innerHeight) / size.height);
    if (room <= 1) return room;
    return Math.min(Math.floor(room), Math.max(1, Math.ceil(LEAST / size.width)));
  }

  const scale = () => (zoom ? zoom / devicePixelRatio : fitting());

  // The levels at which the picture is larger than that.
  const steps = () => LEVELS.filter((level) => level / devicePixelRatio > fitting());

  function layout() {
    if (!size || figure.hidden) return;
    const each = scale();
    sheet.style.width = `${Math.max(1, size.width * each)}px`;
    sheet.style.aspectRatio = `${size.width} / ${size.height}`;
    sheet.classList.toggle("coarse", each * devicePixelRatio > 1.5);
    figure.style.width = `${size.width * each}px`;
    if (zoom) {
      view.tabIndex = 0; // scrolls by keyboard
      view.setAttribute("role", "group");
      view.setAttribute("aria-label", word("zoomed"));
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) view.removeAttribute(name);
    }
    figure.classList.toggle("small", figure.clientWidth < NARROW || figure.clientHeight < LOW);
    part(".zoom output").textContent = zoom ? `${100 * zoom} %` : word("fit");
    part(".zoom-out").disabled = !zoom;
    part(".zoom-in").disabled = zoom >= (steps().at(-1) ?? 0);
    slide();
  }

  // The line stays in place in the viewport, so its position in the picture changes with scrolling.
  function slide() {
    figure.style.setProperty("--at", `${slider.value}%`);
    const inside = (view.scrollLeft + (slider.value / 100) * view.clientWidth) / (sheet.clientWidth || 1);
    sheet.style.setProperty("--cut", `${100 * inside}%`);
    slider.setAttribute("aria-valuetext", word("compared", { before: slider.value, after: 100 - slider.value }));
    figure.dispatchEvent(new Event("slide"));
  }

  async function setZoom(level) {
    const across = (view.scrollLeft + view.clientWidth / 2) / (sheet.clientWidth || 1);
    const down = (view.scrollTop + view.clientHeight / 2) / (sheet.clientHeight || 1);
    zoom = level;
    layout();
    view.scrollLeft = across * sheet.clientWidth - view.clientWidth / 2;
    view.scrollTop = down * sheet.clientHeight - view.clientHeight / 2;
    spoken(zoom ? `${100 * zoom} %` : word("fit"));
    if (zoom) await sharpen();
  }

  const closer = () => setZoom(steps().find((level) => level > zoom) ?? zoom);
  const farther = () => setZoom(steps().findLast((level) => level < zoom) ?? 0);

  // All pixels, once zoomed in; until they have loaded, the smaller preview stays.
  async function sharpen() {
    if (!addresses || part(".under").naturalWidth >= size.width) return;
    const { before, after } = addresses;
    addresses = null;
    const [full, changed] = [`${before}?full=true`, `${after}?full=true`];
    await Promise.all([full, changed].map((address) => Object.assign(new Image(), { src: address }).decode()));
    part(".under").src = part(".before").src = full;
    part(".after").src = changed;
  }

  // One pointer does it all: near the line it moves the line, else in a zoomed picture it moves the picture.
  let from = null;
  figure.addEventListener("pointerdown", (event) => {
    if (event.button || event.target.closest(".brush")) return;
    const box = figure.getBoundingClientRect();
    const line = box.left + (slider.value / 100) * box.width;
    const pan = zoom && Math.abs(event.clientX - line) > NEAR;
    slider.focus({ preventScroll: true }); // so that the keys act on this picture
    from = { id: event.pointerId, pan, x: event.clientX, y: event.clientY, left: view.scrollLeft, top: view.scrollTop };
    figure.setPointerCapture(event.pointerId);
    if (!pan) toPointer(event);
  });
  figure.addEventListener("pointermove", (event) => {
    if (from?.id !== event.pointerId) return;
    if (!from.pan) return toPointer(event);
    view.scrollLeft = from.left - (event.clientX - from.x);
    view.scrollTop = from.top - (event.clientY - from.y);
  });
  // Else this would take the focus from the slider again.
  figure.addEventListener("mousedown", (event) => event.target.closest(".brush") || event.preventDefault());
  for (const end of ["pointerup", "pointercancel"]) figure.addEventListener(end, () => { from = null; });

  function toPointer(event) {
    const box = figure.getBoundingClientRect();
    slider.value = Math.round((100 * (event.clientX - box.left)) / box.width);
    slide();
  }

  slider.addEventListener("input", slide);
  view.addEventListener("scroll", slide);
  part(".zoom-in").addEventListener("click", closer);
  part(".zoom-out").addEventListener("click", farther);
  new ResizeObserver(layout).observe(item);

  function setStrength(value) {
    part(".strength").value = value;
    part(".strength-box output").textContent = `${value} %`;
    part(".strength").setAttribute("aria-valuetext", `${value} %`);
    part(".after").style.opacity = value / 100;
  }

  function toggleMask(address) {
    const tint = part(".tint");
    tint.style.maskImage ||= `url("${address}")`;
    tint.hidden = !tint.hidden;
    part(".show-mask").setAttribute("aria-pressed", String(!tint.hidden));
    part(".tag.right").textContent = word(tint.hidden ? "after" : "mask");
  }

  // Shows a finished job.
  function open(job, base, name) {
    size = { width: job.width, height: job.height };
    addresses = job.kind === "picture" ? { before: `${base}/before`, after: `${base}/after` } : null;
    part(".under").src = part(".before").src = `${base}/before`;
    part(".before").alt = word("alt_before", { name });
    part(".after").src = `${base}/after`;
    part(".after").alt = word("alt_after", { name });
    slider.setAttribute("aria-label", word("compare", { name }));
    setStrength(Math.round(100 * Math.min(1, job.finish?.strength ?? 1)));
    figure.hidden = false;
    film.hidden = true;
    layout();
  }

  // From now on nothing more can be loaded.
  function keepLoaded() {
    addresses = null;
  }

  return { open, keepLoaded, closer, farther, fit: () => setZoom(0), setStrength, toggleMask, layout };
}
