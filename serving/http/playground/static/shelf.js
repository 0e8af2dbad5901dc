/** How the library stands, in words, a bar and buttons. Knows the library; embeds nothing itself. */

import { byId, counted, make } from "./elements.js";

export class Shelf {
  #reading = null;

  constructor(library, config) {
    this.library = library;
    this.config = config;
    this.task = null;
  }

  /** A file is being read, before it is known how many pages it has; null when it is done. */
  reading(name) {
    this.#reading = name;
    this.show(this.task);
  }

  show(task) {
    const { library } = this;
    this.task = task ?? this.task;
    const total = library.pages.length;
    const done = this.task ? library.embedded(this.task).length : 0;
    const isFilled = total > 0;
    byId("drop").classList.toggle("filled", isFilled);
    byId("library-says").textContent = isFilled ? this.#spelledPages(done, total) : this.#invitation();
    byId("use-corpus").hidden = library.pages.some((page) => page.source === "corpus");
    byId("use-corpus").className = isFilled ? "second" : "";
    byId("clear").hidden = !isFilled;
    byId("stop").hidden = !library.isBusy && this.#reading === null;
    byId("go-on").hidden = library.isBusy || this.#reading !== null || done === total;
    this.#showProgress(done, total);
    this.#showFailures();
  }

  #invitation() {
    const count = counted(this.config.corpus.pages.length, "page");
    return (
      `${count} of invoices, slides, charts and forms come with the playground. They were drawn for ` +
      "polyvec’s mini model; any other ranks them too. Or search pages of your own."
    );
  }

  #spelledPages(done, total) {
    const own = this.library.pages.filter((page) => page.source !== "corpus").length;
    const parts = [];
    if (total > own) {
      parts.push(`${counted(total - own, "built-in page")}, drawn for polyvec’s mini model`);
    }
    if (own > 0) parts.push(`${counted(own, "page")} of your own`);
    const missing = done < total && !this.library.isBusy ? ` ${total - done} not embedded yet.` : "";
    return `${parts.join("; ")}.${missing}`;
  }

  #showProgress(done, total) {
    const { library } = this;
    byId("progress").hidden = !library.isBusy && this.#reading === null;
    const bar = byId("progress-bar");
    if (this.#reading !== null && !library.isBusy) {
      bar.removeAttribute("value");
      byId("progress-says").textContent = `Reading ${this.#reading}`;
      return;
    }
    bar.max = total;
    bar.value = done;
    const wait = library.waiting === null ? "" : `; the server asks to wait ${library.waiting} s`;
    byId("progress-says").textContent = `${done} of ${counted(total, "page")} embedded${wait}`;
  }

  #showFailures() {
    const { failures } = this.library;
    byId("failures").hidden = failures.length === 0;
    byId("failures-title").textContent = `${counted(failures.length, "file")} could not be added`;
    byId("failure-list").replaceChildren(
      ...failures.map(({ name, message }) => make("li", {}, make("b", {}, name), ` — ${message}`)),
    );
  }
}
