// The review: one image at a time, every step saved. Values from the data are inserted as text, never as markup.

import { createStage } from "./review_stage.js";

const $ = (id) => document.getElementById(id);
const PAUSE = 60; // Seconds; whoever takes longer for one step is not looking at the image.
const RETRY = 2000; // Milliseconds until what could not be saved is sent again.
const TAGS = [[true, "present", "yes"], [false, "absent", "no"], [null, "unknown", "?"]];

let queue = null; // What the server told of the run, its classes and the images.
let current = 0;
let shown = -1; // What is on the screen: not the current image while that one is loaded.
let selected = -1;
let brush = null; // Class of the next box that is drawn.
const images = new Map(); // Number -> promise of what the page shows of an image.
const states = new Map(); // Number -> what the person has said of it so far, see `begin`.
const data = new Map(); // Number -> tags as the data has them.
const revisions = new Map(); // Number -> what the server calls the labels that these states continue.
const seconds = new Map(); // Number -> spent on it.
const history = []; // Of steps: { number, state } before each.
let since = performance.now();

const stage = createStage($("figure"), {
  select,
  add: (xyxy) => {
    drawMode(false);
    step((state) => {
      state.boxes.push({ class: brush, xyxy, state: "right", proposed: null });
      selected = state.boxes.length - 1;
    });
  },
  change: (index, xyxy) => step((state) => {
    selected = index;
    Object.assign(state.boxes[index], { xyxy, state: "right" });
  }),
});

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// The server.

async function request(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  const content = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
  if (!answer.ok) throw Object.assign(new Error(content.error), { status: answer.status });
  return content;
}

function load(number) {
  if (!images.has(number)) images.set(number, request(`images/${number}`));
  return images.get(number);
}

let [refused, unread] = ["", ""]; // Why labels were not saved, and why the image is not shown.

function drawError() { $("error").textContent = [refused, unread].filter(Boolean).join(" "); }

const unsaved = new Map(); // Number -> the newest state that the server does not have.
let sending = false;

async function send() {
  if (sending) return;
  sending = true;
  const refusals = new Map(); // Number -> why its labels were refused.
  let unanswered = null; // What the server may have saved all the same; sent again before any newer state.
  while (unsaved.size) {
    const [number, body] = unanswered ?? unsaved.entries().next().value;
    $("saved").textContent = "saving …";
    try {
      const { verdict, summary, revision } = await request(`images/${number}?revision=${revisions.get(number)}`, body);
      revisions.set(number, revision);
      unanswered = null;
      queue.images[number].verdict = verdict;
      queue.summary = summary;
      if (unsaved.get(number) === body) unsaved.delete(number);
      refusals.delete(number);
      refused = [...refusals.values()].pop() ?? "";
      drawError();
      drawProgress();
    } catch (error) {
      const final = [404, 409, 413, 415, 422].includes(error.status);
      unanswered = final ? null : [number, body];
      if (final) await reopen(number, body);
      refused = error.status ? `Not saved: ${error.message}` : "Not saved: the server does not answer; is it still running?";
      $("saved").textContent = "not saved";
      drawError();
      if (final) {
        refusals.set(number, refused);
        continue;
      }
      await new Promise((resolve) => { setTimeout(resolve, RETRY); });
    }
  }
  sending = false;
  $("saved").textContent = refusals.size ? "not saved" : "saved";
}

// An image whose labels were refused is not done, whatever the person had meant.
async function reopen(number, body) {
  if (unsaved.get(number) === body) unsaved.delete(number);
  queue.images[number].verdict = null;
  if (!$("end").hidden) await open(number);
  drawProgress();
}

addEventListener("beforeunload", (event) => { if (unsaved.size) event.preventDefault(); });

// The labels of an image.

function begin(image) {
  const said = image.labels || { tags: {}, counts: {}, boxes: [], complete: [], done: false };
  const same = (a, b) => a.class === b.class && a.xyxy.every((side, i) => side === b.xyxy[i]);
  const judged = said.boxes.filter((box) => box.proposed).map((box) => box.proposed);
  const open = said.done ? [] : image.boxes.filter((box) => !judged.some((other) => same(box, other)));
  const boxes = open.map(({ class: name, xyxy, score }) => {
    const box = { class: name, xyxy };
    return { ...box, state: "proposed", proposed: box, score };
  });
  return structuredClone({
    tags: { ...image.tags, ...said.tags }, counts: said.counts, boxes: [...boxes, ...said.boxes], complete: said.complete, done: said.done,
    implied: {}, // Class -> its tag before a right box set it.
  });
}

