/**
 * How vectors are made and compared: the task, the dimensions of single vectors, the precision of all.
 *
 * Holds the choice and shows its controls. Knows what the server serves; not what is compared.
 */

import { byId, segmented, spelledBytes } from "./elements.js";
import { PRECISIONS, vectorBytes } from "./vectors.js";

const PREFERRED_TASK = "retrieval";

export class Comparison {
  /** `onTask` is called when vectors have to be made anew, `onChange` when they are only compared anew. */
  constructor(tasks, { onTask, onChange }) {
    this.tasks = tasks;
    this.onTask = onTask;
    this.onChange = onChange;
    this.task = tasks.find((task) => task.name === PREFERRED_TASK) ?? tasks[0];
    this.dim = this.task.dimensions.at(-1);
    this.precision = PRECISIONS[0];
    byId("task-field").hidden = tasks.length === 1;
  }

  show() {
    const { task } = this;
    fill("tasks", this.tasks.map((one) => one.name), task.name, (name) => this.#setTask(name));
    fill("dimensions", task.dimensions, this.dim, (dim) => this.#set({ dim }));
    fill("precisions", PRECISIONS, this.precision, (precision) => this.#set({ precision }));
    if (!task.multivector_dimensions) {
      byId("multi-hint").textContent =
        "This checkpoint gives one vector a page, so that there is nothing to compare token by token.";
    }
    this.showCost(null);
  }

  /** What the choice costs, of a page with this multi-vector where there is one already. */
  showCost(multi) {
    const bytes = vectorBytes(this.dim, this.precision);
    const share = vectorBytes(this.task.dimensions.at(-1), "float32") / bytes;
    const less = share > 1.05 ? `, ${share.toFixed(share < 10 ? 1 : 0)} times less than whole` : "";
    const parts = [`A page’s single vector takes ${spelledBytes(bytes)}${less}`];
    if (multi) {
      const size = multi.rows.count * vectorBytes(multi.rows.dim, this.precision);
      parts.push(`its ${multi.rows.count} token vectors take ${spelledBytes(size)}`);
    }
    byId("cost").textContent = `${parts.join("; ")}.`;
  }

  #set(change) {
    Object.assign(this, change);
    this.onChange();
  }

  #setTask(name) {
    this.task = this.tasks.find((task) => task.name === name);
    if (!this.task.dimensions.includes(this.dim)) this.dim = this.task.dimensions.at(-1);
    this.show();
    byId("tasks").querySelector("input:checked").focus();
    this.onTask();
  }
}

function fill(id, values, selected, onChange) {
  byId(id).replaceChildren(...segmented(id, values, selected, onChange));
}
