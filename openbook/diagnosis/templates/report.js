for (const tools of document.querySelectorAll(".tools")) {
  const list = tools.nextElementSibling, all = [...list.querySelectorAll(".q")];
  const [text, verdict, tag, order] = tools.elements, count = tools.querySelector("output");
  const keys = {
    verdict: q => q.dataset.place, id: q => q.dataset.id, seconds: q => -Number(q.dataset.seconds),
  };
  function show() {
    const words = text.value.toLowerCase();
    let shown = 0;
    for (const q of all) {
      q.hidden = (verdict.value && q.dataset.verdict !== verdict.value)
        || (tag.value && !JSON.parse(q.dataset.tags).includes(tag.value))
        || (words && !q.textContent.toLowerCase().includes(words));
      shown += !q.hidden;
    }
    count.textContent = shown + " of " + all.length;
  }
  function sort() {
    const key = keys[order.value];
    const sorted = key ? [...all].sort((a, b) => key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) : all;
    list.append(...sorted);
  }
  tools.hidden = false;
  tools.addEventListener("input", show);
  tools.addEventListener("submit", event => event.preventDefault());
  order.addEventListener("input", sort);
  show();
}
