// The words that two short texts share and do not share.

const MOST = 4000; // words of both; more would take long

/** Pieces {kind: "same"|"removed"|"added", text} by the longest common subsequence of words. */
export function diffWords(before, after) {
  const [old, now] = [before, after].map((text) => text.match(/\s+|\p{N}+(?:[.,]\p{N}+)+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? []);
  let start = 0;
  while (start < old.length && old[start] === now[start]) start += 1;
  let end = 0;
  while (end < Math.min(old.length, now.length) - start && old.at(-1 - end) === now.at(-1 - end)) end += 1;
  const [a, b] = [old.slice(start, old.length - end), now.slice(start, now.length - end)];
  const pieces = [];
  const put = (kind, words) => {
    const text = words.join("");
    if (!text) return;
    if (pieces.at(-1)?.kind === kind) pieces.at(-1).text += text;
    else pieces.push({ kind, text });
  };
  put("same", old.slice(0, start));
  if (a.length + b.length > MOST) {
    put("removed", a);
    put("added", b);
  } else {
    const width = b.length + 1;
    const longest = new Uint16Array((a.length + 1) * width); // of a[i:] and b[j:]
    for (let i = a.length - 1; i >= 0; i -= 1) {
      for (let j = b.length - 1; j >= 0; j -= 1) {
        longest[i * width + j] = a[i] === b[j] ? longest[(i + 1) * width + j + 1] + 1 : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
      }
    }
    let [i, j] = [0, 0];
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) {
        put("same", [a[i]]);
        i += 1;
        j += 1;
      } else if (i < a.length && (j === b.length || longest[(i + 1) * width + j] >= longest[i * width + j + 1])) {
        put("removed", [a[i]]);
        i += 1;
      } else {
        put("added", [b[j]]);
        j += 1;
      }
    }
  }
  put("same", old.slice(old.length - end));
  return joined(pieces);
}

/** Changes with nothing but space between them as one change. */
function joined(pieces) {
  const found = [];
  let [removed, added] = ["", ""];
  const flush = () => {
    if (removed) found.push({ kind: "removed", text: removed });
    if (added) found.push({ kind: "added", text: added });
    [removed, added] = ["", ""];
  };
  pieces.forEach(({ kind, text }, i) => {
    const isBetween = kind === "same" && !text.trim() && (removed || added) && i + 1 < pieces.length;
    if (kind === "removed" || isBetween) removed += text;
    if (kind === "added" || isBetween) added += text;
    if (kind === "same" && !isBetween) {
      flush();
      found.push({ kind, text });
    }
  });
  flush();
  return found;
}
