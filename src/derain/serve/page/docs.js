// Lists what openapi.json describes.

const byId = (id) => document.getElementById(id);

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function endpoint(method, path, described) {
  const card = element("section", "", "card endpoint");
  const title = document.createElement("h2");
  title.append(element("span", method.toUpperCase(), "method"), element("code", path));
  card.append(title, element("p", described.summary ?? ""));
  if (described.description) card.append(element("p", described.description, "faint"));
  const fields = Object.entries(described.requestBody?.content ?? {}).flatMap(([kind, { schema }]) =>
    Object.entries(schema.properties ?? {}).map(([name, field]) => `${name} (${kind}): ${field.description ?? field.type}`));
  const parameters = (described.parameters ?? []).map((one) => `${one.name} (${one.in})`);
  if (fields.length + parameters.length) {
    const list = document.createElement("ul");
    list.append(...[...parameters, ...fields].map((text) => element("li", text)));
    card.append(list);
  }
  card.append(element("p", `Answers: ${Object.entries(described.responses)
    .map(([status, response]) => `${status} ${response.description}`).join("; ")}`, "faint"));
  return card;
}

const here = location.origin;
byId("example").textContent =
  `# Gives the id, then how far it is, then the restored file.\n` +
  `curl -F file=@rainy.jpg ${here}/api/jobs\n` +
  `curl -N "${here}/api/events?id=ID"\n` +
  `curl -OJ ${here}/api/jobs/ID/result\n` +
  `curl -X DELETE ${here}/api/jobs/ID`;

const answer = await fetch("/api/openapi.json");
if (answer.ok) {
  const { paths } = await answer.json();
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, described] of Object.entries(methods)) byId("endpoints").append(endpoint(method, path, described));
  }
} else {
  byId("problem").textContent = "The list needs the token; sign in on the first page.";
  byId("problem").hidden = false;
}
