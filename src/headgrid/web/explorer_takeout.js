// Takes out of the page what it shows: a figure as an SVG, values as CSV.

const SVG = "http://www.w3.org/2000/svg";
const FONT = "Arial, DejaVu Sans, Helvetica, sans-serif";
const MARGIN = 8;

function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  return `Saved ${name}`;
}

// Lines of a text that are so wide, in pixels. Scripts without spaces break anywhere.
function wrap(text, room, font) {
  const context = document.createElement("canvas").getContext("2d");
  context.font = font;
  const lines = [""];
  for (const part of text.match(/[!-\u2e7f]{1,40}\s*|[^][\u3001\u3002\uff01-\uff1f]*/gu) ?? []) {
    if (context.measureText((lines.at(-1) + part).trimEnd()).width > room) lines.push("");
    lines.push(lines.pop() + part);
  }
  return lines.map((line) => line.trim());
}

function add(parent, name, attributes, text = "") {
  const node = parent.appendChild(document.createElementNS(SVG, name));
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

// Copies a drawing of the page so that it needs nothing of the page: ids, paints, pointers.
function clone(drawing) {
  const copied = drawing.cloneNode(true);
  const page = `url(${location.href.split("#")[0]}#`; // how Vega names a gradient
  // No seams between cells, however large they are shown.
  copied.querySelector(".headgrid_cells_marks")?.setAttribute("shape-rendering", "crispEdges");
  for (const node of copied.querySelectorAll("*")) {
    node.style.cursor = "";
    if (node.getAttribute("style") === "") node.removeAttribute("style");
    const link = node.getAttribute("href"); // of an image, there in one namespace or in two
    node.removeAttributeNS("http://www.w3.org/1999/xlink", "href");
    if (link) node.setAttribute("href", link);
    for (const { name, value } of [...node.attributes]) {
      if (value === "currentColor") node.setAttribute(name, "#000");
      else if (value.startsWith(page)) node.setAttribute(name, value.replace(page, "url(#"));
      else if (name.startsWith("aria-") || name === "role") node.removeAttribute(name);
    }
  }
  return copied;
}

// Returns one SVG that stands alone: drawings one below the other, each under its heading,
// between a title and a caption.
function writeFigure(title, parts, caption) {
  const sizes = parts.map(({ drawing }) => ["width", "height"].map((side) => Number(drawing.getAttribute(side))));
  const width = Math.max(420, ...sizes.map(([across]) => across)) + 2 * MARGIN;
  const root = document.createElementNS(SVG, "svg");
  add(root, "title", {}, title);
  add(root, "desc", {}, caption);
  const ground = add(root, "rect", { width, fill: "#fff" });
  let y = MARGIN;
  const write = (text, size, weight = "normal") => {
    // Where there is no Arial, letters are up to a fifth wider than here.
    for (const line of wrap(text, 0.82 * (width - 2 * MARGIN), `${weight} ${size}px ${FONT}`)) {
      y += Math.round(1.35 * size);
      const look = { "font-family": FONT, "font-size": size, "font-weight": weight, fill: "#000" };
      add(root, "text", { x: MARGIN, y: y - Math.round(0.35 * size), ...look }, line);
    }
  };
  write(title, 14, "bold");
  parts.forEach(({ drawing, heading }, at) => {
    y += MARGIN;
    if (heading) write(heading, 12, "bold");
    add(root, "g", { transform: `translate(${MARGIN},${y})` }).append(...clone(drawing).childNodes);
    y += sizes[at][1];
  });
  y += MARGIN;
  write(caption, 11);
  const height = y + MARGIN;
  ground.setAttribute("height", height);
  const size = { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" };
  for (const [name, value] of Object.entries(size)) root.setAttribute(name, value);
  return new XMLSerializer().serializeToString(root);
}

// Returns records as CSV, with every column that one of them has.
function writeTable(records) {
  const cell = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : (value ?? ""));
  const names = [...new Set(records.flatMap(Object.keys))];
  const rows = [names, ...records.map((record) => names.map((name) => record[name]))];
  return rows.map((row) => `${row.map(cell).join(",")}\n`).join("");
}
