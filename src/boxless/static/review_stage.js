// Boxes over an image: shown, selected, moved, resized and drawn, by mouse, pen or finger.

const SVG = "http://www.w3.org/2000/svg";
const CLICK = 4; // CSS pixels that a pointer may move and still select.
const SMALLEST = 6; // CSS pixels of the sides of a box that is drawn.
const REACH = { mouse: 8, touch: 20 }; // CSS pixels from an edge within which it is dragged.

/**
 * Take over a figure with an image, an SVG and an element for labels.
 *
 * `on` has `select(index or -1)`, `change(index, xyxy)` and `add(xyxy)`, called once a gesture has ended.
 * `show` takes the size of the image in pixels, the boxes ({ xyxy, state, text, colour, ink }) and the selected one;
 * `draw(true)` lets the next gesture draw, wherever it begins; `busy` tells if there is one, and `cancel` drops it and
 * tells if there was one.
 */
export function createStage(figure, on) {
  const [svg, labels] = [figure.querySelector("svg"), figure.querySelector("div")];
  let view = { width: 1, height: 1, boxes: [], selected: -1 };
  let drawing = false;
  let drag = null;

  function show(next) {
    drag = null;
    view = next;
    svg.setAttribute("viewBox", `0 0 ${view.width} ${view.height}`);
    svg.setAttribute("preserveAspectRatio", "none");
    redraw();
  }

  function redraw() {
    const moved = drag !== null && drag.moved;
    const boxes = view.boxes.map((box, index) => (moved && drag.index === index ? { ...box, xyxy: drag.xyxy } : box));
    // The selected one lies on top.
    const order = boxes.map((_, index) => index).sort((a, b) => (a === view.selected) - (b === view.selected));
    svg.replaceChildren(...order.flatMap((index) => rectangles(boxes[index], index === view.selected)),
      ...(moved && drag.index === -1 ? [rectangle(drag.xyxy, "new")] : []));
    labels.replaceChildren(...order.map((index) => label(boxes[index], index === view.selected)),
      ...(boxes[view.selected] ? handles(boxes[view.selected].xyxy) : []));
  }

  const across = (x) => `${(100 * x) / view.width}%`;
  const down = (y) => `${(100 * y) / view.height}%`;

  function label(box, selected) {
    const made = document.createElement("span");
    made.textContent = box.text;
    const [left, top, right] = box.xyxy;
    // Above the box, or within it at the top of the image.
    made.className = `${box.state}${selected ? " selected" : ""}${top > view.height * 0.06 ? " above" : ""}`;
    if (left < view.width * 0.7) made.style.left = across(left);
    else made.style.right = across(view.width - right);
    made.style.top = down(top);
    made.style.backgroundColor = box.colour;
    made.style.color = box.ink;
    return made;
  }

  function handles([x1, y1, x2, y2]) {
    return [[x1, y1], [x2, y1], [x1, y2], [x2, y2]].map(([x, y]) => {
      const made = document.createElement("i");
      [made.style.left, made.style.top] = [across(x), down(y)];
      return made;
    });
  }

  // Gestures.

  function place(event) {
    const frame = figure.getBoundingClientRect();
    const scale = view.width / frame.width;
    const clamp = (value, most) => Math.min(Math.max(value, 0), most);
    return {
      x: clamp((event.clientX - frame.left) * scale, view.width),
      y: clamp((event.clientY - frame.top) * (view.height / frame.height), view.height),
      reach: (event.pointerType === "touch" ? REACH.touch : REACH.mouse) * scale,
      scale,
    };
  }

  // What a gesture that begins here would do: { index, sides } of a box whose sides move, all four to move it whole,
  // or null to draw. The selected box comes first; rejected ones are not moved.
  function grabbed(at) {
    if (drawing) return null;
    const order = view.boxes.map((_, index) => index).filter((index) => view.boxes[index].state !== "wrong");
    order.sort((a, b) => (b === view.selected) - (a === view.selected));
    for (const index of order) {
      const sides = near(view.boxes[index].xyxy, at);
      if (sides.length) return { index, sides };
    }
    const own = order.includes(view.selected) && contains(view.boxes[view.selected].xyxy, at);
    return own ? { index: view.selected, sides: [0, 1, 2, 3] } : null;
  }

  function start(event) {
    // A palm beside a pen is primary too: the pen takes over, and no other.
    if (event.button !== 0 || !event.isPrimary || (drag !== null && event.pointerType !== "pen")) return;
    const at = place(event);
    const grab = grabbed(at);
    const xyxy = grab ? view.boxes[grab.index].xyxy : [at.x, at.y, at.x, at.y];
    const [index, sides] = grab ? [grab.index, grab.sides] : [-1, [2, 3]];
    drag = { pointer: event.pointerId, at, index, sides, first: xyxy, xyxy, moved: false };
    figure.setPointerCapture(event.pointerId);
    event.preventDefault();
  }

  const isOther = (event) => drag !== null && event.pointerId !== drag.pointer;

  function move(event) {
    if (isOther(event)) return;
    const at = place(event);
    if (drag === null) {
      figure.style.cursor = cursor(grabbed(at));
      return;
    }
    const [x, y] = [at.x - drag.at.x, at.y - drag.at.y];
    drag.moved = drag.moved || Math.max(Math.abs(x), Math.abs(y)) > CLICK * at.scale;
    drag.xyxy = drag.sides.length === 4 ? shifted(drag.first, x, y, view) : pulled(drag.first, drag.sides, x, y, view);
    redraw();
  }

  function end(event) {
    if (drag === null || isOther(event)) return;
    move(event);
    const done = drag;
    drag = null;
    const [x1, y1, x2, y2] = done.xyxy.map((side) => Math.round(side * 100) / 100);
    const large = Math.min(x2 - x1, y2 - y1) >= (done.index === -1 ? SMALLEST * done.at.scale : 1);
    if (!done.moved) on.select(hit(view, done.at));
    else if (!large) redraw();
    else if (done.index === -1) on.add([x1, y1, x2, y2]);
    else on.change(done.index, [x1, y1, x2, y2]);
  }

  function cancel() {
    const running = drag !== null;
    drag = null;
    redraw();
    return running;
  }

  figure.addEventListener("pointerdown", start);
  figure.addEventListener("pointermove", move);
  figure.addEventListener("pointerup", end);
  figure.addEventListener("pointercancel", (event) => { if (!isOther(event)) cancel(); });
  // A finger that rests for a while would open a menu.
  figure.addEventListener("contextmenu", (event) => { if (drag !== null) event.preventDefault(); });
  return { show, cancel, busy: () => drag !== null, draw: (on_) => { drawing = on_; } };
}

