// Lists what openapi.json describes.

const byId = (id) => document.getElementById(id);

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

// The fields of a response, from the schema that it refers to.
function answerFields(described, schemas) {
  const good = Object.entries(described.responses).find(([status]) => status.startsWith("2"))?.[1];
  const schema = good?.content?.["application/json"]?.schema ?? {};
  const name = (schema.$ref ?? schema.items?.$ref)?.split("/").at(-1);
  return Object.entries(schemas[name]?.properties ?? {}).map(([field, { description }]) => `${field}: ${description}`);
}

function list(title, texts) {
  if (!texts.length) return [];
  const items = document.createElement("ul");
  items.append(...texts.map((text) => element("li", text)));
  return [element("h3", title), items];
}

function endpoint(method, path, described, schemas) {
  const card = element("section", "", "card endpoint");
  const title = document.createElement("h2");
  title.append(element("span", method.toUpperCase(), "method"), element("code", path));
  card.append(title, element("p", described.summary ?? ""));
  if (described.description) card.append(element("p", described.description, "faint"));
  const fields = Object.entries(described.requestBody?.content ?? {}).flatMap(([kind, { schema }]) =>
    Object.entries(schema.properties ?? {}).map(([name, field]) =>
      `${name} (${kind}): ${field.description ?? field.items?.description ?? field.type}`));
  const parameters = (described.parameters ?? []).map((one) => `${one.name} (${one.in})`);
  card.append(...list("Takes", [...parameters, ...fields]), ...list("Gives", answerFields(described, schemas)));
  card.append(element("p", `Answers: ${Object.entries(described.responses)
    .map(([status, response]) => `${status} ${response.description}`).join("; ")}`, "faint"));
  return card;
}

const here = `${location.origin}/api/v1`;
byId("example").textContent =
  `# One picture in one request.\n` +
  `curl -F file=@rainy.jpg -o dry.jpg ${here}/restore\n` +
  `# As a job: gives the id, then how far it is, then the restored file.\n` +
  `curl -F file=@rainy.jpg ${here}/jobs\n` +
  `curl -N "${here}/events?id=ID"\n` +
  `curl -OJ ${here}/jobs/ID/result\n` +
  `curl -X DELETE ${here}/jobs/ID`;

const answer = await fetch("/api/v1/openapi.json");
if (answer.ok) {
  const { paths, components } = await answer.json();
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, described] of Object.entries(methods)) {
      byId("endpoints").append(endpoint(method, path, described, components.schemas));
    }
  }
} else {
  byId("problem").textContent = "Sign in on the start page to see the endpoints.";
  byId("problem").hidden = false;
}
