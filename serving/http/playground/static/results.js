/**
 * Two rankings of the same pages beside each other: by single vector and by MaxSim.
 *
 * Cards keep their place in the document's memory when the order changes, so that they can be seen to move.
 * Knows entries of a ranking; not how they came about.
 */

import { counted, make, ordinal, prefersStillness, spelledScore } from "./elements.js";

const SHOWN_AT_FIRST = 10;
const MOVE_MS = 320;

/** A list of cards in one order. */
class RankedList {
  #cards = new Map();

  constructor(element, { score, rank, otherRank, otherName, onSelect }) {
    this.element = element;
    this.names = { score, rank, otherRank, otherName };
    this.onSelect = onSelect;
    element.addEventListener("keydown", (event) => this.#move(event));
  }

  show(entries, count) {
    const { score, rank } = this.names;
    const focused = this.element.contains(document.activeElement) ? document.activeElement : null;
    const before = this.#places();
    const sorted = [...entries].sort((one, other) => one[rank] - other[rank]);
    const scores = sorted.map((entry) => entry[score]);
    const [most, least] = [scores[0], scores.at(-1)];
    const cards = sorted.slice(0, count).map((entry) => {
      const share = most > least ? (entry[score] - least) / (most - least) : 1;
      return this.#cardOf(entry, share, entries.length);
    });
    this.element.replaceChildren(...cards);
    const shown = new Set(sorted.slice(0, count).map((entry) => entry.page.id));
    for (const id of this.#cards.keys()) if (!shown.has(id)) this.#cards.delete(id);
    // A moved element loses the focus that it had.
    if (focused?.isConnected) focused.focus({ preventScroll: true });
    this.#glide(before);
  }

  mark(page) {
    for (const [id, card] of this.#cards) {
      const isCurrent = id === page?.id;
      card.firstChild.setAttribute("aria-current", String(isCurrent));
    }
  }

  buttonOf(page) {
    return this.#cards.get(page.id)?.firstChild ?? null;
  }

  #cardOf(entry, share, total) {
    const { score, rank, otherRank, otherName } = this.names;
    let card = this.#cards.get(entry.page.id);
    if (card === undefined) {
      card = make("li", {}, this.#button(entry.page));
      this.#cards.set(entry.page.id, card);
    }
    const button = card.firstChild;
    button.onclick = () => this.onSelect(entry.page, button);
    const part = (name) => button.querySelector(`.${name}`);
    part("rank").textContent = entry[rank];
    part("score").textContent = spelledScore(entry[score]);
    part("bar").style.setProperty("--share", share.toFixed(4));
    const moved = entry[otherRank] === undefined ? 0 : entry[otherRank] - entry[rank];
    part("moved").replaceChildren(...movement(moved, entry[otherRank], otherName));
    button.setAttribute(
      "aria-label",
      `${entry[rank]} of ${total}: ${entry.page.title}. Score ${spelledScore(entry[score])}.` +
        (entry[otherRank] === undefined ? "" : ` ${ordinal(entry[otherRank])} ${otherName}.`),
    );
    return card;
  }

  #button(page) {
    const picture = make("img", { src: page.url, alt: "", loading: "lazy", decoding: "async" });
    picture.onerror = () => picture.classList.add("unseen");
    return make(
      "button",
      { type: "button", className: "card", data: { page: String(page.id) } },
      make("span", { className: "rank" }),
      make("span", { className: "thumb" }, picture),
      make(
        "span",
        { className: "what" },
        make("span", { className: "title" }, page.title),
        make("span", { className: "bar" }),
        make("span", { className: "moved" }),
      ),
      make("span", { className: "score" }),
    );
  }

  /** Up and down within the list. */
  #move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step === undefined) return;
    const buttons = [...this.element.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (next === undefined) return;
    event.preventDefault();
    next.focus();
  }

  #places() {
    const places = new Map();
    for (const [id, card] of this.#cards) places.set(id, card.getBoundingClientRect().top);
    return places;
  }

  #glide(before) {
    if (prefersStillness()) return;
    for (const [id, card] of this.#cards) {
      const moved = before.get(id) - card.getBoundingClientRect().top;
      if (!moved) continue;
      card.animate([{ transform: `translateY(${moved}px)` }, { transform: "none" }], {
        duration: MOVE_MS,
        easing: "cubic-bezier(0.2, 0.7, 0.2, 1)",
      });
    }
  }
}

/** Where the other ranking has a page, and by how many places it is higher or lower here. */
function movement(moved, otherRank, otherName) {
  if (otherRank === undefined) return [];
  const place = `${ordinal(otherRank)} ${otherName}`;
  if (moved === 0) return [place];
  const arrow = make("b", { "aria-hidden": "true" }, moved > 0 ? `▲\u2009${moved}` : `▼\u2009${-moved}`);
  return [arrow, place];
}

/** Both lists, and how much of them is shown. */
export class Results {
  #entries = [];
  #showsAll = false;

  constructor({ single, multi, more, onSelect }) {
    this.single = new RankedList(single, {
      score: "single",
      rank: "singleRank",
      otherRank: "multiRank",
      otherName: "by MaxSim",
      onSelect,
    });
    this.multi = new RankedList(multi, {
      score: "multi",
      rank: "multiRank",
      otherRank: "singleRank",
      otherName: "by single vector",
      onSelect,
    });
    this.more = more;
    more.onclick = () => {
      this.#showsAll = !this.#showsAll;
      this.show(this.#entries);
    };
  }

  show(entries) {
    this.#entries = entries;
    const count = this.#showsAll ? entries.length : Math.min(SHOWN_AT_FIRST, entries.length);
    this.single.show(entries, count);
    const hasMulti = entries.length > 0 && entries[0].multiRank !== undefined;
    this.multi.show(hasMulti ? entries : [], count);
    this.more.hidden = entries.length <= SHOWN_AT_FIRST;
    this.more.textContent = this.#showsAll
      ? `Show the first ${SHOWN_AT_FIRST}`
      : `Show all ${counted(entries.length, "page")}`;
  }

  mark(page) {
    this.single.mark(page);
    this.multi.mark(page);
  }
}