function answer(number) {
  const { tags, counts, boxes, complete, done } = states.get(number);
  return {
    image: queue.images[number].name,
    tags: Object.fromEntries(Object.entries(tags).filter(([name, value]) => data.get(number)[name] !== value)),
    counts,
    boxes: boxes.filter((box) => box.state !== "proposed").map(({ class: name, xyxy, state, proposed }) => ({ class: name, xyxy, state, proposed })),
    complete,
    done,
    seconds: Math.round(seconds.get(number) * 10) / 10,
  };
}

// A class with a right box is present, until the box is gone; only one with a right box can be complete.
function settle(state) {
  const right = new Set(state.boxes.filter((box) => box.state === "right").map((box) => box.class));
  for (const name of Object.keys(state.implied).filter((name) => !right.has(name))) {
    state.tags[name] = state.implied[name];
    delete state.implied[name];
  }
  for (const name of [...right].filter((name) => state.tags[name] !== true)) {
    state.implied[name] = state.tags[name];
    state.tags[name] = true;
  }
  state.complete = state.complete.filter((name) => right.has(name));
}

function clock() {
  const now = performance.now();
  seconds.set(current, seconds.get(current) + Math.min((now - since) / 1000, PAUSE));
  since = now;
}

function save(number) {
  const image = queue.images[number];
  image.verdict = states.get(number).done ? image.verdict || "done" : null;
  unsaved.set(number, answer(number));
  send();
}

function step(change) {
  if (shown !== current) return;
  const before = states.get(current);
  const state = structuredClone(before);
  change(state);
  settle(state);
  history.push({ number: current, state: before });
  states.set(current, state);
  clock();
  save(current);
  draw();
}

function undo() {
  const last = history.pop();
  if (!last) return;
  states.set(last.number, last.state);
  const here = last.number === shown && $("end").hidden;
  if (here) clock();
  save(last.number);
  if (!here) {
    open(last.number);
    return;
  }
  if (selected >= last.state.boxes.length) selected = -1;
  draw();
}

function accept(complete) {
  if (shown !== current) return;
  step((state) => {
    // Boxes of a class that the person called unknown stay open.
    const open = (name) => state.tags[name] === null && data.get(current)[name] !== null;
    for (const box of state.boxes) if (box.state === "proposed" && !open(box.class)) box.state = "right";
    if (complete) state.complete = [...new Set(state.boxes.filter((box) => box.state === "right").map((box) => box.class))];
    state.done = true;
  });
  const count = queue.images.length;
  const others = Array.from({ length: count }, (_, i) => (current + 1 + i) % count);
  const next = others.find((other) => !queue.images[other].verdict);
  if (next === undefined) finish();
  else open(next);
}

// A proposal that is rejected is the one that was made, wherever it had been moved to.
function reject() {
  if (shown !== current) return;
  const { boxes } = states.get(current);
  if (boxes.length === 1) selected = 0;
  const box = boxes[selected];
  if (!box) return;
  step((state) => {
    if (!box.proposed) {
      state.boxes.splice(selected, 1);
      selected = -1;
    } else {
      // On an image that is done every box is right or wrong.
      const open = state.done ? "right" : "proposed";
      Object.assign(state.boxes[selected], box.proposed, { state: box.state === "wrong" ? open : "wrong" });
    }
  });
}

function choose(name) {
  if (shown !== current) return;
  brush = name;
  const box = states.get(current).boxes[selected];
  if (box && box.state !== "wrong" && box.class !== name) step((state) => Object.assign(state.boxes[selected], { class: name, state: "right" }));
  else draw();
}

// Of a class that is not present no box is right: what was drawn goes, what was proposed is as it was, or rejected as
// long as the class is absent.
function tag(name, value) {
  brush = name;
  step((state) => {
    state.tags[name] = value;
    delete state.implied[name];
    if (value !== true) delete state.counts[name];
    const reopened = (box) => (box.denied && box.state === "wrong") || (value === null && box.state === "right");
    const own = (box) => box.class === name && (value === false ? box.state !== "wrong" : reopened(box));
    state.boxes = state.boxes.filter((box) => !own(box) || box.proposed);
    for (const box of state.boxes.filter(own)) {
      const denied = value === false && box.proposed.class === name;
      Object.assign(box, box.proposed, { state: denied ? "wrong" : "proposed", denied });
    }
    if (value !== true) selected = -1;
  });
}

function count(name, field) {
  const given = field.value.trim();
  const valid = /^([1-9][0-9]{0,5}\+?)?$/.test(given);
  field.setAttribute("aria-invalid", String(!valid));
  if (!valid) return;
  step((state) => {
    if (!given) {
      delete state.counts[name];
      return;
    }
    delete state.implied[name];
    [state.counts[name], state.tags[name]] = [given.endsWith("+") ? given : Number(given), true];
  });
}

