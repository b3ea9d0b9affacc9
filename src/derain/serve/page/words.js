// The words of the page in the reader's language. words.json has them: key -> language -> text.

const CHOSEN = "derain-language"; // in the browser's storage
const CHANGED = "derain-language-changed"; // in the tab's storage, from a choice to the reload

const { languages, words } = await (await fetch(new URL("words.json", import.meta.url))).json();

function preferred() {
  const wanted = [localStorage.getItem(CHOSEN), ...navigator.languages.map((name) => name.slice(0, 2))];
  return wanted.find((name) => name in languages) ?? "en";
}

export const language = preferred();
document.documentElement.lang = language;

// The text of a key, with {names} replaced.
export function word(key, values = {}) {
  const text = words[key]?.[language] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// The translated texts of the server, with {parts} that vary: [[key, pattern], ...].
const SERVED = Object.keys(words).filter((key) => key.startsWith("served:")).map((key) => {
  const plain = key.slice("served:".length).replace(/[.*+?^$()|[\]\\]/g, "\\$&");
  return [key, new RegExp(`^${plain.replace(/\{(\w+)\}/g, "(?<$1>.+?)")}$`)];
});

// A text of the server in the reader's language; null if there is no translation.
function translated(text) {
  for (const [key, pattern] of SERVED) {
    const found = pattern.exec(text);
    if (found) return word(key, found.groups);
  }
  return null;
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// A word from the server in the reader's language; unchanged if there is no translation.
export const served = (text) => translated(text) ?? text;

// A message as a sentence.
export const told = (text) => capital(served(text));

// A note as sentences; in the server's language unless all of it can be translated, so as not to mix languages.
export function note(text) {
  const parts = text.split("; ").map((part) => (part.startsWith("left out: ") ? leftOut(part) : translated(part)));
  const known = parts.includes(null) ? [text] : parts;
  return known.filter(Boolean).map((part) => capital(/[.!?]$/.test(part) ? part : `${part}.`)).join(" ");
}

function leftOut(text) {
  const what = text.slice("left out: ".length).split(", ").map(translated);
  return what.includes(null) ? null : word("left_out", { what: what.join(", ") });
}

// Sets the text or label of every element below `root` that names a word.
export function translate(root) {
  for (const part of root.querySelectorAll("[data-word]")) part.textContent = word(part.dataset.word);
  for (const part of root.querySelectorAll("[data-label]")) part.setAttribute("aria-label", word(part.dataset.label));
}

// Fills the list of languages; a choice is remembered, and the page reloads with the focus where it was.
export function offerLanguages(list) {
  list.replaceChildren(...Object.entries(languages).map(([name, title]) => new Option(title, name, false, name === language)));
  list.addEventListener("change", () => {
    localStorage.setItem(CHOSEN, list.value);
    sessionStorage.setItem(CHANGED, "");
    location.reload();
  });
  if (sessionStorage.getItem(CHANGED) !== null) list.focus();
  sessionStorage.removeItem(CHANGED);
}

export const percent = (fraction) => `${Math.floor(100 * fraction + 1e-6)}\u00a0%`;
