// A command for the server's machine, which can be copied.

import { server } from "./server.js";
import { useStore } from "./store.js";
import { html, useState } from "./vendor/preact.js";
import { t } from "./words.js";

export function Command({ text }) {
  const [isCopied, setCopied] = useState(false);
  return html`<code class="command">${text}</code>${navigator.clipboard ? html` <button type="button" class="quiet copy" aria-label=${t("Copy {command}", { command: text })}
    onClick=${() => navigator.clipboard.writeText(text).then(() => setCopied(true))}>${isCopied ? t("Copied") : t("Copy")}</button>` : null}`;
}

/** What keeps a folder up to date in the chosen knowledge base. Empty unless the key is an administrator's. */
export function useSyncCommand() {
  const { bases, base } = useStore(server);
  return (bases.find((each) => each.name === base) ?? bases[0])?.sync ?? "";
}
