// Parts of the page that are read when they are first wanted, or when a link to them is pointed at or has the focus.

import { server } from "./server.js";
import { makeStore, useStore } from "./store.js";
import { useEffect } from "./vendor/preact.js";
import { t } from "./words.js";

const SOURCES = {
  __proto__: null,
  document: [() => import("./reader.js"), "reader.css"],
  documents: [() => import("./documents.js"), "documents.css"],
  versions: [() => import("./versions.js"), "versions.css"],
  questions: [() => import("./questions.js"), "versions.css"],
  model: [() => import("./model.js")],
  receipt: [() => import("./receipt.js")],
};

const parts = makeStore(new Map()); // name -> module
const sheets = new Map(); // name -> promise

function style(name) {
  if (!sheets.has(name)) {
    sheets.set(name, new Promise((resolve, reject) => {
      const fail = () => {
        sheets.delete(name);
        link.remove();
        reject(new Error(name));
      };
      const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: `/web/${name}`, onload: resolve, onerror: fail });
      document.head.append(link);
    }));
  }
  return sheets.get(name);
}

/** Whether a part could not be read. Browsers then refuse it until the page is loaded again. */
export let isBroken = false;

/** Reads a part, if `name` is one. Returns whether it could not be read. */
export async function prepare(name) {
  if (!SOURCES[name] || parts.get().has(name)) return false;
  const [read, sheet] = SOURCES[name];
  try {
    const [module] = await Promise.all([read(), sheet && style(sheet)]);
    parts.set((old) => new Map(old).set(name, module));
    return false;
  } catch {
    isBroken = true;
    return true;
  }
}

/** The module of a part; undefined until it is read, and where `name` is none. */
export function usePart(name) {
  const module = useStore(parts).get(name);
  useEffect(() => {
    prepare(name).then((failed) => failed && server.set({ problem: t("The server cannot be reached. Is it still running?") }));
  }, [name]);
  return module;
}

for (const event of ["pointerover", "focusin"]) {
  document.addEventListener(event, ({ target }) => {
    prepare(target.closest?.("a[href^='#/']")?.hash.split(/[/?]/)[1]);
  });
}
