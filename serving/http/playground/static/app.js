/**
 * The playground: what belongs to what, and what happens when something is asked for.
 *
 * The browser holds everything: pages, vectors and the choice of how they are compared. Changing dimensions or
 * precision therefore asks nobody; a new query or page asks `/v1/embeddings`.
 */

import { Comparison } from "./comparison.js";
import { takeDrops } from "./drops.js";
import { announce, byId, counted, make } from "./elements.js";
import { FileError, pagesOf, pictureOf, spelledLimits } from "./files.js";
import { Library, Page } from "./library.js";
import { PageView } from "./page_view.js";
import { Queries, pictureQuery, wordsQuery } from "./queries.js";
import { ranked } from "./ranking.js";
import { Results } from "./results.js";
import { Shelf } from "./shelf.js";
import { curlOf, pythonOf } from "./snippets.js";
import { ServerError, readConfig, readCorpusPicture } from "./wire.js";

const WIDE = matchMedia("(min-width: 72rem)");

class App {
  #ranking = new AbortController();
  #searching = new AbortController();
  #reading = new AbortController();

  constructor(config) {
    this.config = config;
    /** The query as it was given, and its vectors; null before the first search. */
    this.asked = null;
    this.query = null;
    this.queries = new Queries(config.model);
    this.comparison = new Comparison(config.tasks, {
      onTask: () => this.#taskChanged(),
      onChange: () => this.#rank(),
    });
    this.entries = [];
    this.selected = null;
    this.library = new Library(config, () => this.#libraryChanged());
    this.shelf = new Shelf(this.library, config);
    this.results = new Results({
      single: byId("ranked-single"),
      multi: byId("ranked-multi"),
      more: byId("more"),
      onSelect: (page, button) => this.#select(page, button),
    });
    this.view = new PageView();
  }

  start() {
    const { config } = this;
    byId("served").replaceChildren("serving ", make("b", {}, config.model));
    if (config.checkpoint !== config.model) byId("served").append(` (${config.checkpoint})`);
    byId("served").append(` · polyvec ${config.version}`);
    byId("limits").textContent = `Or drop them here. ${spelledLimits(config.limits)} Nothing is kept on the server.`;
    byId("examples").hidden = false;
    byId("examples").replaceChildren(
      ...config.corpus.queries.map((text) =>
        make("button", { type: "button", onclick: () => this.#askExample(text) }, text),
      ),
    );
    this.comparison.show();
    this.#listen();
    this.#libraryChanged();
    // What was clicked before would have gone nowhere.
    for (const section of document.querySelectorAll("section[inert]")) section.inert = false;
  }

  #listen() {
    byId("search").onsubmit = (event) => {
      event.preventDefault();
      if (this.asked?.picture) this.#search();
      else this.#askWords(byId("query").value);
    };
    byId("pick-picture").onclick = () => byId("picture-file").click();
    byId("picture-file").onchange = (event) => {
      this.#askPicture(event.target.files[0]);
      event.target.value = "";
    };
    byId("drop-picture").onclick = () => {
      this.#forgetPicture();
      byId("query").focus();
    };
    byId("use-corpus").onclick = () => this.#guarded(() => this.#useCorpus());
    byId("pick-files").onclick = () => byId("page-files").click();
    byId("page-files").onchange = (event) => {
      this.#addFiles([...event.target.files]);
      event.target.value = "";
    };
    byId("go-on").onclick = () => this.#embed();
    byId("stop").onclick = () => {
      this.#reading.abort();
      this.library.stop();
    };
    byId("clear").onclick = () => this.#clear();
    byId("forgive").onclick = () => this.library.forgive();
    byId("close-page").onclick = () => byId("page").close();
    byId("copy").onclick = () => this.#copy();
    for (const input of document.querySelectorAll("[name=which]")) {
      input.onchange = () => (byId("columns").dataset.shown = input.value);
    }
    for (const input of document.querySelectorAll("[name=language]")) {
      input.onchange = () => this.#showCode();
    }
    WIDE.onchange = () => this.#showPage();
    takeDrops(document.body, byId("drop"), (files) => this.#addFiles(files));
    takeDrops(byId("search"), byId("search").querySelector(".field"), (files) =>
      this.#askPicture(files[0]),
    );
  }

  get task() {
    return this.comparison.task;
  }

  // Pages

  /** Whether it is there, whole. */
  async #useCorpus() {
    const { pages } = this.config.corpus;
    byId("use-corpus").disabled = true;
    this.shelf.reading("the built-in pages");
    try {
      const blobs = await Promise.all(pages.map((page) => readCorpusPicture(page.file)));
      this.library.add(
        pages.map(
          ({ file, title }, at) => new Page({ title, source: "corpus", file, blob: blobs[at] }),
        ),
      );
    } finally {
      byId("use-corpus").disabled = false;
      this.shelf.reading(null);
    }
    return this.#embed();
  }

  async #addFiles(files) {
    this.#clearProblem();
    this.#reading = new AbortController();
    const { signal } = this.#reading;
    for (const file of files) {
      if (signal.aborted) break;
      this.shelf.reading(file.name);
      await this.#addFile(file, signal);
      this.shelf.reading(null);
    }
    if (!signal.aborted) await this.#embed();
  }

  /** A file that is not taken is named, and the others go on. */
  async #addFile(file, signal) {
    try {
      this.library.add(await pagesOf(file, this.config.limits, { signal }));
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof FileError || error instanceof ServerError)) throw error;
      this.library.fail(file.name, error.message);
      announce(`${file.name} was not added. ${error.message}`);
    }
  }

  /** Make what vectors of the task are missing; false when that was stopped or went wrong. */
  async #embed() {
    this.#clearProblem();
    let isWhole = false;
    await this.#guarded(async () => {
      let goesOn = true;
      while (goesOn && this.library.isMissing(this.task)) {
        goesOn = await this.library.embed(this.task);
      }
      isWhole = goesOn;
    });
    const count = this.library.embedded(this.task).length;
    announce(`${counted(count, "page")} embedded${isWhole ? "" : "; stopped"}.`);
    this.#libraryChanged();
    return isWhole;
  }

  #clear() {
    this.library.clear();
    this.selected = null;
    byId("page").close();
    this.#rank();
  }

  #libraryChanged() {
    this.shelf.show(this.task);
    if (this.query) this.#rank();
  }

  /** The vectors of another task say nothing of this one's. */
  #taskChanged() {
    this.query = null;
    if (!this.asked) this.#rank();
    this.#guarded(async () => {
      const isWhole = await this.#embed();
      if (isWhole && this.asked) await this.#search();
    });
  }

  // Queries

  #askExample(text) {
    byId("query").value = text;
    this.#forgetPicture();
    this.#guarded(async () => {
      if (this.library.pages.length > 0 || (await this.#useCorpus())) await this.#askWords(text);
    });
  }

  async #askWords(text) {
    if (text.trim() === "") {
      byId("query").focus();
      announce("Type a query first.");
      return;
    }
    this.asked = wordsQuery(text);
    await this.#search();
  }

  async #askPicture(file) {
    if (!file) return;
    this.#clearProblem();
    try {
      this.asked = pictureQuery(pictureOf(file, this.config.limits));
    } catch (error) {
      this.#tell(`${file.name} cannot be searched by. ${error.message}`);
      return;
    }
    byId("query-picture-image").src = this.asked.url;
    byId("query-picture-name").textContent = file.name;
    byId("query-picture").hidden = false;
    byId("query").hidden = true;
    await this.#search();
  }

  #forgetPicture() {
    byId("query-picture").hidden = true;
    byId("query").hidden = false;
    if (this.asked?.picture) this.asked = null;
  }

  async #search() {
    this.#clearProblem();
    if (this.library.pages.length === 0) {
      this.#tell("There are no pages yet. Embed the built-in ones, or add your own.");
      return;
    }
    this.#searching.abort();
    this.#searching = new AbortController();
    const { signal } = this.#searching;
    byId("submit").setAttribute("aria-busy", "true");
    const onWait = (seconds) => announce(`The server asks to wait ${seconds} seconds.`);
    await this.#guarded(async () => {
      this.query = await this.queries.embedded(this.asked, this.task, { signal, onWait });
      await this.#rank({ isNew: true });
    });
    if (!signal.aborted) byId("submit").setAttribute("aria-busy", "false");
  }

  // Rankings

  async #rank({ isNew = false } = {}) {
    this.#ranking.abort();
    this.#ranking = new AbortController();
    const { query, task } = this;
    const pages = this.library.embedded(task);
    byId("results").hidden = !query || pages.length === 0;
    byId("code").hidden = byId("results").hidden;
    this.comparison.showCost(pages[0]?.vectors.get(task.name).multi);
    if (byId("results").hidden) return;
    byId("results").setAttribute("aria-busy", "true");
    const entries = await ranked(pages, query, task, this.comparison, this.#ranking.signal);
    if (entries === null) return;
    byId("results").setAttribute("aria-busy", "false");
    this.entries = entries;
    this.results.show(entries);
    const isKnown = entries.some((entry) => entry.page === this.selected);
    if (isNew || !isKnown) this.selected = this.#first("singleRank").page;
    if (task.multivector_dimensions && isNew) this.selected = this.#first("multiRank").page;
    this.results.mark(this.selected);
    this.#showPage();
    this.#showCode();
    this.#announceRanking();
  }

  #first(rank) {
    return this.entries.find((entry) => entry[rank] === 1);
  }

  #announceRanking() {
    const parts = [`${counted(this.entries.length, "page")} ranked.`];
    parts.push(`First by single vector: ${this.#first("singleRank").page.title}.`);
    const best = this.#first("multiRank");
    if (best) parts.push(`First by MaxSim: ${best.page.title}.`);
    announce(parts.join(" "));
  }

  #select(page, button) {
    this.selected = page;
    this.results.mark(page);
    this.#showPage();
    announce(`${page.title} is shown.`);
    if (WIDE.matches) return;
    byId("page").showModal();
    byId("page").onclose = () => button.isConnected && button.focus();
  }

  /** The chosen page, in its column; a window is opened by a choice alone. */
  #showPage() {
    const dialog = byId("page");
    if (dialog.matches(":modal") && WIDE.matches) dialog.close();
    if (WIDE.matches) dialog.setAttribute("open", "");
    else if (!dialog.matches(":modal")) dialog.removeAttribute("open");
    const entry = this.entries.find((one) => one.page === this.selected);
    if (entry) this.view.show(entry, this.query, this.comparison, this.entries.length);
  }

  // Code

  #showCode() {
    if (!this.query) return;
    const { asked } = this.query;
    const files = [...new Set(this.library.embedded(this.task).map((page) => page.file))];
    const language = document.querySelector("[name=language]:checked").value;
    byId("snippet").textContent = (language === "curl" ? curlOf : pythonOf)({
      url: new URL("v1/embeddings", document.baseURI).href,
      model: this.config.model,
      task: this.task,
      query: asked.text,
      picture: asked.picture?.name ?? null,
      dim: this.comparison.dim,
      precision: this.comparison.precision,
      needsKey: this.config.needs_key,
      files,
    });
    const key = this.config.needs_key ? " The key is read from POLYVEC_API_KEY." : "";
    byId("code-hint").textContent = `Files are read from the working directory.${key}`;
  }

  async #copy() {
    const text = byId("snippet").textContent;
    try {
      await navigator.clipboard.writeText(text);
      announce("Copied.");
      byId("copy").textContent = "Copied";
      setTimeout(() => (byId("copy").textContent = "Copy"), 2000);
    } catch {
      // Only pages that came over HTTPS, or from this machine, may write there.
      getSelection().selectAllChildren(byId("snippet"));
      announce("The code is selected; copy it with the keyboard.");
    }
  }

  // Problems

  async #guarded(work) {
    try {
      await work();
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof ServerError)) throw error;
      this.#tell(error.message);
    }
  }

  #tell(message) {
    byId("problem").textContent = message;
    byId("problem").hidden = false;
  }

  #clearProblem() {
    byId("problem").hidden = true;
    byId("problem").textContent = "";
  }
}

try {
  new App(await readConfig()).start();
} catch (error) {
  const problem = byId("problem");
  problem.textContent = error instanceof ServerError ? error.message : "The page could not be started.";
  problem.hidden = false;
  if (!(error instanceof ServerError)) throw error;
}
