"use strict";
// Draws the charts, lists the examples, shows the two examples of a cell. Texts of the data are only ever set as text.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // Charts ---------------------------------------------------------------------------------------------------------
  // "ast" has expressions interpreted, as the page's policy forbids eval
  const views = {};
  const ready = Object.entries(data.charts).map(async ([id, spec]) => {
    const place = byId(`chart-${id}`);
    if (!place) return;
    const made = await vegaEmbed(place, spec, {
      mode: "vega-lite", renderer: "svg", actions: false, ast: true,
      tooltip: { theme: matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light" },
    });
    views[id] = made.view;
    if (id.startsWith("influence-")) watchCells(made.view);
  });
  window.unrote = { views, ready: Promise.all(ready) };

  // Influence: the two examples of a cell --------------------------------------------------------------------------
  function watchCells(view) {
    let shown = null;
    const show = (event, item) => {
      const cell = item && item.datum;
      if (!cell || cell.influence === undefined || cell === shown) return;
      shown = cell;
      showPair(cell);
    };
    view.addEventListener("pointermove", show);
    view.addEventListener("click", show);
  }

  function showPair(cell) {
    const { row, column, split } = data.influence;
    const effect = cell.influence < 0 ? "harms" : "helps";
    byId("pair").replaceChildren(
      element("p", {}, `The training example ${effect}: without it, the loss of the other would ` +
        `${cell.influence < 0 ? "fall" : "rise"} by ${short(Math.abs(cell.influence))}.`),
      half("Training example", row, cell.row), half(`${split[0].toUpperCase()}${split.slice(1)} example`, column, cell.column));
  }

  function half(title, side, k) {
    const found = element("div", {}, element("h3", {}, `${title} ${side.names[k]}`));
    if (k < side.pictures.length) found.append(picture(side.pictures[k], ""));
    found.append(element("p", { className: "small" }, side.groups.length ? side.groups[k] : side.labels[k]));
    if (k < side.texts.length) found.append(element("p", { className: "text" }, side.texts[k]));
    return found;
  }

  const short = (x) => {
    const size = Math.abs(x);
    if (size >= 1e6 || (size < 1e-4 && x !== 0)) return x.toExponential(1);
    return size >= 100 ? Math.round(x).toLocaleString("en") : String(Number(x.toPrecision(3)));
  };
  // two places tell what is large; of small numbers two digits
  const small = (x) => (Math.abs(x) >= 0.1 || x === 0 ? x.toFixed(2) : Math.abs(x) < 5e-5 ? "0.00" : String(Number(x.toPrecision(2))));
  const picture = (src, alt) => element("img", { className: "thumb", src, alt });

  // Examples -------------------------------------------------------------------------------------------------------
  const list = data.listing;
  const n = list.names.length;
  const PAGE = 25, CUT = 160, CELLS = 8;
  const methods = list.methods.filter((m) => m.memorization);
  const lines = { row: (i) => list.content[i].join(" "), text: (i) => list.content[i] };
  const line = lines[list.kind] || (() => "");
  let sought = null; // what the search looks through, made when it is first used

  const columns = [{ title: "Example", make: what, className: "what", key: (i) => i, first: "up" }];
  columns.push({ title: "Label", make: (i) => [list.classes[list.y[i]]], key: (i) => list.y[i], first: "up" });
  if (list.heldOut) {
    columns.push({ title: "Held out", make: heldOut, key: (i) => list.pHeldOut[i], first: "up" });
  }
  if (list.inferred) {
    columns.push({ title: "Inferred", make: (i) => [list.inferred[i] ? "minority" : "majority"], key: (i) => list.inferred[i] });
  }
  if (list.groups.length) {
    columns.push({ title: "Group", make: (i) => [list.groups[list.group[i]] ?? ""], key: (i) => list.group[i], first: "up" });
  }
  methods.slice(0, 4).forEach((m) => columns.push({
    title: `Memorization, ${m.title}`, make: (i) => score(m.memorization[i]), key: (i) => m.memorization[i], className: "number",
  }));
  methods.slice(0, 2).forEach((m) => columns.push({
    title: `Self-influence, ${m.title}`, make: (i) => [short(m.selfInfluence[i])], key: (i) => m.selfInfluence[i], className: "number",
  }));

  function what(i) {
    const parts = [];
    if (i < list.pictures.length) parts.push(picture(list.pictures[i], `example ${list.names[i]}, labelled ${list.classes[list.y[i]]}`), " ");
    if (list.kind === "text") parts.push(long(list.content[i]));
    if (list.kind === "row") parts.push(cells(i));
    parts.push(element("div", { className: "name" }, `${/^\d+$/.test(list.names[i]) ? "number " : ""}${list.names[i]}`));
    return parts;
  }

  function long(text) {
    if (text.length <= CUT) return text;
    return element("details", {}, element("summary", {}, `${text.slice(0, CUT)}…`), text);
  }

  function cells(i) {
    const pairs = list.columns.map((name, c) => [name, list.content[i][c]]).filter(([, value]) => value !== "");
    const show = (some) => some.flatMap(([name, value], k) => [k ? " · " : "", element("span", {}, name), ` ${value}`]);
    const found = element("div", { className: "cells" }, ...show(pairs.slice(0, CELLS)));
    if (pairs.length > CELLS) {
      found.append(element("details", {}, element("summary", {}, `${pairs.length - CELLS} more`), ...show(pairs.slice(CELLS))));
    }
    return found;
  }

  function heldOut(i) {
    const differs = list.heldOut[i] !== list.y[i];
    return [element("span", { className: differs ? "differs" : "" }, list.classes[list.heldOut[i]]),
      element("div", { className: "small" }, `p(label) ${list.pHeldOut[i].toFixed(2)}`)];
  }

  function score(value) {
    const bar = element("i");
    bar.style.width = `${100 * Math.max(0, Math.min(1, value))}%`;
    const rote = value > list.rote;
    const frame = element("span", { className: "bar" }, bar);
    frame.setAttribute("aria-hidden", "true");
    return [element("span", { className: rote ? "rote" : "" }, small(value)), frame];
  }

  const state = { sort: 0, down: false, page: 0, rows: [] };

  function arrange() {
    const text = byId("search").value.trim().toLowerCase();
    if (text && !sought) sought = list.names.map((name, i) => `${name} ${line(i)}`.toLowerCase());
    const label = byId("filter-label").value, group = byId("filter-group").value;
    const inferred = byId("filter-inferred").value, wrong = byId("filter-held-out").value, rote = byId("filter-rote").value;
    const rows = [];
    for (let i = 0; i < n; i++) {
      if (text && !sought[i].includes(text)) continue;
      if (label && list.y[i] !== +label) continue;
      if (group && list.group[i] !== +group) continue;
      if (inferred && list.inferred[i] !== +inferred) continue;
      if (wrong && (list.heldOut[i] !== list.y[i]) !== (wrong === "wrong")) continue;
      if (rote && !(methods[+rote].memorization[i] > list.rote)) continue;
      rows.push(i);
    }
    const key = columns[state.sort].key, sign = state.down ? -1 : 1;
    rows.sort((a, b) => sign * (key(a) - key(b)) || a - b);
    state.rows = rows;
    state.page = 0;
    show();
  }

  function show() {
    const { rows } = state, pages = Math.max(1, Math.ceil(rows.length / PAGE));
    const from = state.page * PAGE, part = rows.slice(from, from + PAGE);
    byId("list").tBodies[0].replaceChildren(...part.map((i) => element("tr", {}, ...columns.map((column) => {
      const cell = element("td", { className: column.className || "" });
      cell.dataset.label = column.title;
      const box = element("div");
      box.append(...column.make(i));
      cell.append(box);
      return cell;
    }))));
    const kept = n < list.total ? ` (the ${n.toLocaleString("en")} most memorized of ${list.total.toLocaleString("en")})` : "";
    byId("status").textContent = rows.length
      ? `${(from + 1).toLocaleString("en")} to ${(from + part.length).toLocaleString("en")} of ${rows.length.toLocaleString("en")} examples${kept}`
      : "No example fits: take a filter back.";
    byId("page-number").textContent = `page ${state.page + 1} of ${pages.toLocaleString("en")}`;
    byId("previous").disabled = state.page === 0;
    byId("next").disabled = state.page >= pages - 1;
    byId("pages").hidden = pages === 1;
  }

  function sortBy(k, down) {
    state.sort = k;
    state.down = down;
    byId("sort").value = `${k}:${down ? "down" : "up"}`;
    byId("list").tHead.querySelectorAll("th").forEach((heading, c) => {
      if (c === k) heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
      heading.querySelector(".arrow").textContent = c === k ? (down ? " ▼" : " ▲") : "";
    });
    arrange();
  }

  function option(select, value, text) {
    byId(select).append(element("option", { value: String(value) }, text));
  }

  function start() {
    columns.forEach((column, k) => {
      const arrow = element("span", { className: "arrow" });
      arrow.setAttribute("aria-hidden", "true");
      const button = element("button", { type: "button" }, column.title, arrow);
      button.addEventListener("click", () => sortBy(k, state.sort === k ? !state.down : column.first !== "up"));
      byId("list").tHead.rows[0].append(element("th", { scope: "col", className: column.className || "" }, button));
      const numeric = column.className === "number" || column.title === "Held out";
      if (numeric) {
        const name = column.title === "Held out" ? "p(label) held out" : column.title;
        option("sort", `${k}:down`, `${name}, largest first`);
        option("sort", `${k}:up`, `${name}, smallest first`);
      } else {
        option("sort", `${k}:up`, k ? column.title : "Most memorized under any method");
        option("sort", `${k}:down`, k ? `${column.title}, reversed` : "Least memorized under any method");
      }
    });
    list.classes.forEach((name, c) => option("filter-label", c, name));
    list.groups.forEach((name, g) => option("filter-group", g, name));
    methods.forEach((m, k) => option("filter-rote", k, m.title));
    for (const [id, there] of [["filter-group", list.groups.length], ["filter-inferred", list.inferred],
      ["filter-held-out", list.heldOut], ["filter-rote", methods.length], ["search", n]]) {
      byId(id).closest("label").hidden = !there;
    }
    let waiting = 0;
    byId("search").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(arrange, 120);
    });
    byId("controls").addEventListener("change", (event) => {
      if (event.target.id === "sort") {
        const [k, way] = event.target.value.split(":");
        sortBy(+k, way === "down");
      } else if (event.target.id !== "search") arrange();
    });
    byId("controls").addEventListener("submit", (event) => event.preventDefault());
    for (const [id, step] of [["previous", -1], ["next", 1]]) {
      byId(id).addEventListener("click", () => {
        state.page += step;
        show();
        byId("status").scrollIntoView({ block: "start" });
      });
    }
    byId("controls").hidden = byId("list").hidden = false;
    sortBy(0, false);
  }
  start();

  // Printed, everything that is folded is unfolded
  addEventListener("beforeprint", () => document.querySelectorAll("main section > details").forEach((one) => { one.open = true; }));
})();
