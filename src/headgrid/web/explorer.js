// Shows one head at a time of a run that the page holds: an overview of all heads, the head's map and
// its profile, its statistics, and all heads in order. Stands behind the other files of the explorer.

const find = (id) => document.getElementById(id);
const root = document.documentElement;
const main = document.querySelector("main");

// What a page needs of a run but the values of its layers.
async function readModel(run, specs) {
  const model = { run, ...JSON.parse(await readText(`model-${run}`)) };
  // Equal specifications of several runs are one, which is not drawn anew.
  const share = (spec) => (specs[JSON.stringify(spec)] ??= spec);
  for (const name of ["maps", "profiles"]) model[name] = model[name].map(share);
  for (const [name, measure] of Object.entries(model.measures)) {
    const heads = measure.spec.data.values.filter(({ layer, head }) => layer !== undefined && head !== undefined);
    measure.records = heads.map((one) => ({ layer: one.layer, head: one.head, value: one[name] ?? null }));
    measure.values = new Map(measure.records.map((one) => [`${one.layer}:${one.head}`, one.value]));
  }
  return model;
}

function fillSelect(select, choices, chosen) {
  const shown = [...select.options].map((option) => [option.value, option.textContent]);
  const same = `${shown}` === `${choices}`;
  if (!same) select.replaceChildren(...choices.map(([value, text]) => new Option(text, value)));
  select.value = chosen;
}

const SELECTS = [["layer", "layer"], ["head", "head-number"]];

// What an address does not name.
const DEFAULTS = { query: null, order: "size", role: "" };

// Heads by a measure, those without a value last, and equal ones as they are numbered.
function rank({ records }, order) {
  const key = ({ value }) => (value === null ? -Infinity : ORDERS[order](value));
  return [...records].sort((a, b) => key(b) - key(a) || 0);
}

// -- The page ------------------------------------------------------------------------

class Explorer {
  constructor(page) {
    this.page = page;
    const roles = [...new Set(page.roles && ["-", ...Object.values(page.roles)])].sort();
    for (const run of page.runs) run.roles = roles;
    this.models = [];
    this.specs = {};
    this.layers = new Map();
    this.pointed = null; // [query, key] of the map's cursor, as positions
    this.overview = new Chart("overview");
    this.map = new Chart("map");
    this.profile = new Chart("profile");
    this.drawing = null;
    this.again = false;
    this.writing = false; // an end of a range, which no drawing takes away
  }

  // Shows what the address says, of the most telling head where it says none.
  async open() {
    const { runs } = this.page;
    const found = readAddress(location.hash, runs, 0);
    const run = found?.run ?? 0;
    this.model = await this.readRun(run);
    const { fixed, range, statistic } = this.model.start;
    const measure = this.model.measures[found?.statistic ?? statistic];
    const fits = (one) => ["layer", "head"].every((name) => (found?.[name] ?? one[name]) === one[name]);
    const { layer, head } = rank(measure, "size").find(fits);
    this.state = { run, layer, head, ...DEFAULTS, low: fixed[0], high: fixed[1], range, statistic, ...found };
    if (found || location.hash.length < 2) history.replaceState(null, "", writeAddress(this.state, runs));
    this.listen();
    fillSelect(find("run"), runs.map(({ name, prompt }, at) => [at, prompt ? `${name}: ${prompt.slice(0, 60)}` : name]), run);
    find(runs.length > 1 ? "name" : "runs").hidden = true;
    find("roles").hidden = this.page.roles === null;
    return this.draw();
  }

  roleOf({ layer, head }) {
    return this.page.roles === null ? "" : (this.page.roles[`${layer}:${head}`] ?? "-");
  }

  // What an address of the run that is shown may name.
  get run() {
    return this.page.runs[this.state.run];
  }

  readRun(run) {
    return (this.models[run] ??= readModel(run, this.specs));
  }

  layer(number) {
    const id = `layer-${this.state.run}-${number}`;
    if (!this.layers.has(id)) this.layers.set(id, inflate(id).then((bytes) => new Layer(bytes, this.model)));
    return this.layers.get(id);
  }

