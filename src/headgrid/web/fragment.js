(figure) => {
  const view = figure.querySelector(".headgrid-view");
  const spec = JSON.parse(figure.querySelector("script").textContent);
  const refuse = () => Promise.reject(new Error("nothing is fetched"));
  const loader = {
    load: refuse,
    sanitize: (uri) => (uri.startsWith("data:image/png;base64,") ? Promise.resolve({ href: uri }) : refuse()),
  };
  const formatTooltip = (value, escape) =>
    typeof value !== "object" ? escape(value)
      : Object.entries(value).map(([name, entry]) => `${escape(name)}: ${escape(entry)}`).join("<br>");
  const draw = () => {
    if (figure.dataset.state) return;
    figure.dataset.state = "drawing";
    vegaEmbed(view, spec, {
      mode: "vega-lite", ast: true, actions: false, config: { aria: false }, loader,
      renderer: figure.dataset.renderer || "svg", tooltip: { formatTooltip },
    }).then(() => (figure.dataset.state = "drawn"), (error) => (view.textContent = error.message));
  };
  if (window.vegaEmbed) draw();
  else addEventListener("load", draw);
}
