// Plots: every element with data-spec gets the Vega-Lite specification of that number, in the colours of the page.
import "cldistill/theme";

const specs = JSON.parse(document.getElementById("chart-specs").textContent);

function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function config() {
  const [text, soft, line] = [colour("text"), colour("soft"), colour("line")];
  return {
    background: "transparent",
    font: "system-ui, sans-serif",
    view: { stroke: null },
    rule: { color: soft },
    axis: {
      labelColor: text, titleColor: soft, gridColor: line, domainColor: line, tickColor: line,
      labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", labelOverlap: true,
    },
    axisY: { domain: false, ticks: false },
    legend: { labelColor: text, titleColor: soft, labelFontSize: 12, symbolStrokeWidth: 3 },
  };
}

async function draw() {
  const look = config();
  const options = {
    renderer: "svg", actions: false, ast: true, config: look, tooltip: { theme: document.documentElement.dataset.theme },
  };
  for (const place of document.querySelectorAll("[data-spec]")) {
    await window.vegaEmbed(place, specs[Number(place.dataset.spec)], options);
  }
  document.documentElement.dataset.charts = "drawn";
}

let last = Promise.resolve();
const again = () => { last = last.then(draw); };
addEventListener("themechange", again);
again();
