/**
 * One page, large, with the similarity of each of its patches to the query laid over it.
 *
 * Knows an entry of a ranking and the query; asks nobody for anything.
 */

import { paint, paintLegend } from "./colours.js";
import { byId, make, spelledScore } from "./elements.js";
import { QueryPatches } from "./query_patches.js";
import { patchSimilarities } from "./ranking.js";

const WHOLE = -1;

export class PageView {
  #map = null;
  #pinned = WHOLE;
  #queryKey = null;

  constructor() {
    this.dialog = byId("page");
    this.canvas = byId("heat");
    this.tokens = byId("tokens");
    this.queryPatches = new QueryPatches(byId("query-patches"), (row) => this.#draw(row ?? WHOLE));
    paintLegend(byId("legend-colours"));
    byId("page-picture").onerror = () => byId("stage").classList.add("unseen");
    byId("overlay").onchange = (event) => {
      byId("stage").classList.toggle("bare", !event.target.checked);
    };
  }

  /** Show `entry` of a ranking of `total` pages. */
  show(entry, query, { task, precision }, total) {
    const { page } = entry;
    byId("page-title").textContent = page.title;
    byId("page-scores").replaceChildren(...scores(entry, total));
    byId("stage").classList.remove("unseen");
    const picture = byId("page-picture");
    if (picture.src !== page.url) picture.src = page.url;
    picture.alt = page.title;
    const vectors = page.vectors.get(task.name);
    const isMapped = Boolean(query.multi && vectors.multi?.patches);
    for (const id of ["ask-tokens", "legend", "overlay-choice"]) byId(id).hidden = !isMapped;
    this.canvas.hidden = !isMapped;
    if (!isMapped) return;
    this.#map = {
      ...patchSimilarities(query, vectors, precision),
      patches: vectors.multi.patches,
      query,
    };
    if (query.key !== this.#queryKey) this.#pinned = WHOLE;
    this.#queryKey = query.key;
    this.#showQuery();
    this.#draw(this.#pinned);
  }

  #showQuery() {
    const { query } = this.#map;
    const isPicture = query.multi.patches !== null;
    this.queryPatches.show(isPicture ? query : null);
    byId("tokens-hint").textContent = isPicture
      ? "Point at a part of your picture, or move over it with the arrow keys, to see where the page answers it."
      : "Point at a token, or move to it with Tab, to see where the page answers it. Press it to keep it.";
    const buttons = [this.#button(WHOLE, isPicture ? "Whole picture" : "Whole query", null)];
    if (!isPicture) {
      query.multi.tokens.forEach((token, row) => {
        buttons.push(this.#button(row, spelled(token), this.#best(row)));
      });
    }
    const focusedRow = this.tokens.contains(document.activeElement)
      ? document.activeElement.dataset.row
      : null;
    this.tokens.replaceChildren(...buttons);
    if (focusedRow !== null) this.tokens.querySelector(`[data-row="${focusedRow}"]`)?.focus();
  }

  #button(row, text, best) {
    const { query } = this.#map;
    const button = make(
      "button",
      {
        type: "button",
        className: row >= 0 && row < query.numPrefixTokens ? "token prefix" : "token",
        data: { row: String(row) },
        "aria-pressed": String(row === this.#pinned),
      },
      make("span", {}, text),
      best === null ? null : make("small", {}, spelledScore(best.value, 2)),
    );
    if (best !== null) {
      button.setAttribute("aria-label", `${text}: most similar, ${this.#spelledPlace(best)}`);
    }
    button.onpointerenter = button.onfocus = () => this.#draw(row);
    button.onpointerleave = button.onblur = () => this.#draw(this.#pinned);
    button.onclick = () => {
      this.#pinned = this.#pinned === row ? WHOLE : row;
      for (const other of this.tokens.children) {
        other.setAttribute("aria-pressed", String(Number(other.dataset.row) === this.#pinned));
      }
      this.#draw(row);
    };
    return button;
  }

  /** The similarities of one token of the query, or of all of them in the mean. */
  #valuesOf(row) {
    const { values, count, query } = this.#map;
    if (row !== WHOLE) return values.subarray(row * count, (row + 1) * count);
    const mean = new Float32Array(count);
    const total = query.multi.rows.count;
    // What the server puts before every query says nothing of this one; a query may be nothing else.
    const first = query.numPrefixTokens < total ? query.numPrefixTokens : 0;
    for (let token = first; token < total; token++) {
      for (let at = 0; at < count; at++) mean[at] += values[token * count + at];
    }
    return mean.map((sum) => sum / (total - first));
  }

  #best(row) {
    const values = this.#valuesOf(row);
    let at = 0;
    values.forEach((value, other) => {
      if (value > values[at]) at = other;
    });
    const { columns } = this.#map.patches;
    return { value: values[at], row: Math.floor(at / columns), column: at % columns };
  }

  #spelledPlace({ value, row, column }) {
    const { rows, columns } = this.#map.patches;
    return `${spelledScore(value, 2)}, in row ${row + 1} of ${rows}, column ${column + 1} of ${columns}`;
  }

  #draw(row) {
    const values = this.#valuesOf(row);
    // Most of a page answers no query, all of it about as little: what is below the middle stays as it is.
    const sorted = values.toSorted();
    const [middle, most] = [sorted[sorted.length >> 1], sorted.at(-1)];
    const range = most - middle || 1;
    const { rows, columns } = this.#map.patches;
    paint(this.canvas, values.map((value) => (value - middle) / range), rows, columns);
    byId("legend-least").textContent = `≤ ${spelledScore(middle, 2)}`;
    byId("legend-most").textContent = spelledScore(most, 2);
    const { query } = this.#map;
    const what =
      row === WHOLE
        ? "the whole query, in the mean of its tokens"
        : query.multi.patches
          ? "the marked part of the query's picture"
          : `“${spelled(query.multi.tokens[row])}”`;
    const said = `Similarity to ${what}: highest ${this.#spelledPlace(this.#best(row))}.`;
    byId("heat-says").textContent = said;
    this.canvas.setAttribute("aria-label", said);
    for (const token of this.tokens.children) {
      token.classList.toggle("shown", Number(token.dataset.row) === row);
    }
  }
}

function scores(entry, total) {
  const line = (name, className, score, rank) =>
    make(
      "div",
      { className },
      make("dt", {}, name),
      make("dd", {}, make("b", {}, spelledScore(score)), ` ${rank} of ${total}`),
    );
  const lines = [line("Single vector", "by-single", entry.single, entry.singleRank)];
  if (entry.multiRank !== undefined) {
    lines.push(line("MaxSim", "by-multi", entry.multi, entry.multiRank));
  }
  return lines;
}

/** A token to be seen: without the space that it may begin with. */
function spelled(token) {
  return token.trim() || { "\n": "⏎", "\t": "⇥" }[token] || "␣";
}
