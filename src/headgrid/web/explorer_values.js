// Reads what the page of an explorer holds: its values, packed, and its addresses, strictly.

const NO_VALUE = -32768;

async function inflate(id) {
  const text = atob(document.getElementById(id).textContent);
  const packed = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) packed[at] = text.charCodeAt(at);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const readText = async (id) => new TextDecoder().decode(await inflate(id));

// Runs the library that the page holds; its policy allows no other text.
async function loadVega() {
  const script = document.createElement("script");
  script.textContent = await readText("vega");
  document.head.append(script);
  if (!window.vegaEmbed) throw new Error("the browser refused the library inside this page");
}

// Powers of ten up to 22 are exact, so that one operation rounds as a parser does.
function scale(whole, exponent) {
  if (Math.abs(exponent) > 22) return Number(`${whole}e${exponent}`);
  return exponent < 0 ? whole / 10 ** -exponent : whole * 10 ** exponent;
}

// Four planes of bytes: of whole numbers and of exponents, low bytes before high ones.
function readNumbers(bytes) {
  const count = bytes.length / 4;
  const signed = (at) => ((bytes[at] | (bytes[at + count] << 8)) << 16) >> 16;
  const numbers = new Float64Array(count);
  for (let at = 0; at < count; at++) {
    const whole = signed(at);
    numbers[at] = whole === NO_VALUE ? NaN : scale(whole, signed(at + 2 * count));
  }
  return numbers;
}

const orNull = (number) => (Number.isNaN(number) ? null : number);

class Layer {
  constructor(bytes, { heads, keys, queries }) {
    const pairs = keys.length * queries.length;
    const size = Math.ceil(pairs / 8);
    const numbers = readNumbers(bytes.subarray(size));
    this.width = keys.length;
    this.rows = numbers.slice(0, heads * keys.length);
    this.values = numbers.slice(heads * keys.length);
    this.places = new Int32Array(pairs).fill(-1); // of each pair among the visible ones
    this.visible = 0;
    for (let pair = 0; pair < pairs; pair++) {
      if (bytes[pair >> 3] & (128 >> (pair & 7))) this.places[pair] = this.visible++;
    }
  }

  last(head) {
    return Array.from(this.rows.slice(head * this.width, (head + 1) * this.width), orNull);
  }

  value(head, query, key) {
    const place = this.places[query * this.width + key];
    return place < 0 ? null : orNull(this.values[head * this.visible + place]);
  }

  row(head, query) {
    return Array.from({ length: this.width }, (_, key) => this.value(head, query, key));
  }
}

const RANGES = ["head", "symmetric", "shared", "quantile", "fixed"];
const NUMBER = /^-?\d{1,21}(\.\d{1,25})?(e[+-]?\d{1,3})?$/; // all that a number prints as

const isRange = (low, high) => Number.isFinite(high - low) && high - low > 1e-290;

const among = (text, choices) => choices.find((one) => `${one}` === text) ?? null;
const finite = (text) =>
  NUMBER.test(text) && Number.isFinite(Number(text)) ? Number(text) : null;

const ORDERS = { size: Math.abs, high: Number, low: (value) => -value };

const READERS = new Map([
  ["layer", (text, run) => among(text, run.layers)],
  ["head", (text, run) => among(text, run.heads)],
  ["query", (text, run) => among(text, run.queries)],
  ["statistic", (text, run) => among(text, run.measures)],
  ["range", (text) => among(text, RANGES)],
  ["low", finite],
  ["high", finite],
  ["order", (text) => among(text, Object.keys(ORDERS))],
  ["role", (text, run) => run.roles.find((role) => encodeURIComponent(role) === text) ?? null],
]);

// Reads an address strictly: where anything in it is not what this page writes, all of it is
// left alone. One that names no run is of the run at that place.
function readAddress(text, runs, run) {
  if (text.length < 2 || text.length > 1200) return null;
  const parts = text.slice(1).split("&").map((part) => part.split("="));
  const given = new Map(parts);
  if (given.size < parts.length || parts.some((part) => part.length !== 2)) return null;
  const found = {};
  if (given.has("run")) {
    found.run = runs.findIndex(({ address }) => address !== "" && address === given.get("run"));
    if (found.run < 0) return null;
    given.delete("run");
  }
  for (const [name, value] of given) {
    const known = READERS.get(name)?.(value, runs[found.run ?? run]) ?? null;
    if (known === null) return null;
    found[name] = known;
  }
  const ends = Object.hasOwn(found, "low") + Object.hasOwn(found, "high");
  if (ends === 1 || (ends === 2 && !isRange(found.low, found.high))) return null;
  return found;
}

function writeAddress(state, runs) {
  const parts = [`layer=${state.layer}`, `head=${state.head}`];
  if (runs[state.run].address) parts.unshift(`run=${runs[state.run].address}`);
  if (state.query !== null) parts.push(`query=${state.query}`);
  parts.push(`range=${state.range}`);
  if (state.range === "fixed") parts.push(`low=${state.low}`, `high=${state.high}`);
  parts.push(`statistic=${state.statistic}`);
  if (state.order !== "size") parts.push(`order=${state.order}`);
  if (state.role !== "") parts.push(`role=${encodeURIComponent(state.role)}`);
  return `#${parts.join("&")}`;
}
