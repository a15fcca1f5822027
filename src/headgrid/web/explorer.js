// Shows one head of a run at a time: an overview of all heads, the head's map, and its
// profile. The figures are specifications that stand in the page; this script puts
// values and parameters into them. Needs window.headgrid, and Vega in the page, packed.
(() => {
  "use strict";

  const find = (id) => document.getElementById(id);
  const root = document.documentElement;
  const main = document.querySelector("main");

  // -- Values ------------------------------------------------------------------------

  const NO_VALUE = -32768;

  async function inflate(id) {
    const text = atob(find(id).textContent);
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
  const POWERS = Array.from({ length: 23 }, (_, exponent) => 10 ** exponent);

  function scale(whole, exponent) {
    if (exponent >= 0 && exponent <= 22) return whole * POWERS[exponent];
    if (exponent < 0 && exponent >= -22) return whole / POWERS[-exponent];
    return Number(`${whole}e${exponent}`);
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

  // -- What is shown, and its address --------------------------------------------------

  const RANGES = ["symmetric", "head", "quantile", "fixed"];
  const NUMBER = /^-?\d{1,15}(\.\d{1,15})?(e[+-]?\d{1,3})?$/;
  const WHOLE = /^\d{1,9}$/;

  const isRange = (low, high) => Number.isFinite(high - low) && high - low > 1e-290;

  // Reads an address strictly: where anything in it is not what this page writes, all of
  // it is left alone.
  function readAddress(text, model) {
    if (text.length < 2 || text.length > 400) return null;
    const found = {};
    for (const part of text.slice(1).split("&")) {
      const [name, value, ...more] = part.split("=");
      if (value === undefined || more.length || Object.hasOwn(found, name)) return null;
      const read = READERS.get(name);
      const known = read === undefined ? null : read(value, model);
      if (known === null) return null;
      Object.defineProperty(found, name, { enumerable: true, value: known });
    }
    const ends = Object.hasOwn(found, "low") + Object.hasOwn(found, "high");
    if (ends === 1 || (ends === 2 && !isRange(found.low, found.high))) return null;
    return found;
  }

  const among = (text, numbers) =>
    WHOLE.test(text) && numbers.includes(Number(text)) ? Number(text) : null;
  const finite = (text) =>
    NUMBER.test(text) && Number.isFinite(Number(text)) ? Number(text) : null;

  const READERS = new Map([
    ["layer", (text, model) => among(text, model.layers)],
    ["head", (text, model) => (WHOLE.test(text) && Number(text) < model.heads ? Number(text) : null)],
    ["query", (text, model) => among(text, model.queries)],
    ["statistic", (text, model) => (Object.hasOwn(model.measures, text) ? text : null)],
    ["range", (text) => (RANGES.includes(text) ? text : null)],
    ["low", finite],
    ["high", finite],
  ]);

  function writeAddress(state) {
    const parts = [`layer=${state.layer}`, `head=${state.head}`];
    if (state.query !== null) parts.push(`query=${state.query}`);
    parts.push(`range=${state.range}`);
    if (state.range === "fixed") parts.push(`low=${state.low}`, `high=${state.high}`);
    parts.push(`statistic=${state.statistic}`);
    return `#${parts.join("&")}`;
  }

  // -- Figures -------------------------------------------------------------------------

  class Chart {
    constructor(id) {
      this.node = find(id);
      // Vega gives the element that it draws into a role and a label of its own.
      this.inside = this.node.appendChild(document.createElement("div"));
      this.inside.setAttribute("aria-hidden", "true");
      this.spec = null;
      this.view = null;
      this.listeners = [];
    }

    on(type, listener) {
      this.listeners.push([type, (event, item) => listener(item?.datum ?? {}, event)]);
    }

    // Draws a specification with values and parameters. The same specification again is
    // only brought up to date.
    async show(spec, values, parameters) {
      if (spec !== this.spec) {
        this.view?.finalize();
        const data = values ? { ...spec.data, values } : spec.data;
        const params = spec.params.map((one) =>
          Object.hasOwn(parameters, one.name) ? { ...one, value: parameters[one.name] } : one,
        );
        const options = window.headgrid.options(this.node);
        const { view } = await window.vegaEmbed(this.inside, { ...spec, data, params }, options);
        this.view = view;
        this.spec = spec;
        this.values = values;
        for (const [type, listener] of this.listeners) view.addEventListener(type, listener);
        return;
      }
      for (const [name, value] of Object.entries(parameters)) this.view.signal(name, value);
      if (values && values !== this.values) this.view.data(spec.data.name, values);
      this.values = values;
      // Labels of another length need another size of the drawing.
      const ends = [parameters.range_low, parameters.range_high].join();
      if (ends !== this.ends) this.view.resize();
      this.ends = ends;
      await this.view.runAsync();
    }
  }

  // Fits the overview's cells to the room there is; where they become narrow, the numbers
  // in them go.
  function fitOverview(spec, room, beside) {
    const columns = spec.spec.layer[0].encoding.x.scale.domain.length;
    const cell = Math.max(4, Math.min(spec.spec.width / columns, Math.floor((room - beside) / columns)));
    if (cell * columns >= spec.spec.width) return spec;
    const layer = cell < 28 ? spec.spec.layer.filter((part) => !part.encoding.text) : spec.spec.layer;
    return { ...spec, spec: { ...spec.spec, layer, width: cell * columns } };
  }

  // Returns the place of the widest map that there is room for, also in height, so that map
  // and profile are seen together; that of the smallest if there is none.
  function fitMap({ widths, wordRoom }, room) {
    const beside = 145 + wordRoom; // axis and colour bar
    const around = 540; // controls, profile, texts
    const most = Math.min(room - beside, Math.max(300, innerHeight - around));
    const at = widths.findIndex((width) => width <= most);
    return at < 0 ? widths.length - 1 : at;
  }

  // Round values between two ends, at steps of 1, 2 or 5, about so many.
  function roundValues(low, high, count) {
    const power = Math.floor(Math.log10((high - low) / count));
    const error = (high - low) / count / 10 ** power;
    const step = (error >= 7.07 ? 10 : error >= 3.16 ? 5 : error >= 1.41 ? 2 : 1) * 10 ** power;
    const first = Math.ceil(low / step);
    const length = Math.max(0, Math.floor(high / step) - first + 1);
    return Array.from({ length }, (_, at) => Number(((first + at) * step).toPrecision(9)));
  }

  // Labels of a colour bar; ends beyond which there are values have one of their own.
  function rangeParameters([low, high], [least, most]) {
    const slack = 1e-8 * Math.max(Math.abs(low), Math.abs(high));
    const below = least < low - slack;
    const above = most > high + slack;
    const ends = [...(below ? [low] : []), ...(above ? [high] : [])];
    const round = roundValues(low, high, 7);
    const step = round.length > 1 ? round[1] - round[0] : high - low;
    const kept = round.filter((tick) => ends.every((end) => Math.abs(tick - end) > 0.6 * step));
    return {
      range_low: low,
      range_high: high,
      range_ticks: [...kept, ...ends].sort((a, b) => a - b),
      range_below: below,
      range_above: above,
    };
  }

  // The value axis of a profile: from zero to the farthest values on both sides.
  function valueParameters(row) {
    const known = row.filter((value) => value !== null);
    const low = Math.min(0, ...known);
    const high = Math.max(0, ...known);
    return { value_low: low, value_high: high > low ? high : low + 1 };
  }

  // A head's values as an image with a pixel for each pair of places, in the colours that
  // `ColorScale` gives them.
  function paint(values, head, [low, high], { image, keys, queries }) {
    const { colors, columns, diverging, rows } = image;
    const count = colors.length;
    const [start, end] = [diverging && low >= 0 ? count / 2 : 0, diverging && high <= 0 ? count / 2 : count];
    // The straight piece of the scale from a value to a value, in steps from first to last.
    const piece = (from, to, first, last) => {
      const slope = (last - first) / (to - from);
      return (value) => Math.min(last - 1, Math.max(first, Math.floor((value - from) * slope + first)));
    };
    const through = diverging && low < 0 && high > 0;
    const below = through ? piece(low, 0, 0, count / 2) : piece(low, high, start, end);
    const above = through ? piece(0, high, count / 2, count) : below;
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: columns.length, height: rows.length });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(columns.length, rows.length);
    const places = keys.map((key) => columns.indexOf(key));
    queries.forEach((query, row) => {
      const line = (rows.length - 1 - rows.indexOf(query)) * columns.length;
      keys.forEach((_, column) => {
        const value = values.value(head, row, column);
        if (value === null) return;
        const color = colors[value < 0 ? below(value) : above(value)];
        pixels.data.set([color >> 16, (color >> 8) & 255, color & 255, 255], 4 * (line + places[column]));
      });
    });
    context.putImageData(pixels, 0, 0);
    return canvas.toDataURL();
  }

  // As Vega prints numbers, with a true minus.
  const print = (value) => (value === null || value === undefined ? "no value" : String(value).replace(/-/g, "−"));

  // -- The page ------------------------------------------------------------------------

  class Explorer {
    constructor(model) {
      this.model = model;
      this.layers = new Map();
      const [low, high] = model.start.fixed;
      const { range, statistic } = model.start;
      this.state = { layer: model.layers[0], head: 0, query: null, low, high, range, statistic };
      const found = readAddress(location.hash, model);
      Object.assign(this.state, found);
      if (found || location.hash.length < 2) history.replaceState(null, "", writeAddress(this.state));
      this.pointed = null; // [query, key] of the map's cursor, as positions
      this.overview = new Chart("overview");
      this.map = new Chart("map");
      this.profile = new Chart("profile");
      this.drawing = null;
      this.again = false;
    }

    layer(number) {
      if (!this.layers.has(number)) {
        const read = inflate(`layer-${number}`).then((bytes) => new Layer(bytes, this.model));
        this.layers.set(number, read);
      }
      return this.layers.get(number);
    }

    // Changes what is shown. Several changes while a figure is drawn are one more drawing.
    change(changes) {
      const state = { ...this.state, ...changes };
      if (Object.keys(state).every((name) => state[name] === this.state[name])) return this.drawing;
      this.state = state;
      history.replaceState(null, "", writeAddress(state));
      return this.draw();
    }

    draw() {
      this.again = true;
      this.drawing ??= (async () => {
        while (this.again) {
          this.again = false;
          await this.drawOnce();
        }
        this.drawing = null;
      })();
      return this.drawing;
    }

    async drawOnce() {
      const { model, state } = this;
      const { layer, head } = state;
      const values = await this.layer(layer);
      this.values = values;
      this.fillControls();
      await Promise.all([
        this.drawOverview(),
        model.maps.length ? this.drawMap(values, layer, head) : null,
        this.drawProfile(values, layer, head),
      ]);
      main.dataset.shown = writeAddress(state);
      const at = model.layers.indexOf(layer); // whoever steps on finds the next one read
      for (const near of model.layers.slice(Math.max(0, at - 1), at + 2)) this.layer(near);
    }

    async drawOverview() {
      const { head, layer, statistic } = this.state;
      const { spec } = this.model.measures[statistic];
      const { node } = this.overview;
      const chosen = { chosen_layer: `${layer}`, chosen_head: `${head}` };
      const about = `${statistic} ${node.clientWidth}`;
      if (this.fitted?.about === about) return this.overview.show(this.fitted.spec, null, chosen);
      let beside = 130; // axis and colour bar, about: their labels are measured by drawing them
      for (const last of [false, false, true]) {
        this.fitted = { about, spec: fitOverview(spec, node.clientWidth, beside) };
        await this.overview.show(this.fitted.spec, null, chosen);
        const more = node.scrollWidth - node.clientWidth;
        if (last || more <= 0) return undefined;
        beside += more;
      }
      return undefined;
    }

    get range() {
      const { low, high, layer, head, range } = this.state;
      const { head: heads, quantile, symmetric } = this.model.ranges;
      const known = { fixed: [low, high], head: heads[layer][head], quantile };
      return known[range] ?? symmetric[layer];
    }

    async drawMap(values, layer, head) {
      const { keys, maps, queries, statistic } = this.model;
      const node = this.map.node;
      const spec = maps[fitMap(this.model, node.clientWidth)];
      const { image } = this.model;
      const about = `${layer} ${head} ${image && this.range}`;
      if (this.records?.about !== about && image) {
        const picture = new Image();
        picture.src = paint(values, head, this.range, this.model);
        await picture.decode();
        // Vega shows nothing while it loads another image: it keeps the first, under an attribute
        // that comes before its own.
        this.records = { about, picture, rows: this.records?.rows ?? [{ panel: 0, tile: picture.src }] };
      } else if (this.records?.about !== about) {
        const rows = [];
        values.places.forEach((_, pair) => {
          const [row, column] = [Math.floor(pair / keys.length), pair % keys.length];
          const value = values.value(head, row, column);
          if (value === null) return;
          const [query, key] = [queries[row], keys[column]];
          const tooltip = this.describe(query, key, value);
          rows.push({ layer, head, query, key, [statistic]: value, pair, panel: 0, tooltip });
        });
        this.records = { about, rows };
      }
      const [query, key] = this.pointed ?? [];
      const own = this.state.range === "head"; // beyond which nothing of it lies
      const at = (places, frame) => (image && frame !== null ? places.indexOf(frame) : frame);
      await this.map.show(spec, this.records.rows, {
        ...rangeParameters(this.range, own ? this.range : this.model.extents[layer]),
        chosen_query: at(image?.rows, this.state.query),
        pointed_query: this.pointed ? at(image?.rows, queries[query]) : null,
        pointed_key: this.pointed ? at(image?.columns, keys[key]) : null,
      });
      if (image) node.querySelector("image").setAttribute("href", this.records.picture.src);
    }

    async drawProfile(values, layer, head) {
      const { keys, profiles, queries, statistic } = this.model;
      const { query } = this.state;
      const spec = profiles[fitMap(this.model, this.profile.node.clientWidth)];
      const row = query === null ? values.last(head) : values.row(head, queries.indexOf(query));
      const about = `${layer} ${head} ${query}`;
      if (this.line?.about !== about) {
        // In a gap of the frames, the axis has a place that no key has.
        const places = spec.spec.layer.map((part) => part.encoding.x?.scale?.domain).find(Array.isArray);
        const shown = places.map((frame) => row[keys.indexOf(frame)] ?? null);
        const named = places.map((frame) => this.model.places.key[frame]);
        const [span, key_label] = ["span", "label"].map((name) => named.map((place) => place?.[name] ?? null));
        this.line = { about, rows: [{ panel: 0, layer, head, [statistic]: shown, span, key_label }] };
      }
      await this.profile.show(spec, this.line.rows, valueParameters(row));
    }

    // -- Texts and controls

    // What a place is called; a plain number follows a word, if there is one.
    tell(side, number, word = "") {
      return this.model.places[side][number]?.name ?? `${word}${number}`;
    }

    // The rows of the tooltip of a pair: whole labels stand behind the numbers.
    describe(query, key, value) {
      const { places, statistic } = this.model;
      const { head, layer } = this.state;
      const [row, column] = [places.query[query], places.key[key]];
      const shown = { layer, head, query: row?.span ?? query, key: column?.span ?? key };
      if (row?.label) shown.query_label = row.label;
      if (column?.label) shown.key_label = column.label;
      return { ...shown, [statistic]: value };
    }

    fillControls() {
      const { model, state } = this;
      const { head, layer, query, range, statistic } = state;
      const { description, spec, title } = model.measures[statistic];
      const record = spec.data.values.find((one) => one.layer === layer && one.head === head);
      find("head-title").textContent = `Layer ${layer}, head ${head}`;
      find("statistic").value = statistic;
      find("layer").value = layer;
      find("head-number").value = head;
      const at = model.layers.indexOf(layer);
      find("layer-back").disabled = at === 0;
      find("layer-on").disabled = at === model.layers.length - 1;
      find("head-back").disabled = head === 0;
      find("head-on").disabled = head === model.heads - 1;
      for (const radio of document.querySelectorAll("[name=range]")) radio.checked = radio.value === range;
      const [low, high] = this.range.map((end) => Number(end.toPrecision(4)));
      for (const [id, end, shown] of [["low", state.low, low], ["high", state.high, high]]) {
        const input = find(id);
        input.disabled = range !== "fixed";
        if (document.activeElement !== input) input.value = range === "fixed" ? end : shown;
      }
      this.markFixed(); // what somebody is writing stays marked while something else is drawn
      find("overview-note").textContent = `${title}: ${description}. Layer ${layer}, head ${head}: ${print(record?.[statistic])}.`;
      find("profile-title").textContent =
        query === null ? `Profile of the last block (${model.lastBlock})` : `Profile of query ${this.tell("query", query, "frame ")}`;
      find("to-last").hidden = query === null;
    }

    say(text) {
      const readout = find("readout");
      if (readout.textContent !== text) readout.textContent = text;
    }

    sayPair(query, key, value) {
      const { head, layer } = this.state;
      const row = query === undefined || query === null ? "last block" : `query ${this.tell("query", query)}`;
      const unit = value === null || value === undefined ? "" : ` ${this.model.unit}`;
      this.say(`Layer ${layer}, head ${head}, ${row}, key ${this.tell("key", key)}: ${print(value)}${unit}`);
    }

    // -- What a reader does

    step(name, step) {
      const { heads, layers } = this.model;
      if (name === "head") {
        return this.choose(this.state.layer, Math.min(heads - 1, Math.max(0, this.state.head + step)));
      }
      const at = layers.indexOf(this.state.layer) + step;
      return this.choose(layers[Math.min(layers.length - 1, Math.max(0, at))], this.state.head);
    }

    choose(layer, head) {
      const drawn = this.change({ layer, head });
      const { statistic } = this.state;
      const { spec, title } = this.model.measures[statistic];
      const record = spec.data.values.find((one) => one.layer === layer && one.head === head);
      if (this.pointed) this.sayPointed();
      else this.say(`Layer ${layer}, head ${head}: ${title} ${print(record?.[statistic])}`);
      return drawn;
    }

    sayPointed() {
      const { keys, queries } = this.model;
      const [query, key] = this.pointed;
      const { head, layer } = this.state;
      this.layer(layer).then((values) => this.sayPair(queries[query], keys[key], values.value(head, query, key)));
    }

    // The pair under the mouse on a map that is an image, if it has a value.
    pairAt(event) {
      const { image, keys, queries } = this.model;
      const box = this.map.node.querySelector("image").getBoundingClientRect();
      const place = (places, share) => places[Math.floor(share * places.length)];
      const row = queries.indexOf(place(image.rows, (box.bottom - event.clientY) / box.height));
      const column = keys.indexOf(place(image.columns, (event.clientX - box.x) / box.width));
      const value = row < 0 || column < 0 ? null : this.values.value(this.state.head, row, column);
      return value === null ? null : { query: queries[row], key: keys[column], [this.model.statistic]: value };
    }

    // Lets the map do something with the pair under the mouse; an image has no marks for pairs.
    onMap(type, listener) {
      if (!this.model.image) return this.map.on(type, listener);
      return this.map.node.addEventListener(type, (event) => {
        const pair = this.pairAt(event);
        const tooltip = pair && this.describe(pair.query, pair.key, pair[this.model.statistic]);
        this.map.view.tooltip()(null, event, null, tooltip);
        listener(pair ?? {});
      });
    }

    point(query, key) {
      const { keys, queries } = this.model;
      const within = (at, count) => Math.min(count - 1, Math.max(0, at));
      this.pointed = [within(query, queries.length), within(key, keys.length)];
      this.sayPointed();
      return this.draw();
    }

    markFixed() {
      const [low, high] = ["low", "high"].map((id) => find(id).valueAsNumber);
      const valid = isRange(low, high);
      for (const id of ["low", "high"]) {
        if (valid) find(id).removeAttribute("aria-invalid");
        else find(id).setAttribute("aria-invalid", "true");
      }
      return valid;
    }

    readFixed() {
      const [low, high] = ["low", "high"].map((id) => find(id).valueAsNumber);
      if (this.markFixed()) this.change({ low, high, range: "fixed" });
      else this.say("The low end has to be a number below the high end.");
    }

    listen() {
      const on = (id, type, listener) => find(id).addEventListener(type, listener);
      const { statistic } = this.model;
      this.overview.on("click", ({ layer, head }) => {
        if (layer !== undefined && head !== undefined) this.choose(layer, head);
      });
      this.overview.on("mousemove", (datum) => {
        const measure = this.state.statistic;
        const { layer, head } = datum;
        if (layer === undefined && head === undefined) return;
        const place = [layer === undefined ? "all layers" : `layer ${layer}`, head === undefined ? "all heads" : `head ${head}`];
        this.say(`${place.join(", ")}: ${this.model.measures[measure].title} ${print(datum[measure])}`.replace(/^./, (c) => c.toUpperCase()));
      });
      this.onMap("mousemove", (datum) => {
        if (datum.key !== undefined && statistic in datum) this.sayPair(datum.query, datum.key, datum[statistic]);
      });
      this.onMap("mouseleave", () => {});
      this.onMap("click", ({ query }) => {
        if (query !== undefined) this.change({ query: query === this.state.query ? null : query });
      });
      this.profile.on("mousemove", (datum) => {
        if (datum.key !== undefined && statistic in datum) this.sayPair(this.state.query, datum.key, datum[statistic]);
      });
      on("statistic", "change", (event) => this.change({ statistic: event.target.value }));
      on("layer", "change", (event) => this.choose(Number(event.target.value), this.state.head));
      on("head-number", "change", (event) => this.choose(this.state.layer, Number(event.target.value)));
      for (const name of ["layer", "head"]) {
        on(`${name}-back`, "click", () => this.step(name, -1));
        on(`${name}-on`, "click", () => this.step(name, 1));
      }
      for (const radio of document.querySelectorAll("[name=range]")) {
        radio.addEventListener("change", () => this.change({ range: radio.value }));
      }
      for (const id of ["low", "high"]) on(id, "change", () => this.readFixed());
      on("to-last", "click", () => {
        this.change({ query: null });
        find(this.model.maps.length ? "map" : "profile").focus({ preventScroll: true });
      });
      on("overview", "keydown", (event) => this.press(event, OVERVIEW_KEYS));
      on("map", "keydown", (event) => this.press(event, MAP_KEYS));
      on("map", "blur", () => {
        if (!this.pointed) return;
        this.pointed = null;
        this.draw();
      });
      on("theme", "click", () => this.setTheme(!this.isDark));
      addEventListener("hashchange", () => {
        const found = readAddress(location.hash, this.model);
        if (found) this.change({ query: null, ...found });
      });
      let timer = 0;
      const fit = () => {
        clearTimeout(timer);
        // What is printed keeps the layout of the screen, scaled to the sheet.
        timer = setTimeout(() => matchMedia("print").matches || this.draw(), 120);
      };
      new ResizeObserver(fit).observe(main);
      addEventListener("resize", fit); // the height counts as well
    }

    press(event, keys) {
      const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys.get(event.key);
      if (!act) return;
      event.preventDefault();
      act(this);
    }

    get isDark() {
      return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    }

    setTheme(dark) {
      root.dataset.theme = dark ? "dark" : "light";
      find("theme").setAttribute("aria-pressed", dark);
    }
  }

  const OVERVIEW_KEYS = new Map([
    ["ArrowUp", (page) => page.step("layer", -1)],
    ["ArrowDown", (page) => page.step("layer", 1)],
    ["ArrowLeft", (page) => page.step("head", -1)],
    ["ArrowRight", (page) => page.step("head", 1)],
    ["PageUp", (page) => page.step("layer", -5)],
    ["PageDown", (page) => page.step("layer", 5)],
    ["Home", (page) => page.step("head", -Infinity)],
    ["End", (page) => page.step("head", Infinity)],
  ]);

  // Moves the map's cursor, which begins at the chosen query and the first key.
  const move = (up, right) => (page) => {
    const { queries } = page.model;
    if (page.pointed) return page.point(page.pointed[0] + up, page.pointed[1] + right);
    const { query } = page.state;
    return page.point(query === null ? queries.length - 1 : queries.indexOf(query), 0);
  };
  const chooseRow = (page) => {
    if (!page.pointed) return move(0, 0)(page);
    const query = page.model.queries[page.pointed[0]];
    return page.change({ query: query === page.state.query ? null : query });
  };
  const MAP_KEYS = new Map([
    ["ArrowUp", move(1, 0)], // query frame 0 is at the bottom
    ["ArrowDown", move(-1, 0)],
    ["ArrowLeft", move(0, -1)],
    ["ArrowRight", move(0, 1)],
    ["Enter", chooseRow],
    [" ", chooseRow],
    ["Escape", (page) => page.change({ query: null })],
  ]);

  async function start() {
    try {
      const [text] = await Promise.all([readText("model"), loadVega()]);
      const model = JSON.parse(text);
      const page = new Explorer(model);
      page.listen();
      find("theme").setAttribute("aria-pressed", page.isDark);
      await page.draw();
      main.dataset.state = "drawn";
    } catch (error) {
      main.dataset.state = "failed";
      const note = find("overview-note");
      note.classList.add("failed");
      note.textContent = `This page can not be drawn here: ${error.message}`;
    }
    main.removeAttribute("aria-busy");
  }

  start();
})();