function complete(name) {
  brush = name;
  step((state) => {
    if (state.complete.includes(name)) {
      state.complete = state.complete.filter((other) => other !== name);
    } else {
      for (const box of state.boxes) if (box.class === name && box.state === "proposed") box.state = "right";
      state.complete.push(name);
    }
  });
}

// The page.

async function open(number) {
  [current, shown, selected] = [number, -1, -1];
  drawMode(false);
  unread = "";
  if (!unsaved.size) refused = "";
  drawError();
  try {
    const image = await load(number);
    if (number !== current) return;
    if (!states.has(number)) {
      states.set(number, begin(image));
      data.set(number, image.tags);
      revisions.set(number, image.revision);
      seconds.set(number, image.labels ? image.labels.seconds : 0);
    }
    present(image);
  } catch (error) {
    images.delete(number);
    if (number !== current) return;
    fail(error);
  }
  prefetch(number);
}

function fail(error) {
  [$("end").hidden, $("work").hidden] = [true, false];
  stage.show({ ...size, boxes: [], selected: -1 });
  $("image").removeAttribute("src");
  $("list").replaceChildren();
  $("name").textContent = queue.images[current].name;
  unread = error.status ? error.message : "The server does not answer; is it still running?";
  drawError();
  enable();
}

function enable() {
  $("undo").disabled = !history.length;
  $("previous").disabled = current === 0;
  $("next").disabled = current === queue.images.length - 1;
  drawProgress();
}

function present(image) {
  const names = queue.classes.map(({ name }) => name);
  brush = names.find((name) => states.get(current).tags[name]) || names[0];
  [shown, since] = [current, performance.now()];
  $("image").src = image.image;
  $("image").alt = queue.images[current].name;
  $("figure").style.setProperty("--ratio", image.width / image.height);
  $("reasons").textContent = image.reasons.join("; ");
  [$("end").hidden, $("work").hidden] = [true, false];
  size = { width: image.width, height: image.height };
  draw();
}

// The next image is fetched before it is asked for, and those far away are given up.
function prefetch(number) {
  for (const other of images.keys()) if (Math.abs(other - number) > 3) images.delete(other);
  if (number + 1 < queue.images.length) load(number + 1).catch(() => images.delete(number + 1));
}

let size = { width: 1, height: 1 };

function draw() {
  if (shown !== current) return;
  const state = states.get(current);
  const colours = Object.fromEntries(queue.classes.map((one) => [one.name, one]));
  const boxes = state.boxes.map((box) => ({ ...box, text: text(box), colour: colours[box.class].colour, ink: colours[box.class].ink }));
  stage.show({ ...size, boxes, selected });
  $("name").textContent = queue.images[current].name;
  drawList(boxes);
  rows.forEach((row, name) => drawClass(row, name, state));
  enable();
}

const text = (box) => (box.state === "right" ? `${box.class} ✓` : box.state === "wrong" ? `${box.class} ✗` : `${box.class}?`);
const STATES = { proposed: "proposed", right: "right", wrong: "rejected" };

function drawList(boxes) {
  const focused = [...$("list").querySelectorAll("button")].indexOf(document.activeElement);
  $("list").replaceChildren(...boxes.map((box, index) => {
    const button = element("button", { type: "button", ariaPressed: String(index === selected) }, swatch(box.colour), `${box.class}, ${STATES[box.state]}`);
    button.addEventListener("click", () => select(index));
    return element("li", {}, button);
  }));
  if (!boxes.length) $("list").replaceChildren(element("li", { className: "hint" }, "None. Drag over the image to draw one."));
  $("list").querySelectorAll("button")[focused]?.focus();
}

function swatch(colour) {
  const made = element("span", { className: "swatch" });
  made.style.backgroundColor = colour;
  return made;
}

const rows = new Map(); // Class -> the parts of its row.

function makeClass({ name, colour }, index) {
  const key = index < 9 ? [element("kbd", {}, String(index + 1))] : [];
  const pick = element("button", { type: "button", className: "pick", title: "Class of the selected box, else of the next one drawn" }, ...key, swatch(colour), name);
  pick.addEventListener("click", () => choose(name));
  const tags = TAGS.map(([value, word, short]) => {
    const button = element("button", { type: "button", title: word, ariaLabel: word }, short);
    button.addEventListener("click", () => tag(name, value));
    return button;
  });
  const number = element("input", { type: "text", inputMode: "tel", size: 4, autocomplete: "off", ariaLabel: `Number of objects of ${name}, such as 3, or 2+ for at least 2`, placeholder: "–" });
  number.addEventListener("change", () => count(name, number));
  const all = element("input", { type: "checkbox" });
  all.addEventListener("change", () => complete(name));
  const more = element("div", { className: "more" }, element("label", {}, "count", number), element("label", {}, all, "all boxed"));
  rows.set(name, { pick, tags, number, all, more });
  const group = element("div", { className: "tags", role: "group", ariaLabel: `${name} is` }, ...tags);
  return element("li", {}, pick, group, more);
}

