/**
 * What is asked of the server, and what it says when it refuses.
 *
 * Every vector comes from `POST /v1/embeddings`, as for any client. The browser itself sends the key that it
 * was given for this page; nothing here sees it. Addresses are relative, so that a proxy may put the server
 * under a path.
 */

import { floatsOf } from "./base64.js";
import { rowsOf } from "./vectors.js";

const MAX_ATTEMPTS = 4;
const BUSY = new Set([429, 503]);
const MAX_WAIT_S = 30;

/** The server refused, or was not there (status 0). */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  /** Whether asking for something else would be answered the same way. */
  get isLasting() {
    return this.status === 0 || this.status === 401 || this.status >= 500 || BUSY.has(this.status);
  }
}

/** The server's description of itself. */
export function readConfig() {
  return asked("playground/config", {});
}

/** A picture of the corpus that comes along. */
export async function readCorpusPicture(file, signal) {
  const answer = await fetched(`playground/corpus/${encodeURIComponent(file)}`, { signal });
  if (!answer.ok) throw await refusalOf(answer);
  return answer.blob();
}

/** The pages of a PDF in base64: PNGs in base64, in order. */
export async function readPdfPages(pdf, options) {
  return (await asked("playground/pages", { body: { pdf }, ...options })).pages;
}

/** The single vector of each input: rows. */
export async function embedSingle(model, task, input, options) {
  const body = { model, task, input, embedding_type: "base64" };
  const { data } = await asked("v1/embeddings", { body, ...options });
  return data.map((item) => rowsOf(floatsOf(item.embedding), 1));
}

/** The multi-vector of each input, with its tokens and, for an image, where its patches stand among them. */
export async function embedMulti(model, task, input, options) {
  const body = {
    model,
    task,
    input,
    embedding_type: "base64",
    return_multivector: true,
    return_tokenized_input: true,
  };
  const { data } = await asked("v1/embeddings", { body, ...options });
  return data.map((item) => ({
    rows: stacked(item.embeddings),
    tokens: item.tokenized_input,
    patches: item.patches ?? null,
  }));
}

function stacked(texts) {
  const first = floatsOf(texts[0]);
  const values = new Float32Array(texts.length * first.length);
  texts.forEach((text, row) => values.set(row ? floatsOf(text) : first, row * first.length));
  return rowsOf(values, texts.length);
}

/** JSON for JSON; a server that is busy is asked again when it says so, and `onWait` told for how long. */
async function asked(path, { body, signal, onWait }) {
  const init = { signal, headers: { Accept: "application/json" } };
  if (body !== undefined) {
    init.method = "POST";
    init.headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  for (let attempt = 1; ; attempt++) {
    const answer = await fetched(path, init);
    if (answer.ok) return answer.json();
    if (!BUSY.has(answer.status) || attempt === MAX_ATTEMPTS) throw await refusalOf(answer);
    const seconds = Math.min(Number(answer.headers.get("Retry-After")) || 2, MAX_WAIT_S);
    onWait?.(seconds);
    await pause(1000 * seconds, signal);
  }
}

async function fetched(path, init) {
  try {
    return await fetch(new URL(path, document.baseURI), init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, "The server does not answer. Is it still running?");
  }
}

async function refusalOf(answer) {
  let said = null;
  try {
    said = await answer.json();
  } catch {
    // A proxy may answer in words of its own.
  }
  if (answer.status === 401) {
    return new ServerError(
      401,
      "The server no longer takes the key that this page was opened with. Reload the page and give another.",
    );
  }
  const detail = said?.errors?.[0]?.message ?? said?.detail;
  return new ServerError(answer.status, detail ?? `The server answered ${answer.status}.`);
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
