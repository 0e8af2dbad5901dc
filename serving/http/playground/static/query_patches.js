/**
 * A picture that is the query, as something to point at: which of its patches is marked, by pointer or arrow
 * keys. Knows the picture's grid; not what is similar to it.
 */

import { make } from "./elements.js";

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

export class QueryPatches {
  #query = null;
  #place = [0, 0];

  /** `onMark(row)` is told the row of the multi-vector that is marked, or null when none is. */
  constructor(element, onMark) {
    this.element = element;
    this.onMark = onMark;
    this.picture = make("img", { alt: "" });
    this.mark = make("span", { className: "mark" });
    this.button = make("button", { type: "button" }, this.picture, this.mark);
    element.append(this.button);
    this.button.onpointermove = (event) => this.#point(event);
    this.button.onpointerleave = this.button.onblur = () => this.#leave();
    this.button.onfocus = () => this.#set(...this.#place);
    this.button.onkeydown = (event) => this.#step(event);
  }

  /** Show a query that is a picture; null hides it. */
  show(query) {
    this.element.hidden = query === null;
    if (query !== null && query !== this.#query) {
      this.picture.src = query.asked.url;
      this.#place = [0, 0];
      this.#leave(false);
    }
    this.#query = query;
  }

  #point(event) {
    const { rows, columns } = this.#query.multi.patches;
    const box = this.button.getBoundingClientRect();
    const within = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
    this.#set(
      within((event.clientY - box.top) / box.height, rows),
      within((event.clientX - box.left) / box.width, columns),
    );
  }

  #step(event) {
    const step = STEPS[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const { rows, columns } = this.#query.multi.patches;
    const [row, column] = this.#place;
    this.#set(
      Math.min(rows - 1, Math.max(0, row + step[0])),
      Math.min(columns - 1, Math.max(0, column + step[1])),
    );
  }

  #set(row, column) {
    this.#place = [row, column];
    const { start, rows, columns } = this.#query.multi.patches;
    this.mark.hidden = false;
    const place = { "--row": row, "--column": column, "--rows": rows, "--columns": columns };
    for (const [name, value] of Object.entries(place)) this.mark.style.setProperty(name, value);
    this.button.setAttribute(
      "aria-label",
      `Your picture, row ${row + 1} of ${rows}, column ${column + 1} of ${columns}`,
    );
    this.onMark(start + row * columns + column);
  }

  #leave(tells = true) {
    this.mark.hidden = true;
    this.button.setAttribute("aria-label", "Your picture; arrow keys move over its parts");
    if (tells) this.onMark(null);
  }
}
