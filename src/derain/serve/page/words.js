// The words of the page in the reader's language. words.json has them: key -> language -> text.

const CHOSEN = "derain-language"; // in the browser's storage

const { languages, words } = await (await fetch("/page/words.json")).json();

function preferred() {
  const wanted = [localStorage.getItem(CHOSEN), ...navigator.languages.map((name) => name.slice(0, 2))];
  return wanted.find((name) => name in languages) ?? "en";
}

let language = preferred();

// The text of a key, with {names} replaced.
export function word(key, values = {}) {
  const text = words[key]?.[language] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// A word from the server in the reader's language; unchanged if there is no translation.
export const served = (text) => words[`served:${text}`]?.[language] ?? text;

// Sets the text or label of every element below `root` that names a word.
export function translate(root) {
  for (const part of root.querySelectorAll("[data-word]")) part.textContent = word(part.dataset.word);
  for (const part of root.querySelectorAll("[data-label]")) part.setAttribute("aria-label", word(part.dataset.label));
}

// Fills the list of languages; a choice is remembered, and the page reloads.
export function offerLanguages(list) {
  document.documentElement.lang = language;
  list.replaceChildren(...Object.entries(languages).map(([name, title]) => new Option(title, name, false, name === language)));
  list.addEventListener("change", () => {
    localStorage.setItem(CHOSEN, list.value);
    location.reload();
  });
}

export const percent = (fraction) => `${Math.floor(100 * fraction + 1e-6)} %`;
