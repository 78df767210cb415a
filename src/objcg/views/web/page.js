"use strict";
// Shows what the server sends, all of it anew with each event. Names of groups are anybody's: they
// become text, never markup; those in the figures are escaped for plotly by the server.
(() => {
  const at = (id) => document.getElementById(id);
  const [usage, tree, dialog] = [at("usage"), at("tree"), at("limit")];
  // a name between two $ is a name, and no formula
  const config = { responsive: true, displaylogo: false, displayModeBar: false, typesetMath: false };
  const rows = new Map();
  let latest = null;
  let asked = null;

  const text = (node, value) => {
    if (node.textContent !== value) node.textContent = value;
  };

  const element = (name, className, value) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (value !== undefined) made.textContent = value;
    return made;
  };

  // ---- pictures

  const colour = (name) =>
    getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  const themed = (layout) => ({
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("text"), family: "system-ui, DejaVu Sans, sans-serif", size: 12 },
    hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("line"),
      font: { color: colour("text") }, namelength: -1 },
  });

  const draw = () => {
    // a page that nobody sees costs nothing
    if (latest === null || document.hidden) return;
    const { data, layout } = latest.usage;
    const axis = { gridcolor: colour("line"), zerolinecolor: colour("line"),
      linecolor: colour("line") };
    const narrow = usage.clientWidth < 700;
    Plotly.react(usage, data, {
      ...themed(layout),
      xaxis: { ...layout.xaxis, ...axis },
      yaxis: { ...layout.yaxis, ...axis },
      legend: narrow ? { ...layout.legend, orientation: "h", y: -0.25 } : layout.legend,
    }, config);
    const trace = latest.tree.data[0];
    trace.marker.line.color = colour("back");
    Plotly.react(tree, [trace], themed(latest.tree.layout), config);
    document.documentElement.dataset.drawn = "yes";
  };

  // ---- the table of groups

  const knobs = ["max", "high", "low"];

  const make = (uid) => {
    const line = element("tr");
    const cell = (child) => {
      const made = line.insertCell();
      if (child) made.append(child);
      return made;
    };
    const row = { line, swatch: element("span", "swatch"), name: element("span") };
    cell(row.swatch).append(row.name);
    row.fill = element("span");
    row.bar = element("span", "bar");
    row.bar.append(row.fill);
    row.part = element("span");
    cell(row.bar).append(row.part);
    for (const name of ["current", "rate", "peak"]) row[name] = cell();
    for (const knob of knobs) {
      row[knob] = element("button");
      row[knob].type = "button";
      row[knob].addEventListener("click", () => ask(uid, knob));
      cell(row[knob]);
    }
    row.tasks = cell();
    row.events = cell();
    return row;
  };

  const showGroups = (groups) => {
    const body = at("groups").tBodies[0];
    groups.forEach((group, place) => {
      if (!rows.has(group.uid)) rows.set(group.uid, make(group.uid));
      const row = rows.get(group.uid);
      row.line.className = group.offends ? "offender" : "";
      row.swatch.style.background = group.colour ?? "transparent";
      text(row.name, group.path);
      row.bar.className = `bar ${group.level}`;
      row.fill.style.width = `${Math.min(100, 100 * group.part)}%`;
      text(row.part, `${Math.round(100 * group.part)} % of ${group.of}`);
      for (const name of ["current", "rate", "peak", "events"]) text(row[name], group[name]);
      text(row.tasks, String(group.tasks));
      for (const knob of knobs) {
        text(row[knob], group[knob] || "–");
        row[knob].setAttribute("aria-label", `memory.${knob} of ${group.path}: ${group[knob] || "unset"}`);
        row[knob].disabled = latest.state !== "running";
      }
      // only what is elsewhere is moved: a button that has the focus keeps it
      if (body.rows[place] !== row.line) body.insertBefore(row.line, body.rows[place] ?? null);
    });
    const there = new Set(groups.map((group) => group.uid));
    for (const [uid, row] of rows) {
      if (there.has(uid)) continue;
      row.line.remove();
      rows.delete(uid);
    }
  };

  // ---- the rest of the page

  const states = {
    running: "running", exited: "exited: this is its last state",
    killed: "killed: this is its last state",
    replaced: "has become another program: this is its last state", lost: "no connection: objcg web has ended",
  };

  const showState = (state) => {
    text(at("state"), states[state] ?? state);
    at("state").dataset.state = state;
  };

  // as on the axis of the picture
  const time = (ms) => new Date(ms).toISOString().slice(11, 19);

  const show = (shown) => {
    latest = shown;
    showState(shown.state);
    document.title = `objcg: pid ${shown.pid}`;
    text(at("title"), `pid ${shown.pid}`);
    text(at("command"), shown.command);
    at("facts").replaceChildren(...shown.facts.map(([name, value]) => {
      const fact = element("div");
      fact.append(element("dt", "", name), element("dd", "", value));
      return fact;
    }));
    at("problem").hidden = shown.problem === null;
    text(at("problem"), shown.problem ?? "");
    const named = shown.offenders.map(({ path, why }) => element("li", "", `${path}: ${why}`));
    if (shown.more) named.push(element("li", "", `and ${shown.more} more`));
    at("offenders").replaceChildren(...named);
    const missing = shown.groups - shown.rows.length;
    at("left-out").hidden = missing === 0;
    text(at("left-out"), `${missing} smaller groups are left out.`);
    showGroups(shown.rows);
    at("events").tBodies[0].replaceChildren(...shown.events.map((event) => {
      const line = element("tr");
      for (const value of [time(event.first), time(event.last), event.path, event.events]) {
        line.append(element("td", "", value));
      }
      return line;
    }));
    draw();
  };

  // ---- setting a limit

  const accepted = {
    max: "A size such as 512M or 1.5 GiB, or max for no limit.",
    high: "A size such as 512M or 1.5 GiB, or max for no limit.",
    low: "A size such as 512M or 1.5 GiB; 0 for no protection.",
  };

  const ask = (uid, knob) => {
    const group = latest.rows.find((one) => one.uid === uid);
    asked = { uid, knob };
    text(at("limit-title"), `memory.${knob} of ${group.path}`);
    text(at("accepted"), accepted[knob]);
    text(at("refused"), "");
    at("size").value = group[knob] || (knob === "low" ? "0" : "max");
    dialog.showModal();
    at("size").select();
  };

  const order = async (value) => {
    try {
      const answer = await fetch("set", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ ...asked, value }),
      });
      const told = (answer.headers.get("Content-Type") ?? "").includes("json")
        ? await answer.json() : { error: await answer.text() };
      if (answer.ok) {
        text(at("done"), told.done);
        dialog.close();
      } else {
        text(at("refused"), told.error);
      }
    } catch {
      text(at("refused"), states.lost);
    }
  };

  dialog.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    order(at("size").value);
  });
  at("cancel").addEventListener("click", () => dialog.close());

  // ---- what comes

  const source = new EventSource("events");
  source.addEventListener("message", (event) => {
    show(JSON.parse(event.data));
    // there will be nothing more; a lost connection would hide what became of the process
    if (latest.state !== "running") source.close();
  });
  source.addEventListener("error", () => showState("lost"));
  document.addEventListener("visibilitychange", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
