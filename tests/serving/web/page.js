// What the modules of the page expect of a browser, and how to read the elements that they make.

const stored = () => {
  const values = new Map();
  return { getItem: (name) => values.get(name) ?? null, setItem: (name, value) => values.set(name, String(value)), removeItem: (name) => values.delete(name) };
};
globalThis.crypto ??= (await import("node:crypto")).webcrypto;
Object.assign(globalThis, { localStorage: stored(), sessionStorage: stored(), location: { hash: "" } });
globalThis.document = { addEventListener() {}, dispatchEvent() {}, documentElement: {} };
globalThis.window = { addEventListener() {} };
globalThis.BroadcastChannel = class { postMessage() {} };

/** {path, text} of each piece of text; the path names the elements around it, with classes and roles: "p.heading[heading] mark". */
export function pieces(nodes, path = []) {
  if (Array.isArray(nodes)) return nodes.flatMap((each) => pieces(each, path));
  if (typeof nodes === "string" || typeof nodes === "number") return [{ path: path.join(" "), text: String(nodes) }];
  if (!nodes?.type) return [];
  const { type, props } = nodes;
  if (typeof type === "function") return pieces(type(props), path);
  const name = type + (props.class ? `.${props.class.trim().split(" ").join(".")}` : "") + (props.role ? `[${props.role}]` : "");
  return pieces(props.children, [...path, name]);
}

export const words = (nodes) => pieces(nodes).map(({ text }) => text).join("");

export const marked = (nodes) => pieces(nodes).filter(({ path }) => / ?mark$/.test(path));

/** Every element. */
export function elements(nodes) {
  if (Array.isArray(nodes)) return nodes.flatMap(elements);
  return nodes?.type ? [nodes, ...elements(nodes.props.children)] : [];
}

export function span(text, part) {
  const start = Array.from(text.slice(0, text.indexOf(part))).length;
  return [start, start + Array.from(part).length];
}
