"use strict";
// Every mask on this page is decided here, from the margins that the run kept: foreground where the margin is above minus the
// prior's log-odds. Nothing is loaded from elsewhere.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const COLOURS = ["#56b4e9", "#e69f00", "#2fd1a0", "#ff8ad0", "#f0e442", "#ff7847", "#b79cff"];
  const at = (id) => document.getElementById(id);
  const canvas = at("canvas"), context = canvas.getContext("2d");
  const state = { exhibit: 0, view: 0, slice: 0, scoring: 0, prior: 0 };
  const names = [];
  for (const exhibit of data.exhibits)
    for (const view of exhibit.views)
      for (const scoring of view.scorings)
        for (const row of scoring.rows) if (!names.includes(row.name)) names.push(row.name);
  const oracles = new Set();
  eachRow((row) => { if (row.oracle) oracles.add(row.name); });
  const drawn = new Set(names.filter((name) => !oracles.has(name)).slice(0, 2));

  function eachRow(visit) {
    for (const exhibit of data.exhibits)
      for (const view of exhibit.views)
        for (const scoring of view.scorings) for (const row of scoring.rows) visit(row, scoring);
  }

  const exhibit = () => data.exhibits[state.exhibit];
  const view = () => exhibit().views[state.view];
  const scoring = () => view().scorings[state.scoring];
  const number = () => view().slices[state.slice]; // of the slice in its scan

  // ---- from what is stored to masks ----

  function margins(of) {
    if (!of.values) {
      const bytes = Uint8Array.from(atob(of.margins), (letter) => letter.charCodeAt(0));
      of.values = new Float32Array(bytes.buffer);
    }
    return of.values;
  }

  // Bilinear, as the network's logits are resized: pixel centres, or corners where `aligned`.
  function resized(map, h, w, height, width, aligned) {
    if (h === height && w === width) return Float64Array.from(map);
    const steps = (from, to) => {
      const found = [];
      for (let place = 0; place < to; place++) {
        const source = aligned
          ? (to > 1 ? (place * (from - 1)) / (to - 1) : 0)
          : Math.max(((place + 0.5) * from) / to - 0.5, 0);
        const low = Math.min(Math.floor(source), from - 1);
        found.push([low, Math.min(low + 1, from - 1), source - low]);
      }
      return found;
    };
    const rows = steps(h, height), columns = steps(w, width), result = new Float64Array(height * width);
    let place = 0;
    for (const [top, bottom, down] of rows)
      for (const [left, right, along] of columns) {
        const above = map[top * w + left] * (1 - along) + map[top * w + right] * along;
        const below = map[bottom * w + left] * (1 - along) + map[bottom * w + right] * along;
        result[place++] = above * (1 - down) + below * down;
      }
    return result;
  }

  // The margins of each way of the shown slice, as stored.
  function coarse(of) {
    const ways = view().classes.length, size = of.height * of.width, all = margins(of), maps = [];
    for (let way = 0; way < ways; way++) {
      const start = (state.slice * ways + way) * size;
      maps.push(all.subarray(start, start + size));
    }
    return maps;
  }

  // What was worked out for the shown slice: dragging the prior works out none of it again.
  const kept = { key: "", maps: new Map(), rows: new Map() };
  function memory() {
    const key = `${state.exhibit}/${state.view}/${state.slice}`;
    if (kept.key !== key) Object.assign(kept, { key, maps: new Map(), rows: new Map(), truth: readTarget() });
    return kept;
  }

  const target = () => memory().truth;

  function fine(of) {
    const { height, width } = exhibit(), { maps } = memory();
    if (!maps.has(of))
      maps.set(of, coarse(of).map((map) => resized(map, of.height, of.width, height, width, data.reference)));
    return maps.get(of);
  }

  function decidedBy(of, row) {
    const { rows } = memory();
    if (!rows.has(row)) {
      const labels = decide(of, row.priors[state.slice], row.oracle);
      rows.set(row, { labels, dices: dices(labels, target()), path: null });
    }
    return rows.get(row);
  }

  // The label of each pixel, 0 or a way's number from 1, under a prior for each way.
  function decide(of, priors, oracle) {
    const { height, width } = exhibit(), ways = view().classes.length;
    if (data.reference && !oracle) return decideAsPublished(of, priors);
    const maps = fine(of), labels = new Uint8Array(height * width);
    for (let pixel = 0; pixel < labels.length; pixel++) {
      let best = 0, most = 0;
      for (let way = 0; way < ways; way++) {
        const value = maps[way][pixel] + priors[way];
        if (value > most) { most = value; best = way + 1; }
      }
      labels[pixel] = best;
    }
    return labels;
  }

  // The published code's way: probabilities at feature resolution, which are resized.
  function decideAsPublished(of, priors) {
    const { height, width } = exhibit(), maps = coarse(of), size = of.height * of.width;
    const shares = [new Float64Array(size), ...maps.map(() => new Float64Array(size))];
    for (let cell = 0; cell < size; cell++) {
      const raised = [0, ...maps.map((map, way) => map[cell] + priors[way])];
      const most = Math.max(...raised), parts = raised.map((value) => Math.exp(value - most));
      const sum = parts.reduce((a, b) => a + b);
      parts.forEach((part, label) => { shares[label][cell] = part / sum; });
    }
    const large = shares.map((share) => resized(share, of.height, of.width, height, width, true));
    const labels = new Uint8Array(height * width);
    for (let pixel = 0; pixel < labels.length; pixel++) {
      let best = 0;
      for (let label = 1; label < large.length; label++) if (large[label][pixel] > large[best][pixel]) best = label;
      labels[pixel] = best;
    }
    return labels;
  }

  function readTarget() {
    const { height, width, truth } = exhibit(), labels = new Uint8Array(height * width);
    view().classes.forEach((name, way) => {
      const lengths = truth[name][number()] || [];
      let place = 0;
      lengths.forEach((length, run) => {
        if (run % 2) labels.fill(way + 1, place, place + length);
        place += length;
      });
    });
    return labels;
  }

  // Dice of each way; NaN where it is in neither.
  function dices(labels, truth) {
    const ways = view().classes.length;
    const both = new Array(ways + 1).fill(0), predicted = both.slice(), actual = both.slice();
    for (let pixel = 0; pixel < labels.length; pixel++) {
      predicted[labels[pixel]]++;
      actual[truth[pixel]]++;
      if (labels[pixel] === truth[pixel]) both[labels[pixel]]++;
    }
    const found = [];
    for (let way = 1; way <= ways; way++) found.push((2 * both[way]) / (predicted[way] + actual[way]));
    return found;
  }

  const percent = (dice) => (Number.isNaN(dice) ? "–" : `${(100 * dice).toFixed(1)} %`);
  const told = (found) =>
    found.length === 1 ? percent(found[0]) : found.map((dice, way) => `${view().classes[way]} ${percent(dice)}`).join(", ");
  const mean = (values) => {
    const defined = values.filter((value) => !Number.isNaN(value));
    return defined.length ? defined.reduce((a, b) => a + b) / defined.length : NaN;
  };
  const alike = (prior) => view().classes.map(() => prior);

  // ---- drawing ----

  const pictures = new Map();
  function picture() {
    const key = `${state.exhibit}/${number()}`;
    if (!pictures.has(key)) {
      const image = new Image();
      image.onload = draw;
      image.src = `data:image/webp;base64,${exhibit().images[number()]}`;
      pictures.set(key, image);
    }
    return pictures.get(key);
  }

  function outline(labels, scale) {
    const { height, width } = exhibit(), path = new Path2D();
    const label = (y, x) => (y < 0 || x < 0 || y >= height || x >= width ? 0 : labels[y * width + x]);
    for (let y = 0; y <= height; y++)
      for (let x = 0; x <= width; x++) {
        if (label(y, x) !== label(y - 1, x) && x < width) { path.moveTo(x * scale, y * scale); path.lineTo((x + 1) * scale, y * scale); }
        if (label(y, x) !== label(y, x - 1) && y < height) { path.moveTo(x * scale, y * scale); path.lineTo(x * scale, (y + 1) * scale); }
      }
    return path;
  }

  function stroke(path, colour, width, dash) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.setLineDash(dash);
    context.stroke(path);
    context.setLineDash([]);
  }

  const style = (name) => {
    const place = names.indexOf(name);
    return { colour: COLOURS[place % COLOURS.length], dashed: place >= COLOURS.length };
  };

  function draw() {
    const { height, width, pixel } = exhibit(), scale = Math.max(1, Math.round(768 / width));
    if (canvas.width !== width * scale || canvas.height !== height * scale) {
      canvas.width = width * scale;
      canvas.height = height * scale;
    }
    canvas.style.aspectRatio = `${width * pixel[1]} / ${height * pixel[0]}`;
    context.imageSmoothingEnabled = true;
    context.clearRect(0, 0, canvas.width, canvas.height);
    const image = picture();
    if (image.complete && image.naturalWidth) context.drawImage(image, 0, 0, canvas.width, canvas.height);
    const truth = target(), chosen = decide(scoring(), alike(state.prior), false);
    if (at("filled").checked) {
      context.fillStyle = "rgba(255, 220, 60, 0.35)";
      for (let y = 0; y < height; y++)
        for (let x = 0, start = -1; x <= width; x++) {
          const inside = x < width && chosen[y * width + x] > 0;
          if (inside && start < 0) start = x;
          if (!inside && start >= 0) { context.fillRect(start * scale, y * scale, (x - start) * scale, scale); start = -1; }
        }
    }
    const body = at("rows").tBodies[0];
    view().scorings.forEach((of) => of.rows.forEach((row) => {
      const decided = decidedBy(of, row);
      const cells = body.querySelector(`tr[data-row="${CSS.escape(row.name)}"]`).cells;
      cells[1].textContent = told(decided.dices);
      cells[2].textContent = row.priors[state.slice].map((prior) => prior.toFixed(2)).join(", ");
      if (drawn.has(row.name)) {
        const { colour, dashed } = style(row.name);
        decided.path = decided.path || outline(decided.labels, scale);
        stroke(decided.path, colour, 2.5, dashed ? [8, 5] : []);
      }
    }));
    const path = outline(truth, scale);
    stroke(path, "rgba(0, 0, 0, 0.6)", 4, []);
    stroke(path, "#ffffff", 2, []);
    const found = dices(chosen, truth), pixels = truth.reduce((sum, label) => sum + (label > 0), 0);
    at("dice").textContent = told(found);
    at("prior-told").textContent = `${state.prior.toFixed(2)} (a share of ${(100 / (1 + Math.exp(-state.prior))).toFixed(1)} %)`;
    at("slice-told").textContent = `${number()} (${state.slice + 1} of ${view().slices.length})`;
    at("prior").setAttribute("aria-valuetext", `log-odds ${state.prior.toFixed(2)}, Dice ${told(found)}`);
    at("slice").setAttribute("aria-valuetext", `slice ${number()}`);
    at("caption").textContent =
      `${exhibit().title}, slice ${number()}: ${view().title}, ${pixels} target pixels; support ${view().support}; ` +
      `mean Dice of the scan over rows without ground truth ${percent(exhibit().dice)}`;
    const line = at("curve").querySelector(".chosen");
    if (line) { line.setAttribute("x1", across(state.prior)); line.setAttribute("x2", across(state.prior)); }
  }

  // ---- the curve of Dice against the prior, and its marks ----

  const BOX = { left: 34, right: 590, top: 8, bottom: 128 };
  const range = () => [Number(at("prior").min), Number(at("prior").max)];
  function across(prior) {
    const [low, high] = range();
    return (BOX.left + ((prior - low) / (high - low)) * (BOX.right - BOX.left)).toFixed(1);
  }

  function marks() {
    const found = [{ name: "ideal", priors: alike(scoring().ideal[state.slice]) }];
    for (const row of scoring().rows) found.push({ name: row.name, priors: row.priors[state.slice] });
    return found.map(({ name, priors }) => ({ name, prior: mean(priors) }));
  }

  function chart() {
    const svg = at("curve"), [low, high] = range(), truth = target(), points = [];
    svg.replaceChildren();
    const add = (tag, attributes, text) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      if (text !== undefined) element.textContent = text;
      svg.append(element);
    };
    for (let step = 0; step <= 120; step++) {
      const prior = low + ((high - low) * step) / 120;
      const dice = mean(dices(decide(scoring(), alike(prior), false), truth));
      if (!Number.isNaN(dice)) points.push(`${across(prior)},${(BOX.bottom - dice * (BOX.bottom - BOX.top)).toFixed(1)}`);
    }
    for (const share of [0, 0.5, 1]) {
      const y = BOX.bottom - share * (BOX.bottom - BOX.top);
      add("line", { x1: BOX.left, x2: BOX.right, y1: y, y2: y, stroke: "currentColor", "stroke-opacity": 0.15 });
      add("text", { x: BOX.left - 3, y: y + 4, "text-anchor": "end" }, 100 * share);
    }
    add("text", { x: BOX.left, y: 150 }, low.toFixed(0));
    add("text", { x: BOX.right, y: 150, "text-anchor": "end" }, high.toFixed(0));
    for (const { name, prior } of marks()) {
      const colour = name === "ideal" ? "currentColor" : style(name).colour;
      const x = across(Math.min(Math.max(prior, low), high));
      add("line", { x1: x, x2: x, y1: BOX.top, y2: BOX.bottom, stroke: colour, "stroke-width": 2, "stroke-dasharray": name === "ideal" ? "2 4" : "none", "data-mark": name });
    }
    add("polyline", { points: points.join(" "), fill: "none", stroke: "currentColor", "stroke-width": 2 });
    add("line", { class: "chosen", y1: BOX.top, y2: BOX.bottom });
    at("marks").replaceChildren(...marks().map(({ name, prior }) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.mark = name;
      if (name !== "ideal") button.style.borderLeftColor = style(name).colour;
      button.textContent = `${name} ${prior.toFixed(2)}`;
      button.addEventListener("click", () => setPrior(prior));
      return button;
    }));
  }

  // The range of the slider holds everything from no foreground to nothing but foreground, and the rows' priors.
  function setRange() {
    let least = Infinity, most = -Infinity;
    for (const value of margins(scoring())) {
      if (-value < least) least = -value;
      if (-value > most) most = -value;
    }
    for (const row of scoring().rows)
      for (const priors of row.priors) for (const prior of priors)
        if (Math.abs(prior) < 60) { least = Math.min(least, prior); most = Math.max(most, prior); }
    at("prior").min = Math.floor(least - 0.5);
    at("prior").max = Math.ceil(most + 0.5);
  }

  function setPrior(prior) {
    const [low, high] = range();
    state.prior = Math.min(Math.max(prior, low), high);
    at("prior").value = state.prior;
    draw();
  }

  // ---- choices, each of which resets those after it ----

  function options(select, titles, chosen) {
    select.replaceChildren(...titles.map((title, place) => new Option(title, place, place === chosen, place === chosen)));
  }

  function chooseExhibit(place) {
    state.exhibit = place;
    const title = view() ? view().title : null;
    options(at("view"), exhibit().views.map((one) => one.title.replaceAll("_", " ")), 0);
    chooseView(Math.max(0, exhibit().views.findIndex((one) => one.title === title)));
  }

  function chooseView(place) {
    state.view = place;
    at("view").value = place;
    state.scoring = Math.min(state.scoring, view().scorings.length - 1);
    options(at("scoring"), view().scorings.map((one) => `${one.label}: ${one.rows.map((row) => row.name).join("; ")}`), state.scoring);
    at("slice").max = view().slices.length - 1;
    const shown = view().slices.map((z) => view().classes.reduce((sum, name) =>
      sum + (exhibit().truth[name][z] || []).reduce((a, length, run) => a + (run % 2 ? length : 0), 0), 0));
    state.slice = shown.indexOf(Math.max(...shown)); // the slice with most of the target
    at("slice").value = state.slice;
    listRows();
    chooseScoring(state.scoring);
  }

  function chooseScoring(place) {
    state.scoring = place;
    setRange();
    chart();
    setPrior(mean(scoring().rows[0].priors[state.slice]));
  }

  function chooseSlice(place) {
    state.slice = place;
    chart();
    draw();
  }

  function listRows() {
    const body = at("rows").tBodies[0], rows = [];
    for (const of of view().scorings) for (const row of of.rows) rows.push(row);
    rows.sort((a, b) => names.indexOf(a.name) - names.indexOf(b.name));
    body.replaceChildren(...rows.map((row) => {
      const line = document.createElement("tr"), head = document.createElement("th"), label = document.createElement("label");
      const box = document.createElement("input"), swatch = document.createElement("span"), { colour, dashed } = style(row.name);
      line.dataset.row = row.name;
      head.scope = "row";
      box.type = "checkbox";
      box.checked = drawn.has(row.name);
      box.addEventListener("change", () => { if (box.checked) drawn.add(row.name); else drawn.delete(row.name); draw(); });
      swatch.className = dashed ? "swatch dashed" : "swatch";
      swatch.style.borderColor = colour;
      label.append(box, " ", swatch, row.name + (row.oracle ? " *" : ""));
      head.append(label);
      line.append(head, document.createElement("td"), document.createElement("td"));
      return line;
    }));
  }

  options(at("case"), data.exhibits.map((one) => `${one.title}: ${percent(one.dice)}`), 0);
  at("case").addEventListener("change", (event) => chooseExhibit(Number(event.target.value)));
  at("view").addEventListener("change", (event) => chooseView(Number(event.target.value)));
  at("scoring").addEventListener("change", (event) => chooseScoring(Number(event.target.value)));
  at("slice").addEventListener("input", (event) => chooseSlice(Number(event.target.value)));
  at("prior").addEventListener("input", (event) => { state.prior = Number(event.target.value); draw(); });
  at("filled").addEventListener("change", draw);
  const rows = view().scorings.map((one) => one.rows.length);
  state.scoring = rows.indexOf(Math.max(...rows)); // the first that most rows share
  chooseExhibit(0);
})();
