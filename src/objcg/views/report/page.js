"use strict";
// Draws the pictures of an objcg report from the data in the page. Names in it are escaped already.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const usage = document.getElementById("usage");
  const tree = document.getElementById("tree");
  const slider = document.getElementById("moment");
  const shownTime = document.getElementById("moment-time");
  const config = {
    responsive: true,
    displaylogo: false,
    // a name between two $ is a name
    typesetMath: false,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
  };
  let moment = data.start;

  const size = (bytes) => {
    if (Math.abs(bytes) < 1024) return `${bytes} B`;
    let value = bytes;
    for (const unit of ["KiB", "MiB", "GiB"]) {
      value /= 1024;
      if (Math.abs(value) < 1023.95) return `${value.toFixed(1)} ${unit}`;
    }
    return `${(value / 1024).toFixed(1)} TiB`;
  };

  const colour = (name) =>
    getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // the page knows whether it is light or dark
  const themed = (layout) => ({
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("text"), family: "system-ui, DejaVu Sans, sans-serif", size: 12 },
    hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("line"),
      font: { color: colour("text") }, namelength: -1 },
  });

  const cursor = () => ({
    type: "line", xref: "x", yref: "paper", y0: 0, y1: 1,
    x0: data.moments[moment], x1: data.moments[moment],
    line: { color: colour("text"), width: 1, dash: "dash" },
  });

  const drawUsage = () => {
    const { data: traces, layout } = data.usage;
    for (const trace of traces) if (trace.mode === "lines") trace.x = data.times;
    const narrow = usage.clientWidth < 700;
    const axis = { gridcolor: colour("line"), zerolinecolor: colour("line"),
      linecolor: colour("line") };
    return Plotly.react(usage, traces, {
      ...themed(layout),
      xaxis: { ...layout.xaxis, ...axis, spikecolor: colour("soft"), spikethickness: 1 },
      yaxis: { ...layout.yaxis, ...axis },
      legend: narrow ? { ...layout.legend, orientation: "h", y: -0.25 } : layout.legend,
      shapes: [cursor()],
    }, config);
  };

  const drawTree = () => {
    const { labels, paths, parents, colours, inks, values } = data.tree;
    const now = values[moment];
    const there = now.flatMap((value, place) => (value === null ? [] : [place]));
    const trace = {
      ...data.icicle.data[0],
      ids: there.map(String),
      labels: there.map((place) => labels[place]),
      parents: there.map((place) => (parents[place] === null ? "" : String(parents[place]))),
      values: there.map((place) => now[place]),
      customdata: there.map((place) => [paths[place], size(now[place])]),
      marker: { colors: there.map((place) => colours[place]),
        line: { width: 0.5, color: colour("back") } },
      textfont: { color: there.map((place) => inks[place]) },
    };
    const time = new Date(data.moments[moment]).toISOString().replace("T", " ").slice(0, 19);
    shownTime.value = `${time} UTC, ${size(now[0])} charged`;
    slider.value = moment;
    slider.setAttribute("aria-valuetext", shownTime.value);
    return Plotly.react(tree, [trace], themed(data.icicle.layout), config);
  };

  const show = (place) => {
    moment = Math.max(0, Math.min(data.moments.length - 1, place));
    drawTree();
    Plotly.relayout(usage, { shapes: [cursor()] });
  };

  const nearest = (time) => {
    let best = 0;
    data.moments.forEach((at, place) => {
      if (Math.abs(at - time) < Math.abs(data.moments[best] - time)) best = place;
    });
    return best;
  };

  const sortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const key = (row, column) => {
      const cell = row.cells[column];
      return cell.dataset.key === undefined ? cell.textContent : Number(cell.dataset.key);
    };
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        // numbers: the largest first
        const number = body.rows[0].cells[column].dataset.key !== undefined;
        const first = number ? "descending" : "ascending";
        const second = number ? "ascending" : "descending";
        const order = head.getAttribute("aria-sort") === first ? second : first;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [key(a, column), key(b, column)];
          return sign * (x < y ? -1 : x > y ? 1 : 0);
        });
        body.append(...rows);
      });
    });
  };

  document.querySelectorAll("table").forEach(sortable);
  slider.addEventListener("input", () => show(Number(slider.value)));
  const drawAll = () => Promise.all([drawUsage(), drawTree()]);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll().then(() => {
    usage.on("plotly_click", (event) => {
      // the dates of points are text in UTC, without saying so
      const x = event.points[0].x;
      show(nearest(typeof x === "number" ? x : Date.parse(`${x.replace(" ", "T")}Z`)));
    });
    document.documentElement.dataset.drawn = "yes";
  });
})();
