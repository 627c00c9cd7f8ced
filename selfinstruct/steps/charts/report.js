"use strict";
(() => {
  const { config, figures } = JSON.parse(document.getElementById("charts").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let shown = "";

  function draw(theme) {
    if (theme === shown) return;
    shown = theme;
    for (const [anchor, versions] of Object.entries(figures)) {
      const { data, layout } = versions[theme];
      Plotly.react("chart-" + anchor, data, layout, config);
    }
  }

  const drawForScreen = () => draw(dark.matches ? "dark" : "light");
  drawForScreen();
  dark.addEventListener("change", drawForScreen);
  // Paper is light.
  window.addEventListener("beforeprint", () => draw("light"));
  window.addEventListener("afterprint", drawForScreen);
})();
