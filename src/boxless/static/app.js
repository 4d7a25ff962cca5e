"use strict";

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

// The server's response, and what of it is shown. A threshold of null shows the confident boxes.
let response = null;
const shown = { classes: new Set(), threshold: null, heat: null };
let model = null;
let newest = 0;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function swatch(name) {
  const made = element("span", { className: "swatch" });
  made.style.backgroundColor = response.classes[name].colour;
  return made;
}

async function request(path, options) {
  const answer = await fetch(path, options);
  const content = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
  if (!answer.ok) throw new Error(content.error);
  return content;
}

async function send(file) {
  const number = ++newest;
  $("error").textContent = "";
  if (model && file.size > model.max_bytes) {
    $("error").textContent = `${file.name} has ${megabytes(file.size)}; the maximum is ${megabytes(model.max_bytes)}.`;
    return;
  }
  $("status").textContent = `Processing ${file.name} …`;
  const form = new FormData();
  form.append("file", file);
  try {
    const found = await request("inspect", { method: "POST", body: form });
    if (number === newest) show(found, file.name);
  } catch (error) {
    if (number === newest) {
      $("status").textContent = "";
      $("error").textContent = error instanceof TypeError ? "The server does not answer; is it still running?" : error.message;
    }
  }
}

const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MB`;

function show(found, name) {
  response = found;
  shown.classes = new Set(Object.keys(response.classes));
  shown.threshold = null;
  shown.heat = null;
  $("status").textContent = `${name}, ${response.width} × ${response.height} pixels`;
  $("image").src = response.image;
  $("image").parentElement.style.setProperty("--ratio", response.width / response.height);
  $("boxes").setAttribute("viewBox", `0 0 ${response.width} ${response.height}`);
  $("boxes").setAttribute("preserveAspectRatio", "none");
  $("threshold").value = 0;
  fillClasses();
  $("result").hidden = false;
  draw();
}

function fillClasses() {
  const names = Object.keys(response.classes).sort((a, b) => response.image_scores[b] - response.image_scores[a]);
  $("classes").replaceChildren(...names.map((name) => {
    const box = element("input", { type: "checkbox", checked: true, value: name });
    box.addEventListener("change", () => {
      shown.classes[box.checked ? "add" : "delete"](name);
      draw();
    });
    const tile = element("button", { type: "button", className: "tile", value: name, ariaLabel: `Heatmap of ${name}` },
      element("img", { src: response.image, alt: "" }), element("img", { src: response.classes[name].heatmap, alt: "" }));
    tile.addEventListener("click", () => {
      shown.heat = shown.heat === name ? null : name;
      draw();
    });
    const score = element("span", { className: "score", title: "score of the class for the whole image" },
      response.image_scores[name].toFixed(2));
    return element("li", {}, tile, element("label", {}, box, swatch(name), name, score));
  }));
}

// Scores of different methods differ by orders of magnitude: the slider's cube spreads the low ones.
const threshold = () => $("threshold").value ** 3 * Math.max(0, ...response.detections.map((found) => found.score));

function visible() {
  return response.detections.filter((found) => shown.classes.has(found.name)
    && (shown.threshold === null ? found.confident : found.score >= shown.threshold));
}

function draw() {
  const found = visible();
  $("boxes").replaceChildren(...[...found].reverse().flatMap(drawn));
  $("labels").replaceChildren(...[...found].reverse().map(label));
  $("rows").replaceChildren(...found.map((one) => element("tr", {},
    element("td", {}, swatch(one.name), one.name),
    element("td", {}, digits(one.score)),
    element("td", {}, one.box.map(Math.round).join(", ")))));
  $("count").textContent = found.length === 1 ? "1 box" : `${found.length} boxes`;
  $("unlikely").hidden = shown.threshold !== null || response.detections.some((one) => one.confident);
  $("confident").ariaPressed = String(shown.threshold === null);
  $("threshold-value").textContent = shown.threshold === null ? "confident" : digits(shown.threshold);
  for (const tile of document.querySelectorAll(".tile")) tile.ariaPressed = String(tile.value === shown.heat);
  $("heat").hidden = shown.heat === null;
  if (shown.heat !== null) {
    $("heat").src = response.classes[shown.heat].heatmap;
    $("heat").alt = `Heatmap of ${shown.heat}`;
    $("heat").style.opacity = $("strength").value;
  }
}

function drawn(found) {
  const [x1, y1, x2, y2] = found.box;
  return ["edge", ""].map((className) => {
    const rect = document.createElementNS(SVG, "rect");
    for (const [key, value] of Object.entries({ x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: className })) {
      rect.setAttribute(key, value);
    }
    if (!className) rect.setAttribute("stroke", response.classes[found.name].colour);
    return rect;
  });
}

function label(found) {
  const made = element("span", {}, `${found.name} ${digits(found.score)}`);
  const [left, top, right] = found.box;
  if (left < response.width * 0.7) made.style.left = `${100 * left / response.width}%`;
  else made.style.right = `${100 - 100 * right / response.width}%`;
  made.style.top = `${100 * top / response.height}%`;
  made.style.borderColor = response.classes[found.name].colour;
  return made;
}

const digits = (score) => score >= 0.01 || score === 0 ? score.toFixed(2) : String(Number(score.toPrecision(2)));

function choose(every) {
  for (const box of document.querySelectorAll("#classes input")) {
    box.checked = every;
    shown.classes[every ? "add" : "delete"](box.value);
  }
  draw();
}

$("file").addEventListener("change", () => {
  if ($("file").files.length) send($("file").files[0]);
  $("file").value = ""; // The same file may be chosen again.
});
$("threshold").addEventListener("input", () => {
  shown.threshold = threshold();
  draw();
});
$("confident").addEventListener("click", () => {
  shown.threshold = null;
  draw();
});
$("strength").addEventListener("input", draw);
$("all").addEventListener("click", () => choose(true));
$("none").addEventListener("click", () => choose(false));

for (const type of ["dragover", "dragleave", "drop"]) {
  addEventListener(type, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", type === "dragover");
    if (type === "drop" && event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
  });
}

request("model").then((answer) => {
  model = answer;
  $("model").textContent = model.model_version;
  $("about").textContent = `Detects ${model.classes.join(", ")} (method ${model.method}).`;
}).catch(() => { $("error").textContent = "The server does not answer."; });
