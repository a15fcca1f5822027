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

  function addStyle(root) {
    if (!root.adoptedStyleSheets.includes(style)) {
      root.adoptedStyleSheets = [...root.adoptedStyleSheets, style];
    }
  }

  // Draws a figure with as many columns as fit. Widths are known once they were drawn.
  class Figure {
    constructor(figure) {
      this.figure = figure;
      this.view = figure.querySelector(".headgrid-view");
      refuseAddresses(this.view);
      this.spec = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
      const { theme, width } = this.spec.usermeta?.headgrid ?? {};
      // Another theme's axes stand at the border of the grid: its columns are part of it.
      this.reflows = this.spec.columns > 1 && !theme && !width;
      this.columns = this.spec.columns || 1;
      this.printed = Number(width) || 0; // in points
      this.widths = new Map();
      this.shown = 0;
      this.result = null;
    }

    async draw(columns) {
      if (columns === this.shown) return;
      if (this.result) this.result.finalize();
      const spec = columns < this.columns ? { ...this.spec, columns } : this.spec;
      this.result = await window.vegaEmbed(this.view, spec, options(this.figure));
      this.shown = columns;
      const [svg] = this.view.getElementsByTagName("svg");
      if (svg && this.printed) Object.assign(svg.style, { height: "auto", width: `${this.printed}pt` });
      this.widths.set(columns, this.view.firstElementChild.getBoundingClientRect().width);
    }

    async fit() {
      const room = this.view.clientWidth || Infinity; // 0: hidden for now
      let columns = this.columns;
      for (;;) {
        if (!this.widths.has(columns)) await this.draw(columns);
        const width = this.widths.get(columns);
        if (width <= room || columns === 1 || !this.reflows) break;
        columns = Math.min(columns - 1, Math.max(1, Math.floor((columns * room) / width)));
      }
      await this.draw(columns);
    }

    async start() {
      const finished = [...this.view.childNodes];
      try {
        await this.fit();
        this.figure.dataset.state = "drawn";
      } catch (error) {
        this.figure.dataset.state = "failed";
        const said = `This figure can not be drawn here: ${error.message}`;
        this.view.replaceChildren(...(finished.length ? finished : [said]));
        return;
      }
      if (!this.reflows) return;
      let timer = 0;
      let fitting = Promise.resolve();
      new ResizeObserver(() => {
        clearTimeout(timer);
        timer = setTimeout(() => {
          // What is printed keeps the layout of the screen, scaled to the sheet.
          if (!matchMedia("print").matches) fitting = fitting.then(() => this.fit());
        }, 150);
      }).observe(this.view);
    }
  }

  // Draws every figure below a node that is not drawn yet; for pages that grow.
  function start(root = document) {
    addStyle(root.getRootNode());
    const figures = [...root.querySelectorAll("figure.headgrid:not([data-state])")];
    for (const figure of figures) figure.dataset.state = "drawing";
    return Promise.all(figures.map((figure) => new Figure(figure).start()));
  }

  window.headgrid = { options, start };
  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", () => start());
  } else {
    start();
  }
})();
