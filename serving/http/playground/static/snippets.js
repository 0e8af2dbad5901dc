/**
 * What the page does, as a reader would write it: curl for the requests, Python for the whole search.
 *
 * Every request goes to the public API, with the key out of the environment; the page never shows one. Names
 * and queries are quoted for the language they stand in.
 */

const MAX_FILES = 12;
const TYPES = { float32: null, int8: "int8", binary: "ubinary" };

/**
 * Options of requests for vectors in a precision; single vectors are cut as well.
 *
 * `asked` is { url, model, task, query, picture, dim, precision, needsKey, files }: `picture` is the name of
 * the query's file, or null for a text.
 */
function optionsOf({ task, dim, precision }, isMulti) {
  const options = {};
  if (isMulti) options.return_multivector = true;
  else if (dim < task.dimensions.at(-1)) options.dimensions = dim;
  if (TYPES[precision] !== null) options.embedding_type = TYPES[precision];
  return options;
}

export function curlOf(asked) {
  const { model, task } = asked;
  const kinds = [[false, "as one vector"]];
  if (task.multivector_dimensions) kinds.push([true, "as one vector for each token"]);
  const parts = kinds.map(([isMulti, what]) => {
    const head = { model, task: task.query, ...optionsOf(asked, isMulti) };
    const body =
      asked.picture === null
        ? textBody(asked, { ...head, input: [{ text: asked.query }] })
        : fileBody(asked, head, asked.picture);
    return `# The query ${what}\n${body}`;
  });
  const file = asked.files[0] ?? "page.png";
  const head = { model, task: task.passage, ...optionsOf(asked, false) };
  parts.push(`# A page; a PDF has a vector for each of its pages\n${fileBody(asked, head, file)}`);
  return parts.join("\n\n") + "\n";
}

function textBody(asked, body) {
  return `${curlTo(asked)} \\\n  -d ${shellQuoted(JSON.stringify(body))}`;
}

/** A file is longer than an argument may be, so the body comes through a pipe. */
function fileBody(asked, head, file) {
  const [before, after] = JSON.stringify({ ...head, input: { [kindOf(file)]: "@" } }).split('"@"');
  return (
    `{ printf %s ${shellQuoted(before + '"')}; base64 < ${shellQuoted(file)} | tr -d '\\n'; ` +
    `printf %s ${shellQuoted('"' + after)}; } |\n${curlTo(asked)} -d @-`
  );
}

function curlTo({ url, needsKey }) {
  const key = needsKey ? ' \\\n  -H "Authorization: Bearer $POLYVEC_API_KEY"' : "";
  return `curl ${shellQuoted(url)}${key} \\\n  -H 'Content-Type: application/json'`;
}

function shellQuoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function kindOf(file) {
  return file.toLowerCase().endsWith(".pdf") ? "pdf" : "image";
}

export function pythonOf(asked) {
  const { task, needsKey } = asked;
  const hasMulti = Boolean(task.multivector_dimensions);
  const header = needsKey
    ? 'HEADERS = {"Authorization": "Bearer " + os.environ["POLYVEC_API_KEY"]}'
    : "HEADERS = {}";
  const query =
    asked.picture === null
      ? `{"text": ${JSON.stringify(asked.query)}}`
      : `picture(${JSON.stringify(asked.picture)})`;
  const multi = hasMulti ? [multiFunction(asked), rankedBy(asked, query, true)] : [];
  return [
    `import base64\n${needsKey ? "import os\n" : ""}from pathlib import Path\n`,
    "import httpx\nimport numpy as np\n",
    `URL = ${JSON.stringify(asked.url)}\n${header}`,
    `FILES = ${filesOf(asked.files)}\n\n`,
    `def embed(task, one, **options):
    body = {"model": ${JSON.stringify(asked.model)}, "task": task, "input": one, **options}
    answer = httpx.post(URL, headers=HEADERS, json=body, timeout=300)
    return answer.raise_for_status().json()["data"]\n\n`,
    `def picture(file):
    kind = "pdf" if file.lower().endswith(".pdf") else "image"
    return {kind: base64.b64encode(Path(file).read_bytes()).decode()}\n\n`,
    `def show(name, scores):
    print(name)
    for (file, page), score in sorted(scores.items(), key=lambda item: -item[1]):
        print(f"  {score:.4f}  {file}" + (f", page {page}" if page else ""))\n\n`,
    singleFunction(asked),
    rankedBy(asked, query, false),
    ...multi,
  ].join("\n");
}

function filesOf(files) {
  if (files.length === 0) return '["page.png"]  # pictures and PDFs';
  const names = files.slice(0, MAX_FILES).map((name) => `    ${JSON.stringify(name)},`);
  const left = files.length - MAX_FILES;
  if (left > 0) names.push(`    # and ${left} more`);
  return `[\n${names.join("\n")}\n]`;
}

function singleFunction({ dim, precision }) {
  const body = {
    float32: 'return np.array(item["embedding"])',
    int8: 'return np.array(item["embedding"]) * item["scale"]',
    binary: `bits = np.unpackbits(np.array(item["embedding"], np.uint8))[:${dim}]
    return (bits * 2.0 - 1) / ${dim}**0.5  # the cosine of signs`,
  }[precision];
  return `def single(item):\n    ${body}\n\n`;
}

function multiFunction({ task, precision }) {
  const dim = task.multivector_dimensions;
  const body = {
    float32: 'return np.array(item["embeddings"])',
    int8: 'return np.array(item["embeddings"]) * np.array(item["scales"])[:, None]',
    binary: `bits = np.unpackbits(np.array(item["embeddings"], np.uint8), axis=1)[:, :${dim}]
    return (bits * 2.0 - 1) / ${dim}**0.5  # the cosine of signs`,
  }[precision];
  return `\n\ndef multi(item):\n    ${body}\n\n`;
}

function rankedBy(asked, query, isMulti) {
  const name = isMulti ? "multi" : "single";
  const options = Object.entries(optionsOf(asked, isMulti))
    .map(([key, value]) => `, ${key}=${value === true ? "True" : JSON.stringify(value)}`)
    .join("");
  const score = isMulti
    ? "(query @ multi(item).T).max(axis=1).mean()"
    : "query @ single(item)";
  return `query = ${name}(embed(${JSON.stringify(asked.task.query)}, ${query}${options})[0])
scores = {}
for file in FILES:
    for item in embed(${JSON.stringify(asked.task.passage)}, picture(file)${options}):
        scores[file, item.get("page")] = ${score}
show(${isMulti ? '"MaxSim, divided by the tokens of the query"' : '"Single vector"'}, scores)
`;
}
