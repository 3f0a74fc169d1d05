// Draws what view.py decides: runs on one time axis, each with a lane per thread. No library, no network.
const LANE = 15, HEAD = 22, STRIP = 40, AXIS = 20, RIGHT = 12, BINS = 320, RED = "#D00000", FONT = "11px DejaVu Sans, sans-serif";
const HELP = "Keys: + and \u2212 zoom, \u2190 and \u2192 pan, \u2191 and \u2193 step through the spans of a lane, Enter follows " +
  "a tile, 0 shows all, Esc lets go. Mouse: click a span, drag, wheel (once clicked). Touch: tap, drag, pinch.";

function make(parent, tag, properties = {}, text = "") {
  const node = Object.assign(document.createElement(tag), properties);
  for (const name of Object.keys(properties)) if (/^(aria-|role$)/.test(name)) node.setAttribute(name, properties[name]);
  node.append(text); parent.append(node);
  return node;
}

// The colours of a look; what is grey on white paper is as faint on dark paper.
function tinted([, colour, , ink], dark) {
  if (!dark || !/^(white|#(..)\2\2)$/.test(colour)) return [colour, ink];
  const level = (each) => Math.min(255, 285 - (each === "white" ? 255 : parseInt(each.slice(1, 3), 16)));
  return [colour, ink].map((each) => `rgb(${level(each)} ${level(each)} ${level(each)})`);
}

// A square of 8 by 8 pixels that repeats: the hatches of the static charts.
function hatched(look, dark) {
  const tile = Object.assign(document.createElement("canvas"), { width: 8, height: 8 });
  const pen = tile.getContext("2d"), [colour, ink] = tinted(look, dark), hatch = look[2][0];
  Object.assign(pen, { fillStyle: colour }).fillRect(0, 0, 8, 8);
  pen.strokeStyle = pen.fillStyle = ink;
  const lines = { "/": [[-2, 6, 6, -2], [2, 10, 10, 2]], "\\": [[-2, 2, 6, 10], [2, -2, 10, 6]], "|": [[4, 0, 4, 8]], "-": [[0, 4, 8, 4]] };
  Object.assign(lines, { x: [...lines["/"], ...lines["\\"]], "+": [...lines["|"], ...lines["-"]] });
  for (const [x, y, u, v] of lines[hatch] ?? []) { pen.moveTo(x, y); pen.lineTo(u, v); }
  pen.stroke();
  if (hatch === "." || hatch === "o" || hatch === "*") pen.fillRect(3, 3, 2, 2);
  return tile;
}

const seconds = (value) => `${value.toFixed(3)} s`;

// --- what happened: a bar is [kind, lane, start, end, image, tile, attempt] ----------------------
class Past {
  constructor(looks, run) { Object.assign(this, { looks, run }); }
  stage = (bar) => this.looks[bar[0]][0].split(":")[0];
  isTurn = (bar) => this.stage(bar) === "wait" && this.looks[bar[0]][0] !== "wait: queue full";

  // The spans of the same tile, in the order of cause and effect: a wait ends with what it waited for.
  story(bar) {
    const cause = (b) => (this.stage(b) === "wait" ? b[3] : b[2]);
    const same = (b) => b[4] === bar[4] && b[5] === bar[5];
    return bar[5] < 0 ? [bar] : this.run.bars.filter(same).sort((a, b) => cause(a) - cause(b) || this.isTurn(b) - this.isTurn(a));
  }

  told(bar) {
    const all = this.story(bar), what = this.run.images[bar[4]], mine = (b) => b[6] === bar[6];
    const first = (stage) => all.find((b) => this.stage(b) === stage && (stage === "enqueue" || mine(b)));
    const put = first("enqueue"), got = all.find((b) => this.isTurn(b) && mine(b)), blur = first("blur");
    const name = bar[5] < 0 ? what : `tile ${bar[5]} of ${what}, attempt ${bar[6]}`;
    const facts = [`${this.looks[bar[0]][0]}${name && ": "}${name}`];
    facts.push(`${this.run.lanes[bar[1]]}, ${seconds(bar[3] - bar[2])} from ${seconds(bar[2])}`);
    if (put && got) facts.push(`waited ${seconds(Math.max(0, got[3] - put[3]))} in the queue`);
    if (blur) facts.push(`service ${seconds(blur[3] - blur[2])}`);
    return facts;
  }

  followed(bar) {
    const steps = this.story(bar).map((b) => `${this.stage(b)} ${seconds(b[3] - b[2])} on ${this.run.lanes[b[1]]}`);
    const marks = this.run.marks.filter((m) => bar[5] >= 0 && m.tile[0] === this.run.images[bar[4]] && m.tile[1] === bar[5]);
    return [this.told(bar)[0], steps.join(" \u2192 "), ...marks.map((m) => m.text)].join(". ") + ".";
  }

  // What an average worker did in equal bins from one time to another: for each kind its shares.
  work(from, to) {
    const { bars, shares, workers } = this.run, sums = this.looks.map((_, kind) => [kind, []]), wide = (to - from) / BINS;
    const add = (kind, lane, start, end, part) => {
      if (!workers.includes(lane) || end <= from || start >= to) return;
      const sum = sums[kind][1], last = Math.min(BINS - 1, Math.floor((end - from) / wide));
      for (let bin = Math.max(0, Math.floor((start - from) / wide)); bin <= last; bin++) {
        const inside = Math.min(end, from + (bin + 1) * wide) - Math.max(start, from + bin * wide);
        sum[bin] = (sum[bin] ?? 0) + (part * Math.max(0, inside)) / wide / workers.length;
      }
    };
    for (const [kind, lane, start, end] of bars) add(kind, lane, start, end, 1);
    for (const [lane, kind, parts] of shares?.of ?? []) {
      const step = (shares.end - shares.start) / parts.length;
      parts.forEach((part, n) => add(kind, lane, shares.start + n * step, shares.start + (n + 1) * step, part));
    }
    return sums;
  }
}

// --- the picture: where everything stands, and how it is drawn ------------------------------------
class Picture {
  constructor(canvas, looks) {
    Object.assign(this, { canvas, looks, pen: canvas.getContext("2d"), sight: null, chosen: null, runs: [], left: 100, width: 600 });
    this.queued = looks.find(([name]) => name === "enqueue")[1];
  }

  show(runs, running) {
    this.runs = runs;
    this.past = runs.map((run) => new Past(this.looks, run));
    const last = Math.max(0, ...runs.map((run) => run.end));
    this.end = (running ? Math.max(10, 5 * Math.ceil(last / 5 + 0.2)) : last * 1.01) || 1;
    const kept = this.chosen && runs[this.chosen[0]]?.bars.find((b) => b.every((value, i) => value === this.chosen[1][i]));
    this.chosen = kept ? [this.chosen[0], kept] : null;
  }

  get range() { return this.sight ?? [0, this.end]; }
  get span() { return this.range[1] - this.range[0]; }
  x(time) { return this.left + ((time - this.range[0]) / this.span) * (this.width - this.left - RIGHT); }
  time(px) { return this.range[0] + ((px - this.left) / (this.width - this.left - RIGHT)) * this.span; }
  height(run) { return HEAD + (run.lanes.length && run.lanes.length * LANE + 2 * STRIP + 12); }
  top(n) { return this.runs.slice(0, n).reduce((sum, run) => sum + this.height(run), 0); }
  middle(n, lane) { return this.top(n) + HEAD + (lane + 0.5) * LANE; }

  at(px, py) { // [run, the shortest span there]
    const slack = this.time(2) - this.time(0);
    for (const [n, run] of this.runs.entries()) {
      const lane = Math.floor((py - this.top(n) - HEAD) / LANE);
      const hits = run.bars.filter((b) => b[1] === lane && b[2] <= this.time(px) + slack && b[3] >= this.time(px) - slack);
      if (hits.length) return [n, hits.reduce((a, b) => (b[3] - b[2] < a[3] - a[2] ? b : a))];
    }
  }

  draw() {
    const { pen, canvas, runs } = this, scale = window.devicePixelRatio || 1, style = getComputedStyle(canvas.parentNode);
    const total = this.top(runs.length) + (runs.some((run) => run.lanes.length) ? AXIS : 0);
    [this.ink, this.paper] = [style.color, style.backgroundColor];
    const parts = this.paper.match(/\d+/g)?.slice(0, 3); // none before JupyterLab has put the widget in its place
    this.dark = parts?.reduce((sum, part) => sum + +part, 0) < 384;
    this.fills = this.looks.map((look) => pen.createPattern(hatched(look, this.dark), "repeat"));
    Object.assign(this, { width: Math.max(240, canvas.parentNode.clientWidth - 8) }).pen.font = FONT;
    const names = runs.flatMap((run) => run.lanes.map((name) => pen.measureText(name).width));
    this.left = 14 + Math.min(Math.max(92, ...names), Math.max(92, this.width * 0.3));
    Object.assign(canvas, { width: this.width * scale, height: total * scale }).dataset.sight = this.range.map((time) => time.toFixed(4)).join(" ");
    canvas.style.height = `${total}px`; pen.scale(scale, scale);
    if (total > this.top(runs.length)) this.axis(total);
    runs.forEach((run, n) => this.drawRun(run, n));
    if (this.chosen) this.drawChosen(...this.chosen);
  }

  words(text, x, y, textAlign, font = FONT) {
    Object.assign(this.pen, { fillStyle: this.ink, font, textAlign }).fillText(text, x, y);
  }

  axis(total) {
    const { pen } = this, rough = 10 ** Math.floor(Math.log10(this.span / 4)), most = Math.min(9, (this.width - this.left) / 62);
    const step = [1, 2, 5, 10, 20, 50].map((k) => k * rough).find((s) => this.span / s <= most);
    for (let t = Math.ceil(this.range[0] / step) * step; t <= this.range[1]; t += step) {
      Object.assign(pen, { fillStyle: this.ink, globalAlpha: 0.13 });
      pen.fillRect(this.x(t), HEAD, 1, total - AXIS - HEAD);
      pen.globalAlpha = 1;
      this.words(`${+t.toPrecision(6)} s`, this.x(t), total - 6, "center");
    }
  }

  drawRun(run, n) {
    const { pen, left } = this, y0 = this.top(n), lanes = y0 + HEAD, floor = lanes + run.lanes.length * LANE;
    this.words(run.name, 4, y0 + 15, "left", "bold 12px DejaVu Sans, sans-serif");
    if (!run.lanes.length) return;
    run.lanes.forEach((name, lane) => this.words(this.fitted(name), left - 6, this.middle(n, lane) + 4, "right"));
    const peak = Math.max(0, ...run.queue.map(([, depth]) => depth)), share = `${Math.round(run.blurring)} % of the run`;
    ["workers blurring", share, "tiles in queue,", `peak ${peak}`].forEach((text, line) =>
      this.words(text, left - 6, floor + 22 + 13 * line + (line > 1) * (STRIP - 24), "right"));
    pen.save(); pen.beginPath(); pen.rect(left, y0, this.width - left, this.height(run)); pen.clip();
    for (const [kind, lane, from, to] of run.bars) {
      if (to >= this.range[0] && from <= this.range[1]) this.box(kind, this.x(from), this.x(to), lanes + lane * LANE + 1, LANE - 2);
    }
    run.lanes.forEach((_, lane) => { // where spans are too many to be drawn
      const parts = run.shares?.of.filter(([each]) => each === lane).map(([, ...part]) => part);
      if (parts) this.pile(parts, run.shares.start, run.shares.end, lanes + (lane + 1) * LANE - 1, LANE - 2);
    });
    const [from, to] = [this.range[0], Math.min(run.end, this.range[1])];
    if (to > from) this.pile(this.past[n].work(from, to), from, to, floor + STRIP, STRIP - 6);
    this.drawQueue(run.queue, peak || 1, floor + 2 * STRIP + 4);
    this.drawPath(run.path, n);
    run.marks.forEach((mark) => this.drawMark(mark, n));
    pen.restore();
  }

  fitted(name) {
    let kept = name;
    while (this.pen.measureText(kept).width > this.left - (kept === name ? 8 : 20)) kept = kept.slice(0, -1);
    return kept === name ? name : `${kept}\u2026`;
  }

  box(kind, x0, x1, y, tall) {
    const wide = Math.max(0.6, x1 - x0);
    this.pen.fillStyle = wide > 4 ? this.fills[kind] : tinted(this.looks[kind], this.dark)[0];
    this.pen.fillRect(x0, y, wide, tall);
  }

  // Shares of time in BINS equal bins, one kind above the other, in a strip that stands on `base`.
  pile(parts, from, to, base, tall) {
    const filled = [];
    for (const [kind, shares] of parts) shares.forEach((share, bin) => {
      const wide = (to - from) / BINS, low = filled[bin] ?? 0, high = Math.min(1, (filled[bin] = low + share)), x = this.x(from + bin * wide);
      this.pen.fillStyle = this.fills[kind];
      if (high > low) this.pen.fillRect(x, base - high * tall, this.x(from + (bin + 1) * wide) - x + 0.5, (high - low) * tall);
    });
  }

  drawQueue(queue, peak, base) {
    this.pen.fillStyle = this.queued;
    queue.forEach(([from, depth], i) => {
      const tall = (depth / peak) * (STRIP - 6), x = this.x(from);
      this.pen.fillRect(x, base - tall, this.x(queue[i + 1]?.[0] ?? from) - x, tall);
    });
  }

  drawPath(path, n) {
    Object.assign(this.pen, { strokeStyle: this.ink, lineWidth: 2 }).beginPath();
    for (const [lane, ...times] of path) for (const time of times) this.pen.lineTo(this.x(time), this.middle(n, lane) + LANE / 2 - 1);
    this.pen.stroke();
  }

  drawMark(mark, n) {
    const { pen } = this, x = this.x(mark.at), y = this.middle(n, mark.lane);
    if (mark.from) return this.arrow(this.x(mark.from[1]), this.middle(n, mark.from[0]), x, y, this.ink);
    const below = y + 5 + ({ lost: -6, failed: 6 }[mark.stage] ?? 0); // they come together
    Object.assign(pen, { strokeStyle: this.paper, lineWidth: 3, textAlign: "center", font: "bold 14px DejaVu Sans, sans-serif" });
    pen.strokeText(mark.sign, x, below);
    this.words(mark.sign, x, below, "center", pen.font);
  }

  arrow(x0, y0, x1, y1, colour) {
    const { pen } = this, angle = Math.atan2(y1 - y0, x1 - x0);
    Object.assign(pen, { strokeStyle: colour, fillStyle: colour, lineWidth: 1.6 });
    pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.stroke(); pen.beginPath(); pen.moveTo(x1, y1);
    for (const turn of [2.7, -2.7]) pen.lineTo(x1 + 9 * Math.cos(angle + turn), y1 + 9 * Math.sin(angle + turn));
    pen.fill();
  }

  drawChosen(n, bar) {
    const { pen, left } = this, past = this.past[n], all = past.story(bar);
    pen.save(); pen.beginPath(); pen.rect(left, 0, this.width - left, this.canvas.height); pen.clip();
    for (const b of all) {
      const place = [this.x(b[2]) - 1, this.middle(n, b[1]) - LANE / 2, Math.max(3, this.x(b[3]) - this.x(b[2])) + 2, LANE];
      for (const [strokeStyle, lineWidth] of [[this.paper, 4], [b === bar ? RED : this.ink, 2]]) {
        Object.assign(pen, { strokeStyle, lineWidth }).strokeRect(...place);
      }
    }
    all.slice(1).forEach((b, i) => {
      const to = past.stage(b) === "wait" ? b[3] : b[2], before = all[i];
      if (b[1] !== before[1]) this.arrow(this.x(before[3]), this.middle(n, before[1]), this.x(to), this.middle(n, b[1]), RED);
    });
    pen.restore();
  }
}

// --- the reader: keys, mouse and fingers ----------------------------------------------------------
class Reader {
  constructor(picture, tip, said, asked) {
    Object.assign(this, { picture, tip, said, asked, point: null, fingers: new Map(), grip: null });
    const { canvas } = picture, listen = canvas.addEventListener.bind(canvas);
    const keys = {
      "+": () => this.zoom(0.6), "=": () => this.zoom(0.6), "-": () => this.zoom(1 / 0.6), 0: () => this.look(0, picture.end),
      ArrowLeft: () => this.pan(-0.2), ArrowRight: () => this.pan(0.2), ArrowUp: () => this.step(-1), ArrowDown: () => this.step(1),
      Enter: () => this.follow(), Escape: () => this.choose(null),
    };
    listen("keydown", (event) => {
      if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      this.point = null; // until the pointer moves again
      keys[event.key]();
    });
    listen("pointerdown", (event) => { this.hold(event); this.grasp(); this.moved = this.fingers.size > 1; canvas.focus(); });
    listen("pointermove", (event) => this.move(event));
    listen("pointerup", (event) => { if (!this.moved) this.choose(picture.at(event.offsetX, event.offsetY)); this.release(event); });
    for (const name of ["pointercancel", "pointerleave"]) listen(name, (event) => { this.release(event); this.point = null; this.hint(); });
    listen("wheel", (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return; // else the page would not scroll
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.25 : 0.8, event.offsetX);
    }, { passive: false });
  }

  // Fingers hold the times that they touched: the picture moves so that they keep them.
  grasp() { this.grip = [...this.fingers.values()].map((px) => this.picture.time(px)); }
  hold(event) { this.fingers.set(event.pointerId, event.offsetX); }
  release(event) { this.fingers.delete(event.pointerId); this.grasp(); }
  move(event) {
    const { picture, fingers } = this, before = fingers.get(event.pointerId);
    this.point = [event.offsetX, event.offsetY];
    if (before === undefined || !event.buttons) { this.hint(); return; }
    if (Math.abs(event.offsetX - before) <= 3 && !this.moved) return;
    this.moved = true;
    this.hold(event);
    const [a, b] = fingers.values(), [from, to] = this.grip, room = picture.width - picture.left - RIGHT;
    const wide = b === undefined || Math.abs(b - a) < 9 ? picture.span : Math.abs((to - from) / (b - a)) * room;
    const start = from - ((a - picture.left) / room) * wide;
    this.point = null;
    this.look(start, start + wide);
  }

  look(from, to) {
    const { picture } = this, wide = Math.min(Math.max(to - from, 1e-4), picture.end);
    const start = Math.min(Math.max(0, from), picture.end - wide);
    picture.sight = wide >= picture.end * 0.999 ? null : [start, start + wide];
    clearTimeout(this.waiting);
    if (picture.runs.some((run) => run.dense)) this.waiting = setTimeout(() => this.asked(picture.sight ?? [0, 0]), 60);
    this.draw();
  }

  zoom(factor, px = (this.picture.left + this.picture.width) / 2) {
    const [from, to] = this.picture.range, middle = this.picture.time(px);
    this.look(middle - (middle - from) * factor, middle + (to - middle) * factor);
  }

  pan(part) { const [from, to] = this.picture.range, by = part * this.picture.span; this.look(from + by, to + by); }
  choose(found) {
    const { picture } = this, [from, to] = picture.range;
    picture.chosen = found;
    this.said.textContent = found ? picture.past[found[0]].followed(found[1]) : "\u00a0";
    const away = found && (found[1][3] < from || found[1][2] > to) ? found[1][2] - picture.span / 2 : from;
    this.look(away, away + picture.span);
  }

  step(by) { // to the next span on the lane of the chosen one
    const { runs, chosen } = this.picture, [n, bar] = chosen ?? [0, runs[0]?.bars[0]];
    if (!bar) return;
    const lane = runs[n].bars.filter((b) => b[1] === bar[1]);
    this.choose([n, (chosen && lane[lane.indexOf(bar) + by]) ?? bar]);
  }

  follow() { // to what came of the chosen span, and from the last one to the first
    if (!this.picture.chosen) return this.step(0);
    const [n, bar] = this.picture.chosen, all = this.picture.past[n].story(bar);
    this.choose([n, all[(all.indexOf(bar) + 1) % all.length]]);
  }

  draw() { this.picture.draw(); this.hint(); }
  hint() { // what lies under the pointer now
    const { tip, picture, point } = this, found = point && picture.at(...point);
    tip.style.display = found ? "block" : "none";
    if (!found) return;
    tip.textContent = picture.past[found[0]].told(found[1]).join("\n");
    const [px, py] = point, right = px > picture.width / 2;
    Object.assign(tip.style, { top: `${picture.canvas.offsetTop + py + 14}px`, right: right ? `${picture.width - px + 12}px` : "auto", left: right ? "auto" : `${px + 14}px` });
  }
}

// --- the words around the picture -----------------------------------------------------------------
function explain(legend, { looks, runs, dark }, signs) {
  const used = new Set(runs.flatMap((run) => (run.shares ? run.shares.of.map(([, kind]) => kind) : run.bars.map(([kind]) => kind))));
  legend.replaceChildren();
  const entry = (tag, text, properties) => { const node = make(legend, "div"); const sign = make(node, tag, properties); node.append(text); return sign; };
  looks.forEach((look, kind) => { if (used.has(kind)) entry("span", look[0]).style.background = `url(${hatched(look, dark).toDataURL()})`; });
  if (runs.some((run) => run.path.length)) entry("span", "critical path", { className: "sg-line" });
  const stages = new Set(runs.flatMap((run) => run.marks.map((mark) => mark.stage)));
  for (const [stage, [sign, label]] of Object.entries(signs ?? {})) if (stages.has(stage)) entry("b", label, { textContent: sign });
}

// A live run's tiles are counted, and its images get on.
function count(counters, progress, runs) {
  const names = Object.keys(runs[0].ledger);
  const row = (tag, cells) => { const line = counters.insertRow(); cells.forEach((text, i) => { make(line, tag, {}, text).dataset.name = ["run", ...names][i]; }); };
  [counters, progress].forEach((part) => part.replaceChildren()); counters.parentNode.tabIndex = 0; // it may scroll
  make(counters, "caption", { className: "sg-help" }, "ledger, in tiles");
  row("th", ["run", ...names]);
  for (const run of runs) row("td", [run.name, ...names.map((name) => run.ledger[name] ?? "\u2013")]);
  for (const run of runs) for (const [image, done, total, state] of run.progress) {
    const label = make(progress, "label", {}, `${run.name.slice(-1)}: ${image}`);
    make(label, "progress", { max: total || 1, value: done, "aria-label": `${run.name}, ${image}` });
    label.append(`${done}/${total} ${state}`);
  }
}

function render({ model, el }) {
  const root = make(el, "div", { className: "sg-view" });
  root.dataset.lmSuppressShortcuts = "true"; // keys are ours while the focus is here, not JupyterLab's
  const counters = make(make(root, "div", { className: "sg-ledger" }), "table"), progress = make(root, "div", { className: "sg-progress" });
  const canvas = make(root, "canvas", { tabIndex: 0, role: "application" }), tip = make(root, "div", { className: "sg-tip" });
  const said = make(root, "div", { role: "status", "aria-live": "polite", className: "sg-said" }, "\u00a0");
  const legend = make(root, "div", { className: "sg-key" });
  make(root, "div", { className: "sg-help" }, HELP);
  root.addEventListener("keydown", (event) => event.stopPropagation());
  const picture = new Picture(canvas, model.get("looks"));
  const reader = new Reader(picture, tip, said, (sight) => { model.set("window", sight); model.save_changes(); });
  function redraw() {
    reader.draw();
    explain(legend, picture, model.get("signs"));
  }
  function renew() {
    picture.show(model.get("runs"), model.get("running"));
    canvas.setAttribute("aria-label", model.get("alt") || "Timeline");
    if (picture.runs[0]?.ledger) count(counters, progress, picture.runs);
    if (model.get("said") && !picture.chosen) said.textContent = model.get("said");
    redraw();
  }
  const watched = ["runs", "alt", "running", "said"].map((name) => `change:${name}`);
  watched.forEach((name) => model.on(name, renew));
  const sized = new ResizeObserver(redraw), themed = new MutationObserver(redraw), dark = matchMedia("(prefers-color-scheme: dark)");
  sized.observe(root);
  for (const node of [document.documentElement, document.body]) themed.observe(node, { attributeFilter: ["data-theme", "data-jp-theme-light", "class"] });
  dark.addEventListener("change", redraw);
  renew();
  return () => {
    [sized, themed].forEach((each) => each.disconnect());
    dark.removeEventListener("change", redraw);
    watched.forEach((name) => model.off(name, renew));
  };
}

export default { render };
