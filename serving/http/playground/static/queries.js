/** Queries and their vectors, asked for once each. Knows requests; not what is searched. */

import { base64Of } from "./base64.js";
import { embedMulti, embedSingle } from "./wire.js";

/** A query in words. */
export function wordsQuery(text) {
  return { text, picture: null, url: null, key: `text ${text}` };
}

/** A query that is a picture, a file. */
export function pictureQuery(picture) {
  const url = URL.createObjectURL(picture);
  return { text: null, picture, url, key: `picture ${url}` };
}

export class Queries {
  #known = new Map();

  constructor(model) {
    this.model = model;
  }

  /** { asked, key, single, multi, numPrefixTokens }; `multi` is null where the checkpoint gives none. */
  async embedded(asked, task, options) {
    const key = `${task.name} ${asked.key}`;
    if (!this.#known.has(key)) {
      const input = [asked.picture ? { image: await base64Of(asked.picture) } : { text: asked.text }];
      const [single] = await embedSingle(this.model, task.query, input, options);
      const [multi] = task.multivector_dimensions
        ? await embedMulti(this.model, task.query, input, options)
        : [null];
      const numPrefixTokens = multi && asked.text ? prefixTokens(multi.tokens, task) : 0;
      this.#known.set(key, { asked, key, single, multi, numPrefixTokens });
    }
    return this.#known.get(key);
  }
}

/** How many of a query's tokens are made of what the server puts before it. */
function prefixTokens(tokens, task) {
  const prefix = task.query_prefix.trimEnd().length;
  let length = 0;
  let count = 0;
  // A token may hold the prefix's end and the query's beginning; then it is the query's.
  while (count < tokens.length && length + tokens[count].length <= prefix) {
    length += tokens[count++].length;
  }
  return count;
}
