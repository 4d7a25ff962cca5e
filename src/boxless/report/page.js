"use strict";
// Values from the data are inserted as text or numbers, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const { classes, legend, gallery } = data;
const PAGE = 24;
const state = {
  order: "confident", label: "", kind: "", stop: gallery ? gallery.threshold.start : 0,
  // At first the boxes that `boxless predict` shows; a threshold from the first move of the slider on.
  confident: true, heat: false, ground_truth: true, shown: PAGE, rows: [], open: null, map: null,
};

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") Object.assign(node.style, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined));
  return node;
}
const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(100 * share)}\u00a0%`);
const fixed = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const short = (value) => String(Number(value.toPrecision(2)));
const score = (value) => (value >= 0.01 || value === 0 ? value.toFixed(2) : value.toPrecision(2));
const likely = (value) => (value < 0.01 ? "< 0.01" : value.toFixed(2));
const spaced = (name) => name.replaceAll("_", " ");
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

function section(id, title, ...children) {
  return make("section", { id, "aria-labelledby": `${id}-title` }, make("h2", { id: `${id}-title` }, title), ...children);
}
function scroller(label, table) {
  return make("div", { class: "scroll", role: "region", "aria-label": label, tabindex: 0 }, table);
}
function bar(share, text) {
  const inner = make("div", { class: "fill", style: { width: `${100 * (share || 0)}%` } });
  return make("div", { class: "bar" }, make("div", { class: "track", "aria-hidden": "true" }, inner), make("span", {}, text));
}
function table(heads, rows, foot) {
  const cells = (row) => row.map((cell, i) => make(i ? "td" : "th", i ? {} : { scope: "row" }, cell));
  return make("table", {},
    make("thead", {}, make("tr", {}, heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, rows.map((row) => make("tr", {}, cells(row)))),
    foot ? make("tfoot", {}, make("tr", {}, cells(foot))) : null);
}

// Numbers.

const METRICS = {
  CorLoc: ["CorLoc", "images of a class in which its best box lies on an object"],
  mAP_area: ["mAP, area", "precision and recall of the boxes at IoU 0.5 (VOC 2010)"],
  mAP_11point: ["mAP, 11-point", "the same by the rule of VOC 2007"],
  mAP_50_95: ["mAP 50:95", "mean over the IoU thresholds 0.5 to 0.95 (COCO)"],
  classification_mAP: ["Classification mAP", "which classes an image shows"],
  pointing_mAP: ["Pointing mAP", "whether the peak of the heatmap lies on an object"],
};
// Metrics that other code has registered have their convention only.
const registered = [...new Set([...Object.keys(METRICS), ...data.evaluations.flatMap((scores) => Object.keys(scores.conventions))])];
const nameOf = (key) => (key in METRICS ? METRICS[key][0] : spaced(key));

function scoresSection(scores, id) {
  const known = registered.filter((key) => (scores[key] ?? null) !== null);
  const tiles = known.map((key) => make("div", { class: "tile" },
    make("span", {}, nameOf(key)), make("strong", {}, fixed(scores[key])), make("small", {}, key in METRICS ? METRICS[key][1] : ""),
    make("details", {}, make("summary", {}, "how it is measured"), make("small", {}, scores.conventions[key]))));
  const main = known.includes("mAP_area") ? "mAP_area" : "classification_mAP";
  const others = known.filter((key) => key !== main);
  const one = (key) => (key === "mAP_area" ? "AP, area" : nameOf(key).replace("mAP", "AP"));
  const rows = Object.entries(scores.classes).sort(([, a], [, b]) => (b[main] ?? -1) - (a[main] ?? -1));
  const body = rows.map(([name, row]) => [
    gallery ? make("button", { class: "link", onclick: () => showImages({ label: String(classes.findIndex((c) => c.name === name)) }) }, name) : name,
    bar(row[main], fixed(row[main])), ...others.map((key) => fixed(row[key])), row.images, row.objects ?? "–",
  ]);
  const averaged = rows.filter(([, row]) => row[main] !== null).length;
  const means = averaged < rows.length ? `, here ${averaged} of ${rows.length}` : "";
  const skipped = data.skipped.map((line) => make("li", {}, line));
  return section(id, `Scores on ${scores.data}`,
    make("p", { class: "faint" }, `${plural(scores.images, "image")}${scores.skipped ? `; ${scores.skipped} more could not be read` : ""}. Each score lies between 0 and 1, higher is better; means are over the classes that have a score${means}.`,
      scores.mAP_area === null ? " This data has tags only: boxes were not evaluated." : ""),
    make("div", { class: "tiles" }, tiles),
    scroller("Scores of every class", table(
      ["class", one(main), ...others.map(one), "images", "objects"], body,
      ["mean", bar(scores[main], fixed(scores[main])), ...others.map((key) => fixed(scores[key])), "", ""])),
    skipped.length ? make("details", { open: true }, make("summary", {}, `${plural(skipped.length, "image")} skipped that could not be read`), make("ul", {}, skipped)) : null);
}

function diagnosisSection(diagnosis, id) {
  const rows = [["all classes", diagnosis], ...Object.entries(diagnosis.classes)];
  const stack = rows.map(([name, row], i) => {
    const parts = Object.keys(legend).filter((kind) => row[`${kind}_rate`]);
    const text = parts.map((kind) => `${spaced(kind)} ${percent(row[`${kind}_rate`])}`).join(", ") || "nothing to evaluate";
    const spans = parts.map((kind) => {
      const share = row[`${kind}_rate`];
      const style = { width: `${100 * share}%`, background: legend[kind].colour, color: legend[kind].ink };
      return make("span", { style, title: `${spaced(kind)}: ${percent(share)}` }, share >= 0.06 ? String(Math.round(100 * share)) : "");
    });
    return [
      make("span", { class: i ? "name" : "name all", title: name }, `${name} (${row.detections})`),
      parts.length ? make("div", { class: "shares", role: "img", "aria-label": `${name}: ${text}` }, spans)
        : make("span", { class: "faint" }, "nothing to evaluate"),
    ];
  });
  const entries = Object.entries(legend).map(([kind, entry]) => {
    const inside = [make("span", { class: "swatch", "aria-hidden": "true", style: { background: entry.colour } }),
      make("span", {}, entry.text), make("span", { class: "share" }, percent(diagnosis[`${kind}_rate`]))];
    return make("li", {}, gallery
      ? make("button", { "data-kind": kind, "aria-pressed": "false", onclick: () => showImages({ kind }) }, inside)
      : make("span", { class: "entry" }, inside));
  });
  const recalls = Object.entries(diagnosis.recall_by).map(([kind, bins]) => make("div", {}, make("h3", {}, data.kinds[kind]),
    table(["object", "found"], Object.entries(bins).map(([name, bin]) => [name,
      bar(bin.recall, bin.objects ? `${percent(bin.recall)} of ${bin.objects}` : "no objects")]))));
  return section(id, "Kinds of errors",
    make("p", { class: "faint" }, `Outcomes of the top-scored boxes on ${diagnosis.data}, as many of each class as it has objects (in brackets), in per cent.`,
      gallery ? " Select a kind to see its images." : ""),
    make("div", { class: "stack" }, stack), make("ul", { class: "legend" }, entries),
    make("h3", {}, `Objects found: ${percent(diagnosis.recall)} of ${diagnosis.objects}`),
    make("div", { class: "recalls" }, recalls), conventions(diagnosis.conventions));
}

function conventions(all) {
  return make("details", {}, make("summary", {}, "what each number means"),
    make("dl", {}, Object.entries(all).map(([name, text]) => [make("dt", {}, spaced(name)), make("dd", {}, text)])));
}

// Charts.

function chart(points, label, [across, upwards], limits) {
  const [width, height, left, top, bottom] = [240, 160, 46, 18, 20];
  const { x0, x1, y0, y1 } = limits;
  const x = (value) => left + (x1 > x0 ? (value - x0) / (x1 - x0) : 0.5) * (width - left - 8);
  const y = (value) => top + (1 - (y1 > y0 ? (value - y0) / (y1 - y0) : 0.5)) * (height - bottom - top);
  const path = points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
  const text = (a, b, anchor, words) => draw("text", { x: a, y: b, "text-anchor": anchor }, words);
  const mark = draw("circle", { class: "mark", r: 5, visibility: "hidden" });
  const node = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    draw("path", { class: "axis", d: `M${left} ${top}V${height - bottom}H${width - 8}` }),
    text(left - 4, top + 6, "end", short(y1)), text(left - 4, height - bottom, "end", y1 > y0 ? short(y0) : ""),
    text(left, height - 5, "middle", String(x0)), text(width - 8, height - 5, "end", String(x1)),
    text((left + width) / 2, height - 5, "middle", across), text(left, 11, "middle", upwards),
    draw("path", { class: "curve", d: path }),
    points.length === 1 ? draw("circle", { class: "mark", r: 3, cx: x(points[0][0]), cy: y(points[0][1]) }) : null, mark);
  const move = (point) => {
    mark.setAttribute("visibility", point ? "visible" : "hidden");
    if (point) fill(mark, { cx: x(point[0]), cy: y(point[1]) }, []);
  };
  return { node, move, x, y };
}

const marks = [];
function curvesSection() {
  const scores = data.evaluations[0];
  const panels = data.curves.map((points, label) => {
    const name = classes[label].name;
    if (points === null) return null;
    const ap = fixed(scores.classes[name].mAP_area);
    const drawn = chart(points, `Precision against recall of ${name}, AP ${ap}`, ["recall", "precision"], { x0: 0, x1: 1, y0: 0, y1: 1 });
    marks.push({ label, move: drawn.move, objects: scores.classes[name].objects });
    return make("figure", { class: "panel" }, make("h3", {}, name), drawn.node, make("figcaption", {}, `AP ${ap}, area`));
  });
  return section("curves", "Precision and recall",
    make("p", { class: "faint" }, "Precision: the share of boxes that are hits (IoU 0.5 or more); recall: the share of objects found. Lower score thresholds lie further right; the dot marks the one selected above."),
    make("div", { class: "panels" }, panels));
}

function reliabilitySection() {
  const { calibrated, rows, error, raw_error: before } = data.reliability;
  const counted = (count) => `${count.toLocaleString("en")} best box${count === 1 ? "" : "es"}`;
  const panels = rows.map((row, i) => {
    const name = i ? classes[i - 1].name : "all classes";
    if (!row.length) return null;
    const { node, x, y } = chart(row, `Share of images with the class against the score of its best box, ${name}`, ["score", "in the image"], { x0: 0, x1: 1, y0: 0, y1: 1 });
    node.append(draw("path", { class: "axis diagonal", d: `M${x(0)} ${y(0)}L${x(1)} ${y(1)}` }),
      ...row.map(([score, share, number]) => draw("circle", { class: "mark", r: 3, cx: x(score), cy: y(share) },
        draw("title", {}, `score ${fixed(score, 2)}: ${percent(share)} of ${counted(number)}`))));
    const count = row.reduce((sum, [, , number]) => sum + number, 0);
    return make("figure", { class: "panel" }, make("h3", {}, name), node,
      make("figcaption", {}, `${counted(count)}, mean difference ${fixed(error[i])}`));
  });
  const words = calibrated
    ? `Scores are calibrated on tags: of the images whose best box of a class scores 0.8, about 80\u00a0% should have the class. Before calibration the mean difference was ${fixed(before)}.`
    : "Scores of this run are not calibrated: they rank boxes of a class and are no probabilities.";
  return section("reliability", "What a score means",
    make("p", { class: "faint" }, `${words} Points on the dashed line are exact. Whether a box fits its object is another question.`),
    make("div", { class: "panels" }, panels));
}

function trainingSection() {
  const parts = Object.entries(data.history).map(([name, rows]) => {
    const keys = [...new Set(rows.flatMap(Object.keys))].filter((key) => key !== "epoch" && key !== "seconds");
    const panels = keys.map((key) => {
      const points = rows.filter((row) => typeof row[key] === "number").map((row) => [row.epoch, row[key]]);
      if (!points.length) return null;
      const values = points.map((point) => point[1]);
      const limits = { x0: points[0][0], x1: points.at(-1)[0], y0: Math.min(0, ...values), y1: Math.max(...values) };
      const label = `${key} by epoch, from ${short(values[0])} to ${short(values.at(-1))}`;
      const title = key === "lr" ? "learning rate" : registered.includes(key) ? nameOf(key) : `loss: ${key}`;
      return make("figure", { class: "panel" }, make("h3", {}, title), chart(points, label, ["epoch", ""], limits).node,
        make("figcaption", {}, `epochs 1 to ${points.at(-1)[0]}; last value ${short(values.at(-1))}`));
    });
    return make("div", {}, name ? make("h3", {}, name) : null, make("div", { class: "panels" }, panels));
  });
  const seconds = Object.entries(data.manifest.seconds);
  const total = seconds.reduce((sum, [, value]) => sum + value, 0);
  const clock = (value) => (value >= 90 ? `${(value / 60).toFixed(1)} min` : `${value.toFixed(1)} s`);
  return section("training", "Training", data.manifest.finished ? null : make("p", {}, "The training is not finished."),
    parts.length ? parts : make("p", {}, "No epoch is finished yet."),
    make("h3", {}, `Time: ${clock(total)}`),
    make("p", { class: "faint" }, "Stages that were cached already took no time."),
    table(["stage", "share"], seconds.map(([name, value]) => [name, bar(total ? value / total : 0, `${clock(value)}, ${percent(total ? value / total : 0)}`)])));
}

// Data.

function doctorSection() {
  const { doctor } = data;
  const rows = Object.entries(doctor.classes).map(([name, row]) => [name,
    make("span", { class: `level ${row.verdict}` }, row.verdict), row.reasons.join(", ") || "–", row.images, row.negatives,
    row.co_occurrence ? `${row.co_occurrence.class} ${percent(row.co_occurrence.share)}` : "–", percent(row.single_object)]);
  const findings = doctor.findings.map((finding) => make("li", {},
    make("span", { class: `level ${finding.level}` }, finding.level), ` ${finding.fault}: ${finding.what}`,
    finding.images.map((line) => make("div", { class: "faint" }, line)), make("div", {}, `Fix: ${finding.fix}`)));
  return section("data", "Are these tags sufficient?",
    make("p", { class: "faint" }, `Results of boxless doctor on ${doctor.data} (${doctor.splits.join(", ")}): ${plural(doctor.images, "image")}.`),
    scroller("Verdict on every class", table(
      ["class", "verdict", "why", "images", "without it", "most often with", "one object"], rows)),
    findings.length ? make("ul", { class: "findings" }, findings) : make("p", {}, "No problems found."));
}

function manifestSection() {
  const { manifest } = data;
  const facts = { method: manifest.method, "trained from": manifest.supervision, data: `${manifest.data.name}, ${plural(manifest.data.images, "image")}`,
    classes: manifest.classes.join(", "), "backbone's weights": `${manifest.weights.source} (${manifest.weights.licence})`,
    seed: String(manifest.seed), command: manifest.command, Boxless: manifest.versions.boxless };
  return section("manifest", "Manifest",
    make("dl", {}, Object.entries(facts).map(([name, text]) => [make("dt", {}, name), make("dd", {}, text)])),
    make("details", {}, make("summary", {}, "complete manifest"), make("pre", { tabindex: 0 }, JSON.stringify(manifest, null, 1))));
}

// Images.

const threshold = () => gallery.threshold.stops[state.stop];
const shownAtFirst = new Set(gallery ? gallery.images.flatMap((image) => image.confident.map((row) => image.boxes[row])) : []);
const isShown = (box) => (state.confident ? shownAtFirst.has(box) : box[4] >= threshold()) && (state.label === "" || box[5] === Number(state.label))
  && (state.kind === "" || box[6] === state.kind);

function place([x1, y1, x2, y2], [width, height]) {
  return { left: `${100 * x1 / width}%`, top: `${100 * y1 / height}%`,
    width: `${100 * (x2 - x1) / width}%`, height: `${100 * (y2 - y1) / height}%` };
}

function paint(overlay, image, named) {
  const groundTruth = state.ground_truth && image.ground_truth ? image.ground_truth.filter((row) => state.label === "" || row[4] === Number(state.label)) : [];
  const boxes = image.boxes.filter(isShown).map((box) => {
    const { name, colour, ink } = classes[box[5]];
    const text = named ? `${name} ${score(box[4])}` : name;
    return make("span", { class: "box", style: { ...place(box, image.size), borderColor: colour } },
      make("span", { style: { background: colour, color: ink } }, text));
  });
  // The highest scores come last, on top of the others.
  overlay.replaceChildren(...groundTruth.map((row) => make("span", { class: "object", style: place(row, image.size) })), ...boxes.reverse());
}

function heatmap(image, label) {
  const values = atob(image.maps[label]);
  const [width, height] = image.grid;
  const pixels = new ImageData(width, height);
  for (let i = 0; i < values.length; i += 1) {
    const value = values.charCodeAt(i);
    pixels.data.set([...data.colormap[value], 60 + value * 0.6], 4 * i);
  }
  const canvas = make("canvas", { width, height, "aria-hidden": "true", "data-map": label });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

function mostLikely(image) {
  if (state.label !== "") return Number(state.label);
  return image.scores.indexOf(Math.max(...image.scores));
}

function frame(image, overlay, map, whole) {
  const img = make("img", { src: image.src, alt: "", width: image.size[0], height: image.size[1] });
  // The open image fits the window's height.
  const style = whole ? { maxWidth: `calc(68dvh * ${image.size[0] / image.size[1]})` } : {};
  return make("span", { class: "frame", style }, img, map !== null && map in image.maps ? heatmap(image, map) : null, overlay);
}

const tagsOf = (image) => image.tags.map((tag) => classes[tag].name).join(", ") || "none";

function caption(image) {
  const label = mostLikely(image);
  const classified = `${classes[label].name} ${likely(image.scores[label])}`;
  const wrong = image.boxes.find((box) => box[6] && box[6] !== "correct" && (state.label === "" || box[5] === label));
  return state.order === "worst" && wrong
    ? `${classes[wrong[5]].name} ${score(wrong[4])}: ${spaced(wrong[6])}; tags: ${tagsOf(image)}` : `${classified}; tags: ${tagsOf(image)}`;
}

const grid = make("div", { class: "grid" });
const status = make("p", { class: "faint", role: "status" });
const more = make("button", { class: "more", onclick: () => { const first = state.shown; state.shown += PAGE; fillGrid(); grid.children[first]?.querySelector("button").focus(); } }, "Show more");
let overlays = [];

function matches(image) {
  if (state.kind !== "") return image.boxes.some(isShown);
  if (state.label === "") return true;
  return image.tags.includes(Number(state.label)) || image.boxes.some(isShown);
}

function fillGrid() {
  state.rows = (gallery.orders[state.order][state.label] || []).filter((row) => matches(gallery.images[row]));
  overlays = [];
  const cards = state.rows.slice(0, state.shown).map((row) => {
    const image = gallery.images[row];
    const overlay = make("span", { class: "overlay" });
    overlays.push([overlay, image]);
    const text = caption(image);
    return make("div", {}, make("button", { class: "card", "data-row": row, "aria-label": `${image.name}: ${text}`, onclick: () => openImage(row) },
      frame(image, overlay, state.heat ? mostLikely(image) : null, false), make("span", { class: "caption" }, text)));
  });
  grid.replaceChildren(...cards);
  more.hidden = state.rows.length <= state.shown;
  const rest = gallery.images.length < gallery.total ? ` (this page holds ${gallery.images.length} of ${gallery.total})` : "";
  status.textContent = `${Math.min(state.shown, state.rows.length)} of ${plural(state.rows.length, "image")} shown${rest}. Select one to see its heatmaps.`;
  repaint();
}

function repaint() {
  for (const [overlay, image] of overlays) paint(overlay, image, false);
  for (const control of thresholds) control();
  for (const { label, move, objects } of marks) {
    const [, evaluated, hits] = countsOf(label);
    move(evaluated && objects ? [hits / objects, hits / evaluated] : null);
  }
  for (const button of document.querySelectorAll("[data-kind]")) button.setAttribute("aria-pressed", String(button.dataset.kind === state.kind));
  if (state.open !== null) paintOpen();
}

function countsOf(label) {
  return state.confident ? gallery.threshold.confident[label] : gallery.threshold.counts[label][state.stop];
}

function reached() {
  const labels = state.label === "" ? classes.map((_, i) => i) : [Number(state.label)];
  const sum = (of) => labels.reduce((total, label) => total + of(label), 0);
  const at = (i) => sum((label) => countsOf(label)[i]);
  const objects = sum((label) => data.evaluations[0].classes[classes[label].name].objects ?? 0);
  const [boxes, evaluated, hits] = [at(0), at(1), at(2)];
  const quality = objects ? `; precision ${evaluated ? percent(hits / evaluated) : "–"}, recall ${percent(hits / objects)}` : "";
  return `${state.confident ? "the boxes of boxless predict" : `score ≥ ${score(threshold())}`}: ${plural(boxes, "box").replace("boxs", "boxes")}${quality}`;
}

const thresholds = [];
function thresholdControl(id) {
  const range = make("input", { type: "range", id, min: 0, max: gallery.threshold.stops.length - 1, step: 1, "aria-describedby": `${id}-says`,
    oninput: () => { state.stop = Number(range.value); state.confident = false; repaint(); }, onchange: refill });
  const first = make("input", { type: "checkbox", id: `${id}-first`, onchange: () => { state.confident = first.checked; repaint(); refill(); } });
  const says = make("output", { for: id, id: `${id}-says` });
  thresholds.push(() => {
    range.value = state.stop;
    first.checked = state.confident;
    range.setAttribute("aria-valuetext", `score ${score(threshold())}`);
    says.textContent = reached();
  });
  return make("div", { class: "field threshold" }, make("label", { for: id }, "Minimum score"), range, says,
    make("label", { class: "check" }, first, "those of boxless predict"));
}

function refill() {
  if (state.label !== "" || state.kind !== "") fillGrid();
}

function choice(id, label, options, key) {
  const select = make("select", { id, onchange: () => change({ [key]: select.value }) },
    options.map(([value, text]) => make("option", { value }, text)));
  return make("div", { class: "field" }, make("label", { for: id }, label), select);
}

function tick(id, label, key) {
  const input = make("input", { type: "checkbox", id, checked: state[key], onchange: () => change({ [key]: input.checked }) });
  return make("label", { class: "check" }, input, label);
}

function change(what) {
  Object.assign(state, what, { shown: PAGE });
  document.getElementById("class").value = state.label;
  const kind = document.getElementById("kind");
  if (kind) kind.value = state.kind;
  for (const input of document.getElementsByName("order")) input.checked = input.value === state.order;
  fillGrid();
}

function showImages(what) {
  // Without any detection there is no worst one.
  const order = what.kind && what.kind !== "correct" && "worst" in gallery.orders ? "worst" : "confident";
  change({ label: "", kind: "", order, ...what });
  document.getElementById("images").scrollIntoView();
  document.getElementById("class").focus({ preventScroll: true });
}

const ORDERS = { confident: "most confident", uncertain: "least certain", worst: "worst" };
const EXPLANATIONS = {
  confident: "Most confident: highest class score first.",
  uncertain: "Least certain: class scores nearest to one half first; check their tags.",
  worst: "Worst: highest-scored wrong box first.",
};

function imagesSection() {
  const orders = Object.keys(gallery.orders);
  const radios = orders.map((order) => make("label", {}, make("input", { type: "radio", name: "order", value: order, checked: order === state.order,
    onchange: () => change({ order }) }), ORDERS[order]));
  const boxes = data.diagnoses.length > 0;
  return section("images", "Images",
    make("p", { class: "faint" }, orders.map((order) => EXPLANATIONS[order]).join(" "),
      boxes ? ` Dashed: ground truth${data.manifest.supervision === "tags" ? ", which training did not use" : ""}.` : "", " Scores rank the boxes of a class; their scale depends on the method."),
    make("div", { class: "controls" }, make("fieldset", { class: "segments" }, make("legend", {}, "Order"), radios),
      boxes ? choice("kind", "Kind of box", [["", "every kind"], ...Object.keys(legend).map((kind) => [kind, spaced(kind)])], "kind") : null,
      tick("heat", "heatmaps", "heat"), boxes ? tick("ground_truth", "ground truth", "ground_truth") : null),
    make("div", { class: "controls stuck" }, choice("class", "Class", [["", "every class"], ...classes.map((c, i) => [i, c.name])], "label"), thresholdControl("threshold")),
    status, grid, more);
}

// One image.

const title = make("h2", { id: "image-name" });
const body = make("div");
const found = make("div");
const close = make("button", { onclick: () => dialog.close() }, "Close");
const dialog = make("dialog", { "aria-labelledby": "image-name", onclose: closeImage, onkeydown: turn },
  make("div", { class: "dialog-head" }, title,
    make("button", { onclick: () => step(-1), "aria-label": "previous image" }, "←"),
    make("button", { onclick: () => step(1), "aria-label": "next image" }, "→"),
    close),
  gallery ? make("div", { class: "controls" }, thresholdControl("threshold-open")) : null, body, found);
let openOverlays = [];

function openImage(row) {
  state.open = row;
  const image = gallery.images[row];
  const maps = Object.keys(image.maps).map(Number).sort((a, b) => image.scores[b] - image.scores[a]);
  if (!maps.includes(state.map)) state.map = maps.includes(mostLikely(image)) ? mostLikely(image) : maps[0];
  title.textContent = image.name;
  const radios = maps.map((label) => make("label", {}, make("input", { type: "radio", name: "map", value: label, checked: label === state.map,
    onchange: () => { state.map = label; showMap(); } }), `${classes[label].name} ${likely(image.scores[label])}`));
  const [boxes, heat] = [make("span", { class: "overlay" }), make("div")];
  const showMap = () => {
    const overlay = make("span", { class: "overlay" });
    openOverlays = [boxes, overlay];
    heat.replaceChildren(frame(image, overlay, state.map, true));
    paintOpen();
  };
  body.replaceChildren(make("div", { class: "pair" },
    make("figure", {}, frame(image, boxes, null, true), make("figcaption", {}, `Tags: ${tagsOf(image)}`)),
    make("figure", {}, heat, make("figcaption", {}, "Bright: where the class is likely."),
      make("fieldset", { class: "segments" }, make("legend", {}, "Heatmap of a class, and its score for the whole image"), radios))));
  showMap();
  repaint();
  if (dialog.open) return;
  dialog.showModal();
  // The attribute `autofocus` makes browsers warn while the page is loading.
  close.focus();
}

function paintOpen() {
  const image = gallery.images[state.open];
  paint(openOverlays[0], image, true);
  // Over the heatmap only boxes of its class.
  const own = (rows, at) => rows && rows.filter((row) => row[at] === state.map);
  paint(openOverlays[1], { ...image, boxes: own(image.boxes, 5), ground_truth: own(image.ground_truth, 4) }, false);
  const rows = image.boxes.filter(isShown).map((box) => [classes[box[5]].name, score(box[4]), box[6] ? spaced(box[6]) : "–"]);
  found.replaceChildren(rows.length ? table(["box", "score", "kind"], rows) : make("p", { class: "faint" }, state.confident ? "boxless predict shows no box." : "No box reaches the minimum score."));
}

function step(by) {
  const rows = state.rows;
  if (rows.length) openImage(rows[(rows.indexOf(state.open) + by + rows.length) % rows.length]);
}

function turn(event) {
  if (event.target.matches("input, select")) return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
}

function closeImage() {
  const row = state.open;
  state.open = null;
  grid.querySelector(`[data-row="${row}"]`)?.focus();
}

// The page.

function build() {
  const many = data.evaluations.length > 1;
  const parts = [
    ...data.evaluations.map((scores, i) => [scoresSection(scores, i ? `scores-${i}` : "scores"), many ? `Scores: ${scores.data}` : "Scores"]),
    ...data.diagnoses.map((diagnosis, i) => [diagnosisSection(diagnosis, i ? `errors-${i}` : "errors"), data.diagnoses.length > 1 ? `Errors: ${diagnosis.data}` : "Errors"]),
    gallery ? [imagesSection(), "Images"] : null,
    data.curves ? [curvesSection(), "Curves"] : null,
    data.reliability ? [reliabilitySection(), "Reliability"] : null,
    data.doctor ? [doctorSection(), "Data"] : null,
    [trainingSection(), "Training"],
    [manifestSection(), "Manifest"],
  ].filter(Boolean);
  document.body.append(
    make("a", { class: "skip", href: "#main" }, "Skip to the report"),
    make("header", {}, make("h1", {}, data.title), make("ul", { class: "summary" }, data.summary.map((line) => make("li", {}, line)))),
    make("nav", { "aria-label": "Parts of the report" }, make("ul", {}, parts.map(([part, name]) => make("li", {}, make("a", { href: `#${part.id}` }, name))))),
    make("main", { id: "main", tabindex: -1 }, parts.map(([part]) => part)), dialog);
  if (gallery) fillGrid();
}
build();
