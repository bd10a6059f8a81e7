// The interface's words. English is in the code; words/LANGUAGE.json has the others, by the English text.

import { makeStore } from "./store.js";

const CHOICE = "openbook-language";
export const LANGUAGES = { en: "English", de: "Deutsch", fr: "Français", es: "Español" };

let words = {};
let formats = {}; // of this language, by what they are for
let choices = 0;

/** The language that the page speaks. Whoever watches it draws everything again. */
export const speech = makeStore("en");
export const language = () => speech.get();

function wanted() {
  const name = localStorage.getItem(CHOICE) ?? navigator.language.slice(0, 2);
  return name in LANGUAGES ? name : "en";
}

/** Speaks a language as soon as its dictionary is there; until then, what was spoken. Raises Error. */
export async function speak(name = wanted()) {
  const choice = ++choices;
  const found = name === "en" ? {} : await (await fetch(`/web/words/${name}.json`)).json();
  if (choice !== choices) return; // another was chosen meanwhile
  [words, formats] = [found, {}];
  document.documentElement.lang = name;
  speech.set(() => name);
  number(0); // a browser's first format takes 30 ms: before anything is drawn
}

export async function chooseLanguage(name) {
  await speak(name);
  localStorage.setItem(CHOICE, name);
}

/** Making a format takes longer than a hundred uses. */
const format = (use, make) => (formats[use] ??= make(language()));

/** `text` in the user's language, with {name} replaced by `values.name`. */
export function t(text, values = {}) {
  return (words[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** As `t`, with `one` where the language has the singular (French: also for 0); {n} is the number. */
export function count(n, one, several) {
  return t(format("plural", (name) => new Intl.PluralRules(name)).select(n) === "one" ? one : several, { n: number(n) });
}

const date = (iso, timeStyle) => format(timeStyle, (name) => new Intl.DateTimeFormat(name, { dateStyle: "medium", timeStyle })).format(new Date(iso));

export const when = (iso) => date(iso, "short");

export const day = (iso) => date(iso);

/** A text, or the time that it is; of midnight the day alone, as it was written. */
export function timely(text) {
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d/.test(text) || Number.isNaN(Date.parse(text))) return text;
  return /T00:00(:00(\.0+)?)?(Z|\+00:00)?$/.test(text) ? day(`${text.slice(0, 10)}T12:00`) : when(text);
}

const rounded = (n, digits) => format(digits, (name) => new Intl.NumberFormat(name, { maximumFractionDigits: digits })).format(n);

export const number = (n) => rounded(n, 0);

/** As a sort compares. */
export const order = (a, b) => format("order", (name) => new Intl.Collator(name, { numeric: true, sensitivity: "base" })).compare(a, b);

/** A quotation in the user's marks. */
export const quotation = (text) => t("“{text}”", { text });

/** Seconds with a tenth. */
export const seconds = (n) => t("{n} s", { n: rounded(n, 1) });

/** Bytes as people say them. */
export function size(bytes) {
  const [n, unit] = bytes < 1e3 ? [bytes, "B"] : bytes < 1e6 ? [bytes / 1e3, "kB"] : [bytes / 1e6, "MB"];
  return `${rounded(n, n < 10 && unit !== "B" ? 1 : 0)} ${unit}`;
}

/** The name of a file without its folders; of an address that ends with a slash, its last part with the slash. */
export const baseName = (path) => /[^/]*\/?$/.exec(path)[0];

/** Where a file lies, in a few words: its last folders. */
export function folderName(path) {
  if (/\/uploads\/[0-9a-f]{32}\/[^/]+\/[^/]+$/.test(path)) return t("Uploads");
  const folders = path.split("/").slice(0, -1).filter(Boolean);
  return (folders.length > 2 ? "…/" : "") + folders.slice(-2).join("/");
}
