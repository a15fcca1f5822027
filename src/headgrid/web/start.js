// Draws the headgrid figures of a page: <figure class="headgrid"> that holds its
// specification as inert JSON. Needs window.vegaEmbed. Nothing is fetched, and no
// text becomes code: Vega's expressions are interpreted.
(() => {
  "use strict";

  "__GUARD__";

  // vega-tooltip's own table would make a picture of a value named "image".
  const formatTooltip = (value, escape) => {
    if (value === null || typeof value !== "object") return escape(value);
    const row = ([name, entry]) =>
      `<tr><td class="key">${escape(name)}</td><td class="value">${escape(
        typeof entry === "object" ? JSON.stringify(entry) : entry,
      )}</td></tr>`;
    return `<table>${Object.entries(value).map(row).join("")}</table>`;
  };

  const options = (figure) => ({
    actions: false,
    ast: true,
    config: { aria: false }, // the figure has a label as a whole
    defaultStyle: false,
    loader,
    mode: "vega-lite",
    renderer: figure.dataset.renderer || "svg",
    tooltip: { disableDefaultStyle: true, formatTooltip },
  });

  const style = new CSSStyleSheet();
  style.replaceSync("__STYLE__");

  // Draws a figure with as many columns as fit. Widths are known once they were drawn.
  async function drawFigure(figure) {
    const view = figure.querySelector(".headgrid-view");
    refuseAddresses(view);
    const whole = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
    const { theme, width: printed } = whole.usermeta?.headgrid ?? {}; // in points
    // Another theme's axes stand at the border of the grid: its columns are part of it.
    const reflows = whole.columns > 1 && !theme && !printed;
    const most = whole.columns || 1;
    const widths = new Map();
    let shown = 0;
    let result = null;

    const draw = async (columns) => {
      if (columns === shown) return;
      if (result) result.finalize();
      const spec = columns < most ? { ...whole, columns } : whole;
      result = await window.vegaEmbed(view, spec, options(figure));
      shown = columns;
      const [svg] = view.getElementsByTagName("svg");
      if (svg && Number(printed)) Object.assign(svg.style, { height: "auto", width: `${Number(printed)}pt` });
      widths.set(columns, view.firstElementChild.getBoundingClientRect().width);
    };
    const fit = async () => {
      const room = view.clientWidth || Infinity; // 0: hidden for now
      let columns = most;
      for (;;) {
        if (!widths.has(columns)) await draw(columns);
        const width = widths.get(columns);
        if (width <= room || columns === 1 || !reflows) break;
        columns = Math.min(columns - 1, Math.max(1, Math.floor((columns * room) / width)));
      }
      await draw(columns);
    };

    const finished = [...view.childNodes];
    try {
      await fit();
      figure.dataset.state = "drawn";
    } catch (error) {
      figure.dataset.state = "failed";
      const said = `This figure can not be drawn here: ${error.message}`;
      view.replaceChildren(...(finished.length ? finished : [said]));
      return;
    }
    if (!reflows) return;
    let timer = 0;
    let fitting = Promise.resolve();
    new ResizeObserver(() => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        // What is printed keeps the layout of the screen, scaled to the sheet.
        if (!matchMedia("print").matches) fitting = fitting.then(fit);
      }, 150);
    }).observe(view);
  }

  // Draws every figure below a node that is not drawn yet; for pages that grow.
  function start(root = document) {
    const { adoptedStyleSheets } = root.getRootNode();
    if (!adoptedStyleSheets.includes(style)) adoptedStyleSheets.push(style);
    const figures = [...root.querySelectorAll("figure.headgrid:not([data-state])")];
    for (const figure of figures) figure.dataset.state = "drawing";
    return Promise.all(figures.map(drawFigure));
  }

  window.headgrid = { options, start };
  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", () => start());
  } else {
    start();
  }
})();
