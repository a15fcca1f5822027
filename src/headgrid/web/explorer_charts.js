// Draws the figures of an explorer: specifications of the page with values and parameters.

class Chart {
  constructor(id) {
    this.node = document.getElementById(id);
    // Vega gives the element that it draws into a role and a label of its own.
    this.inside = this.node.appendChild(document.createElement("div"));
    this.inside.setAttribute("aria-hidden", "true");
    this.spec = null;
    this.view = null;
  }

  // Draws a specification with values and parameters. The same specification again is
  // only brought up to date.
  async show(spec, values, parameters) {
    if (spec !== this.spec) {
      this.view?.finalize();
      const data = values ? { ...spec.data, values } : spec.data;
      const params = Object.entries(parameters).map(([name, value]) => ({ name, value }));
      const options = window.headgrid.options(this.node);
      const { view } = await window.vegaEmbed(this.inside, { ...spec, data, params }, options);
      this.view = view;
      this.spec = spec;
      this.values = values;
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

const clamp = (number, least, most) => Math.min(most, Math.max(least, number));

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
function fitMap({ profiles, wordRoom }, room) {
  const beside = 145 + wordRoom; // axis and colour bar
  const around = 420; // controls, profile, texts
  const most = Math.min(room - beside, Math.max(300, innerHeight - around));
  const at = profiles.findIndex(({ spec }) => spec.width <= most);
  return at < 0 ? profiles.length - 1 : at;
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

// The colours of values in a range, those that `ColorScale` gives them, and the values at all stops
// of the palette; the stops that a range does not use lie at its end.
function colorScale([low, high], { colors, diverging, stops }) {
  const [start, end] = [diverging && low >= 0 ? 0.5 : 0, diverging && high <= 0 ? 0.5 : 1];
  const bent = diverging && low < 0 && high > 0 && Math.abs(low + high) > 1e-9 * high;
  // Straight pieces: from a value to a value, at places of the palette.
  const [below, above] = bent ? [[low, 0, 0, 0.5], [0, high, 0.5, 1]] : Array(2).fill([low, high, start, end]);
  const color = (value) => {
    const [from, to, first, last] = value < 0 ? below : above;
    const step = Math.floor((value - from) * ((colors.length * (last - first)) / (to - from)) + colors.length * first);
    return colors[clamp(step, colors.length * first, colors.length * last - 1)];
  };
  const valueAt = (place) => {
    const [from, to, first, last] = place < 0.5 ? below : above;
    return from + ((place - first) / (last - first)) * (to - from);
  };
  return { color, stops: Array.from({ length: stops }, (_, at) => valueAt(clamp(at / (stops - 1), start, end))) };
}

// A head's values as an image with a pixel for each pair of places.
function paint(values, head, { color }, { axes: [rows, columns], keys, queries }) {
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
      const paint = color(value);
      pixels.data.set([paint >> 16, (paint >> 8) & 255, paint & 255, 255], 4 * (line + places[column]));
    });
  });
  context.putImageData(pixels, 0, 0);
  return canvas.toDataURL();
}

// As Vega prints numbers, with a true minus.
const print = (value) => (value === null || value === undefined ? "no value" : String(value).replace(/-/g, "−"));
