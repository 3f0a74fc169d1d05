// Draws what view.py decides: runs on one time axis, each with a lane per thread. No library, no network.
const LANE = 15, HEAD = 22, STRIP = 34, AXIS = 20, RIGHT = 12;
const INK = "#1A1A1A", GREY = "#5F5F5F", FAINT = "#E4E4E4";
const HELP = "Keys: + and \u2212 zoom, \u2190 and \u2192 pan, \u2191 and \u2193 step through spans, " +
  "0 shows all, Esc lets go. Mouse: click a span, drag, wheel (once clicked).";
const CSS = `
.sg-view { background: white; color: ${INK}; font: 12px "DejaVu Sans", sans-serif; position: relative; padding: 4px }
.sg-view canvas { display: block; width: 100%; touch-action: pan-y }
.sg-view :focus-visible { outline: 3px solid #0072B2; outline-offset: 1px }
.sg-view table { border-collapse: collapse; margin: 2px 0 4px; color: ${INK}; font-size: 12px }
.sg-view td, .sg-view th { padding: 1px 9px; text-align: right; background: white }
.sg-view td:first-child, .sg-view th:first-child { text-align: left }
.sg-view label { margin-right: 14px; white-space: nowrap; display: inline-block }
.sg-view caption { text-align: left }
.sg-said { margin: 6px 0 2px }
.sg-view progress { width: 90px; margin: 0 4px; vertical-align: middle }
.sg-tip { position: absolute; pointer-events: none; background: ${INK}; color: white; padding: 4px 7px; border-radius: 3px;
  white-space: pre; display: none; z-index: 9 }
.sg-key div { display: inline-block; white-space: nowrap }
.sg-key span { display: inline-block; width: 18px; height: 10px; margin: 0 4px 0 12px; vertical-align: middle }
.sg-help { color: ${GREY} }`;

function make(parent, tag, properties = {}, text = "") {
  const node = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-") || name === "role") node.setAttribute(name, value);
  }
  node.append(text);
  parent.append(node);
  return node;
}

// A square of 8 by 8 pixels that repeats: the hatches of the static charts.
function hatched([, colour, hatch, ink]) {
  const tile = Object.assign(document.createElement("canvas"), { width: 8, height: 8 });
  const pen = tile.getContext("2d");
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 8, 8);
  pen.strokeStyle = pen.fillStyle = ink;
  const lines = { "/": [[-2, 6, 6, -2], [2, 10, 10, 2]], "\\": [[-2, 2, 6, 10], [2, -2, 10, 6]], "|": [[4, 0, 4, 8]], "-": [[0, 4, 8, 4]] };
  lines.x = [...lines["/"], ...lines["\\"]];
  lines["+"] = [...lines["|"], ...lines["-"]];
  pen.beginPath();
  for (const [x, y, u, v] of lines[hatch[0]] ?? []) { pen.moveTo(x, y); pen.lineTo(u, v); }
  pen.stroke();
  if (hatch[0] === "." || hatch[0] === "o") pen.fillRect(3, 3, 2, 2);
  return tile;
}

const seconds = (value) => `${value.toFixed(3)} s`;

