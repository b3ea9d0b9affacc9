// A soft brush over a picture: what it covers stays as it was.

import { word } from "./words.js";

const SIDE = 1024; // pixels of the mask on its longer side; more would not be softer
const COLOUR = "#17c964";

export function brush(item, changed) {
  const part = (selector) => item.querySelector(selector);
  const [canvas, untouched, button] = [".brush", ".untouched", ".protect"].map(part);
  const pen = canvas.getContext("2d");
  let strokes = []; // each {width, points: [[x, y], ...]}
  let base = null; // the server's mask, from before a reload
  let at = null; // position of the brush when moved by keys
  let drawing = null; // the stroke under way
  const fingers = new Map(); // pointer that is down -> its place on the screen

  function open(job, name) {
    const share = Math.min(1, SIDE / Math.max(job.width, job.height));
    canvas.width = Math.max(1, Math.round(job.width * share));
    canvas.height = Math.max(1, Math.round(job.height * share));
    [strokes, base] = [[], null];
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", word("brush_over", { name }));
  }

  async function restore(address) {
    const image = Object.assign(new Image(), { src: address });
    await image.decode();
    base = document.createElement("canvas");
    [base.width, base.height] = [canvas.width, canvas.height];
    const on = base.getContext("2d");
    on.drawImage(image, 0, 0, base.width, base.height);
    const found = on.getImageData(0, 0, base.width, base.height);
    for (let i = 0; i < found.data.length; i += 4) found.data[i + 3] = found.data[i]; // white becomes opaque
    on.putImageData(found, 0, 0);
    paint();
  }

  const width = () => (Number(part(".brush-size").value) / 100) * Math.max(canvas.width, canvas.height);

  function paint() {
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.globalCompositeOperation = "source-over";
    if (base) pen.drawImage(base, 0, 0);
    pen.lineCap = pen.lineJoin = "round";
    pen.strokeStyle = pen.shadowColor = "#fff";
    for (const stroke of strokes) {
      pen.lineWidth = stroke.width;
      pen.shadowBlur = stroke.width / 4;
      pen.beginPath();
      pen.moveTo(...stroke.points[0]);
      for (const [x, y] of stroke.points) pen.lineTo(x + 0.01, y); // a line of no length would not be drawn
      pen.stroke();
    }
    pen.shadowBlur = 0;
    pen.globalCompositeOperation = "source-in";
    pen.fillStyle = COLOUR;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    part(".undo").disabled = isEmpty();
    showUntouched();
    if (at) ring();
  }

  // The rainy picture where the brush has been, over the restored one.
  function showUntouched() {
    const under = part(".under");
    [untouched.width, untouched.height] = [under.naturalWidth || 1, under.naturalHeight || 1];
    const on = untouched.getContext("2d");
    on.drawImage(canvas, 0, 0, untouched.width, untouched.height);
    on.globalCompositeOperation = "source-in";
    on.drawImage(under, 0, 0);
  }

  function ring() {
    pen.globalCompositeOperation = "source-over";
    pen.lineWidth = Math.max(2, canvas.width / 300);
    for (const [colour, more] of [["#000", pen.lineWidth], ["#fff", 0]]) {
      pen.strokeStyle = colour;
      pen.beginPath();
      pen.arc(...at, width() / 2 + more, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  const isEmpty = () => !strokes.length && !base;

  // White where the brush has been, on black; null if it has not been used.
  function mask() {
    if (isEmpty()) return Promise.resolve(null);
    const ringed = at;
    at = null;
    paint();
    const plain = document.createElement("canvas");
    [plain.width, plain.height] = [canvas.width, canvas.height];
    const on = plain.getContext("2d");
    on.drawImage(canvas, 0, 0);
    on.globalCompositeOperation = "source-in";
    on.fillStyle = "#fff";
    on.fillRect(0, 0, plain.width, plain.height);
    on.globalCompositeOperation = "destination-over";
    on.fillStyle = "#000";
    on.fillRect(0, 0, plain.width, plain.height);
    at = ringed;
    paint();
    return new Promise((resolve) => { plain.toBlob(resolve, "image/png"); });
  }

  function toggle() {
    canvas.hidden = !canvas.hidden;
    button.setAttribute("aria-pressed", String(!canvas.hidden));
    part(".brushing").hidden = part(".hint").hidden = canvas.hidden;
    fingers.clear(); // a hidden canvas is not told when they leave
    if (canvas.hidden) at = null;
    else canvas.tabIndex = 0;
    paint();
    (canvas.hidden ? button : canvas).focus();
  }

  function close() {
    canvas.hidden = part(".brushing").hidden = part(".hint").hidden = true;
    button.setAttribute("aria-pressed", "false");
  }

  function undo() {
    if (!strokes.pop()) base = null;
    paint();
    changed();
  }

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    at = null;
    if (fingers.size > 1) discard();
    else strokes.push(drawing = { width: width(), points: [place(event)] });
    paint();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    if (fingers.size > 1) pan(event);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (!drawing) return;
    drawing.points.push(place(event));
    paint();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => {
      fingers.delete(event.pointerId);
      if (drawing) changed();
      drawing = null;
    });
  }

  // A second finger moves the picture, so the stroke that the first one began was not meant.
  function discard() {
    if (drawing) strokes.pop();
    drawing = null;
  }

  // Each finger moves the picture by its share; the page, where the picture does not scroll.
  function pan(event) {
    const [x, y] = fingers.get(event.pointerId);
    const view = part(".view");
    const by = [(x - event.clientX) / fingers.size, (y - event.clientY) / fingers.size];
    (view.hasAttribute("tabindex") ? view : window).scrollBy(...by);
  }

  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return toggle();
    if (event.key !== " " && !(event.key in MOVES)) return;
    event.preventDefault();
    at ??= [canvas.width / 2, canvas.height / 2];
    if (event.key === " ") {
      strokes.push({ width: width(), points: [[...at]] });
      paint();
      return changed();
    }
    const limit = [canvas.width, canvas.height];
    at = at.map((value, i) => Math.min(limit[i], Math.max(0, value + (MOVES[event.key][i] * width()) / 2)));
    paint();
  });
  canvas.addEventListener("focus", () => {
    if (!canvas.matches(":focus-visible")) return;
    at ??= [canvas.width / 2, canvas.height / 2];
    paint();
  });
  canvas.addEventListener("blur", () => { at = null; paint(); });
  button.addEventListener("click", toggle);
  part(".undo").addEventListener("click", undo);
  part(".brush-size").addEventListener("input", () => at && paint());

  return { open, restore, mask, toggle, close };
}
