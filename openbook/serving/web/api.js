// The server's own API, and nothing else. The key is kept for this tab alone.

import { t } from "./words.js";

const KEY = "openbook-key";

export class ApiError extends Error {
  constructor(message, code = "", status = 0) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

function headers(more = {}) {
  return key.get() ? { ...more, authorization: `Bearer ${key.get()}` } : more;
}

/** The refusal in a body, told once to whoever listens for `key-needed`. */
function refused(status, body) {
  const { message, code } = body?.error ?? {};
  const error = new ApiError(message ?? t("The server answered {status}.", { status }), code ?? "", status);
  if (status === 401) document.dispatchEvent(new CustomEvent("key-needed", { detail: error.message }));
  return error;
}

async function send(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers(options.headers), redirect: "error", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(t("The server cannot be reached. Is it still running?"));
  }
  if (!response.ok) throw refused(response.status, await response.json().catch(() => null));
  return response;
}

/** `path` with those of `parameters` that are not empty. */
function address(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** Raises ApiError. */
export async function get(path, parameters = {}) {
  return (await send(address(path, parameters))).json();
}

function withJson(body) {
  return { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
}

export async function post(path, body) {
  return (await send(path, withJson(body))).json();
}

/** What is at `path`, as a file. Raises ApiError, AbortError. */
export async function whole(path, parameters = {}, signal = null) {
  return (await send(address(path, parameters), { signal })).blob();
}

/** The chunks of a streamed answer, as they come. Raises ApiError, AbortError. */
export async function* chat(body, signal) {
  const response = await send("/v1/chat/completions", { ...withJson({ ...body, stream: true }), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ApiError(t("The connection ended before the answer was complete."));
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message, chunk.error.code);
      yield chunk;
    }
  }
}

/** Send files as one new version. `onSent(share)` tells what share of the bytes has left. Raises ApiError, AbortError. */
export function upload(files, knowledgeBase, onSent, signal) {
  const form = new FormData();
  if (knowledgeBase) form.append("knowledge_base", knowledgeBase);
  for (const file of files) form.append("file", file, file.name);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much was sent
    request.open("POST", "/v1/documents");
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => onSent(event.total ? event.loaded / event.total : 1));
    request.addEventListener("error", () => reject(new ApiError(t("The server cannot be reached, or refused the upload."))));
    request.addEventListener("abort", () => reject(signal.reason));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.addEventListener("load", () => {
      if (request.status === 200) resolve(request.response);
      else reject(refused(request.status, request.response));
    });
    request.send(form);
  });
}

/** Offers `text` as a file to keep. */
export function download(name, text, type = "application/json") {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = Object.assign(document.createElement("a"), { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