const contains = ([x1, y1, x2, y2], { x, y }) => x >= x1 && x <= x2 && y >= y1 && y <= y2;

// The sides of a box within reach: of x the nearer one, and of y.
function near([x1, y1, x2, y2], { x, y, reach }) {
  const [inX, inY] = [x > x1 - reach && x < x2 + reach, y > y1 - reach && y < y2 + reach];
  if (!inX || !inY) return [];
  // In a small box the middle third moves it.
  const [reachX, reachY] = [Math.min(reach, (x2 - x1) / 3), Math.min(reach, (y2 - y1) / 3)];
  const sides = [];
  if (x < x1 + reachX) sides.push(0);
  else if (x > x2 - reachX) sides.push(2);
  if (y < y1 + reachY) sides.push(1);
  else if (y > y2 - reachY) sides.push(3);
  return sides;
}

function cursor(grab) {
  if (grab === null) return "crosshair";
  const key = [...grab.sides].sort().join("");
  return { "0123": "move", 0: "ew-resize", 2: "ew-resize", 1: "ns-resize", 3: "ns-resize", "01": "nwse-resize",
    23: "nwse-resize", 12: "nesw-resize", "03": "nesw-resize" }[key];
}

function shifted([x1, y1, x2, y2], x, y, { width, height }) {
  const [dx, dy] = [Math.min(Math.max(x, -x1), width - x2), Math.min(Math.max(y, -y1), height - y2)];
  return [x1 + dx, y1 + dy, x2 + dx, y2 + dy];
}

function pulled(xyxy, sides, x, y, { width, height }) {
  const moved = xyxy.map((side, i) => (sides.includes(i) ? side + (i % 2 ? y : x) : side));
  const [left, right] = [moved[0], moved[2]].sort((a, b) => a - b);
  const [top, bottom] = [moved[1], moved[3]].sort((a, b) => a - b);
  return [Math.max(left, 0), Math.max(top, 0), Math.min(right, width), Math.min(bottom, height)];
}

// The smallest box here; of several the next larger one after the selected.
function hit({ boxes, selected }, at) {
  const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
  const here = boxes.map((_, index) => index).filter((index) => contains(boxes[index].xyxy, at));
  here.sort((a, b) => area(boxes[a].xyxy) - area(boxes[b].xyxy));
  return here.length ? here[(here.indexOf(selected) + 1) % here.length] : -1;
}

function rectangle([x1, y1, x2, y2], className, colour) {
  const made = document.createElementNS(SVG, "rect");
  const attributes = { x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: className };
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (colour) made.setAttribute("stroke", colour);
  return made;
}

function rectangles(box, selected) {
  const state = `${box.state}${selected ? " selected" : ""}`;
  const parts = [rectangle(box.xyxy, `edge ${state}`), rectangle(box.xyxy, state, box.colour)];
  if (box.state === "wrong") {
    const [x1, y1, x2, y2] = box.xyxy;
    const cross = document.createElementNS(SVG, "path");
    cross.setAttribute("d", `M${x1} ${y1}L${x2} ${y2}M${x2} ${y1}L${x1} ${y2}`);
    cross.setAttribute("stroke", box.colour);
    parts.push(cross);
  }
  return parts;
}
