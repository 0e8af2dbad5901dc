/**
 * The pages that are searched, and the work of embedding them: in batches, one after the other, to be stopped
 * at any time. A page that cannot be embedded fails alone. Knows requests; nothing of how pages are shown.
 */

import { base64Length, base64Of } from "./base64.js";
import { ServerError, embedMulti, embedSingle } from "./wire.js";

const BATCH_PAGES = 8;
// A body also has names and brackets.
const BODY_SHARE = 0.9;

/** One picture that can be found. */
export class Page {
  static #count = 0;

  constructor({ title, source, file, number = null, blob }) {
    this.id = ++Page.#count;
    this.title = title;
    /** "corpus", "image" or "pdf". */
    this.source = source;
    /** Name of the file it came in, and its number in a PDF. */
    this.file = file;
    this.number = number;
    this.blob = blob;
    this.url = URL.createObjectURL(blob);
    /** By task: { single, multi }, of which `multi` may be null. */
    this.vectors = new Map();
  }
}

/** All pages. */
export class Library {
  #config;
  /** { task, done, abort } of the work that goes on; null when none does. */
  #run = null;

  /** `onChange(library)` is called whenever something is different. */
  constructor(config, onChange) {
    this.#config = config;
    this.onChange = onChange;
    this.pages = [];
    /** What could not be taken: { name, message }. */
    this.failures = [];
    /** Seconds that the server asked to wait, or null. */
    this.waiting = null;
  }

  get isBusy() {
    return this.#run !== null;
  }

  embedded(task) {
    return this.pages.filter((page) => page.vectors.has(task.name));
  }

  isMissing(task) {
    return this.embedded(task).length < this.pages.length;
  }

  add(pages) {
    this.pages.push(...pages);
    this.onChange(this);
  }

  fail(name, message) {
    this.failures.push({ name, message });
    this.onChange(this);
  }

  clear() {
    this.stop();
    for (const page of this.pages) URL.revokeObjectURL(page.url);
    this.pages = [];
    this.failures = [];
    this.onChange(this);
  }

  forgive() {
    this.failures = [];
    this.onChange(this);
  }

  stop() {
    this.#run?.abort.abort();
  }

  /** Embed what has no vectors of `task` yet; true when all has, false when it was stopped. */
  async embed(task) {
    // The work that goes on finds pages that came meanwhile.
    if (this.#run?.task === task) return this.#run.done;
    while (this.#run !== null) {
      this.stop();
      await this.#run.done.catch(() => {});
    }
    const abort = new AbortController();
    this.#run = { task, abort, done: this.#whole(task, abort.signal) };
    this.onChange(this);
    return this.#run.done;
  }

  async #whole(task, signal) {
    try {
      await this.#work(task, signal);
      return true;
    } catch (error) {
      if (error.name === "AbortError") return false;
      throw error;
    } finally {
      this.#run = this.waiting = null;
      this.onChange(this);
    }
  }

  async #work(task, signal) {
    for (;;) {
      const batch = this.#nextBatch(task);
      if (batch.length === 0) return;
      try {
        await this.#embedBatch(task, batch, signal);
      } catch (error) {
        if (!(error instanceof ServerError) || error.isLasting) throw error;
        await this.#embedEach(task, batch, error, signal);
      }
      this.onChange(this);
    }
  }

  #nextBatch(task) {
    const batch = [];
    let left = BODY_SHARE * this.#config.limits.max_body_bytes;
    const most = Math.min(BATCH_PAGES, this.#config.limits.max_inputs);
    for (const page of this.pages) {
      if (page.vectors.has(task.name)) continue;
      left -= base64Length(page.blob.size);
      if (batch.length === most || (batch.length > 0 && left < 0)) break;
      batch.push(page);
    }
    return batch;
  }

  /** The batch was refused: for one of its pages, or because all were too many. */
  async #embedEach(task, batch, refusal, signal) {
    for (const page of batch) {
      try {
        if (batch.length === 1) throw refusal;
        await this.#embedBatch(task, [page], signal);
      } catch (error) {
        if (!(error instanceof ServerError) || error.isLasting) throw error;
        this.pages = this.pages.filter((other) => other !== page);
        URL.revokeObjectURL(page.url);
        this.failures.push({ name: page.title, message: error.message });
      }
      this.onChange(this);
    }
  }

  async #embedBatch(task, batch, signal) {
    const options = {
      signal,
      onWait: (seconds) => {
        this.waiting = seconds;
        this.onChange(this);
      },
    };
    const input = [];
    for (const page of batch) input.push({ image: await base64Of(page.blob) });
    const { model } = this.#config;
    const singles = await embedSingle(model, task.passage, input, options);
    const multis = task.multivector_dimensions
      ? await embedMulti(model, task.passage, input, options)
      : singles.map(() => null);
    this.waiting = null;
    batch.forEach((page, at) => {
      page.vectors.set(task.name, { single: singles[at], multi: multis[at] });
    });
  }
}
