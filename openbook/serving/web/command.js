// What can be copied: a text, or a command for the server's machine.

import { server } from "./server.js";
import { useStore } from "./store.js";
import { html, useState } from "./vendor/preact.js";
import { t } from "./words.js";

export function Copy({ text, told: done = t("Copied"), kind = "small", label, children }) {
  const [told, setTold] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setTold(done);
    } catch { // browsers give the clipboard to HTTPS and to this machine alone
      setTold(t("This browser does not let this page copy."));
    }
    setTimeout(() => setTold(""), 4000);
  };
  return html`<button type="button" class="quiet ${kind}" aria-label=${label} onClick=${copy}><span role="status">${told}</span>${told ? null : children}</button>`;
}

export const Command = ({ text }) => html`<code class="command">${text}</code> <${Copy} text=${text} kind="copy" label=${t("Copy {command}", { command: text })}>${t("Copy")}<//>`;

/** What keeps a folder up to date in the chosen knowledge base. Empty unless the key is an administrator's. */
export function useSyncCommand() {
  const { bases, base } = useStore(server);
  return (bases.find((each) => each.name === base) ?? bases[0])?.sync ?? "";
}
