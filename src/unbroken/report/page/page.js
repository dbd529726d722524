"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
  const coarse = window.matchMedia("(pointer: coarse)").matches;
  const hidden = new Set();
  const places = [...document.querySelectorAll("[data-plot]")];
  const drawn = new Map();
  const whole = [-data.reach * 0.01, data.reach * 1.02];
  let range = null;

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);

  const colours = () => {
    const style = getComputedStyle(root);
    const of = (name) => style.getPropertyValue(name).trim();
    return { text: of("--soft"), line: of("--line"), panel: of("--panel"), strong: of("--text") };
  };

  const layout = () => {
    const c = colours();
    const axis = { gridcolor: c.line, zerolinecolor: c.line, linecolor: c.line, fixedrange: coarse };
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: c.text, size: 12, family: getComputedStyle(document.body).fontFamily },
      margin: { l: 52, r: 14, t: 8, b: 36 },
      showlegend: false,
      hovermode: "x unified",
      hoverlabel: { bgcolor: c.panel, bordercolor: c.line, font: { color: c.strong } },
      dragmode: coarse ? false : "zoom",
      xaxis: { ...axis, title: { text: data.step, standoff: 4 }, range: range || whole },
      yaxis: { ...axis },
    };
  };

  // On a narrow screen the words beside signs would lie on each other.
  const mode = (trace) => (trace.mode === "markers+text" && window.innerWidth < 600 ? "markers" : trace.mode);
  const visible = (traces) =>
    traces.map((trace) => ({ ...trace, mode: mode(trace), visible: !hidden.has(trace.run) }));

  const draw = (place) => {
    const traces = data.plots[Number(place.dataset.plot)].traces;
    const options = { responsive: true, displayModeBar: false, displaylogo: false, doubleClick: "autosize" };
    drawn.set(place, traces);
    Plotly.newPlot(place, visible(traces), layout(), options);
    place.on("plotly_relayout", (change) => follow(place, change));
  };

  let following = false;
  const follow = (source, change) => {
    if (following) return;
    const zoomed = "xaxis.range[0]" in change;
    if (!zoomed && !change["xaxis.autorange"]) return;
    range = zoomed ? [change["xaxis.range[0]"], change["xaxis.range[1]"]] : null;
    following = true;
    const update = { "xaxis.range": range || whole, ...(zoomed ? {} : { "yaxis.autorange": true }) };
    const others = [...drawn.keys()].filter((place) => !zoomed || place !== source);
    Promise.all(others.map((place) => Plotly.relayout(place, update))).finally(() => { following = false; });
  };

  const redraw = () => drawn.forEach((traces, place) => Plotly.react(place, visible(traces), layout()));

  const shown = (place) => !place.closest("details") || place.closest("details").open;
  places.filter(shown).forEach(draw);
  document.querySelectorAll("details").forEach((details) =>
    details.addEventListener("toggle", () => places.filter((place) => shown(place) && !drawn.has(place)).forEach(draw)));

  document.querySelectorAll("[data-run]").forEach((card) =>
    card.addEventListener("click", () => {
      const run = Number(card.dataset.run);
      const show = hidden.delete(run);
      if (!show) hidden.add(run);
      card.setAttribute("aria-pressed", String(show));
      redraw();
    }));

  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    redraw();
  });
  systemDark.addEventListener("change", redraw);
})();
