// What keeps a figure from asking for anything, on whatever page it is: a loader for Vega, and a
// watch over paints. Data and expressions may paint with an address, which a browser asks for once
// it styles the mark; such paints go before that. The gradients of colour bars stay.
const refuse = () => Promise.reject(new Error("a figure holds all that it shows, so nothing is fetched"));
const loader = {
  load: refuse,
  sanitize: (uri) => (String(uri).startsWith("data:image/png;base64,") ? Promise.resolve({ href: uri }) : refuse()),
};
const PAINTS = ["fill", "stroke", "style"];
const RISKY = PAINTS.map((name) => `[${name}*="url" i],[${name}*="image" i],[${name}*="\\\\"]`).join();
function refuseAddresses(view) {
  const own = `url(${location.href.split("#")[0]}#`;
  const clean = () => {
    for (const node of [view, ...view.querySelectorAll(RISKY)]) {
      for (const name of PAINTS) {
        const paint = (node.getAttribute(name) || "").replaceAll(own, "url(#");
        if (/\\|(url|image|image-set|cross-fade)\((?!#)/i.test(paint)) node.removeAttribute(name);
      }
    }
  };
  const watched = { attributes: true, attributeFilter: PAINTS, childList: true, subtree: true };
  new MutationObserver(clean).observe(view, watched);
}
