(figure) => {
  const view = figure.querySelector(".headgrid-view");
  const spec = JSON.parse(figure.querySelector("script").textContent);
  "__GUARD__";
  refuseAddresses(view);
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
