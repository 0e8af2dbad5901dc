/** Files that are dropped on a part of the page. Knows events; not what becomes of the files. */

/** Files dropped on `target` go to `take`; `marked` shows meanwhile that they may be. */
export function takeDrops(target, marked, take) {
  const on = (name, act) => {
    target.addEventListener(name, (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      // What lies further out would take them as well.
      event.stopPropagation();
      for (const other of document.querySelectorAll(".over")) other.classList.remove("over");
      act(event);
    });
  };
  on("dragover", () => marked.classList.add("over"));
  on("dragleave", () => {});
  on("drop", (event) => take([...event.dataTransfer.files]));
}
