/* Draws the plots of the page from the JSON in #figures; colours come from the style sheet, for light and dark. */
(function () {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const looks = {
    main: { colour: "--ink", width: 1, dash: "solid", symbol: "circle" },
    noise: { colour: "--soft", width: 0.7, dash: "solid", symbol: "circle" },
    second: { colour: "--soft", width: 1.2, dash: "dot", symbol: "diamond-open" },
    third: { colour: "--ink", width: 1.2, dash: "dashdot", symbol: "square-open" },
    accent: { colour: "--accent", width: 2.5, dash: "solid", symbol: "circle" },
    band: { colour: "--accent", width: 1.2, dash: "dot", symbol: "circle" },
    bound: { colour: "--soft", width: 1.5, dash: "dash", symbol: "circle" },
    lines: { colour: "--accent", width: 1.5, dash: "solid", symbol: "circle" },
    "run-0": { colour: "--run-0", width: 1.6, dash: "solid", symbol: "circle" },
    "run-1": { colour: "--run-1", width: 1.6, dash: "dash", symbol: "diamond-open" },
    "run-2": { colour: "--run-2", width: 1.8, dash: "dot", symbol: "square-open" },
    "run-3": { colour: "--run-3", width: 1.6, dash: "dashdot", symbol: "triangle-up-open" },
    "run-4": { colour: "--run-4", width: 1.6, dash: "longdash", symbol: "x-open" },
    "run-5": { colour: "--run-5", width: 1.6, dash: "longdashdot", symbol: "cross-open" },
  };

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  /* From a third of the way between card and accent, where a single point is still seen, to the accent. */
  function scale() {
    const [from, to] = ["--card", "--accent"].map((name) => colour(name).match(/[0-9a-f]{2}/gi).map((v) => parseInt(v, 16)));
    return [0.3, 1].map((share, place) => [place, "rgb(" + from.map((v, k) => Math.round(v + share * (to[k] - v))).join(",") + ")"]);
  }

  // Plotly measures labels in the family that it is told: "inherit" would clip the legend.
  const family = getComputedStyle(document.querySelector(".plot")).fontFamily;

  function traces(figure) {
    return figure.traces.map(function (trace) {
      if (trace.counts) {
        return {
          type: "heatmap",
          x: trace.x,
          y: trace.y,
          z: trace.counts.map((row) => row.map((count) => count === null ? null : Math.log10(count))),
          customdata: trace.counts,
          colorscale: scale(),
          zmin: 0,
          showscale: false,
          hoverongaps: false,
          hovertemplate: "%{customdata} points near %{x:.3g}, %{y:.3g}<extra></extra>",
          name: trace.name,
        };
      }
      const look = looks[trace.role];
      return {
        type: "scatter",
        mode: trace.marks ? "markers" : "lines",
        x: trace.x,
        y: trace.y,
        customdata: trace.moments,
        hovertemplate: trace.moments ? "%{y:.3g} at %{x:.1f}, %{customdata:.3f} ps<extra>%{fullData.name}</extra>" : undefined,
        name: trace.name,
        showlegend: figure.traces.filter((other) => !other.counts).length > 1 && trace.name !== "",
        line: { color: colour(look.colour), width: look.width, dash: look.dash },
        marker: { color: colour(look.colour), size: 7, symbol: look.symbol, opacity: 0.85 },
      };
    });
  }

  /* Whole labels at 1, 2, 5 of each power of ten, or at the powers alone where there are many. */
  function logTicks(figure) {
    const values = figure.traces.flatMap((trace) => trace.y).filter((value) => value !== null && value > 0);
    const [low, high] = [Math.min(...values), Math.max(...values)].map(Math.log10);
    const steps = high - low > 2 ? [1] : [1, 2, 5];
    const ticks = [];
    for (let power = Math.floor(low) - 1; power <= Math.ceil(high); power++) {
      steps.forEach((step) => ticks.push(step * Math.pow(10, power)));
    }
    return { tickvals: ticks, ticktext: ticks.map((tick) => String(Number(tick.toPrecision(1)))) };
  }

  function layout(figure) {
    const [xEdges, yEdges] = figure.box ? [figure.box.slice(0, 2), figure.box.slice(2)].map((range) => ({ range: range })) : [{}, {}];
    const axis = {
      color: colour("--soft"),
      gridcolor: colour("--line"),
      zerolinecolor: colour("--line"),
      automargin: true,
    };
    return {
      height: window.innerWidth < 600 ? 260 : 290,
      margin: { l: 8, r: 12, t: 8, b: 8 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: family, size: 13, color: colour("--ink") },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 13 } },
      xaxis: Object.assign({}, axis, xEdges, { title: { text: figure.x_title, standoff: 8, font: { size: 13 } } }),
      yaxis: Object.assign({}, axis, figure.log_y ? logTicks(figure) : { nticks: 6 }, {
        title: { text: figure.y_title, standoff: 8, font: { size: 13 } },
        type: figure.log_y ? "log" : "linear",
        exponentformat: "power",
        rangemode: figure.traces.every(function (t) { return t.y.every(function (v) { return v === null || v >= 0; }); })
          ? "tozero" : "normal",
      }, yEdges),
    };
  }

  function draw() {
    figures.forEach(function (figure) {
      Plotly.react(figure.key, traces(figure), layout(figure), { responsive: true, displayModeBar: false });
    });
    document.documentElement.dataset.drawn = String(figures.length);
  }

  draw();
  // Paper has no line to open what is folded.
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (part) { part.open = true; });
  });
  // A point of this plot is a frame of the 3D view.
  const moments = document.getElementById("rotational-error");
  if (moments && document.getElementById("scene")) {
    moments.on("plotly_click", function (event) {
      document.dispatchEvent(new CustomEvent("show-time", { detail: event.points[0].customdata }));
      document.getElementById("molecule").scrollIntoView();
    });
  }
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  window.matchMedia("print").addEventListener("change", draw); // paper is white, whatever the screen was
})();