function drawClass({ pick, tags, number, all, more }, name, state) {
  more.hidden = state.tags[name] !== true && !state.boxes.some((box) => box.class === name);
  pick.ariaPressed = String(name === brush);
  TAGS.forEach(([value], i) => { tags[i].ariaPressed = String(state.tags[name] === value); });
  if (document.activeElement !== number) number.value = state.counts[name] ?? "";
  all.checked = state.complete.includes(name);
  all.disabled = !state.boxes.some((box) => box.class === name && box.state !== "wrong");
}

function drawProgress() {
  const done = queue.images.filter((image) => image.verdict).length;
  [$("progress").value, $("progress").max] = [done, queue.images.length];
  $("count").textContent = `Image ${current + 1}, ${done} of ${queue.images.length} done`;
  $("summary").replaceChildren(...queue.summary.map((line) => element("p", {}, `${line}.`)));
  $("so-far").textContent = done && $("end").hidden ? queue.summary.map((line) => `${line}.`).join(" ") : "";
}

function finish() {
  [$("end").hidden, $("work").hidden] = [false, true];
  drawProgress();
}

// The next box that is drawn has the class of the one selected last.
function select(index) {
  if (shown !== current) return;
  selected = index;
  if (index >= 0) brush = states.get(current).boxes[index].class;
  draw();
}

let drawing = false;

function drawMode(value) {
  drawing = value;
  stage.draw(value);
  $("draw").ariaPressed = String(value);
}

function cycle(by) {
  const number = states.get(current).boxes.length;
  if (!number) return;
  select(selected < 0 ? (by > 0 ? 0 : number - 1) : (selected + by + number) % number);
}

function go(by) {
  const number = current + by;
  if (number >= 0 && number < queue.images.length) open(number);
}

function escape() {
  if (stage.cancel() || drawing) drawMode(false);
  else select(-1);
}

// Keys and buttons.

const KEYS = {
  Enter: () => accept(false),
  x: reject, Delete: reject, Backspace: reject,
  ArrowDown: () => cycle(1), ArrowUp: () => cycle(-1),
  ArrowLeft: () => go(-1), ArrowRight: () => go(1),
  u: undo, d: () => drawMode(!drawing), Escape: escape,
  c: () => { if (!rows.get(brush).all.disabled) complete(brush); },
  t: () => tag(brush, TAGS[(TAGS.findIndex(([value]) => value === states.get(current).tags[brush]) + 1) % TAGS.length][0]),
};

function pressed(event) {
  const { key, target } = event;
  if (target.matches("input[type=text]")) {
    if (key === "Enter" || key === "Escape") target.blur();
    return;
  }
  // What is dragged belongs to what is shown.
  if (stage.busy() && key !== "Escape") return;
  if ((event.ctrlKey || event.metaKey) && key === "z") undo();
  if (event.ctrlKey || event.metaKey || event.altKey || !queue) return;
  // A button or another control that has the focus takes these itself.
  if (target.matches("button, summary, input") && (key === "Enter" || key === " ")) return;
  const moves = ["u", "ArrowLeft", "ArrowRight"].includes(key);
  if ((!$("end").hidden || shown !== current) && !moves) return;
  if (key === "Enter" && event.shiftKey) accept(true);
  else if (/^[1-9]$/.test(key) && key <= queue.classes.length) choose(queue.classes[key - 1].name);
  else if (Object.hasOwn(KEYS, key)) KEYS[key]();
  else return;
  event.preventDefault();
}

const BUTTONS = {
  accept: () => accept(false), "accept-all": () => accept(true), reject, draw: () => drawMode(!drawing), undo,
  previous: () => go(-1), next: () => go(1), back: () => open(current),
};

for (const [id, action] of Object.entries(BUTTONS)) $(id).addEventListener("click", action);
addEventListener("keydown", pressed);
// A button that was clicked does not keep Enter for itself.
addEventListener("click", (event) => { if (event.detail) event.target.closest("button, summary, input[type=checkbox]")?.blur(); });

request("queue").then((answered) => {
  queue = answered;
  $("run").textContent = queue.reviewer ? `${queue.run}, ${queue.reviewer}` : queue.run;
  $("out").textContent = queue.out;
  $("classes").replaceChildren(...queue.classes.map(makeClass));
  const first = queue.images.findIndex((image) => !image.verdict);
  if (first < 0) finish();
  else open(first);
}).catch((error) => { $("error").textContent = error.status ? error.message : "The server does not answer."; });
