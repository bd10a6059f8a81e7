// The words that two short texts share and do not share.

const MOST = 4000; // words of both; more would take long

/** Pieces {kind: "same"|"removed"|"added", text} by the longest common subsequence of words. Changes with only space between them are one. */
export function diffWords(before, after) {
  const [a, b] = [before, after].map((text) => text.match(/\s+|\p{N}+(?:[.,]\p{N}+)+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? []);
  const pieces = [];
  let [removed, added, space] = ["", "", ""]; // since the last word that is the same
  const push = (kind, text) => {
    if (text && pieces.at(-1)?.kind === kind) pieces.at(-1).text += text;
    else if (text) pieces.push({ kind, text });
  };
  const flush = (text = "") => {
    push("removed", removed);
    push("added", added);
    push("same", space + text);
    [removed, added, space] = ["", "", ""];
  };
  const change = (old, now) => [removed, added, space] = [removed + space + old, added + space + now, ""];
  if (a.length + b.length > MOST) return [{ kind: "removed", text: before }, { kind: "added", text: after }];
  const width = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * width); // of a[i:] and b[j:]
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      longest[i * width + j] = a[i] === b[j] ? longest[(i + 1) * width + j + 1] + 1 : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  for (let [i, j] = [0, 0]; i < a.length || j < b.length;) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      if (!a[i].trim() && (removed || added)) space += a[i];
      else flush(a[i]);
      i += 1;
      j += 1;
    } else if (i < a.length && (j === b.length || longest[(i + 1) * width + j] >= longest[i * width + j + 1])) change(a[i++], "");
    else change("", b[j++]);
  }
  flush();
  return pieces;
}
