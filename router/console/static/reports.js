// The report's charts, by plotly: hover and zoom. Their numbers are the table's.
"use strict";

const draw = () => {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const palette = ["--stripe", "--adyen", "--failed", "--slow", "--half", "--operator", "--declined"].map(colour);

  for (const place of document.querySelectorAll("[data-chart]")) {
    const chart = JSON.parse(place.dataset.chart);
    const traces = chart.series.map((each, number) => ({
      type: chart.kind === "bar" ? "bar" : "scatter",
      mode: "lines+markers",
      name: each.name,
      x: each.x,
      y: each.y,
      marker: { color: palette[number % palette.length], size: 5 },
      line: { color: palette[number % palette.length], width: 2 },
      error_y: each.up.some((reach) => reach !== null)
        ? { type: "data", symmetric: false, array: each.up, arrayminus: each.down, thickness: 1, width: 2 }
        : undefined,
    }));
    const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line") };
    const layout = {
      height: 260,
      margin: { l: 48, r: 8, t: 8, b: 40 },
      barmode: chart.stacked ? "stack" : "group",
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--accent") },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--text"), size: 12, family: "inherit" },
      legend: { orientation: "h", y: -0.2 },
      hovermode: "x unified",
      hoverlabel: { bgcolor: colour("--card"), font: { color: colour("--text") } },
      xaxis: { ...axis, automargin: true, type: "category" },
      yaxis: { ...axis, automargin: true, rangemode: chart.kind === "bar" ? "tozero" : "normal" },
    };
    Plotly.react(place, traces, layout, { responsive: true, displaylogo: false });
  }
};

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
