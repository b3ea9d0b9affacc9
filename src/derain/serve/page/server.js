// Talking to the server.

import { word } from "./words.js";

export const API = "/api/v1";

// Called when the server asks for a token.
let locked = () => {};
export const whenLocked = (tell) => { locked = tell; };

// An error of a request; its `status` is 0 if there was no answer.
function problem(status, said = {}) {
  const text = status ? said.error ?? word("answered", { status }) : word("unreachable");
  return Object.assign(new Error(text), { status });
}

export async function api(path, options = {}) {
  const answer = await fetch(API + path, options).catch(() => null);
  if (answer === null) throw problem(0);
  if (answer.status === 401 && path !== "/login") locked();
  if (!answer.ok) throw problem(answer.status, await answer.json().catch(() => ({})));
  return answer.status === 204 ? null : answer.json();
}

const AT_ONCE = 20;

// [[item, job of its id or error], ...], in the order of the items; asks for a few at a time.
export async function jobsOf(items, idOf) {
  const found = [];
  for (const some of chunks(items, AT_ONCE)) {
    found.push(...await Promise.all(some.map(async (item) =>
      [item, await api(`/jobs/${encodeURIComponent(idOf(item))}`).catch((error) => error)])));
  }
  return found;
}

export function chunks(list, size) {
  return Array.from({ length: Math.ceil(list.length / size) }, (_, i) => list.slice(i * size, (i + 1) * size));
}

// Sends a file from `folder`; {done: a promise of its job, cancel}.
export function send(file, folder, model, progress) {
  const body = new FormData();
  body.append("model", model);
  body.append("folder", folder);
  body.append("file", file);
  const request = new XMLHttpRequest(); // fetch does not tell how much has been sent
  const done = new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onerror = () => reject(problem(0));
    request.onabort = () => reject(new Error("cancelled"));
    request.onload = () => {
      let said = {};
      try { said = JSON.parse(request.responseText); } catch { /* not ours; told below */ }
      if (request.status === 201) resolve(said);
      else {
        const wait = Number(request.getResponseHeader("Retry-After")) || 5; // seconds
        reject(Object.assign(problem(request.status, said), { wait }));
      }
    };
  });
  request.open("POST", `${API}/jobs`);
  request.send(body);
  return { done, cancel: () => request.abort() };
}
