(figure) => {
  const view = figure.querySelector(".headgrid-view");
  const spec = JSON.parse(figure.querySelector("script").textContent);
  const refuse = () => Promise.reject(new Error("nothing is fetched"));
  const loader = {
    load: refuse,
    sanitize: (uri) => (uri.startsWith("data:image/png;base64,") ? Promise.resolve({ href: uri }) : refuse()),
  };
  const paints = ["fill", "stroke", "style"];
  const risky = paints.map((name) => `[${name}*="url" i],[${name}*="image" i],[${name}*="\\\\"]`).join();
  const own = `url(${location.href.split("#")[0]}#`;
  const clean = () => {
    for (const node of [view, ...view.querySelectorAll(risky)]) {
      for (const name of paints) {
        const paint = (node.getAttribute(name) || "").replaceAll(own, "url(#");
        if (/\\|(url|image|image-set|cross-fade)\((?!#)/i.test(paint)) node.removeAttribute(name);
      }
    }
  };
  const watched = { attributes: true, attributeFilter: paints, childList: true, subtree: true };
  new MutationObserver(clean).observe(view, watched);
  const formatTooltip = (value, escape) =>
    typeof value !== "object" ? escape(value)
      : Object.entries(value).map(([name, entry]) => `${escape(name)}: ${escape(entry)}`).join("<br>");
  const draw = () => {
    if (figure.dataset.state) return;
    figure.dataset.state = "drawing";
    const finished = [...view.childNodes];
    vegaEmbed(view, spec, {
      mode: "vega-lite", ast: true, actions: false, config: { aria: false }, loader,
      renderer: figure.dataset.renderer || "svg", tooltip: { formatTooltip },
    }).then(() => (figure.dataset.state = "drawn"), (error) => view.replaceChildren(...(finished.length ? finished : [error.message])));
  };
  if (window.vegaEmbed) draw();
  else addEventListener("load", () => window.vegaEmbed && draw());
}
