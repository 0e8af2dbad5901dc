/**
 * The arithmetic of single vectors and multi-vectors: Matryoshka, quantisation, dot products, MaxSim.
 *
 * The formulas of polyvec's `pooling/` (matryoshka.py, quantise.py, maxsim.py), and a test compares the two
 * number by number. Values are float32; sums are kept in float64. Knows no page, request or query.
 *
 * Rows     { values: Float32Array, count, dim }: `count` vectors, one after the other.
 * Packed   rows in a precision: { precision, count, dim, values }, int8 with `scales`, binary with `words`.
 */

export const PRECISIONS = ["float32", "int8", "binary"];

const NORM_FLOOR = 1e-12;
const INT8_MAX = 127;
const WORD_BITS = 32;

/** Rows out of numbers that lie one after the other. */
export function rowsOf(values, count) {
  return { values, count, dim: values.length / count };
}

/** `unit(v[:dim])`: the first `dim` values of each vector, scaled to length one. */
export function truncate(rows, dim) {
  const values = new Float32Array(rows.count * dim);
  for (let row = 0; row < rows.count; row++) {
    const from = row * rows.dim;
    let squares = 0;
    for (let at = 0; at < dim; at++) squares += rows.values[from + at] ** 2;
    const norm = Math.max(Math.sqrt(squares), NORM_FLOOR);
    for (let at = 0; at < dim; at++) values[row * dim + at] = rows.values[from + at] / norm;
  }
  return { values, count: rows.count, dim };
}

/** Rows as they are kept and compared in `precision`. */
export function pack(rows, precision) {
  switch (precision) {
    case "float32":
      return { precision, ...rows };
    case "int8":
      return { precision, count: rows.count, dim: rows.dim, ...int8(rows) };
    case "binary":
      return { precision, count: rows.count, dim: rows.dim, words: signWords(rows) };
    default:
      throw new Error(`A precision is one of ${PRECISIONS.join(", ")}, got ${precision}.`);
  }
}

/** Bytes of one vector of `dim` values; the scale of int8 is one more float32. */
export function vectorBytes(dim, precision) {
  return { float32: 4 * dim, int8: dim + 4, binary: Math.ceil(dim / 8) }[precision];
}

/** `scale = max|v| / 127`, `round(v / scale)`, half to even: integers and one scale a vector. */
export function int8(rows) {
  const values = new Int8Array(rows.values.length);
  const scales = new Float32Array(rows.count);
  for (let row = 0; row < rows.count; row++) {
    const from = row * rows.dim;
    let largest = 0;
    for (let at = 0; at < rows.dim; at++) {
      largest = Math.max(largest, Math.abs(rows.values[from + at]));
    }
    scales[row] = largest / INT8_MAX;
    const divisor = scales[row] > 0 ? scales[row] : 1;
    for (let at = 0; at < rows.dim; at++) {
      const rounded = roundHalfEven(Math.fround(rows.values[from + at] / divisor));
      values[from + at] = Math.min(INT8_MAX, Math.max(-INT8_MAX, rounded));
    }
  }
  return { values, scales };
}

function roundHalfEven(value) {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/** One bit for each value, set where it is above zero; every vector begins in a word of its own. */
function signWords(rows) {
  const perRow = Math.ceil(rows.dim / WORD_BITS);
  const words = new Uint32Array(rows.count * perRow);
  for (let row = 0; row < rows.count; row++) {
    for (let at = 0; at < rows.dim; at++) {
      if (rows.values[row * rows.dim + at] > 0) {
        words[row * perRow + (at >>> 5)] |= 1 << (at & 31);
      }
    }
  }
  return words;
}

/**
 * How similar each vector of `left` is to each of `right`, both in one precision: [left, right], row after row.
 *
 * float32 and int8: the dot product of what the numbers stand for. binary: the cosine of the signs, which is
 * `1 - 2 * (bits that differ) / dim`.
 */
export function similarities(left, right) {
  const found = new Float32Array(left.count * right.count);
  switch (left.precision) {
    case "float32":
      products(left, right, found);
      break;
    case "int8":
      products(left, right, found);
      for (let row = 0; row < left.count; row++) {
        for (let column = 0; column < right.count; column++) {
          found[row * right.count + column] *= left.scales[row] * right.scales[column];
        }
      }
      break;
    case "binary":
      cosinesOfSigns(left, right, found);
      break;
  }
  return found;
}

function products(left, right, found) {
  const { dim } = left;
  const [a, b] = [left.values, right.values];
  for (let row = 0; row < left.count; row++) {
    for (let column = 0; column < right.count; column++) {
      let sum = 0;
      let j = column * dim;
      for (let i = row * dim, end = i + dim; i < end; i++, j++) sum += a[i] * b[j];
      found[row * right.count + column] = sum;
    }
  }
}

function cosinesOfSigns(left, right, found) {
  const perRow = Math.ceil(left.dim / WORD_BITS);
  for (let row = 0; row < left.count; row++) {
    for (let column = 0; column < right.count; column++) {
      let differing = 0;
      for (let at = 0; at < perRow; at++) {
        differing += setBits(left.words[row * perRow + at] ^ right.words[column * perRow + at]);
      }
      found[row * right.count + column] = 1 - (2 * differing) / left.dim;
    }
  }
}

/** How many bits of a 32-bit word are set: pairs, then fours, then bytes are added up beside each other. */
function setBits(word) {
  word -= (word >>> 1) & 0x55555555;
  word = (word & 0x33333333) + ((word >>> 2) & 0x33333333);
  word = (word + (word >>> 4)) & 0x0f0f0f0f;
  return Math.imul(word, 0x01010101) >>> 24;
}

/** `sum over q of (max over d of q . d)`: how well a page's vectors answer a query's. */
export function maxsim(query, page) {
  const found = similarities(query, page);
  let sum = 0;
  for (let row = 0; row < query.count; row++) {
    let best = -Infinity;
    for (let at = row * page.count, end = at + page.count; at < end; at++) {
      if (found[at] > best) best = found[at];
    }
    sum += best;
  }
  return sum;
}
