// Elements from texts. What comes from documents, models and people only ever becomes a text node.

/**
 * A new element. `properties` are set as properties; `class`, `data-*`, `aria-*`, `role` and `for` as attributes.
 * Children are nodes or texts; null and false are left out.
 */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class" || name === "role" || name === "for" || /^(aria|data)-/.test(name)) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.flat().filter((child) => child !== null && child !== false && child !== undefined));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** The first characters of a digest, all of it as a hint. */
export function digest(value) {
  return value ? el("code", { title: value }, value.slice(0, 12)) : "no digest";
}

/**
 * `text` (which begins at `offset` of its document) as nodes, with the spans of `spans` ([start, end) in the document) marked.
 * Offsets count code points, as everywhere in the API; spans may overlap and reach beyond the text.
 */
export function marked(text, offset, spans) {
  const points = Array.from(text);
  const cuts = new Set([0, points.length]);
  for (const [start, end] of spans) {
    for (const at of [start, end]) cuts.add(Math.min(Math.max(at - offset, 0), points.length));
  }
  const places = [...cuts].sort((a, b) => a - b);
  return places.slice(0, -1).map((from, i) => {
    const to = places[i + 1];
    const piece = points.slice(from, to).join("");
    const within = spans.some(([start, end]) => start <= offset + from && offset + to <= end);
    return within ? el("mark", {}, piece) : piece;
  });
}

export function when(iso) {
  return new Date(iso).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export function count(n, one, several = `${one}s`) {
  return `${n.toLocaleString("en")} ${n === 1 ? one : several}`;
}

/** The name of a file without its folders. */
export function baseName(path) {
  return path.split("/").pop();
}

/** Where a file lies, in a few words: its last folders. */
function folder(path) {
  if (/\/uploads\/[0-9a-f]{32}\/[^/]+\/[^/]+$/.test(path)) return "uploaded";
  const folders = path.split("/").slice(0, -1).filter(Boolean);
  return (folders.length > 2 ? "…/" : "") + folders.slice(-2).join("/");
}

/** A button that opens a document, under its name; the whole path is its hint. */
export function documentButton(path, open, number = null) {
  return el("button", { type: "button", class: "link", title: path, onclick: open },
    number ? el("span", { class: "number" }, String(number)) : null,
    el("span", { class: "path" }, baseName(path)),
    el("span", { class: "folder soft" }, folder(path)));
}
