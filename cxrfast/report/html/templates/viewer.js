"use strict";
// Finds the regions of a map again at any threshold, by the rule of cxrfast/regions/rule.py.
(() => {
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const state = { k: 0, picture: 0, levels: null }; // levels null: the method's own

  // Maps: one byte a cell, see encode_map in viewer.py
  function decode(text, knots) {
    const codes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const segments = knots.length - 1;
    const size = Math.floor(255 / segments);
    return Float64Array.from(codes, (code) => {
      const segment = Math.floor(code / size);
      if (segment >= segments) return 1;
      const inside = Math.min(code - segment * size, size - 1.5);
      return knots[segment] + (inside / (size - 1)) * (knots[segment + 1] - knots[segment]);
    });
  }

  // 8-connected components in raster order of their first cell
  function components(positive, rows, columns) {
    const label = new Int32Array(rows * columns);
    const found = [];
    const stack = [];
    for (let start = 0; start < positive.length; start++) {
      if (!positive[start] || label[start]) continue;
      const cells = [];
      label[start] = found.length + 1;
      stack.push(start);
      while (stack.length) {
        const cell = stack.pop();
        cells.push(cell);
        const y = Math.floor(cell / columns), x = cell % columns;
        for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, rows - 1); v++) {
          for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, columns - 1); u++) {
            const next = v * columns + u;
            if (positive[next] && !label[next]) {
              label[next] = found.length + 1;
              stack.push(next);
            }
          }
        }
      }
      found.push(cells);
    }
    return found;
  }

  // The union of all squares of whole patches that lie in the mask
  function open(mask, rows, columns, [height, width]) {
    const kept = new Uint8Array(mask.length);
    for (let y = 0; y + height <= rows; y++) {
      for (let x = 0; x + width <= columns; x++) {
        let fits = true;
        for (let v = y; v < y + height && fits; v++) {
          for (let u = x; u < x + width && fits; u++) fits = Boolean(mask[v * columns + u]);
        }
        if (!fits) continue;
        for (let v = y; v < y + height; v++) kept.fill(1, v * columns + x, v * columns + x + width);
      }
    }
    return kept;
  }

  // What is left of an opening of everything else, the surroundings of the image included
  function close(mask, rows, columns, [height, width]) {
    const tall = rows + 2 * height, wide = columns + 2 * width;
    const others = new Uint8Array(tall * wide).fill(1);
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) others[(y + height) * wide + x + width] = mask[y * columns + x] ? 0 : 1;
    }
    const opened = open(others, tall, wide, [height, width]);
    return mask.map((_, cell) => 1 - opened[(Math.floor(cell / columns) + height) * wide + (cell % columns) + width]);
  }

  function around(cells, values, columns) {
    let x1 = Infinity, y1 = Infinity, x2 = -Infinity, y2 = -Infinity, peak = -Infinity;
    for (const cell of cells) {
      const y = Math.floor(cell / columns), x = cell % columns;
      x1 = Math.min(x1, x); x2 = Math.max(x2, x + 1);
      y1 = Math.min(y1, y); y2 = Math.max(y2, y + 1);
      peak = Math.max(peak, values[cell]);
    }
    return { x1, y1, x2, y2, peak };
  }

  const best = (items, rank) => items.reduce((a, b) => (rank(b) > rank(a) ? b : a));

  // {boxes as fractions of the image, mask of the union of patches with its size}
  function regionsOfMap(values, threshold) {
    const [rows, columns] = data.grid;
    let positive = Uint8Array.from(values, (v) => (v >= threshold ? 1 : 0));
    const { select, shape, opening, closing } = data.rule;
    if (Math.max(...opening) > 1) positive = open(positive, rows, columns, opening);
    if (Math.max(...closing) > 1) positive = close(positive, rows, columns, closing);
    let found = components(positive, rows, columns);
    if (found.length && select === "largest") found = [best(found, (cells) => cells.length)];
    if (found.length && select === "peak") found = [best(found, (cells) => around(cells, values, columns).peak)];
    const mask = new Uint8Array(rows * columns);
    for (const cells of found) for (const cell of cells) mask[cell] = 1;
    if (shape === "rectangle" && found.length) found = [found.flat()];
    const boxes = found.map((cells) => {
      const box = around(cells, values, columns);
      return { x1: box.x1 / columns, y1: box.y1 / rows, x2: box.x2 / columns, y2: box.y2 / rows, peak: box.peak };
    });
    return { boxes, mask, rows, columns };
  }

  function regionsOfBoxes(all, threshold) {
    let boxes = all.filter((b) => b[4] >= threshold).map(([x1, y1, x2, y2, peak]) => ({ x1, y1, x2, y2, peak }));
    const { select, shape } = data.rule;
    if (boxes.length && select === "largest") boxes = [best(boxes, (b) => (b.x2 - b.x1) * (b.y2 - b.y1))];
    if (boxes.length && select === "peak") boxes = [best(boxes, (b) => b.peak)];
    if (boxes.length && shape === "rectangle") {
      const edge = (name, pick) => boxes.map((b) => b[name]).reduce((a, b) => pick(a, b));
      boxes = [{ x1: edge("x1", Math.min), y1: edge("y1", Math.min), x2: edge("x2", Math.max), y2: edge("y2", Math.max), peak: edge("peak", Math.max) }];
    }
    return { boxes, mask: null };
  }

  function regions(entry, k, levels) {
    const gate = data.rule.gate;
    const score = entry.score === null ? 0.5 : entry.score;
    if (gate !== null && !(score > gate)) return { boxes: [], mask: null, gated: true };
    const found = levels.map((level) => (entry.map ? regionsOfMap(decode(entry.map, data.classes[k].knots), level) : regionsOfBoxes(entry.boxes || [], level)));
    return { ...found[0], boxes: found.flatMap((one) => one.boxes) };
  }

  // Exact IoU of two unions of rectangles: cut the plane along all sides
  function unionIou(first, second) {
    const all = [...first, ...second];
    const cuts = (a, b) => [...new Set(all.flatMap((r) => [r[a], r[b]]))].sort((p, q) => p - q);
    const xs = cuts("x1", "x2"), ys = cuts("y1", "y2");
    const inside = (rs, x, y) => rs.some((r) => x > r.x1 && x < r.x2 && y > r.y1 && y < r.y2);
    let both = 0, any = 0;
    for (let i = 1; i < xs.length; i++) {
      for (let j = 1; j < ys.length; j++) {
        const x = (xs[i] + xs[i - 1]) / 2, y = (ys[j] + ys[j - 1]) / 2;
        const a = inside(first, x, y), b = inside(second, x, y);
        const area = (xs[i] - xs[i - 1]) * (ys[j] - ys[j - 1]);
        if (a && b) both += area;
        if (a || b) any += area;
      }
    }
    return any ? both / any : 0;
  }

  function iouOf(found, annotated) {
    const truth = annotated.map(([x1, y1, x2, y2]) => ({ x1, y1, x2, y2 }));
    if (data.rule.shape !== "patches" || !found.mask) return Math.max(0, ...found.boxes.map((box) => unionIou([box], truth)));
    const runs = []; // cells of a row that touch, as one rectangle
    for (let y = 0; y < found.rows; y++) {
      for (let x = 0, start = -1; x <= found.columns; x++) {
        const on = x < found.columns && found.mask[y * found.columns + x];
        if (on && start < 0) start = x;
        if (!on && start >= 0) {
          runs.push({ x1: start / found.columns, x2: x / found.columns, y1: y / found.rows, y2: (y + 1) / found.rows });
          start = -1;
        }
      }
    }
    return unionIou(runs, truth);
  }

  function colour(value) {
    const place = Math.min(Math.max(value, 0), 1) * (data.colours.length - 1);
    const low = Math.floor(place), high = Math.min(low + 1, data.colours.length - 1);
    return data.colours[low].map((part, i) => part + (place - low) * (data.colours[high][i] - part));
  }

  function paintHeat(entry, k, levels) {
    const canvas = $("v-heat");
    const shown = Boolean(entry.map) && $("v-show-heat").checked;
    canvas.hidden = !shown;
    if (!shown) return;
    const [rows, columns] = data.grid;
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    const lowest = Math.min(...levels);
    decode(entry.map, data.classes[k].knots).forEach((value, cell) => {
      const [r, g, b] = colour(value);
      const opacity = 0.62 * Math.max(value, 0) ** 0.7 * (value >= lowest ? 1 : 0.45); // cells below the threshold are fainter
      image.data.set([r, g, b, 255 * opacity], 4 * cell);
    });
    context.putImageData(image, 0, 0);
  }

  function rectangle(box, kind, height) {
    return ["halo", kind].map((name) => {
      const rect = document.createElementNS(SVG, "rect");
      const place = { class: name, x: 1000 * box.x1, y: height * box.y1, width: 1000 * (box.x2 - box.x1), height: height * (box.y2 - box.y1) };
      for (const [key, value] of Object.entries(place)) rect.setAttribute(key, value);
      return rect;
    });
  }

  function draw() {
    const { k, picture } = state;
    const image = data.pictures[picture], entry = image.classes[k] || { score: null, label: null, annotated: [] };
    const known = Boolean(image.classes[k]);
    const levels = state.levels || data.classes[k].levels;
    const found = known ? regions(entry, k, levels) : { boxes: [], mask: null };
    const height = (1000 * image.height) / image.width;
    for (const id of ["v-picture", "v-boxes"]) $(id).setAttribute("viewBox", `0 0 1000 ${height}`);
    $("v-picture").querySelector("use").setAttribute("href", `#picture-${picture}`);
    paintHeat(entry, k, levels);
    const truth = entry.annotated.map(([x1, y1, x2, y2]) => ({ x1, y1, x2, y2 }));
    $("v-boxes").replaceChildren(
      ...($("v-show-truth").checked ? truth.flatMap((box) => rectangle(box, "annotated", height)) : []),
      ...found.boxes.flatMap((box) => rectangle(box, "found", height)),
    );
    const words = levels.map((level) => level.toFixed(3)).join(" and ");
    $("v-value").textContent = words + (state.levels ? "" : " (the method's)");
    const own = data.classes[k].levels.map((level) => level.toFixed(3)).join(" and ");
    $("v-reset").textContent = `back to the method's ${own}`;
    if (!state.levels) $("v-threshold").value = Math.min(Math.max(levels[0], 0), 1);
    summarise(entry, found, known);
    tabulate(found.boxes, image);
  }

  function summarise(entry, found, known) {
    const parts = [`${found.boxes.length} ${found.boxes.length === 1 ? "box" : "boxes"} found`];
    if (!known) parts[0] = "this class's map of this image was left out to keep the file small";
    if (found.gated) parts[0] = `no box: the image's score does not exceed ${data.rule.gate}`;
    if (entry.annotated.length) parts.push(`IoU with the annotation ${iouOf(found, entry.annotated).toFixed(2)}`);
    else if (entry.label) parts.push("labelled, but not annotated with a box");
    else if (entry.label === false) parts.push("the image is labelled as free of this class");
    if (entry.score !== null) parts.push(`score of the image ${entry.score.toFixed(3)}`);
    $("v-summary").textContent = parts.join(" · ") + ".";
  }

  function tabulate(boxes, image) {
    const rows = boxes.map((box, i) => {
      const row = document.createElement("tr");
      const cells = [i + 1, box.x1 * image.width, box.y1 * image.height, box.x2 * image.width, box.y2 * image.height];
      for (const text of [...cells.map((c) => String(Math.round(c))), box.peak.toFixed(2)]) {
        row.appendChild(document.createElement("td")).textContent = text;
      }
      return row;
    });
    $("v-table").tBodies[0].replaceChildren(...rows);
    $("v-table").parentElement.hidden = !rows.length;
  }

  function listImages() {
    const annotated = (i) => (data.pictures[i].classes[state.k] || { annotated: [] }).annotated.length > 0;
    const places = data.pictures.map((_, i) => i);
    const groups = [[`annotated: ${data.classes[state.k].name}`, places.filter(annotated)], ["other images", places.filter((i) => !annotated(i))]];
    $("v-image").replaceChildren(
      ...groups.filter(([, members]) => members.length).map(([name, members]) => {
        const group = document.createElement("optgroup");
        group.label = name;
        for (const i of members) group.appendChild(new Option(data.pictures[i].name, i));
        return group;
      }),
    );
  }

  function pickClass(k) {
    state.k = k;
    state.levels = null;
    $("v-class").value = k;
    listImages();
    pickImage(Number($("v-image").options[0].value));
  }

  function pickImage(i) {
    state.picture = i;
    $("v-image").value = i;
    draw();
  }

  function step(by) {
    const options = [...$("v-image").options];
    const at = options.findIndex((option) => Number(option.value) === state.picture);
    pickImage(Number(options[(at + by + options.length) % options.length].value));
  }

  function linkCases() {
    for (const figure of document.querySelectorAll("figure.case")) {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "open in the viewer";
      const svg = figure.querySelector("svg");
      svg.replaceWith(button);
      button.append(svg);
      button.addEventListener("click", () => {
        pickClass(Number(figure.dataset.class));
        pickImage(Number(figure.dataset.picture));
        $("viewer").scrollIntoView();
        $("v-threshold").focus({ preventScroll: true });
      });
    }
  }

  data.classes.forEach((entry, k) => $("v-class").appendChild(new Option(entry.name, k)));
  $("v-class").addEventListener("change", (event) => pickClass(Number(event.target.value)));
  $("v-image").addEventListener("change", (event) => pickImage(Number(event.target.value)));
  $("v-threshold").addEventListener("input", (event) => { state.levels = [Number(event.target.value)]; draw(); });
  $("v-reset").addEventListener("click", () => { state.levels = null; draw(); });
  $("v-back").addEventListener("click", () => step(-1));
  $("v-next").addEventListener("click", () => step(1));
  for (const id of ["v-show-heat", "v-show-truth"]) $(id).addEventListener("change", draw);
  $("viewer-app").hidden = false;
  linkCases();
  const first = document.querySelector("figure.case");
  pickClass(first ? Number(first.dataset.class) : 0);
})();
