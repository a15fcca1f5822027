((script) => {
  let figure = script;
  while (figure && !figure.matches("figure.headgrid")) figure = figure.previousElementSibling;
  if (!figure) return;
  const draw = () => ("__DRAW__")(figure);
  if (window.vegaEmbed) return draw();
  const button = document.createElement("button");
  addEventListener("load", () => {
    if (!window.vegaEmbed) return;
    button.remove();
    draw();
  });
  const scripts = "__SCRIPTS__";
  if (!scripts.length) return;

  const load = ([src, integrity]) =>
    new Promise((resolve, reject) => {
      const tag = Object.assign(document.createElement("script"), {
        src, integrity, crossOrigin: "anonymous", onload: resolve, onerror: reject,
      });
      document.head.append(tag);
    });
  button.type = "button";
  button.textContent = "Show values on hover";
  button.title = `Loads ${scripts.map(([src]) => src).join(", ")}`;
  button.onclick = async () => {
    button.disabled = true;
    const { define } = window;
    try {
      window.define = undefined;
      for (const one of window.vegaEmbed ? [] : scripts) await load(one);
      button.remove();
      draw();
    } catch {
      button.textContent = "Vega could not be loaded";
    } finally {
      window.define = define;
    }
  };
  figure.append(button);
})(document.currentScript);