function render({ model, el }) {
  const root = make(el, "div", { className: "sg-view" });
  root.dataset.lmSuppressShortcuts = "true"; // keys are ours while the focus is here, not JupyterLab's
  make(root, "style", {}, CSS);
  const counters = make(root, "table"), progress = make(root, "div");
  const canvas = make(root, "canvas", { tabIndex: 0, role: "application" });
  const tip = make(root, "div", { className: "sg-tip" });
  const said = make(root, "div", { role: "status", "aria-live": "polite", className: "sg-said" }, "\u00a0");
  const legend = make(root, "div", { className: "sg-key", "aria-hidden": "true" });
  make(root, "div", { className: "sg-help" }, HELP);
  const pen = canvas.getContext("2d");
  const looks = model.get("looks"), fills = looks.map((look) => pen.createPattern(hatched(look), "repeat"));
  const KIND = Object.fromEntries(looks.map(([name], n) => [name, n]));
  let runs = model.get("runs"), sight = null, hover = null, chosen = null, asked = 0, left = 100, width = 600;

  const end = () => {
    const last = Math.max(0.001, ...runs.map((run) => run.end));
    return model.get("running") ? Math.max(10, 5 * Math.ceil(last / 5 + 0.2)) : last * 1.01;
  };
  const range = () => sight ?? [0, end()];
  const x = (time) => left + ((time - range()[0]) / (range()[1] - range()[0])) * (width - left - RIGHT);
  const time = (px) => range()[0] + ((px - left) / (width - left - RIGHT)) * (range()[1] - range()[0]);
  const height = (run) => HEAD + run.lanes.length * LANE + STRIP + 8;
  const top = (n) => runs.slice(0, n).reduce((sum, run) => sum + height(run), 0);
  const middle = (n, lane) => top(n) + HEAD + (lane + 0.5) * LANE;
  const stage = (bar) => looks[bar[0]][0].split(":")[0];

  // The spans of the same tile, in the order of cause and effect.
  function story(n, bar) {
    if (bar[5] < 0) return [bar];
    return runs[n].bars.filter((b) => b[4] === bar[4] && b[5] === bar[5]).sort((a, b) => a[3] - b[3]);
  }

  function told(n, bar) {
    const run = runs[n], all = story(n, bar), what = run.images[bar[4]];
    const put = all.find((b) => stage(b) === "enqueue"), got = all.find((b) => stage(b) === "wait" && b[6] === bar[6]);
    const blur = all.find((b) => stage(b) === "blur" && b[6] === bar[6]);
    const name = bar[5] < 0 ? what : `tile ${bar[5]} of ${what}, attempt ${bar[6]}`;
    const facts = [`${looks[bar[0]][0]}${name && ": "}${name}`, `${run.lanes[bar[1]]}, ${seconds(bar[3] - bar[2])} from ${seconds(bar[2])}`];
    if (put && got) facts.push(`waited ${seconds(Math.max(0, got[3] - put[3]))} in the queue`);
    if (blur) facts.push(`service ${seconds(blur[3] - blur[2])}`);
    return facts;
  }

  function followed(n, bar) {
    const steps = story(n, bar).map((b) => `${stage(b)} ${seconds(b[3] - b[2])} on ${runs[n].lanes[b[1]]}`);
    const marks = runs[n].marks.filter((m) => bar[5] >= 0 && m.tile[0] === runs[n].images[bar[4]] && m.tile[1] === bar[5]);
    return [...told(n, bar).slice(0, 1), steps.join(" \u2192 "), ...marks.map((m) => m.text)].join(". ") + ".";
  }

  function at(px, py) {
    for (const [n, run] of runs.entries()) {
      const lane = Math.floor((py - top(n) - HEAD) / LANE), slack = time(2) - time(0);
      if (lane < 0 || lane >= run.lanes.length) continue;
      const hits = run.bars.filter((b) => b[1] === lane && b[2] <= time(px) + slack && b[3] >= time(px) - slack);
      if (hits.length) return [n, hits.reduce((a, b) => (b[3] - b[2] < a[3] - a[2] ? b : a))];
    }
    return null;
  }

  function arrow(x0, y0, x1, y1, colour = INK) {
    const angle = Math.atan2(y1 - y0, x1 - x0);
    pen.strokeStyle = pen.fillStyle = colour;
    pen.lineWidth = 1.6;
    pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.stroke();
    pen.beginPath(); pen.moveTo(x1, y1);
    for (const turn of [2.7, -2.7]) pen.lineTo(x1 + 9 * Math.cos(angle + turn), y1 + 9 * Math.sin(angle + turn));
    pen.fill();
  }

  function box(kind, x0, x1, y, tall) {
    const wide = Math.max(0.6, x1 - x0);
    pen.fillStyle = wide > 4 ? fills[kind] : looks[kind][1];
    pen.fillRect(x0, y, wide, tall);
  }

  function drawRun(run, n) {
    const y0 = top(n), lanes = y0 + HEAD, floor = lanes + run.lanes.length * LANE;
    pen.fillStyle = INK; pen.font = "bold 12px DejaVu Sans, sans-serif"; pen.textAlign = "left";
    pen.fillText(run.name, 4, y0 + 15);
    pen.font = "11px DejaVu Sans, sans-serif"; pen.textAlign = "right";
    run.lanes.forEach((name, lane) => pen.fillText(name, left - 6, middle(n, lane) + 4));
    const peak = Math.max(0, ...run.queue.map(([, depth]) => depth));
    pen.fillText("tiles in queue,", left - 6, floor + 18);
    pen.fillText(`peak ${peak}`, left - 6, floor + 31);
    pen.save();
    pen.beginPath(); pen.rect(left, y0, width - left, height(run)); pen.clip();
    for (const [kind, lane, from, to] of run.bars) {
      if (to >= range()[0] && from <= range()[1]) box(kind, x(from), x(to), lanes + lane * LANE + 1, LANE - 2);
    }
    if (run.shares) drawShares(run.shares, lanes);
    pen.fillStyle = looks[KIND.enqueue][1];
    pen.beginPath(); pen.moveTo(x(0), floor + STRIP);
    run.queue.forEach(([from, depth], i) => {
      const y = floor + STRIP - (depth / (peak || 1)) * (STRIP - 6);
      pen.lineTo(x(from), y);
      pen.lineTo(x(run.queue[i + 1]?.[0] ?? from), y);
    });
    pen.lineTo(x(run.queue.at(-1)?.[0] ?? 0), floor + STRIP); pen.fill();
    drawPath(run, n);
    pen.fillStyle = INK; pen.textAlign = "center"; pen.font = "bold 14px DejaVu Sans, sans-serif";
    for (const mark of run.marks) {
      if (mark.from) arrow(x(mark.from[1]), middle(n, mark.from[0]), x(mark.at), middle(n, mark.lane));
      else {
        pen.strokeStyle = "white"; pen.lineWidth = 3;
        const y = middle(n, mark.lane) + 5 + ({ lost: -6, failed: 6 }[mark.stage] ?? 0); // they come together
        pen.strokeText(mark.sign, x(mark.at), y);
        pen.fillText(mark.sign, x(mark.at), y);
      }
    }
    pen.restore();
  }

  function drawShares({ start, end: until, of }, lanes) {
    const filled = {};
    for (const [lane, kind, shares] of of) {
      const wide = (until - start) / shares.length;
      filled[lane] ??= shares.map(() => 0);
      pen.fillStyle = looks[kind][1];
      shares.forEach((share, bin) => {
        const low = filled[lane][bin], high = Math.min(1, (filled[lane][bin] += share));
        const from = x(start + bin * wide), y = lanes + (lane + 1) * LANE - 1 - high * (LANE - 2);
        if (high > low) pen.fillRect(from, y, x(start + (bin + 1) * wide) - from + 0.5, (high - low) * (LANE - 2));
      });
    }
  }

  function drawPath(run, n) {
    pen.strokeStyle = INK; pen.lineWidth = 2;
    pen.beginPath();
    for (const [i, [lane, from, to]] of run.path.entries()) {
      const y = middle(n, lane) + LANE / 2 - 1;
      pen[i ? "lineTo" : "moveTo"](x(from), y);
      pen.lineTo(x(to), y);
    }
    pen.stroke();
  }

  function drawChosen() {
    const [n, bar] = chosen, all = story(n, bar);
    pen.save();
    pen.beginPath(); pen.rect(left, 0, width - left, canvas.height); pen.clip();
    for (const b of all) {
      pen.strokeStyle = "white"; pen.lineWidth = 4;
      const place = [x(b[2]) - 1, middle(n, b[1]) - LANE / 2, Math.max(3, x(b[3]) - x(b[2])) + 2, LANE];
      pen.strokeRect(...place);
      pen.strokeStyle = b === bar ? "#D00000" : INK; pen.lineWidth = 2;
      pen.strokeRect(...place);
    }
    all.slice(1).forEach((b, i) => {
      const to = stage(b) === "wait" ? b[3] : b[2]; // a wait ends with what it waited for
      if (b[1] !== all[i][1]) arrow(x(all[i][3]), middle(n, all[i][1]), x(to), middle(n, b[1]), "#D00000");
    });
    pen.restore();
  }

  function draw() {
    const total = top(runs.length) + AXIS, scale = window.devicePixelRatio || 1;
    width = Math.max(360, root.clientWidth - 8);
    pen.font = "11px DejaVu Sans, sans-serif";
    left = 14 + Math.max(90, ...runs.flatMap((run) => run.lanes.map((name) => pen.measureText(name).width)));
    Object.assign(canvas, { width: width * scale, height: total * scale });
    canvas.style.height = `${total}px`;
    pen.scale(scale, scale);
    pen.fillStyle = "white"; pen.fillRect(0, 0, width, total);
    const span = range()[1] - range()[0], rough = 10 ** Math.floor(Math.log10(span / 4));
    const step = [1, 2, 5, 10].map((k) => k * rough).find((s) => span / s <= 9);
    pen.textAlign = "center";
    for (let t = Math.ceil(range()[0] / step) * step; t <= range()[1]; t += step) {
      pen.fillStyle = FAINT; pen.fillRect(x(t), HEAD, 1, total - AXIS - HEAD);
      pen.fillStyle = GREY; pen.fillText(`${+t.toPrecision(6)} s`, x(t), total - 6);
    }
    runs.forEach(drawRun);
    if (chosen) drawChosen();
  }

  function look(from, to) {
    const wide = Math.min(Math.max(to - from, 1e-4), end()), start = Math.min(Math.max(0, from), end() - wide);
    sight = wide >= end() * 0.999 ? null : [start, start + wide];
    if (runs.some((run) => run.dense)) {
      clearTimeout(asked);
      asked = setTimeout(() => { model.set("window", sight ?? [0, 0]); model.save_changes(); }, 60);
    }
    draw();
  }
  const zoom = (factor, px = (left + width) / 2) =>
    look(time(px) - (time(px) - range()[0]) * factor, time(px) + (range()[1] - time(px)) * factor);
  const pan = (part) => { const by = part * (range()[1] - range()[0]); look(range()[0] + by, range()[1] + by); };

  function choose(found) {
    chosen = found;
    said.textContent = found ? followed(...found) : "\u00a0";
    if (found && (found[1][3] < range()[0] || found[1][2] > range()[1])) look(found[1][2] - 0.1, found[1][2] + 0.1);
    else draw();
  }

  function step(by) { // to the next span on the lane of the chosen one
    const [n, bar] = chosen ?? [0, runs[0]?.bars[0]];
    if (!bar) return;
    const lane = runs[n].bars.filter((b) => b[1] === bar[1]);
    choose([n, chosen ? lane[Math.min(lane.length - 1, Math.max(0, lane.indexOf(bar) + by))] : bar]);
  }

  const keys = {
    "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1 / 0.6), "0": () => look(0, end()), Escape: () => choose(null),
    ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), ArrowUp: () => step(-1), ArrowDown: () => step(1),
  };
  root.addEventListener("keydown", (event) => event.stopPropagation());
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => { drag = { px: event.offsetX, from: range(), moved: false }; canvas.focus(); });
  canvas.addEventListener("pointermove", (event) => {
    if (drag && event.buttons && Math.abs(event.offsetX - drag.px) > 3) {
      drag.moved = true;
      const by = ((drag.px - event.offsetX) / (width - left - RIGHT)) * (drag.from[1] - drag.from[0]);
      look(drag.from[0] + by, drag.from[1] + by);
    }
    hover = at(event.offsetX, event.offsetY);
    tip.textContent = hover ? told(...hover).join("\n") : "";
    const beside = event.offsetX > width / 2 ? { right: `${width - event.offsetX + 12}px`, left: "auto" } : { left: `${event.offsetX + 14}px`, right: "auto" };
    Object.assign(tip.style, { display: hover ? "block" : "none", top: `${canvas.offsetTop + event.offsetY + 14}px`, ...beside });
  });
  canvas.addEventListener("pointerup", (event) => { if (drag && !drag.moved) choose(at(event.offsetX, event.offsetY)); drag = null; });
  canvas.addEventListener("pointerleave", () => { tip.style.display = "none"; drag = null; });
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return; // else the page would not scroll
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, event.offsetX);
  }, { passive: false });

  function drawLegend() {
    const used = new Set(runs.flatMap((run) => (run.shares ? run.shares.of.map(([, kind]) => kind) : run.bars.map(([kind]) => kind))));
    legend.replaceChildren();
    looks.forEach((look, kind) => {
      if (!used.has(kind)) return;
      const entry = make(legend, "div");
      make(entry, "span").style.background = `url(${hatched(look).toDataURL()})`;
      entry.append(look[0]);
    });
    if (runs.some((run) => run.path.length)) make(legend, "div", {}, "\u2003black line: critical path");
  }
  const kept = () => chosen && runs[chosen[0]]?.bars.find((b) => b.every((value, i) => value === chosen[1][i]));
  function renew() {
    runs = model.get("runs");
    chosen = kept() ? [chosen[0], kept()] : null;
    canvas.setAttribute("aria-label", model.get("alt") || "Timeline");
    drawLegend();
    if (runs.some((run) => run.ledger)) drawLive();
    draw();
  }

  // --- the live run: counters and progress above the lanes; its buttons are ipywidgets -----------
  function drawLive() {
    const names = Object.keys(runs[0]?.ledger ?? {});
    if (names.length && !counters.rows.length) {
      make(counters, "caption", { className: "sg-help" }, "ledger, in tiles");
      ["run", ...names].forEach((name, i, all) => make(i ? counters.rows[0] : counters.insertRow(), "th", { scope: "col" }, name));
    }
    runs.forEach((run, n) => {
      const row = counters.rows[n + 1] ?? counters.insertRow();
      [run.name, ...names.map((name) => run.ledger[name])].forEach((value, i) => {
        const cell = row.cells[i] ?? row.insertCell();
        cell.dataset.name = i ? names[i - 1] : "run";
        cell.textContent = value;
      });
    });
    progress.replaceChildren();
    for (const run of runs) for (const [image, done, total, state] of run.progress ?? []) {
      const label = make(progress, "label", {}, `${run.name.slice(-1)}: ${image}`);
      make(label, "progress", { max: total || 1, value: done, "aria-label": `${run.name}, ${image}` });
      label.append(`${done}/${total} ${state}`);
      progress.append(" ");
    }
    if (model.get("said") && !chosen) said.textContent = model.get("said");
  }
  const watched = ["change:runs", "change:alt", "change:running", "change:said"];
  watched.forEach((name) => model.on(name, renew));
  const observer = new ResizeObserver(() => draw());
  observer.observe(root);
  renew();
  return () => { observer.disconnect(); watched.forEach((name) => model.off(name, renew)); };
}

export default { render };
