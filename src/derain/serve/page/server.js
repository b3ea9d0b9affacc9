// Talking to the server.

export const API = "/api/v1";

// Called when the server asks for a token.
let locked = () => {};
export const whenLocked = (tell) => { locked = tell; };

export async function api(path, options = {}) {
  const answer = await fetch(API + path, options);
  if (answer.status === 401 && path !== "/login") locked();
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(said.error ?? `the server answered ${answer.status}`), { status: answer.status });
  }
  return answer.status === 204 ? null : answer.json();
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
    request.onerror = () => reject(new Error("the server cannot be reached."));
    request.onabort = () => reject(new Error("cancelled"));
    request.onload = () => {
      let said = {};
      try { said = JSON.parse(request.responseText); } catch { /* not ours; told below */ }
      if (request.status === 201) resolve(said);
      else {
        const error = new Error(said.error ?? `the server answered ${request.status}.`);
        const wait = Number(request.getResponseHeader("Retry-After")) || 5; // seconds
        reject(Object.assign(error, { status: request.status, wait }));
      }
    };
  });
  request.open("POST", `${API}/jobs`);
  request.send(body);
  return { done, cancel: () => request.abort() };
}