  // Changes what is shown, as a step of the history, or in place of the last one while a key is
  // held down. Several changes while a figure is drawn are one more drawing.
  change(changes, inPlace = this.held) {
    const { runs } = this.page;
    const state = { ...this.state, ...changes };
    const { layers, measures } = runs[state.run];
    if (!layers.includes(state.layer)) state.layer = layers.findLast((one) => one < state.layer) ?? layers[0];
    if (!measures.includes(state.statistic)) [state.statistic] = measures;
    const address = writeAddress(state, runs);
    if (address !== location.hash) history[inPlace ? "replaceState" : "pushState"](null, "", address);
    if (Object.keys(state).every((name) => state[name] === this.state[name])) return this.drawing;
    this.state = state;
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
    const { state } = this;
    const { layer, head } = state;
    const model = await this.readRun(state.run);
    const values = await this.layer(layer);
    if (state !== this.state) return; // and another drawing follows
    Object.assign(this, { model, shown: state, values });
    this.fillControls();
    this.fillLists();
    if (this.pointed) {
      const [query, key] = this.pointed;
      this.sayPair(model.queries[query], model.keys[key], values.value(head, query, key));
    }
    await Promise.all([
      this.drawOverview(),
      model.maps.length ? this.drawMap(values, layer, head) : null,
      this.drawProfile(layer, head),
    ]);
    main.dataset.shown = writeAddress(state, this.page.runs);
    const { layers } = this.run;
    const at = layers.indexOf(layer); // whoever steps on finds the next one read
    for (const near of layers.slice(Math.max(0, at - 1), at + 2)) this.layer(near);
  }

  async drawOverview() {
    const { head, layer, statistic } = this.state;
    const { spec } = this.model.measures[statistic];
    const { node } = this.overview;
    const [column, row] = ["x", "y"].map((side) => spec.spec.layer[0].encoding[side].scale.domain);
    const chosen = { chosen_column: column.indexOf(`${head}`), chosen_row: row.indexOf(`${layer}`) };
    const about = `${this.state.run} ${statistic} ${node.clientWidth}`;
    const known = this.fitted?.about === about;
    let beside = 130; // axis and colour bar, about: their labels are measured by drawing them
    for (let tries = known ? 1 : 3; tries > 0; tries--) {
      if (!known) this.fitted = { about, spec: fitOverview(spec, node.clientWidth, beside) };
      await this.overview.show(this.fitted.spec, null, chosen);
      if (node.scrollWidth <= node.clientWidth) break;
      beside = node.scrollWidth - this.fitted.spec.spec.width;
    }
    if (known && this.ringed === head) return;
    this.ringed = head;
    const [room, ring] = [node, [...node.querySelectorAll(".role-mark path")].at(-1)].map((one) => one.getBoundingClientRect());
    if (ring.left < room.left || ring.right > room.right) node.scrollLeft += ring.left - room.left - room.width / 2;
  }

  get range() {
    const { low, high, layer, head, range } = this.state;
    const { head: heads, quantile, shared, symmetric } = this.model.ranges;
    const known = { fixed: [low, high], head: heads[layer][head], quantile, shared };
    return known[range] ?? symmetric[layer];
  }

