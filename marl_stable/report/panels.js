// Draws the panels of run_html.py with uPlot: those in folded parts once these are opened, all with one cursor.
// uPlot is under the MIT License, Copyright (c) 2022 Leon Sorokin.
"use strict";
(() => {
  const told = JSON.parse(document.getElementById("panels").textContent);
  const HEIGHT = 190, DASH = [5, 4];
  const plots = new Map();  // place in the page -> plot
  const sync = uPlot.sync("steps");
  const last = Math.max(1, ...told.axes.map(axis => axis[axis.length - 1] ?? 0));

  const theme = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = number => theme(`--c${number}`);

  // Numbers as axes have them: 1200000 is 1.2M.
  function short(value) {
    if (value == null) return "";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e12)) return value.toExponential(1).replace("e+", "e");
    const [unit, letter] = [[1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([from]) => size >= from) ?? [1, ""];
    return `${parseFloat((value / unit).toPrecision(4))}${letter}`;
  }
  const read = value => value == null ? "–" : `${parseFloat(value.toPrecision(4))}`;
  const axis = size => ({
    stroke: theme("--faint"), grid: {stroke: theme("--rule"), width: 1}, ticks: {show: false},
    font: "11px system-ui, sans-serif", size, gap: 4, values: (_, values) => values.map(short),
  });

  // Powers of ten, or of a hundred and so on where they are many.
  function decades(plot, _, low, high) {
    const [first, end] = [low, high].map(Math.log10), stride = Math.max(1, Math.ceil((end - first) / 5));
    const powers = [];
    for (let power = stride * Math.ceil(first / stride - 1e-9); power <= end + 1e-9; power += stride) powers.push(10 ** power);
    return powers;
  }

  const steps = {label: "steps", value: (_, value) => value == null ? "–" : value.toLocaleString("en")};
  const edge = {class: "edge", points: {show: false}, width: 0};

  function marks(plot) {
    const {ctx, bbox} = plot;
    ctx.save();
    ctx.lineWidth = devicePixelRatio;
    for (const {at, cause} of told.marks) {
      const x = plot.valToPos(at, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.strokeStyle = theme(cause ? "--bad" : "--zero");
      ctx.setLineDash(cause ? DASH : []);
      ctx.beginPath();
      ctx.moveTo(x, cause ? bbox.top : bbox.top + 0.95 * bbox.height);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }

  function levels(plot, found) {
    const {ctx, bbox} = plot;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = theme("--faint");
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    [ctx.textAlign, ctx.textBaseline] = ["left", "alphabetic"];  // uPlot leaves those of its axes
    ctx.setLineDash(DASH);
    let above = -Infinity;
    for (const [name, value] of Object.entries(found).sort(([, one], [, other]) => other - one)) {
      const y = plot.valToPos(value, "y", true);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      const words = Math.max(y - 4 * devicePixelRatio, above + 12 * devicePixelRatio);
      ctx.fillText(name, bbox.left + 4 * devicePixelRatio, words);
      above = words;
    }
    ctx.restore();
  }

  // Lines, each with the range of what it stands for, where it stands for several.
  function curves(panel) {
    const tables = [], series = [steps], bands = [];
    for (const line of panel.lines) {
      const stroke = colour(line.c), x = told.axes[line.x];
      const points = {show: x.length < 25, size: 4, fill: stroke, width: 0};
      const dash = line.dashes ? [3 * line.dashes + 3, 3] : [];
      series.push({label: line.label, stroke, dash, width: 1.6, points, value: (_, value) => read(value)});
      const table = [x, line.y];
      if (line.low) {
        bands.push({series: [series.length + 1, series.length], fill: `${stroke}2b`});
        series.push({...edge}, {...edge});
        table.push(line.low, line.high);
      }
      tables.push(table);
    }
    const known = Object.values(panel.levels);
    function range(_, least, most) {
      const low = Math.min(least ?? 0, ...known), high = Math.max(most ?? 1, ...known);
      return low === 0 && high === 0 ? [0, 1] : uPlot.rangeNum(low, high, 0.08, true);
    }
    return [uPlot.join(tables), {
      series, bands,
      scales: {y: panel.log ? {distr: 3} : {range}},
      axes: [axis(28), {...axis(52), ...(panel.log ? {splits: decades, filter: (_, found) => found} : {})}],
      hooks: {draw: [plot => levels(plot, panel.levels), marks]},
    }];
  }

  // Shares of choices over steps; its one line, which is not drawn, has the most frequent choice.
  function picture({heat}) {
    const {edges, shares, whole} = heat, x = told.axes[heat.x], fill = colour(heat.c);
    const middle = i => (edges[i] + edges[i + 1]) / 2;
    const top = shares.map(row => row.indexOf(Math.max(...row)));
    const value = (_, __, ___, i) => i == null ? "–" : `${read(middle(top[i]))} (${shares[i][top[i]]}%)`;
    function draw(plot) {
      const {ctx, bbox} = plot;
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      ctx.fillStyle = fill;
      const at = step => Math.round(plot.valToPos(step, "x", true));
      x.forEach((step, j) => {
        const left = at(j ? (x[j - 1] + step) / 2 : 0), right = at(j + 1 < x.length ? (step + x[j + 1]) / 2 : last);
        shares[j].forEach((share, i) => {
          const [low, high] = [edges[i], edges[i + 1]].map(edge => Math.round(plot.valToPos(edge, "y", true)));
          ctx.globalAlpha = Math.sqrt(share / 100);
          ctx.fillRect(left, high, right - left, low - high);
        });
      });
      ctx.restore();
    }
    const numbers = whole && edges.length < 12 ? {splits: () => shares[0].map((_, i) => middle(i))} : {};
    return [[x, top.map(middle)], {
      series: [steps, {label: "most often", stroke: fill, width: 0, points: {show: false}, value}],
      scales: {y: {range: [edges[0], edges[edges.length - 1]]}},
      axes: [axis(28), {...axis(52), ...numbers}],
      hooks: {draw: [draw, marks]},
    }];
  }

  function draw(place) {
    if (plots.has(place)) return;
    const panel = told.panels[place.dataset.panel];
    const [data, options] = panel.heat ? picture(panel) : curves(panel);
    plots.set(place, new uPlot({
      width: place.clientWidth, height: HEIGHT, ...options,
      scales: {x: {time: false, range: (_, low, high) => low === high ? [0, last] : [low, high]}, ...options.scales},
      legend: {markers: {fill: (plot, i) => plot.series[i].stroke(plot, i)}},
      cursor: {sync: {key: sync.key, scales: ["x", null]}, y: false, drag: {x: true, y: false}, points: {size: 6}},
    }, data, place));
    plots.get(place).setScale("x", {min: 0, max: last});
  }

  const places = [...document.querySelectorAll(".plot")];
  const drawVisible = () => places.filter(place => place.clientWidth).forEach(draw);
  drawVisible();
  document.querySelectorAll("details").forEach(part => part.addEventListener("toggle", drawVisible));
  addEventListener("resize", () => plots.forEach((plot, place) => plot.setSize({width: place.clientWidth, height: HEIGHT})));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const [place, plot] of [...plots]) {
      plot.destroy();
      plots.delete(place);
      draw(place);
    }
  });
})();
