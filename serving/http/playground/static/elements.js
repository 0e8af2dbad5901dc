/**
 * Elements out of data. Text becomes text nodes, never markup: names of files and queries come from anybody.
 */

/** The element with this id, which the page has. */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * A new element.
 *
 * `given` holds properties ("className", "onclick"), attributes with a dash in them or from the list below,
 * and `data`, which becomes data attributes. Children are nodes or strings.
 */
export function make(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null) continue;
    if (name === "data") Object.assign(element.dataset, value);
    else if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Say `text` to those who cannot see the page change. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Radio buttons that look like one control with segments. */
export function segmented(name, values, selected, onChange) {
  return values.map((value) => {
    const input = make("input", { type: "radio", name, value: String(value) });
    input.checked = value === selected;
    input.onchange = () => onChange(value);
    return make("label", { className: "segment" }, input, make("span", {}, String(value)));
  });
}

/** A number of bytes, for people. */
export function spelledBytes(count) {
  if (count < 1024) return `${count} byte${count === 1 ? "" : "s"}`;
  const [size, unit] = count < 1024 ** 2 ? [1024, "KB"] : [1024 ** 2, "MB"];
  return `${(count / size).toFixed(1).replace(/\.0$/, "")} ${unit}`;
}

/** A score, with a minus sign that is as wide as a plus. */
export function spelledScore(score, digits = 4) {
  return score.toFixed(digits).replace("-", "−");
}

/** "1st", "22nd", "113th". */
export function ordinal(rank) {
  const isTeen = rank % 100 >= 11 && rank % 100 <= 13;
  return `${rank}${(!isTeen && ["th", "st", "nd", "rd"][rank % 10]) || "th"}`;
}

/** "1 page", "3 pages". */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

export function prefersStillness() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}