  async drawMap(values, layer, head) {
    const { axes, extents, image, keys, maps, queries, statistic } = this.model;
    const { range, state } = this;
    const node = this.map.node;
    const spec = maps[fitMap(this.model, node.clientWidth)];
    const about = `${state.run} ${layer} ${head} ${range}`;
    const scale = colorScale(range, this.model);
    if (this.records?.about !== about && image) {
      const picture = new Image();
      picture.src = paint(values, head, scale, this.model);
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
        const fill = `#${scale.color(value).toString(16).padStart(6, "0")}`;
        rows.push({ query: queries[row], key: keys[column], [statistic]: value, pair, panel: 0, fill });
      });
      this.records = { about, rows };
    }
    const [query, key] = this.pointed ?? [];
    const own = state.range === "head"; // beyond which nothing of it lies
    const fromTop = (query) => axes[0].length - 1 - axes[0].indexOf(query);
    await this.map.show(spec, this.records.rows, {
      ...rangeParameters(range, own ? range : extents[layer]),
      range_stops: scale.stops,
      chosen_row: state.query === null ? null : fromTop(state.query),
      pointed_row: this.pointed ? fromTop(queries[query]) : null,
      pointed_column: this.pointed ? axes[1].indexOf(keys[key]) : null,
    });
    if (image) node.querySelector("image").setAttribute("href", this.records.picture.src);
  }

  async drawProfile(layer, head) {
    const { axes, keys, profiles, statistic } = this.model;
    const { query } = this.state;
    const spec = profiles[fitMap(this.model, this.profile.node.clientWidth)];
    const row = this.rowOf();
    const about = `${this.state.run} ${layer} ${head} ${query}`;
    if (this.line?.about !== about) {
      // In a gap of the frames, the axis has a place that no key has.
      const shown = axes[1].map((frame) => row[keys.indexOf(frame)] ?? null);
      this.line = { about, rows: [{ panel: 0, layer, head, [statistic]: shown }] };
    }
    await this.profile.show(spec, this.line.rows, valueParameters(row));
  }

  // -- Texts and controls

  // What a place is called; a plain number follows a word, if there is one.
  tell(side, number, word = "") {
    return this.model.places[side][number]?.name ?? `${word}${number}`;
  }

  // The rows of the tooltip of a pair, or without a query of a key: whole labels stand behind.
  describe(query, key, value) {
    const { places, statistic } = this.model;
    const { head, layer } = this.state;
    const [row, column] = [places.query[query], places.key[key]];
    const shown = { layer, head, query: row?.span ?? query ?? "last block", key: column?.span ?? key };
    if (row?.label) shown.query_label = row.label;
    if (column?.label) shown.key_label = column.label;
    return { ...shown, [statistic]: value };
  }

  // What the shown measure, or another, says of a head.
  valueOf(layer, head, statistic = this.state.statistic) {
    return this.model.measures[statistic].values.get(`${layer}:${head}`);
  }

  fillControls() {
    const { model, run, state } = this;
    const { head, layer, query, range, statistic } = state;
    const { description, title } = model.measures[statistic];
    const here = `Layer ${layer}, head ${head}`;
    for (const name of ["about", "name", "prompt"]) find(name).textContent = run[name];
    find("run").value = state.run;
    document.title = [`${here}${run.name && `, ${run.name}`}`, this.page.title].join(" · ");
    find("head-title").textContent = here;
    fillSelect(find("statistic"), run.measures.map((name) => [name, model.measures[name].title]), statistic);
    for (const [name, select] of SELECTS) {
      const places = run[`${name}s`];
      fillSelect(find(select), places.map((place) => [place, place]), state[name]);
      find(`${name}-back`).disabled = state[name] === places[0];
      find(`${name}-on`).disabled = state[name] === places.at(-1);
    }
    for (const radio of document.querySelectorAll("[name=range]")) radio.checked = radio.value === range;
    const [low, high] = this.range.map((end) => Number(end.toPrecision(4)));
    for (const [id, end, shown] of [["low", state.low, low], ["high", state.high, high]]) {
      const input = find(id);
      input.disabled = range !== "fixed";
      if (document.activeElement !== input || !this.writing) input.value = range === "fixed" ? end : shown;
    }
    this.markFixed(); // what somebody is writing stays marked while something else is drawn
    this.say(`${here}: ${title} ${print(this.valueOf(layer, head))}`, "overview-readout");
    find("overview-note").textContent = `${title}: ${description}.`;
    find("profile-title").textContent =
      query === null ? `Profile of the last block (${model.lastBlock})` : `Profile of query ${this.tell("query", query, "frame ")}`;
    find("to-last").hidden = query === null;
    find("command").textContent = this.command ?? run.pick;
    find("command").classList.toggle("code", this.command !== null);
    find("take-command").hidden = this.command === null;
  }

  // The statistics of the head, and all heads in order with the chosen one among them.
  fillLists() {
    const { model, page, run, state } = this;
    const { head, layer, order, role, statistic } = state;
    const about = [model.run, statistic, order, role].join();
    if (this.ranked !== about) {
      this.ranked = about;
      const ranked = rank(model.measures[statistic], order);
      const shown = ranked.filter((one) => role === "" || this.roleOf(one) === role);
      const counts = new Map([["", ranked.length]]);
      for (const name of ranked.map((one) => this.roleOf(one)).sort()) counts.set(name, (counts.get(name) ?? 0) + 1);
      fillSelect(find("role"), [...counts].map(([name, count]) => [name, name === "" ? "all" : `${name} (${count})`]), role);
      find("order").value = order;
      const heads = shown.map((one) => {
        const text = `${`L${one.layer}`.padEnd(3)} ${`H${one.head}`.padEnd(3)} ${print(one.value).padStart(9)}  ${this.roleOf(one)}`;
        return new Option(text.trimEnd().replaceAll(" ", "\u00a0"), `${one.layer}:${one.head}`);
      });
      find("ranking").replaceChildren(...heads);
      find("list-title").textContent = `${shown.length} head${shown.length === 1 ? "" : "s"} by ${model.measures[statistic].title}`;
    }
    find("ranking").value = `${layer}:${head}`;
    const rows = run.measures.map((name) => [model.measures[name].title, print(this.valueOf(layer, head, name))]);
    if (page.roles) rows.unshift(["Role", this.roleOf(state)]);
    const table = find("statistics");
    table.caption.textContent = `Layer ${layer}, head ${head}`;
    table.tBodies[0].replaceChildren();
    for (const [title, value] of rows) {
      const row = table.tBodies[0].insertRow();
      row.append(Object.assign(document.createElement("th"), { scope: "row", textContent: title }));
      row.insertCell().textContent = value;
    }
  }

  say(text, id = "readout") {
    const readout = find(id);
    if (readout.textContent !== text) readout.textContent = text;
  }

  sayPair(query, key, value) {
    const { head, layer } = this.state;
    const row = query === null ? "last block" : `query ${this.tell("query", query)}`;
    const unit = value === null ? "" : ` ${this.model.unit}`;
    this.say(`Layer ${layer}, head ${head}, ${row}, key ${this.tell("key", key)}: ${print(value)}${unit}`);
  }

  // -- What a reader does

  step(name, step) {
    const places = this.run[`${name}s`];
    return this.change({ [name]: places[clamp(places.indexOf(this.state[name]) + step, 0, places.length - 1)] });
  }

  // Query, key and value at the mouse on the map or on the profile, if there is a value.
  pairAt(chart, event) {
    const { axes, keys, queries } = this.model;
    const box = chart.node.querySelector(".cell .background")?.getBoundingClientRect();
    if (!box || this.shown !== this.state) return null; // while it is read
    const [up, across] = [(box.bottom - event.clientY) / box.height, (event.clientX - box.x) / box.width];
    const place = (places, share) => places[Math.floor(share * places.length)];
    const query = chart === this.map ? place(axes[0], up) : this.state.query;
    const within = chart === this.map ? queries.includes(query) : up >= 0 && up < 1;
    const key = place(axes[1], across);
    const value = (within && this.rowOf(query)[keys.indexOf(key)]) ?? null;
    return within && value !== null ? [query, key, value] : null;
  }

  // Lets a chart do something with what is at the mouse: an image has no marks for pairs.
  onPair(chart, type, listener) {
    chart.node.addEventListener(type, (event) => {
      const pair = this.pairAt(chart, event);
      chart.view?.tooltip()(null, event, null, pair && this.describe(...pair));
      if (pair) listener(...pair);
    });
  }

  toggleRow(query) {
    return this.change({ query: query === this.state.query ? null : query });
  }

  // Moves the map's cursor, which begins at the chosen query and the first key.
  point(up, right) {
    const { keys, queries } = this.model;
    const start = [this.state.query === null ? queries.length - 1 : queries.indexOf(this.state.query), 0];
    const [query, key] = this.pointed ? [this.pointed[0] + up, this.pointed[1] + right] : start;
    this.pointed = [clamp(query, 0, queries.length - 1), clamp(key, 0, keys.length - 1)];
    return this.draw();
  }

  // Marks ends that are none; the error goes as soon as they are right.
  markFixed(error = find("range-error").textContent) {
    const [low, high] = ["low", "high"].map((id) => find(id).valueAsNumber);
    const valid = isRange(low, high);
    for (const id of ["low", "high"]) find(id).setAttribute("aria-invalid", !valid);
    this.say(valid ? "" : error, "range-error");
    return valid && { low, high, range: "fixed" };
  }

  // -- What is taken out of the page

  // The command that draws the head in the colours that it has here; null where there is none.
  get command() {
    const { head, layer } = this.state;
    if (this.run.head === null) return null;
    const range = this.model.maps.length ? `--figure both --color-range=${this.range.join()}` : "--figure perhead";
    return `${this.run.pick} --head ${this.run.head}${layer}:${head} ${range}${this.page.style} -o ${this.stem}.svg`;
  }

  get stem() {
    const { head, layer } = this.state;
    return `${this.run.stem}layer${layer}_head${head}`;
  }

  takeFigure() {
    const { model, run } = this;
    const { head, layer, range, statistic } = this.state;
    const named = run.name && `, ${run.name}`;
    const caption = [`${model.title}, layer ${layer}, head ${head}${named}`];
    const parts = [{ drawing: find("profile").querySelector("svg"), heading: find("profile-title").textContent }];
    if (model.maps.length) {
      parts.unshift({ drawing: find("map").querySelector("svg") });
      const whose = document.querySelector(`[name=range][value=${range}]`).parentElement;
      const ends = this.range.map((end) => print(Number(end.toPrecision(4))));
      caption.push(`Color range ${ends.join(" to ")} (${(whose.title || whose.textContent).trim().toLowerCase()})`);
    }
    caption.push(`${model.measures[statistic].title} ${print(this.valueOf(layer, head))}`);
    const text = `${caption.join(". ")}.${run.prompt && ` Prompt: ${run.prompt}`}`;
    const figure = writeFigure(`Layer ${layer}, Head ${head}${named}`, parts, text);
    return save(`${this.stem}.svg`, "image/svg+xml", figure);
  }

  // Saves values of pairs of places as the tooltips of these have them.
  takeTable(what, pairs) {
    const run = this.run.name && { run: this.run.name };
    const records = pairs.map((pair) => ({ ...run, ...this.describe(...pair) }));
    return save(`${this.stem}_${what}.csv`, "text/csv", writeTable(records));
  }

  // Query, key and value of each place of a row.
  pairsOf(query) {
    return this.rowOf(query).map((value, at) => [query, this.model.keys[at], value]);
  }

  // The values of the profile: of the last block, or of the query that was chosen, or another.
  rowOf(query = this.state.query) {
    const { model, state, values } = this;
    return query === null ? values.last(state.head) : values.row(state.head, model.queries.indexOf(query));
  }

  copy(what, text) {
    const failed = `This browser lets no page copy the ${what}: select it and copy it`;
    return navigator.clipboard?.writeText(text).then(() => `Copied the ${what}`, () => failed) ?? failed;
  }

  listen() {
    const on = (id, type, listener) => find(id).addEventListener(type, listener);
    const headAt = (event) => event.target.__data__?.datum ?? {}; // what Vega has drawn there
    on("overview", "click", (event) => {
      const { layer, head } = headAt(event);
      if (layer !== undefined && head !== undefined) this.change({ layer, head });
    });
    on("overview", "mousemove", (event) => {
      const { layer, head, [this.state.statistic]: value } = headAt(event);
      if (layer === undefined && head === undefined) return;
      const place = [layer === undefined ? "all layers" : `layer ${layer}`, head === undefined ? "all heads" : `head ${head}`];
      const said = `${place.join(", ")}: ${this.model.measures[this.state.statistic].title} ${print(value)}`;
      this.say(said.replace(/^./, (c) => c.toUpperCase()), "overview-readout");
    });
    for (const chart of [this.map, this.profile]) {
      this.onPair(chart, "mousemove", (...pair) => this.sayPair(...pair));
      this.onPair(chart, "mouseleave", () => {});
    }
    this.onPair(this.map, "click", (query) => this.toggleRow(query));
    on("statistic", "change", (event) => this.change({ statistic: event.target.value }));
    for (const [name, select] of SELECTS) {
      on(select, "change", (event) => this.change({ [name]: Number(event.target.value) }));
      on(`${name}-back`, "click", () => this.step(name, -1));
      on(`${name}-on`, "click", () => this.step(name, 1));
    }
    for (const radio of document.querySelectorAll("[name=range]")) {
      radio.addEventListener("change", () => this.change({ range: radio.value }));
    }
    for (const id of ["low", "high"]) {
      on(id, "change", () => {
        const ends = this.markFixed("The low end has to be a number below the high end.");
        this.writing = !ends;
        this.change(ends || {});
      });
      on(id, "input", () => {
        this.writing = true;
        this.markFixed();
      });
    }
    on("run", "change", (event) => this.change({ run: Number(event.target.value) }));
    for (const id of ["order", "role"]) on(id, "change", (event) => this.change({ [id]: event.target.value }));
    on("ranking", "change", (event) => {
      const [layer, head] = event.target.value.split(":").map(Number);
      this.change({ layer, head });
    });
    const taken = {
      figure: () => this.takeFigure(),
      map: () => {
        const pairs = this.model.queries.flatMap((query) => this.pairsOf(query));
        return this.takeTable("map", pairs.filter(([, , value]) => value !== null));
      },
      profile: () => this.takeTable("profile", this.pairsOf(this.state.query)),
      link: () => this.copy("address", location.href.split("#")[0] + writeAddress(this.state, this.page.runs)),
      command: () => this.copy("command", this.command),
    };
    for (const [name, take] of Object.entries(taken)) {
      on(`take-${name}`, "click", async () => {
        await this.drawing; // what is taken is what is shown
        this.say(await take(), "taken");
      });
    }
    on("to-last", "click", () => {
      this.change({ query: null });
      find(this.model.maps.length ? "map" : "profile").focus({ preventScroll: true });
    });
    const onKeys = (id, keys, act) =>
      on(id, "keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
        event.preventDefault();
        act(event.key, ...keys[event.key]);
      });
    onKeys("overview", STEPS, (_, name, step) => this.step(name, step));
    onKeys("map", MOVES, (key, up, right) => {
      if (key === "Escape") this.change({ query: null });
      else if (this.pointed && !up && !right) this.toggleRow(this.model.queries[this.pointed[0]]);
      else this.point(up, right);
    });
    on("map", "blur", () => {
      if (!this.pointed) return;
      this.pointed = null;
      this.draw();
    });
    on("theme", "click", () => {
      root.dataset.theme = this.isDark ? "light" : "dark";
      find("theme").setAttribute("aria-pressed", this.isDark);
    });
    document.querySelector(".skip").addEventListener("click", (event) => {
      event.preventDefault(); // the address is that of what is shown
      find("head").focus();
    });
    addEventListener("hashchange", () => {
      const found = readAddress(location.hash, this.page.runs, this.state.run);
      if (found) this.change({ ...DEFAULTS, ...found }, true);
    });
    const hold = (event) => void (this.held = event.repeat);
    for (const type of ["keydown", "keyup"]) addEventListener(type, hold, true);
    let timer = 0;
    const fit = () => {
      clearTimeout(timer);
      // What is printed keeps the layout of the screen, scaled to the sheet.
      timer = setTimeout(() => matchMedia("print").matches || this.draw(), 120);
    };
    new ResizeObserver(fit).observe(main);
    addEventListener("resize", fit); // the height counts as well
  }

  get isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
}

// Where a key goes: in the overview, and in the map, up and right; query frame 0 is at the bottom.
const STEPS = {
  ...{ ArrowUp: ["layer", -1], ArrowDown: ["layer", 1], ArrowLeft: ["head", -1], ArrowRight: ["head", 1] },
  ...{ PageUp: ["layer", -5], PageDown: ["layer", 5], Home: ["head", -Infinity], End: ["head", Infinity] },
};
const MOVES = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Enter: [0, 0], " ": [0, 0], Escape: [0, 0] };

async function start() {
  try {
    const [text] = await Promise.all([readText("page"), loadVega()]);
    const page = new Explorer(JSON.parse(text));
    find("theme").setAttribute("aria-pressed", page.isDark);
    await page.open();
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
