/**
 * Every page's scores for one query, and its places in both orders. Lets the browser breathe between pages.
 * Knows vectors; nothing of requests or of how a ranking is shown.
 */

import { maxsim, pack, similarities, truncate } from "./vectors.js";

const BUSY_MS = 12;

/** Packed multi-vectors of pages, in the precision that was last asked for. */
const packedPages = new WeakMap();

/**
 * The places of `pages`: [{ page, single, multi, singleRank, multiRank }], or null when `signal` says that
 * nobody wants them any more. Ranks count from 1; `multi` is MaxSim divided by the query's tokens.
 */
export async function ranked(pages, query, task, { dim, precision }, signal) {
  const single = pack(truncate(query.single, dim), precision);
  const multi = query.multi && pack(query.multi.rows, precision);
  const entries = [];
  let since = performance.now();
  for (const page of pages) {
    const vectors = page.vectors.get(task.name);
    entries.push({
      page,
      single: similarities(single, pack(truncate(vectors.single, dim), precision))[0],
      multi: multi && vectors.multi ? maxsim(multi, packedOf(vectors, precision)) / multi.count : null,
    });
    if (performance.now() - since > BUSY_MS) {
      await new Promise((resolve) => setTimeout(resolve));
      since = performance.now();
    }
    if (signal.aborted) return null;
  }
  place(entries, "single", "singleRank");
  if (multi) place(entries, "multi", "multiRank");
  return entries;
}

/** Multi-vectors as they are compared, kept for the next query. */
function packedOf(vectors, precision) {
  let packed = packedPages.get(vectors);
  if (packed?.precision !== precision) {
    packed = pack(vectors.multi.rows, precision);
    packedPages.set(vectors, packed);
  }
  return packed;
}

function place(entries, score, rank) {
  [...entries]
    .sort((one, other) => other[score] - one[score] || one.page.id - other.page.id)
    .forEach((entry, at) => {
      entry[rank] = at + 1;
    });
}

/** How similar each token of the query is to each patch of a page: [token, patch], row after row. */
export function patchSimilarities(query, vectors, precision) {
  const { rows, patches } = vectors.multi;
  const { start } = patches;
  const count = patches.rows * patches.columns;
  const values = rows.values.subarray(start * rows.dim, (start + count) * rows.dim);
  const patchRows = pack({ values, count, dim: rows.dim }, precision);
  return { values: similarities(pack(query.multi.rows, precision), patchRows), count };
}
