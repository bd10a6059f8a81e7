// The interface's words. English is in the code; words/LANGUAGE.json has the others, by the English text.

const CHOICE = "openbook-language";
export const LANGUAGES = { en: "English", de: "Deutsch", fr: "Français", es: "Español" };

let words = {};

export function language() {
  const wanted = localStorage.getItem(CHOICE) ?? navigator.language.slice(0, 2);
  return wanted in LANGUAGES ? wanted : "en";
}

/** Reads the dictionary. Without it, the page speaks English. */
export async function loadWords() {
  document.documentElement.lang = language();
  if (language() === "en") return;
  const found = await fetch(`/web/words/${language()}.json`).catch(() => null);
  if (found?.ok) words = await found.json();
}

export function chooseLanguage(name) {
  localStorage.setItem(CHOICE, name);
  location.reload();
}

/** `text` in the user's language, with {name} replaced by `values.name`. */
export function t(text, values = {}) {
  return (words[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** As `t`, with `one` where the language has the singular (French: also for 0); {n} is the number. */
export function count(n, one, several) {
  return t(PLURAL.select(n) === "one" ? one : several, { n: number(n) });
}

// Formats are kept: making one takes longer than a hundred uses.
const TIME = new Intl.DateTimeFormat(language(), { dateStyle: "medium", timeStyle: "short" });
const DAY = new Intl.DateTimeFormat(language(), { dateStyle: "medium" });
const PLURAL = new Intl.PluralRules(language());
const NUMBERS = [0, 1].map((digits) => new Intl.NumberFormat(language(), { maximumFractionDigits: digits }));

export const when = (iso) => TIME.format(new Date(iso));

export const day = (iso) => DAY.format(new Date(iso));

export const number = (n) => NUMBERS[0].format(n);

/** A quotation in the user's marks. */
export const quotation = (text) => t("“{text}”", { text });

/** Seconds with a tenth. */
export const seconds = (n) => t("{n} s", { n: NUMBERS[1].format(n) });

/** Bytes as people say them. */
export function size(bytes) {
  const [n, unit] = bytes < 1e3 ? [bytes, "B"] : bytes < 1e6 ? [bytes / 1e3, "kB"] : [bytes / 1e6, "MB"];
  return `${NUMBERS[n < 10 && unit !== "B" ? 1 : 0].format(n)} ${unit}`;
}

/** The name of a file without its folders. */
export const baseName = (path) => path.split("/").pop();

/** Where a file lies, in a few words: its last folders. */
export function folderName(path) {
  if (/\/uploads\/[0-9a-f]{32}\/[^/]+\/[^/]+$/.test(path)) return t("uploaded");
  const folders = path.split("/").slice(0, -1).filter(Boolean);
  return (folders.length > 2 ? "…/" : "") + folders.slice(-2).join("/");
}
